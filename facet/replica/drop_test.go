package replica

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
)

// trash lists what is in the trash of a store.
func trash(t *testing.T, mem *disk.Mem) (names []string) {
	t.Helper()
	list, err := mem.ReadDir("data/trash")
	check(t, err)
	for _, e := range list {
		names = append(names, e.Name)
	}
	return names
}

// dropped checks that nothing of a facet is left but its file in the trash.
func dropped(t *testing.T, s *Store, mem *disk.Mem, id facet.Incarnation) {
	t.Helper()
	if s.Has(id) {
		t.Fatal("it is still there")
	}
	if _, err := s.Prepare(ctx, id, 9, bootA); !errors.Is(err, ErrUnknown) {
		t.Fatalf("prepare: %v", err)
	}
	if _, err := s.fs.Stat(s.dbName(id)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("file: %v", err)
	}
	if names := trash(t, mem); len(names) != 1 || !strings.HasSuffix(names[0], id.String()+".db") {
		t.Fatalf("trash: %q", names)
	}
	s.Facets(func(m Meta) bool {
		if m.ID == id {
			t.Fatalf("listed: %+v", m)
		}
		return true
	})
}

// TestDropAndBack takes a facet off a store that left its set and brings it back
// by a snapshot, as a new member: the promise outlives both, and the collection of
// the log.
func TestDropAndBack(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, options(mem))
	id := testID(1)
	o := newOwner(t, s, id, 5)
	o.commit()
	check(t, s.Sync(ctx))
	check(t, o.r.Known(5, bootA, o.pages.Position()))
	o.checkpoint()
	last := o.commit()
	if err := o.r.Drop(ctx, o.r.Meta().Promised); !errors.Is(err, ErrOpen) {
		t.Fatalf("drop while open: %v", err)
	}
	check(t, o.r.Close(o.pages))
	// A session came between the look at the table and this.
	if err := o.r.Drop(ctx, 4); !errors.Is(err, ErrEpoch) || !s.Has(id) {
		t.Fatalf("drop a copy that has promised more: %v", err)
	}
	check(t, o.r.Drop(ctx, 5))
	check(t, o.r.Drop(ctx, 5))
	dropped(t, s, mem, id)

	// A handle from before finds nothing either.
	for what, err := range map[string]error{
		"append":     o.r.Append(5, bootA, last, 0, &acks{}),
		"known":      o.r.Known(5, bootA, last.Position()),
		"scrub":      o.r.Scrub(ctx, nil),
		"checkpoint": o.r.CheckpointIdle(ctx),
		"install": func() error {
			_, err := o.r.Install(ctx, Snapshot{Epoch: 5, Boot: bootA, Position: last.Position()})
			return err
		}(),
	} {
		if !errors.Is(err, ErrUnknown) {
			t.Errorf("%s on a dropped facet: %v", what, err)
		}
	}
	for _, err := range o.r.Entries(1) {
		if !errors.Is(err, ErrUnknown) {
			t.Errorf("entries of a dropped facet: %v", err)
		}
	}

	// The log moves on, and the segment that held the promise goes.
	busy := newOwner(t, s, testID(2), 1)
	for range 80 {
		busy.commit()
		check(t, s.Sync(ctx))
	}
	check(t, busy.r.Known(1, bootA, busy.pages.Position()))
	busy.checkpoint()
	check(t, busy.r.Close(busy.pages))
	if c, err := s.Collect(ctx); err != nil || c.Removed == 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	check(t, s.Close())
	s, report := mustOpen(t, options(mem))
	if report.Facets != 1 || report.Holed+report.Uncertain != 0 {
		t.Fatalf("%+v", report)
	}
	dropped(t, s, mem, id)

	r, err := s.Create(id)
	check(t, err)
	if e, boot := r.Promised(); e != 5 || boot != bootA {
		t.Fatalf("the new copy has promised %v to %x", e, boot)
	}
	if m := r.Meta(); !m.Last.IsZero() || m.Base.Seq != 0 || m.Health != Uncertain {
		t.Fatalf("the new copy begins as %+v", m)
	}
	if _, err := s.Prepare(ctx, id, 4, bootB); !errors.Is(err, ErrEpoch) {
		t.Fatalf("prepare in an older epoch: %v", err)
	}
	b := o.barrier(6, tailOf(last.Position()))
	o.install(r, 6, tailOf(last.Position()))
	if h := r.Meta().Health; h != Uncertain {
		t.Fatalf("%v before the barrier", h)
	}
	check(t, r.Append(6, bootA, b, 0, &acks{}))
	check(t, s.Sync(ctx))
	for range 2 {
		m := r.Meta()
		if m.Health != Healthy || m.Last != b.Position() || m.Promised != 6 || m.Base != last.Position() {
			t.Fatalf("%+v", m)
		}
		p, err := r.Open(ctx, true)
		check(t, err)
		if !bytes.Equal(content(t, p), o.h.contents[tailOf(b.Position())]) {
			t.Fatal("content differs")
		}
		check(t, r.Close(p))
		check(t, s.Close())
		s, _ = mustOpen(t, options(mem))
		r, err = s.Replica(id)
		check(t, err)
	}
	check(t, r.Tomb(ctx, time.Unix(1, 0)))
	if err := r.Drop(ctx, r.Meta().Promised); !errors.Is(err, ErrDeleted) {
		t.Fatalf("drop a deleted facet: %v", err)
	}
}

