package quorum

import (
	"testing"

	"github.com/facetd/facetd/facet"
)

// Rules that were enforced, and that the tests there were would hardly have missed.
// Package internal/mutation breaks them one at a time.

// TestEpochOfAnotherLife: neither a restarted process nor another one begins a session
// in an epoch that was not issued to it (R2), nor goes on in one that was issued anew.
func TestEpochOfAnotherLife(t *testing.T) {
	set := members("a,b,c")
	row := Row{Epoch: 4, Owner: BootID{'a'}, Active: set, Next: set}
	if _, err := NewSession(row, set[0].Store, BootID{'a', 2}); err == nil {
		t.Error("a later life of the owner goes on in its epoch")
	}
	s, _ := active(t)
	s.Applied(Row{Epoch: 1, Owner: BootID{'a', 2}, ActiveEpoch: 1})
	if s.State() != Dead {
		t.Errorf("a session whose epoch belongs to another process life is %v", s.State())
	}
}

// TestStrangersDoNotCount: an acknowledgement is that of the store and the process life
// that are registered. The same node with another disk, or a copy of the disk that was
// started elsewhere, is nobody (R3).
func TestStrangersDoNotCount(t *testing.T) {
	s, from := active(t)
	if err := s.Appended(0, 2, 1); err != nil {
		t.Fatal(err)
	}
	otherDisk, otherBoot := from[1], from[2]
	otherDisk.Store[0] ^= 0xff
	otherBoot.Boot[0] ^= 0xff
	s.Acked(from[0], 0, 1, 2)
	s.Acked(otherDisk, 0, 1, 2)
	s.Acked(otherBoot, 0, 1, 2)
	if s.Committed() != 1 {
		t.Errorf("committed up to %v by strangers", s.Committed())
	}
	s.Acked(from[1], 0, 1, 2)
	if s.Committed() != 2 {
		t.Errorf("committed up to %v by a majority", s.Committed())
	}
}

// TestFencedForGood: a member that promised a higher epoch ends the session, and nothing
// that comes later counts (R24).
func TestFencedForGood(t *testing.T) {
	s, from := active(t)
	if err := s.Appended(0, 2, 1); err != nil {
		t.Fatal(err)
	}
	s.Acked(from[0], 0, 1, 2)
	s.Nacked(from[1], 0, Nack{Kind: NackEpoch, Epoch: 1, Seq: 2, Promised: 2})
	s.Acked(from[2], 0, 1, 2)
	if s.State() != Dead || s.Committed() != 1 || s.Write(2) != Unknown {
		t.Errorf("a fenced session is %v, committed up to %v, and tells a writer %v", s.State(), s.Committed(), s.Write(2))
	}
}

// TestNumbersAreNotReused: an entry that was shipped keeps its number, whatever became
// of the transaction behind it (R31).
func TestNumbersAreNotReused(t *testing.T) {
	s, _ := active(t)
	for _, seq := range []facet.Seq{2, 3} {
		if err := s.Appended(0, seq, 1); err != nil {
			t.Fatal(err)
		}
	}
	for _, seq := range []facet.Seq{1, 2, 3, 5} {
		if err := s.Appended(0, seq, 1); err != ErrSeq {
			t.Errorf("entry %v behind entry 3: %v", seq, err)
		}
	}
	if s.Last() != 3 {
		t.Errorf("the log ends at %v", s.Last())
	}
}

// TestLearnersDoNotCount: a store that is being filled holds what it is sent, and that
// makes nothing committed (R42).
func TestLearnersDoNotCount(t *testing.T) {
	s, from := active(t)
	m := members("x")[0]
	slot, err := s.AddLearner(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Appended(0, 2, 1); err != nil {
		t.Fatal(err)
	}
	s.Acked(from[0], 0, 1, 2)
	s.Acked(From{Slot: slot, Store: m.Store, Boot: m.Boot}, 0, 1, 2)
	if s.Committed() != 1 || s.Acknowledged(slot) != 2 {
		t.Errorf("committed up to %v with a learner that holds %v", s.Committed(), s.Acknowledged(slot))
	}
}

// TestOnlyTheFirstEpochBeginsUnasked: any later one may follow an owner that has
// acknowledged something (R47).
func TestOnlyTheFirstEpochBeginsUnasked(t *testing.T) {
	set := members("a,b,c")
	row := Row{Epoch: 2, Owner: BootID{'a'}, Next: set}
	if _, err := Begin(row, set[0].Store, BootID{'a'}, 0, facet.Position{}); err == nil {
		t.Error("the second epoch of a facet begins without asking anybody")
	}
	row.Epoch = 1
	if _, err := Begin(row, set[0].Store, BootID{'a'}, 0, facet.Position{}); err != nil {
		t.Error(err)
	}
}
