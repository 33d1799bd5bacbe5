package keeper

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

var idA = testID(1)

// TestKeepsACopy is the life of a copy whose owner lives elsewhere: made by its
// first word, fenced, filled, acknowledged, read back.
func TestKeepsACopy(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.create(idA, 1, 2, 3)
	a := <-w.prepare(1, idA, 1)
	if a.err != nil || a.promise.Epoch != 1 || a.promise.Last.Seq != 0 {
		t.Fatalf("prepared: %+v", a)
	}
	s := newSession(w, 1, idA, 1)
	check(t, s.send(s.barrier(), 0))
	for range 5 {
		check(t, s.send(s.commit(), facet.Seq(len(s.log)-1)))
	}
	w.sync()
	if got := s.acks.last(1); got != 6 {
		t.Errorf("acknowledged up to %v, want 6", got)
	}
	if !w.k.check(remote(1), peer.Session{Incarnation: idA, Epoch: 1}) {
		t.Error("the session's epoch is not the one promised")
	}
	var got []facet.Seq
	check(t, w.k.fetch(t.Context(), remote(1), peer.FetchRequest{Incarnation: idA, Epoch: 1, From: 3}, func(c *facet.Commit) (bool, error) {
		got = append(got, c.Seq)
		return c.Seq < 5, nil
	}))
	if len(got) != 3 || got[0] != 3 {
		t.Errorf("fetched %v", got)
	}
	if st := w.k.Stats(); st.Created != 1 || st.Refused != 0 {
		t.Errorf("%+v", st)
	}
}

// TestAppendMakesTheCopy: a learner is never asked for a promise (R42).
func TestAppendMakesTheCopy(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.create(idA, 1, 3)
	s := newSession(w, 1, idA, 1)
	check(t, s.send(s.barrier(), 0))
	w.sync()
	if s.acks.last(1) != 1 || !w.store.Has(idA) {
		t.Error("a learner was not filled")
	}
}

// TestDoor is every answer to a session that may not come in.
func TestDoor(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	gone, given := testID(2), testID(3)
	w.create(idA, 1, 2, 3)
	w.activate(idA, 1, 1)
	w.apply(placement.Acquire{Incarnation: idA, Owner: ownerOf(3), Expected: 1})
	w.create(gone, 1, 2, 3)
	w.apply(placement.Delete{Incarnation: gone})
	w.apply(placement.Tomb{Incarnation: gone, Epoch: 2})
	w.create(given, 1, 2, 3)
	w.apply(placement.Release{Incarnation: given, Epoch: 1, Boot: bootID(1)})

	var epoch *replica.EpochError
	for _, c := range []struct {
		name     string
		n        byte
		id       facet.Incarnation
		epoch    facet.Epoch
		is       error
		behind   bool // PREPARE waits, the others are told busy
		promised facet.Epoch
	}{
		{name: "epoch is over", n: 1, id: idA, epoch: 1, is: replica.ErrEpoch, promised: 2},
		{name: "epoch of another node", n: 1, id: idA, epoch: 2, is: replica.ErrBoot},
		{name: "epoch is not known yet", n: 3, id: idA, epoch: 3, is: replica.ErrBusy, behind: true},
		{name: "facet is not known yet", n: 1, id: testID(9), epoch: 1, is: replica.ErrBusy, behind: true},
		{name: "facet is gone", n: 1, id: gone, epoch: 2, is: replica.ErrDeleted},
		{name: "nobody holds the epoch", n: 1, id: given, epoch: 1, is: replica.ErrUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSession(w, c.n, c.id, c.epoch)
			err := s.send(s.barrier(), 0)
			if !errors.Is(err, c.is) || errors.As(err, &epoch) && epoch.Promised != c.promised {
				t.Errorf("append: %v, want %v", err, c.is)
			}
			s.commit()
			if _, err := w.k.Install(t.Context(), remote(c.n), s.offer(), s.snapshot()); !errors.Is(err, c.is) {
				t.Errorf("snapshot: %v, want %v", err, c.is)
			}
			if w.k.check(remote(c.n), peer.Session{Incarnation: c.id, Epoch: c.epoch}) {
				t.Error("check says yes")
			}
			if !c.behind {
				if a := <-w.prepare(c.n, c.id, c.epoch); !errors.Is(a.err, c.is) {
					t.Errorf("prepare: %v, want %v", a.err, c.is)
				}
			}
			if w.store.Has(c.id) {
				t.Error("a copy was made")
			}
		})
	}
	if w.k.Stats().Refused == 0 {
		t.Error("refusals were not counted")
	}
}

