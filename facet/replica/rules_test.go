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
