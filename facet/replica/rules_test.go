package replica

import (
	"errors"
	"sync"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
)

// Rules that were enforced, and that the tests there were would hardly have missed.
// Package internal/mutation breaks them one at a time.

// TestAppendFollows: the next entry is taken only if the log ends where it begins, in
// epoch and in content (R7).
func TestAppendFollows(t *testing.T) {
	s, _ := mustOpen(t, options(disk.NewMem()))
	o := newOwner(t, s, testID(1), 1)
	last := o.commit().Position()
	b := o.h.store(t, tailOf(last)).Barrier(o.r.ID(), 3)

	other := b
	other.PrevEpoch = 2 // it follows an entry of epoch 2 at this place
	var gap *GapError
	if err := o.r.Append(3, bootB, &other, 0, o.acks); !errors.As(err, &gap) || gap.Last != last {
		t.Fatalf("an entry that follows one of another epoch: %v", err)
	}
	if m := o.r.Meta(); m.Last != last || m.Promised != 1 {
		t.Fatalf("a refused entry left %+v", m)
	}
	other = b
	other.PreSum = other.PreSum.Add(last.Sum)
	other.PostSum = other.PreSum
	if err := o.r.Append(3, bootB, &other, 0, o.acks); !errors.Is(err, ErrDiverged) {
		t.Fatalf("an entry that follows other content: %v", err)
	}
	check(t, o.r.Close(o.pages))
}

// TestCommittedStays: a session that would cut off what is known to be committed is
// refused (R8).
func TestCommittedStays(t *testing.T) {
	s, _ := mustOpen(t, options(disk.NewMem()))
	o := newOwner(t, s, testID(1), 1)
	first, second := o.commit(), o.commit()
	check(t, o.r.Known(1, bootA, second.Position()))
	b := o.h.store(t, tailOf(first.Position())).Barrier(o.r.ID(), 2)
	if err := o.r.Append(2, bootB, &b, 0, o.acks); !errors.Is(err, ErrDiverged) {
		t.Fatalf("an entry in the place of a committed one: %v", err)
	}
	check(t, o.r.Close(o.pages))
}

// TestFenceWhileComparing: an append is compared with an entry that has to be read from
// the log, and a higher epoch is promised meanwhile. The promise was placed first, so
// the append is refused (R5).
func TestFenceWhileComparing(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, options(mem))
	o := newOwner(t, s, testID(1), 1)
	c := o.commit()
	check(t, s.Sync(ctx))
	var once sync.Once
	promised := make(chan error, 1)
	mem.Observe(func(op disk.Op, _ string) {
		if op == disk.OpRead {
			once.Do(func() {
				promised <- s.PrepareFunc(o.r.ID(), 2, bootB, func(Promise) {})
			})
		}
	})
	n := o.acks.count()
	err := o.r.Append(1, bootA, c, 0, o.acks)
	mem.Observe(nil)
	select {
	case err := <-promised:
		check(t, err)
	default:
		t.Fatal("nothing was read: the test tests nothing")
	}
	if !errors.Is(err, ErrEpoch) || o.acks.count() != n {
		t.Fatalf("an append of epoch 1 behind a promise of epoch 2: %v, %d acknowledgements", err, o.acks.count()-n)
	}
	check(t, o.r.Close(o.pages))
}

// TestPromiseTellsWhatIsPlaced: an entry that has its place in the log and is on its way
// to the disk is in what a promise placed behind it reports: it may yet be acknowledged
// (R5).
func TestPromiseTellsWhatIsPlaced(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, options(mem))
	o := newOwner(t, s, testID(1), 1)
	check(t, s.Sync(ctx))
	g := &gate{seen: make(chan struct{}, 1)}
	mem.Observe(g.observe)
	g.mu.Lock()
	c := o.commit()
	promised := make(chan Promise, 1)
	err := s.PrepareFunc(o.r.ID(), 2, bootB, func(p Promise) { promised <- p })
	g.mu.Unlock()
	mem.Observe(nil)
	check(t, err)
	if p := <-promised; p.Last != c.Position() {
		t.Fatalf("the promise reports %v, placed before it was %v", p.Last, c.Position())
	}
	check(t, o.r.Close(o.pages))
}

// TestHintNamesAnEntry: a commit hint says which entry it means. One of another epoch at
// that place is not committed by it (R10).
func TestHintNamesAnEntry(t *testing.T) {
	s, _ := mustOpen(t, options(disk.NewMem()))
	o := newOwner(t, s, testID(1), 1)
	last := o.commit().Position()
	if _, err := s.Prepare(ctx, o.r.ID(), 2, bootB); err != nil {
		t.Fatal(err)
	}
	var gap *GapError
	if err := o.r.Known(2, bootB, facet.Position{Epoch: 2, Seq: last.Seq}); !errors.As(err, &gap) {
		t.Fatalf("a hint for an entry of epoch 2 where one of epoch 1 lies: %v", err)
	}
	if k := o.r.Meta().CommitKnown; k != 0 {
		t.Fatalf("known up to %v", k)
	}
	check(t, o.r.Close(o.pages))
}

// TestHintEndsAtTheMatch: the commit index that comes with an entry counts up to that
// entry and no further, whatever follows it in the log (R10).
func TestHintEndsAtTheMatch(t *testing.T) {
	s, _ := mustOpen(t, options(disk.NewMem()))
	o := newOwner(t, s, testID(1), 1)
	first := o.commit()
	o.commit()
	check(t, s.Sync(ctx))
	check(t, o.r.Append(1, bootA, first, 100, o.acks))
	if k := o.r.Meta().CommitKnown; k != first.Seq {
		t.Fatalf("known up to %v by a message about %v", k, first.Seq)
	}
	check(t, o.r.Close(o.pages))
}