// TestPromisedSessionNeedsNoTable: the door is for those the store does not know.
func TestPromisedSessionNeedsNoTable(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.create(idA, 1, 2, 3)
	check(t, (<-w.prepare(1, idA, 1)).err)
	s := newSession(w, 1, idA, 1)
	check(t, s.send(s.barrier(), 0))
	// The table moves on. Until the new owner speaks, the old one may still finish
	// (R28); the fence is the promise, not the table.
	w.apply(placement.Acquire{Incarnation: idA, Owner: ownerOf(3), Expected: 1})
	check(t, s.send(s.commit(), 1))
	check(t, (<-w.prepare(1, idA, 1)).err)
	a := <-w.prepare(3, idA, 2)
	if a.err != nil || a.promise.Last.Seq != 2 {
		t.Fatalf("the new owner: %+v", a)
	}
	if err := s.send(s.commit(), 1); !errors.Is(err, replica.ErrEpoch) {
		t.Errorf("the old owner: %v", err)
	}
	if w.k.check(remote(1), peer.Session{Incarnation: idA, Epoch: 1}) || !w.k.check(remote(3), peer.Session{Incarnation: idA, Epoch: 2}) {
		t.Error("check tells the wrong epoch")
	}
	// The same epoch, another process life.
	old := remote(3)
	old.Boot[5] = 1
	if w.k.check(old, peer.Session{Incarnation: idA, Epoch: 2}) {
		t.Error("check does not look at the boot")
	}
	err := w.k.fetch(t.Context(), remote(1), peer.FetchRequest{Incarnation: idA, Epoch: 1, From: 1}, nil)
	if !errors.Is(err, replica.ErrEpoch) {
		t.Errorf("fetch of the old owner: %v", err)
	}
	err = w.k.fetch(t.Context(), old, peer.FetchRequest{Incarnation: idA, Epoch: 2, From: 1}, nil)
	if !errors.Is(err, peer.ErrRefused) {
		t.Errorf("fetch of another boot: %v", err)
	}
	if err := w.k.fetch(t.Context(), old, peer.FetchRequest{Incarnation: testID(8), Epoch: 2, From: 1}, nil); !errors.Is(err, replica.ErrUnknown) {
		t.Errorf("fetch of nothing: %v", err)
	}
}

// TestGapAndDivergence pass through in the words of the store.
func TestGapAndDivergence(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.create(idA, 1, 2, 3)
	s := newSession(w, 1, idA, 1)
	s.barrier()
	s.commit()
	if err := s.send(&s.log[1], 0); !errors.Is(err, replica.ErrGap) {
		t.Errorf("a gap: %v", err)
	}
	check(t, s.send(&s.log[0], 0))
	check(t, s.send(&s.log[1], 0))
	other := newSession(w, 1, idA, 1)
	other.salt = 100
	other.barrier()
	if err := other.send(other.commit(), 0); !errors.Is(err, replica.ErrDiverged) {
		t.Errorf("two entries at one position: %v", err)
	}
	if err := s.send(s.commit(), 0); !errors.Is(err, replica.ErrDamaged) {
		t.Errorf("append to a copy that diverged: %v", err)
	}
}

// TestPrepareWaitsForTheTable: a PREPARE that comes before the entry that issued
// its epoch is answered when that is applied here, or after a second (R6).
func TestPrepareWaitsForTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		late, never := w.prepare(1, idA, 1), w.prepare(1, testID(7), 1)
		higher := w.prepare(3, idA, 2)
		begin := time.Now()
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		w.create(testID(5), 1, 2) // something else
		synctest.Wait()
		if len(late)+len(never)+len(higher) != 0 {
			t.Fatal("answered before the table knew")
		}
		w.create(idA, 1, 2, 3)
		a := <-late
		if a.err != nil || a.promise.Epoch != 1 || time.Since(begin) != 300*time.Millisecond {
			t.Errorf("after %v: %+v", time.Since(begin), a)
		}
		w.apply(placement.Acquire{Incarnation: idA, Owner: ownerOf(3), Expected: 1})
		if a := <-higher; a.err != nil || a.promise.Epoch != 2 {
			t.Errorf("the next epoch: %+v", a)
		}
		if a := <-never; !errors.Is(a.err, replica.ErrUnknown) || time.Since(begin) != PrepareWait {
			t.Errorf("after %v: %v", time.Since(begin), a.err)
		}
		synctest.Wait()
		if w.k.room.n != 0 || len(w.k.room.of) != 0 || len(w.k.room.order) != 0 {
			t.Errorf("somebody is forgotten in the room: %d", w.k.room.n)
		}
		if w.store.Has(testID(7)) || w.k.Stats().Parked != 3 {
			t.Errorf("%+v", w.k.Stats())
		}
	})
}

