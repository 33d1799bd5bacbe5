package quorum

import (
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
)

// flaw switches rules off, for the tests that prove that the simulation notices.
// The names are those of the model's flags where there is one. Nothing sets one but
// tests, and builtIn in a binary that is built to be broken (package broken).
type flaw uint32

const (
	flawEarlyShip   flaw = 1 << iota // ship the best log so far before a majority promised
	flawLongestOnly                  // adopt the longest log whatever its epoch
	flawNewSet                       // take the promises of the next set
	flawNoAct                        // serve before placement activated the epoch
	flawSelfBypass                   // count the own copy without asking it
	flawAmnesia                      // count members by node, not by store
	flawRotTrust                     // believe a store that may have lost its tail
	flawEarlyHint                    // send commit hints before the session is active
	flawNoGate                       // answer reads of what is not committed
	flawQReadEarly                   // take a check round that began before the snapshot
	flawNoLeaseWait                  // activate without waiting for the old lease
	flawNodeLease                    // renewals of a node cover what was taken from it
	flawFromReceipt                  // count the lease from the receipt of the grant
	flawNoMargin                     // no margin for clocks that drift
	flawNoNewWait                    // a new placement leader trusts that there are no grants
	flawEarlyVerify                  // grant what came in after the round began
	flawReplyFirst                   // reply before the round is over and recorded
	flawNoTermIndex                  // a new placement leader forgets the revocations before its term
	flawOldEntry                     // a new placement leader counts from the last entry but one
)

// earlyShip is rule R17 broken: everybody is caught up with the best log seen so
// far, which at first is the own one.
func (s *Session) earlyShip(dst []Action) []Action {
	me := &s.slots[s.self].promise
	for i := range s.n {
		m := &s.slots[i]
		if i != s.self && m.role&roleNext != 0 && m.match == 0 && me.Last.Seq > 0 {
			m.match = me.Last.Seq
			dst = append(dst, Action{Kind: ActShip, Slot: i, Seq: min(max(me.Known, me.Base), me.Last.Seq-1) + 1, To: me.Last.Seq})
		}
	}
	return dst
}

// switches are the flaws for which there are switches in package broken.
var switches = [...]struct {
	s broken.Switch
	f flaw
}{
	{broken.EarlyShip, flawEarlyShip}, {broken.LongestOnly, flawLongestOnly}, {broken.NewSet, flawNewSet},
	{broken.NoAct, flawNoAct}, {broken.SelfBypass, flawSelfBypass}, {broken.Amnesia, flawAmnesia},
	{broken.RotTrust, flawRotTrust}, {broken.EarlyHint, flawEarlyHint}, {broken.NoGate, flawNoGate},
	{broken.QReadEarly, flawQReadEarly}, {broken.NoLeaseWait, flawNoLeaseWait}, {broken.NodeLease, flawNodeLease},
	{broken.FromReceipt, flawFromReceipt}, {broken.NoMargin, flawNoMargin}, {broken.NoNewWait, flawNoNewWait},
	{broken.EarlyVerify, flawEarlyVerify}, {broken.NoTermIndex, flawNoTermIndex},
}

// builtIn is the flaw of this process when the binary was built to break rules on
// purpose, and none in every other one.
func builtIn() (f flaw) {
	if !broken.Built {
		return 0
	}
	for _, m := range switches {
		if broken.Is(m.s) {
			f |= m.f
		}
	}
	return f
}

func (s *Session) better(a, b facet.Position) bool {
	if s.flaws&flawLongestOnly != 0 {
		return a.Seq > b.Seq
	}
	return a.Compare(b) > 0
}
