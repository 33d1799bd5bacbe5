package keeper

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// fill makes a copy of a facet of n1 with a few entries.
func (w *world) fill(id facet.Incarnation) *session {
	w.t.Helper()
	s := newSession(w, 1, id, 1)
	check(w.t, s.send(s.barrier(), 0))
	check(w.t, s.send(s.commit(), 1))
	w.sync()
	return s
}

// move changes the set of a facet of n1 in epoch e, to the nodes given.
func (w *world) move(id facet.Incarnation, e facet.Epoch, nodes ...byte) {
	w.t.Helper()
	w.apply(placement.Acquire{Incarnation: id, Owner: ownerOf(1), Expected: e, Set: setOf(nodes...)})
	w.activate(id, e+1, 1)
}

// TestSweepTombs: a copy goes when its incarnation is tombstoned, and for no other
// reason (R4, R47).
func TestSweepTombs(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	gone, deleting, open := testID(2), testID(3), testID(4)
	for _, id := range []facet.Incarnation{idA, gone, deleting, open} {
		w.create(id, 1, 2, 3)
		w.fill(id)
		w.activate(id, 1, 1)
	}
	stranger := testID(5)
	_, err := w.store.Create(stranger)
	check(t, err)
	for _, id := range []facet.Incarnation{gone, deleting, open} {
		w.apply(placement.Delete{Incarnation: id})
	}
	w.apply(placement.Tomb{Incarnation: gone, Epoch: 2}, placement.Tomb{Incarnation: open, Epoch: 2})
	r, err := w.store.Replica(open)
	check(t, err)
	p, err := r.Open(t.Context(), true)
	check(t, err)

	check(t, w.k.Sweep(t.Context()))
	if w.store.Has(gone) || !w.store.Has(deleting) || !w.store.Has(idA) || !w.store.Has(open) || !w.store.Has(stranger) {
		t.Error("the wrong copies are gone")
	}
	if st := w.k.Stats(); st.Tombed != 1 || st.Unknown != 1 || st.Dropped != 0 {
		t.Errorf("%+v", st)
	}
	check(t, r.Close(p))
	check(t, w.k.Sweep(t.Context()))
	if w.store.Has(open) {
		t.Error("the copy stays though it was closed")
	}
}

// TestSweepDrops: a copy goes when the facet has been served without this store
// for the grace period.
func TestSweepDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		ctx := t.Context()
		pending, learner := testID(2), testID(3)
		w.create(idA, 1, 2, 3)
		w.create(pending, 1, 2, 3)
		w.create(learner, 1, 3, 4) // n2 is being filled
		for _, id := range []facet.Incarnation{idA, pending, learner} {
			w.fill(id)
			w.activate(id, 1, 1)
		}
		w.move(idA, 1, 1, 3, 4)
		// The new set of this one is not activated yet: the old members keep it (R42).
		w.apply(placement.Acquire{Incarnation: pending, Owner: ownerOf(1), Expected: 1, Set: setOf(1, 3, 4)})

		check(t, w.k.Sweep(ctx))
		time.Sleep(DefaultGrace - time.Second)
		check(t, w.k.Sweep(ctx))
		if !w.store.Has(idA) {
			t.Fatal("dropped before the grace period was over")
		}
		s := newSession(w, 1, learner, 1)
		s.barrier()
		s.commit()
		check(t, s.send(s.commit(), 1)) // a sign of life
		w.sync()
		time.Sleep(time.Second)
		check(t, w.k.Sweep(ctx))
		if w.store.Has(idA) {
			t.Error("not dropped")
		}
		if !w.store.Has(pending) || !w.store.Has(learner) {
			t.Error("a copy that is needed was dropped")
		}
		if st := w.k.Stats(); st.Dropped != 1 || st.Tombed != 0 {
			t.Errorf("%+v", st)
		}
		// It may come back as a member, and starts from nothing.
		w.move(idA, 2, 1, 2, 3)
		a := <-w.prepare(1, idA, 3)
		if a.err != nil || a.promise.Last.Seq != 0 {
			t.Errorf("as a member again: %+v", a)
		}
		// The old sessions are fenced still.
		old := newSession(w, 1, idA, 1)
		if err := old.send(old.barrier(), 0); err == nil {
			t.Error("a session from before the copy was dropped")
		}
	})
}

// TestSweepSparesTheFull: a learner that is full, and idle, is kept for as long as others
// of the same change may take; not for ever, and not once the facet went on without it.
func TestSweepSparesTheFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		ctx := t.Context()
		passed := testID(2)
		for _, id := range []facet.Incarnation{idA, passed} {
			w.create(id, 1, 3, 4)
			w.fill(id)
			w.activate(id, 1, 1)
		}
		check(t, w.k.Sweep(ctx))
		time.Sleep(LearnerGrace - time.Second)
		check(t, w.k.Sweep(ctx))
		if !w.store.Has(idA) || !w.store.Has(passed) {
			t.Fatal("a full learner is dropped while others may be filled still")
		}
		w.move(passed, 1, 1, 3, 4)
		time.Sleep(time.Second)
		check(t, w.k.Sweep(ctx))
		if w.store.Has(idA) {
			t.Error("a learner nobody needs stays")
		}
		if w.store.Has(passed) {
			t.Error("a learner the facet has gone on without stays")
		}
	})
}

// TestSweepWhileInstalling: a learner that takes its snapshot is not dropped.
func TestSweepWhileInstalling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.create(idA, 1, 3, 4)
		w.fill(idA)
		w.activate(idA, 1, 1)
		check(t, w.k.Sweep(t.Context()))
		w.k.installs.begin(idA)
		time.Sleep(2 * DefaultGrace)
		check(t, w.k.Sweep(t.Context()))
		w.k.installs.end(idA)
		check(t, w.k.Sweep(t.Context()))
		if !w.store.Has(idA) {
			t.Error("dropped while it was being filled")
		}
	})
}
