// Package lease runs the read leases of a cluster: for the node that holds one
// (Holder) and for the placement leader that grants them (Grants). The rules are in
// facet/quorum, which is pure; this package gives them clocks, goroutines and the
// placement log.
//
// It owns when a node renews, which clock both sides read (R37), the watchdog that
// turns lease reads off when clocks cannot be trusted (R41), the rounds in which
// grants are committed (R36), what the placement table says about who still serves
// what (R38, R40), and with that the judged commands: ACTIVATE and RegisterNode are
// proposed only here, by the placement leader, after it has judged that the lease in
// question is over (R3, R21). It tells which nodes are dead, which is the same
// question. It refuses to decide what happens to the facets of a dead node (package
// node/steward) and to answer a read (node/owner): it only says until when one may
// be answered.
//
// Package node makes one Holder and one Grants per process. They meet at
// HolderOptions.Send, which brings a renewal to the Grants of the node that leads:
// by a call when that is this node, by peer.Peer.Renew when it is not. Server is the
// other end of that call.
//
// # Why a grant is safe
//
// A holder counts from the moment it sent the renewal; the leader counts from after
// the entry that followed its receipt was committed and applied, so its count ends
// later, by more than the margin whatever the clocks do within one percent. The
// entry proves that nobody else led when it was committed (R36). Before a grant of a
// round is recorded, everything the table changed up to that entry has been told to
// the Granter: so a renewal that does not cover a revocation is refused (R40).
//
// A facet is judged by a row that has been told to the Granter in the same breath.
// That matters: a row can be seen in the table before its Watcher tells of it, and
// one that was taken but not told would look like one that was taken before the
// term.
//
// Concurrency: every method of Holder, Grants and Server may be called from any
// goroutine. Deadline and Valid take no lock. Callbacks come from goroutines of this
// package, without any lock held, and must not block. Close waits for every
// goroutine.
package lease