// TestDropEndsAcknowledgements drops a facet while entries of it are on their way
// to the disk: nothing is acknowledged that is not here any more (I3), the promise
// that came with them stays, and nobody can begin a new copy before the old file is
// away.
func TestDropEndsAcknowledgements(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, options(mem))
	o := newOwner(t, s, testID(1), 1)
	check(t, s.Sync(ctx))
	n := o.acks.count()
	check(t, o.r.Close(o.pages))
	g := &gate{seen: make(chan struct{}, 1)}
	mem.Observe(g.observe)
	g.mu.Lock()
	b := o.barrier(7, tail{1, 1})
	check(t, o.r.Append(7, bootA, b, 0, o.acks))
	<-g.seen
	check(t, o.r.Append(7, bootA, o.h.commits[tail{1, 1}], 0, o.acks)) // found, told when all is durable
	l, err := o.r.placeDrop(o.r.Meta().Promised)
	check(t, err)
	if _, err := s.Create(testID(1)); !errors.Is(err, ErrBusy) {
		t.Fatalf("create while it is being dropped: %v", err)
	}
	g.mu.Unlock()
	mem.Observe(nil)
	check(t, o.r.finishDrop(ctx, l))
	if got := o.acks.count(); got != n {
		t.Fatalf("%d acknowledgements of a dropped facet", got-n)
	}
	r, err := s.Create(testID(1))
	check(t, err)
	if e, _ := r.Promised(); e != 7 {
		t.Fatalf("promised %v", e)
	}
}

// TestDroppedCopyAndDamage loses the last batch of the log after a drop, and with
// it a copy that was begun anew: the next one is not believed.
func TestDroppedCopyAndDamage(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, options(mem))
	o := newOwner(t, s, testID(1), 3)
	check(t, o.r.Close(o.pages))
	check(t, o.r.Drop(ctx, o.r.Meta().Promised))
	check(t, s.Close())
	s, _ = mustOpen(t, options(mem))
	other, err := s.Create(testID(2))
	check(t, err)
	_, err = s.Prepare(ctx, other.ID(), 1, bootA)
	check(t, err)
	r, err := s.Create(testID(1))
	check(t, err)
	check(t, r.Append(4, bootA, o.barrier(4, tail{}), 0, &acks{}))
	check(t, s.Sync(ctx))
	image := mem.Image(nil, disk.KeepAll)
	check(t, s.Close())
	name, at := logSegment(t, image)
	check(t, image.Corrupt(name, func(b []byte) { b[at+100] ^= 1 }))
	s, report := mustOpen(t, options(image))
	if report.Holed != 0 {
		t.Fatalf("%+v", report)
	}
	r, err = s.Create(testID(1))
	check(t, err)
	if m := r.Meta(); m.Health != Uncertain || m.Promised < 3 {
		t.Fatalf("%+v", m)
	}
}
