package lease

import (
	"slices"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet/quorum"
)

// echoes compares this node's clock of leases with that of whoever grants them (R41).
// It is pure: answered renewals come in, verdicts go out.
//
// A renewal leaves and its answer arrives by the clock here; it arrives and is answered
// by the clock there. What is sent arrives later than it left: so of the clock there
// minus the one here, got - sent is more than there was when the renewal arrived, and
// answered - back is less than there was when it was answered. Between the two the
// truth lies, as far apart as the network took, however long the granter kept the
// renewal for its round. Two exchanges bound how far one clock ran away from the other
// between them, and only what these bounds prove is concluded: a slow network makes
// the watchdog blind and never cries wolf.
//
// Which of the two clocks is off cannot be told from here, and need not be: a lease is
// safe while both run alike, so the holder does not trust it when they do not. All
// holders of a granter that is off come to that; of a holder that is off, it alone.
//
// Invariant: kept is in the order the exchanges began, all of one granter, and all
// since the clocks were found apart last.
type echoes struct {
	margin time.Duration

	granter cluster.BootID
	kept    []exchange // the tightest of each echoSlot, echoSlots at most
	bad     bool
}

// exchange is a renewal and its answer.
type exchange struct {
	sent, back    quorum.Instant // the clock here
	got, answered quorum.Instant // the clock there
}

// most and least bound the clock there minus the clock here.
func (x *exchange) most() quorum.Instant  { return x.got - x.sent }
func (x *exchange) least() quorum.Instant { return x.answered - x.back }

// sane reports whether an exchange can have been: numbers from another node are
// compared with a limit before they are reckoned with.
func (x *exchange) sane() bool {
	return 0 <= x.sent && x.sent <= x.back && x.back < maxEcho && 0 <= x.got && x.got <= x.answered && x.answered < maxEcho
}

// take takes in an exchange with a granter: tripped when the clocks are not to be
// trusted from now on, cleared when they have agreed for a whole window again.
func (e *echoes) take(granter cluster.BootID, x exchange) verdict {
	if !x.sane() {
		return fine
	}
	if n := len(e.kept); granter == e.granter && n > 0 && x.sent < e.kept[n-1].sent && e.kept[n-1].sent-x.sent < quorum.Instant(watchWindow) {
		return fine // overtaken by a later one; no answer is waited for that long
	}
	if granter != e.granter {
		e.granter, e.kept = granter, e.kept[:0] // of a clock that has nothing to do with this one
	}
	agreed := false
	for i := range e.kept {
		switch e.compare(&e.kept[i], &x) {
		case apart:
			e.kept = append(e.kept[:0], x)
			was := e.bad
			e.bad = true
			if was {
				return fine
			}
			return tripped
		case alike:
			agreed = true
		}
	}
	// Dropped behind the comparison: what looks like a long silence may be a jump.
	e.kept = slices.DeleteFunc(e.kept, func(k exchange) bool { return x.sent-k.sent > echoKept })
	e.keep(x)
	if e.bad && agreed {
		e.bad = false
		return cleared
	}
	return fine
}

// keep keeps an exchange, if it is the tightest of its slot.
func (e *echoes) keep(x exchange) {
	n := len(e.kept)
	switch {
	case n == 0 || x.sent/quorum.Instant(echoSlot) != e.kept[n-1].sent/quorum.Instant(echoSlot):
		if n == echoSlots {
			e.kept = slices.Delete(e.kept, 0, 1)
		}
		e.kept = append(e.kept, x)
	case x.most()-x.least() < e.kept[n-1].most()-e.kept[n-1].least():
		e.kept[n-1] = x
	}
}

// relation is what two exchanges prove about two clocks.
type relation uint8

const (
	open  relation = iota // nothing
	apart                 // they ran further apart than they may
	alike                 // they did not, for a whole window
)

// compare tells what two exchanges prove. Over a window and more the clocks may run
// apart by one part in watchApart; in less than that a jump of the margin comes on top,
// for over a short time nothing can be said about rates.
func (e *echoes) compare(from, to *exchange) relation {
	// The time between them by the clock here: between shortest and longest.
	shortest, longest := to.sent-from.back, to.back-from.sent
	least, most := to.least()-from.most(), to.most()-from.least() // what the clock there won
	allowed := max(longest, -shortest) / watchApart               // shortest is negative while both were on their way
	if shortest < quorum.Instant(watchWindow) {
		allowed += quorum.Instant(e.margin)
	}
	switch {
	case least > allowed || most < -allowed:
		return apart
	case shortest >= quorum.Instant(watchWindow) && longest <= echoKept && least >= -shortest/watchApart && most <= shortest/watchApart:
		return alike
	}
	return open
}
