// Package quorum is the judgement of an owner: what is fenced, what is adopted,
// what is committed, what may be answered, and for how long. It is pure: no
// clock, no I/O, no goroutine, no lock. Time comes in as an Instant, messages
// come in as method calls, and what has to be done comes out as a list of
// Actions that the caller carries out.
//
//   - Session is one ownership (facet, epoch, boot), from the promises of the
//     members (of a new facet: from its first append; of a hibernated one: from
//     where it was) to the death of the session (rules R2, R3, R16 to R24, R27 to R34).
//   - Tracker counts the acknowledgements of a session (R20, R28).
//   - Lease is the holder's side of the read lease (R33, R37).
//   - Granter is the placement leader's side of it (R21, R36, R38 to R40).
//
// It refuses to know what an entry contains, how messages travel, where members
// live, and what time it is. Package node/owner drives a Session and a Lease;
// the node that leads placement drives a Granter.
//
// Concurrency: none of these values is safe for concurrent use; each belongs to
// one goroutine, or to the lock of whoever holds it. A value never calls back.
//
// # Driving a Session
//
// After every input, or when the time Wake names has come, call Ready until it
// adds nothing, and carry the actions out in order. Inputs only change state, so
// several of them can share one Ready: a burst of acknowledgements costs one
// list. An action that is lost (a connection broke, a member is full) need not be
// reported: the session asks again by itself, and every message may be sent,
// lost, repeated and delivered late without harm. What must be reported: Down for
// a broken connection (it makes asking again fast), Fetched, Barrier, Appended.
package quorum
