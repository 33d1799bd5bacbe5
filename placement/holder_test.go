package placement

import (
	"testing"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// TestHolder tells who may still serve reads of a facet, change by change: what
// the placement leader asks before it lets the next owner in (rules R21, R47).
func TestHolder(t *testing.T) {
	both := mustSet(Member{"n1", storeID(1)}, Member{"n2", storeID(2)}, Member{"n3", storeID(3)})
	id := incarnation(1)
	create := Create{Name: name("acme", "a"), Incarnation: id, Owner: owner("n1", 1), Set: both}
	acquire := func(o Owner, expected uint64, released cluster.BootID) Acquire {
		return Acquire{Incarnation: id, Owner: o, Expected: facet.Epoch(expected), Released: released}
	}
	a, b, c := owner("n1", 1), owner("n2", 2), owner("n3", 3)
	activate := func(e uint64, o Owner) Activate {
		return Activate{Incarnation: id, Epoch: facet.Epoch(e), Boot: o.Boot}
	}
	release := func(e uint64, o Owner) Release { return Release{Incarnation: id, Epoch: facet.Epoch(e), Boot: o.Boot} }
	nobody := cluster.BootID{}
	type step struct {
		do   Command
		want Outcome
		held Owner
	}
	for _, tc := range []struct {
		what  string
		steps []step
	}{
		{"nobody served yet", []step{
			{acquire(b, 1, nobody), Done, Owner{}},
			{acquire(c, 2, b.Boot), Done, Owner{}},
			{activate(3, c), Done, c},
		}},
		{"an owner that never served is not the holder", []step{
			{activate(1, a), Done, a},
			{acquire(b, 1, nobody), Done, a},
			{acquire(c, 2, b.Boot), Done, a}, // it is not b's word that counts
			{activate(2, b), RefusedEpoch, a},
			{activate(3, c), Done, c},
		}},
		{"a handover is one entry", []step{
			{activate(1, a), Done, a},
			{acquire(b, 1, a.Boot), Done, Owner{}},
			{acquire(b, 1, a.Boot), Done, Owner{}}, // told twice
			{activate(2, b), Done, b},
			{acquire(b, 1, a.Boot), Done, b}, // late, too
		}},
		{"a handover to itself", []step{
			{activate(1, a), Done, a},
			{acquire(a, 1, a.Boot), Done, Owner{}},
			{activate(2, a), Done, a},
			{acquire(a, 1, a.Boot), Done, a}, // the word was about the epoch before
		}},
		{"the same proposal with a word is another one", []step{
			{activate(1, a), Done, a},
			{acquire(b, 1, nobody), Done, a},
			{acquire(b, 1, a.Boot), RefusedEpoch, a},
			{acquire(b, 1, c.Boot), Done, a},
		}},
		{"release by the holder", []step{
			{activate(1, a), Done, a},
			{release(1, a), Done, Owner{}},
			{release(1, a), Done, Owner{}},
			{acquire(a, 1, nobody), Done, Owner{}},
		}},
		{"release of an epoch that was never activated", []step{
			{activate(1, a), Done, a},
			{acquire(b, 1, nobody), Done, a},
			{release(2, b), Done, a},
			{release(1, b), RefusedEpoch, a},
			{release(1, a), Done, Owner{}}, // late: it ends the wait all the same
			{release(1, a), Done, Owner{}},
		}},
		{"release by a process that acquired again", []step{
			{activate(1, a), Done, a},
			{acquire(a, 1, nobody), Done, a},
			{release(2, a), Done, Owner{}},
		}},
		{"a late release does not touch a later holder", []step{
			{activate(1, a), Done, a},
			{acquire(a, 1, nobody), Done, a},
			{activate(2, a), Done, a},
			{release(1, a), RefusedEpoch, a},
		}},
		{"deletion waits for the holder", []step{
			{activate(1, a), Done, a},
			{Delete{Incarnation: id}, Done, a},
			{release(1, a), Done, Owner{}},
			{Tomb{Incarnation: id, Epoch: 2}, Done, Owner{}},
		}},
	} {
		tab := NewTable()
		if _, err := tab.ApplyCommands(1, register("n1", 1), register("n2", 2), register("n3", 3), create); err != nil {
			t.Fatal(err)
		}
		for i, s := range tc.steps {
			r, err := tab.ApplyCommands(uint64(i+2), s.do)
			f, _ := tab.ByIncarnation(id)
			if err != nil || r[0].Outcome != s.want || f.Holder != s.held {
				t.Errorf("%s, step %d: %T%+v = %v, %v, holder %v; want %v, holder %v", tc.what, i, s.do, s.do, r[0].Outcome, err, f.Holder, s.want, s.held)
			}
		}
	}

	// Whoever takes the name over leaves the old row its holder.
	tab := NewTable()
	fresh := create
	fresh.Incarnation, fresh.Detached = incarnation(2), true
	r, err := tab.ApplyCommands(1, register("n1", 1), register("n2", 2), register("n3", 3), create, activate(1, a), fresh,
		Bind{Name: create.Name, Old: id, OldEpoch: 1, New: incarnation(2)})
	if f, _ := tab.ByIncarnation(id); err != nil || r[6].Outcome != Done || f.State != Retired || f.Holder != a {
		t.Errorf("retired row %+v, %v", f, err)
	}
	if f, _ := tab.ByIncarnation(incarnation(2)); !f.Holder.IsZero() {
		t.Errorf("the new row has holder %v", f.Holder)
	}
}

// TestTakeoverTakesAChangeBack: whoever takes a facet over while its set is being changed,
// and names no set, goes on with the one that was activated last. The other may hold
// nothing of what was acknowledged (R43).
func TestTakeoverTakesAChangeBack(t *testing.T) {
	old := mustSet(Member{"n1", storeID(1)}, Member{"n2", storeID(2)}, Member{"n3", storeID(3)})
	next := mustSet(Member{"n1", storeID(1)}, Member{"n2", storeID(2)}, Member{"n4", storeID(4)})
	id, a, b := incarnation(1), owner("n1", 1), owner("n2", 2)
	tab := NewTable()
	r, err := tab.ApplyCommands(1, register("n1", 1), register("n2", 2), register("n3", 3), register("n4", 4),
		Create{Name: name("acme", "a"), Incarnation: id, Owner: a, Set: old},
		Activate{Incarnation: id, Epoch: 1, Boot: a.Boot},
		Acquire{Incarnation: id, Owner: a, Expected: 1, Set: next},
		Acquire{Incarnation: id, Owner: b, Expected: 2})
	f, _ := tab.ByIncarnation(id)
	if err != nil || r[6].Facet.Next != next || r[7].Outcome != Done {
		t.Fatalf("%+v, %v", r, err)
	}
	if f.Epoch != 3 || f.Next != old || f.Active != old {
		t.Errorf("the takeover goes on with %v, activated was %v", f.Next, f.Active)
	}
}