// TestPrepareIsOvertaken: a waiting PREPARE hears that a higher epoch was issued,
// or that the facet is gone.
func TestPrepareIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		a := w.prepare(1, idA, 1)
		b := w.prepare(1, testID(2), 1)
		synctest.Wait()
		w.apply(
			placement.Create{Name: nameOf(idA), Incarnation: idA, Owner: ownerOf(1), Set: setOf(1, 2)},
			placement.Acquire{Incarnation: idA, Owner: ownerOf(2), Expected: 1},
			placement.Create{Name: nameOf(testID(2)), Incarnation: testID(2), Owner: ownerOf(1), Set: setOf(1, 2)},
			placement.Delete{Incarnation: testID(2)},
			placement.Tomb{Incarnation: testID(2), Epoch: 2},
		)
		if got := <-a; !errors.Is(got.err, replica.ErrEpoch) {
			t.Errorf("overtaken: %v", got.err)
		}
		if got := <-b; !errors.Is(got.err, replica.ErrDeleted) {
			t.Errorf("deleted: %v", got.err)
		}
	})
}

// TestPrepareBound: the room is bounded, and empty when the keeper closes.
func TestPrepareBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		answers := make(chan error, maxParked+1)
		for i := range maxParked {
			id := facet.Incarnation{byte(i), byte(i >> 8), 1}
			w.k.prepare(remote(1), peer.Session{Incarnation: id, Epoch: 1}, func(_ replica.Promise, err error) { answers <- err })
		}
		if a := <-w.prepare(1, idA, 1); !errors.Is(a.err, replica.ErrBusy) {
			t.Errorf("one too many: %v", a.err)
		}
		w.close()
		for range maxParked {
			if err := <-answers; !errors.Is(err, replica.ErrClosed) {
				t.Fatalf("at the end: %v", err)
			}
		}
		if a := <-w.prepare(1, idA, 1); !errors.Is(a.err, replica.ErrClosed) {
			t.Errorf("afterwards: %v", a.err)
		}
		check(t, w.k.Close())
	})
}

// TestFenceOfDeletion: an epoch that nobody holds is promised to nobody, by the
// word of anybody (R47).
func TestFenceOfDeletion(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.create(idA, 1, 2, 3)
	s := newSession(w, 1, idA, 1)
	check(t, s.send(s.barrier(), 0))
	w.apply(placement.Delete{Incarnation: idA})
	for _, n := range []byte{3, 4, 3} {
		if a := <-w.prepare(n, idA, 2); a.err != nil || a.promise.Epoch != 2 {
			t.Errorf("fence by n%d: %+v", n, a)
		}
	}
	if err := s.send(s.commit(), 0); !errors.Is(err, replica.ErrEpoch) {
		t.Errorf("the old owner after the fence: %v", err)
	}
	next := newSession(w, 3, idA, 2)
	if err := next.send(next.barrier(), 0); !errors.Is(err, replica.ErrUnknown) {
		t.Errorf("an entry in the epoch of the fence: %v", err)
	}
}

// TestInstall: a snapshot makes the copy and replaces it.
func TestInstall(t *testing.T) {
	w := newWorld(t)
	defer w.close()
	w.create(idA, 1, 2, 3)
	s := newSession(w, 1, idA, 1)
	s.barrier()
	for range 3 {
		s.commit()
	}
	base, err := w.k.Install(t.Context(), remote(1), s.offer(), s.snapshot())
	check(t, err)
	if base != s.pages.Position() {
		t.Errorf("base %v, want %v", base, s.pages.Position())
	}
	check(t, s.send(s.commit(), 4))
	w.sync()
	if s.acks.last(1) != 5 {
		t.Errorf("acknowledged %v", s.acks.last(1))
	}
	if err := w.k.fetch(t.Context(), remote(1), peer.FetchRequest{Incarnation: idA, Epoch: 1, From: 2}, nil); !errors.Is(err, replica.ErrCompacted) {
		t.Errorf("fetch below the base: %v", err)
	}
}

