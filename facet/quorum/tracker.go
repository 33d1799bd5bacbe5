package quorum

import (
	"fmt"
	"slices"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
)

// Majority is the number of members of a set of n that make a majority.
func Majority(n int) int {
	if broken.Is(broken.Shrinks) {
		return 1
	}
	return n/2 + 1
}

// Tracker follows the acknowledgements of one owner session in one epoch and
// gives its commit index (rule R28): the highest sequence number that a majority
// acknowledged and that is stamped with the session's own epoch. Entries adopted
// from earlier epochs become committed through the barrier only, never by
// counting them (rule R20).
//
// Invariant: Committed never decreases (I4).
type Tracker struct {
	n         int
	acked     [MaxMembers]facet.Seq
	barrier   facet.Seq
	committed facet.Seq
}

// NewTracker follows a set of n members. barrier is the sequence number of the
// session's barrier, the first entry of its own epoch.
func NewTracker(n int, barrier facet.Seq) (Tracker, error) {
	if n < 1 || n > MaxMembers {
		return Tracker{}, fmt.Errorf("track a set of %d members: want 1 to %d", n, MaxMembers)
	}
	if barrier == 0 {
		return Tracker{}, fmt.Errorf("track a session without a barrier")
	}
	return Tracker{n: n, barrier: barrier}, nil
}

// Ack notes that a member durably holds everything up to seq and returns the
// commit index. Late and repeated acknowledgements change nothing.
func (t *Tracker) Ack(member int, seq facet.Seq) facet.Seq {
	if member < 0 || member >= t.n || seq <= t.acked[member] {
		return t.committed
	}
	t.acked[member] = seq
	if seq <= t.committed || seq < t.barrier && !broken.Is(broken.NoOwnEpoch) {
		return t.committed
	}
	s := t.acked
	slices.Sort(s[:t.n])
	// The q-th highest acknowledgement is held by q members.
	q := Majority(t.n)
	if broken.Is(broken.MinorityCommit) {
		q = max(q-1, 1)
	}
	if k := s[t.n-q]; k >= t.barrier || broken.Is(broken.NoOwnEpoch) {
		t.committed = max(t.committed, k)
	}
	return t.committed
}

// Committed is the commit index, zero before the barrier is committed.
func (t *Tracker) Committed() facet.Seq { return t.committed }

// withdraw forgets what a member acknowledged: its copy turned out not to hold it
// any more. What is committed stays so (I4).
func (t *Tracker) withdraw(member int) {
	if member >= 0 && member < t.n {
		t.acked[member] = 0
	}
}