// TestFullDisk: what the store refuses reaches the owner as it is (R15).
func TestFullDisk(t *testing.T) {
	fs := disk.NewMem()
	w := newWorldOn(t, fs)
	defer w.close()
	w.create(idA, 1, 2, 3)
	s := newSession(w, 1, idA, 1)
	check(t, s.send(s.barrier(), 0))
	w.sync()
	fs.SetQuota(fs.Used() + 100<<10)
	var err error
	for range 1000 {
		c := s.commit()
		for err = s.send(c, 0); errors.Is(err, replica.ErrBusy); err = s.send(c, 0) {
			w.sync()
			if err = w.store.Wait(t.Context(), c.EncodedLen()); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
		w.sync()
	}
	if !errors.Is(err, replica.ErrFull) {
		t.Errorf("append: %v, want %v", err, replica.ErrFull)
	}
	err = nil
	for n := range 1000 { // a little may fit where an entry did not
		if _, err = w.k.create(facet.Incarnation{byte(n), byte(n >> 8), 7}); err != nil && !errors.Is(err, replica.ErrBusy) {
			break
		}
		w.sync()
	}
	if !errors.Is(err, replica.ErrFull) {
		t.Errorf("a new copy: %v, want %v", err, replica.ErrFull)
	}
	// The reserve is for fencing.
	w.apply(placement.Acquire{Incarnation: idA, Owner: ownerOf(3), Expected: 1})
	if a := <-w.prepare(3, idA, 2); a.err != nil {
		t.Errorf("a full disk cannot be fenced: %v", a.err)
	}
}

// TestIdleCopies: a copy whose owner went to rest is brought to its file and costs
// no more than its state.
func TestIdleCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.create(idA, 1, 2, 3)
		s := newSession(w, 1, idA, 1)
		check(t, s.send(s.barrier(), 0))
		check(t, s.send(s.commit(), 1))
		w.sync()
		// A hint about a part only is no sign of rest.
		w.k.known(remote(1), &peer.KnownItem{Incarnation: idA, Epoch: 1, At: s.log[0].Position()})
		// Hints of strangers count for nothing.
		w.k.known(remote(3), &peer.KnownItem{Incarnation: idA, Epoch: 1, At: s.log[1].Position()})
		w.k.known(remote(3), &peer.KnownItem{Incarnation: testID(9), Epoch: 1, At: s.log[1].Position()})
		if n := w.k.Stats().Idle; n != 0 {
			t.Errorf("%d copies are taken for idle", n)
		}
		s.hint()
		s.hint()
		if n := w.k.Stats().Idle; n != 1 {
			t.Errorf("%d copies are taken for idle, want 1", n)
		}
		// The owner goes on: not idle after all.
		check(t, s.send(s.commit(), 2))
		time.Sleep(2 * settleAfter)
		synctest.Wait()
		r, err := w.store.Replica(idA)
		check(t, err)
		if m := r.Meta(); m.Entries != 3 || w.k.Stats().Checkpoints != 0 {
			t.Errorf("checkpointed in use: %+v", m)
		}
		s.hint()
		time.Sleep(2 * settleAfter)
		synctest.Wait()
		if m := r.Meta(); m.Entries != 0 || m.Base != s.pages.Position() || w.k.Stats().Checkpoints != 1 {
			t.Errorf("not checkpointed: %+v", m)
		}
		// Nothing left to do.
		s.hint()
		if n := w.k.Stats().Idle; n != 0 {
			t.Errorf("%d copies wait for nothing", n)
		}
		// Open here: its owner does it.
		check(t, s.send(s.commit(), 3))
		p, err := r.Open(t.Context(), false)
		check(t, err)
		s.hint()
		if n := w.k.Stats().Idle; n != 0 {
			t.Error("an open copy is taken for idle")
		}
		check(t, r.Close(p))
	})
}

// TestCloseWithWork: Close does not wait for what may be done another time.
func TestCloseWithWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for n := byte(1); n < 100; n++ {
			w.create(testID(n), 1, 2, 3)
			s := newSession(w, 1, testID(n), 1)
			check(t, s.send(s.barrier(), 0))
			s.hint()
		}
		begin := time.Now()
		w.close()
		if d := time.Since(begin); d > settleAfter {
			t.Errorf("closing took %v", d)
		}
	})
}

// TestOptions: what cannot work is refused.
func TestOptions(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("a keeper of nothing")
	}
}

var _ interface {
	peer.Handler
	peer.Inspector
	peer.Installer
} = (*Keeper)(nil)
