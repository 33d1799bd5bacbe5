package replica

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/internal/disk"
)

var ctx = context.Background()

func single(fs disk.FS) Options {
	o := options(fs)
	o.SingleNode = true
	return o
}

func TestLifeOfAFacet(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, single(mem))
	id := testID(1)
	if _, err := s.Prepare(ctx, id, 1, bootA); !errors.Is(err, ErrUnknown) {
		t.Fatalf("prepare an unknown facet: %v", err)
	}
	o := newOwner(t, s, id, 1)
	for range 10 {
		o.commit()
	}
	check(t, s.Sync(ctx))
	if n := o.acks.count(); n != 11 {
		t.Fatalf("%d acknowledgements, want 11", n)
	}
	if n := s.Written(); n != 0 {
		t.Fatalf("%d bytes in database files before the first checkpoint", n)
	}
	o.checkpoint()
	if n, size := s.Written(), int64(len(content(t, o.pages))); n != size {
		t.Fatalf("%d bytes in database files after a checkpoint of %d", n, size)
	}
	o.commit()
	want := content(t, o.pages)
	end := o.pages.Position()
	check(t, s.Sync(ctx))
	if m := o.r.Meta(); m.Last != end || m.Base.Seq != 11 || m.Entries != 1 || m.CommitKnown != 12 {
		t.Fatalf("%+v", m)
	}
	check(t, o.r.Close(o.pages))
	check(t, s.Close())

	s, report := mustOpen(t, single(mem))
	if report.Facets != 1 || report.Holed+report.Uncertain != 0 {
		t.Fatalf("%+v", report)
	}
	o = newOwner(t, s, id, 2)
	if got := o.h.contents[tailOf(end)]; !bytes.Equal(got, want) {
		t.Fatal("content differs after the restart")
	}
	o.checkpoint()
	check(t, o.r.Close(o.pages))
	check(t, o.r.Scrub(ctx, nil))
	if st := s.lookup(id, false); st.live != nil {
		t.Fatalf("idle facet keeps its live part: %+v", st.live)
	}
	check(t, o.r.Tomb(ctx, time.Unix(1000, 0)))
	if s.Has(id) {
		t.Fatal("deleted facet is still there")
	}
	if _, err := s.Create(id); !errors.Is(err, ErrDeleted) {
		t.Fatalf("create again: %v", err)
	}
	if n, err := s.EmptyTrash(ctx, time.Unix(1000, 0).Add(time.Hour), 24*time.Hour); n != 0 || err != nil {
		t.Fatalf("%d files removed before the grace period was over, %v", n, err)
	}
	if n, err := s.EmptyTrash(ctx, time.Unix(1000, 0).Add(25*time.Hour), 24*time.Hour); n != 1 || err != nil {
		t.Fatalf("%d files removed, %v", n, err)
	}
	check(t, s.Close())
	s, _ = mustOpen(t, single(mem))
	if _, err := s.Prepare(ctx, id, 9, bootA); !errors.Is(err, ErrDeleted) {
		t.Fatalf("prepare a deleted facet after the restart: %v", err)
	}
}

func TestFence(t *testing.T) {
	s, _ := mustOpen(t, options(disk.NewMem()))
	o := newOwner(t, s, testID(1), 5)
	first := o.commit()
	_, err := s.Prepare(ctx, o.r.ID(), 4, bootB)
	var ee *EpochError
	if !errors.As(err, &ee) || ee.Promised != 5 {
		t.Fatalf("prepare a lower epoch: %v", err)
	}
	if _, err := s.Prepare(ctx, o.r.ID(), 5, bootB); !errors.Is(err, ErrBoot) {
		t.Fatalf("prepare for another boot: %v", err)
	}
	if p, err := s.Prepare(ctx, o.r.ID(), 5, bootA); err != nil || p.Last != first.Position() {
		t.Fatalf("prepare again: %+v, %v", p, err)
	}
	p, err := s.Prepare(ctx, o.r.ID(), 6, bootB)
	if err != nil || p.Last != first.Position() {
		t.Fatalf("%+v, %v", p, err)
	}
	check(t, change(o.rng, o.pages))
	c, _, err := o.pages.Seal(o.r.ID(), 5)
	check(t, err)
	if err := o.append(&c); !errors.Is(err, ErrEpoch) {
		t.Fatalf("append in a lower epoch: %v", err)
	}
	if err := o.r.Known(5, bootA, first.Position()); !errors.Is(err, ErrEpoch) {
		t.Fatalf("commit hint of a lower epoch: %v", err)
	}
	check(t, o.r.Known(6, bootB, first.Position()))
	if k := o.r.Meta().CommitKnown; k != first.Seq {
		t.Fatalf("known up to %v", k)
	}
}

func TestDuplicatesGapsAndCuts(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, options(mem))
	o := newOwner(t, s, testID(1), 1)
	var list []*facet.Commit
	for range 6 {
		list = append(list, o.commit())
	}
	last := list[5].Position()
	// Late and repeated ones change nothing, durable or not, and are acknowledged.
	check(t, o.r.Append(1, bootA, list[2], 0, o.acks))
	check(t, s.Sync(ctx))
	check(t, o.r.Append(1, bootA, list[3], 3, o.acks))
	if got := o.acks.top(); got != (tail{1, list[3].Seq}) || o.acks.count() != 9 {
		t.Fatalf("%d acknowledgements, the last %v", o.acks.count(), got)
	}
	if m := o.r.Meta(); m.Last != last || m.CommitKnown != 3 {
		t.Fatalf("%+v", m)
	}
	// A session in which nothing follows.
	other := o.h.store(t, tailOf(list[1].Position()))
	barrier := other.Barrier(o.r.ID(), 2)
	late := barrier
	late.Seq, late.PrevEpoch = 12, 2
	var gap *GapError
	if err := o.r.Append(2, bootB, &late, 0, o.acks); !errors.As(err, &gap) || gap.Last != last {
		t.Fatalf("append behind a gap: %v", err)
	}
	if m := o.r.Meta(); m.Promised != 1 {
		t.Fatalf("a refused append left a promise: %+v", m)
	}
	// Known is 3 = list[1]: the cut goes right behind it. (The barrier is entry 1.)
	o.h.add(&barrier, content(t, other))
	check(t, o.r.Append(2, bootB, &barrier, 0, o.acks))
	check(t, s.Sync(ctx))
	if m := o.r.Meta(); m.Last != barrier.Position() || m.Promised != 2 || m.Durable != 4 {
		t.Fatalf("%+v", m)
	}
	if err := o.r.Append(1, bootA, list[4], 0, o.acks); !errors.Is(err, ErrEpoch) {
		t.Fatalf("append to the tail cut off: %v", err)
	}
	check(t, o.r.Close(o.pages))
	check(t, s.Close())
	s, _ = mustOpen(t, options(mem))
	r, err := s.Replica(o.r.ID())
	check(t, err)
	if m := r.Meta(); m.Last != barrier.Position() || m.Promised != 2 {
		t.Fatalf("after the restart: %+v", m)
	}
	p, err := r.Open(ctx, true)
	check(t, err)
	if !bytes.Equal(content(t, p), content(t, other)) {
		t.Fatal("content differs")
	}
	check(t, r.Close(p))
}

func TestDivergence(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, options(mem))
	o := newOwner(t, s, testID(1), 1)
	c := o.commit()
	check(t, s.Sync(ctx))
	twin := o.h.store(t, tail{1, 1})
	check(t, change(o.rng, twin))
	k, _, err := twin.Seal(o.r.ID(), 1)
	check(t, err)
	if k.Position() == c.Position() {
		t.Fatal("the two are the same")
	}
	if err := o.r.Append(1, bootA, &k, 0, o.acks); !errors.Is(err, ErrDiverged) {
		t.Fatalf("two entries at one position: %v", err)
	}
	check(t, o.r.Close(o.pages))
	if _, err := o.r.Open(ctx, true); !errors.Is(err, facet.ErrCorrupt) {
		t.Fatalf("open: %v", err)
	}
	check(t, s.Close())
	s, report := mustOpen(t, options(mem))
	if report.Holed != 1 {
		t.Fatalf("%+v", report)
	}
	p, err := s.Prepare(ctx, testID(1), 2, bootA)
	if err != nil || p.Health != Diverged || !p.Last.IsZero() {
		t.Fatalf("%+v, %v", p, err)
	}
	// A snapshot heals it.
	want := content(t, twin)
	r, err := s.Replica(testID(1))
	check(t, err)
	before := s.Written()
	if _, err := r.Install(ctx, Snapshot{Epoch: 2, Boot: bootA, Position: twin.Position(), Source: bytes.NewReader(want)}); err != nil {
		t.Fatal(err)
	}
	if n := s.Written() - before; n != int64(len(want)) {
		t.Errorf("%d bytes in database files by a snapshot of %d", n, len(want))
	}
	check(t, s.Close())
	s, _ = mustOpen(t, options(mem))
	r, err = s.Replica(testID(1))
	check(t, err)
	ps, err := r.Open(ctx, true)
	check(t, err)
	if !bytes.Equal(content(t, ps), want) {
		t.Fatal("content differs")
	}
	check(t, r.Close(ps))
	check(t, r.Scrub(ctx, nil))
}

func TestCheckpointNeedsKnown(t *testing.T) {
	s, _ := mustOpen(t, options(disk.NewMem()))
	o := newOwner(t, s, testID(1), 1)
	c := o.commit()
	cp := o.pages.Checkpoint()
	if err := o.r.Checkpoint(ctx, cp); !errors.Is(err, ErrNotKnown) {
		t.Fatalf("checkpoint of what nobody knows to be committed: %v", err)
	}
	cp.Abort()
	check(t, o.r.Known(1, bootA, c.Position()))
	o.checkpoint()
	if b := o.r.Meta().Base; b != c.Position() {
		t.Fatalf("base %v", b)
	}
	if _, err := o.r.Open(ctx, true); !errors.Is(err, ErrOpen) {
		t.Fatalf("open twice: %v", err)
	}
	if err := o.r.Tomb(ctx, time.Now()); !errors.Is(err, ErrOpen) {
		t.Fatalf("delete while open: %v", err)
	}
	for range o.r.Entries(1) {
		break
	}
	for _, err := range o.r.Entries(1) {
		if !errors.Is(err, ErrCompacted) {
			t.Fatalf("entries below the base: %v", err)
		}
	}
	d := o.commit()
	check(t, s.Sync(ctx))
	n := 0
	for e, err := range o.r.Entries(c.Seq + 1) {
		check(t, err)
		if n++; e.Position() != d.Position() {
			t.Fatalf("entry %v", e.Position())
		}
	}
	if n != 1 {
		t.Fatalf("%d entries", n)
	}
}

// TestCollectNamesLong: a copy in use that nobody has open is named once many of its
// committed entries are above its file, and no longer when they are in it.
func TestCollectNamesLong(t *testing.T) {
	opts := options(disk.NewMem())
	opts.TailEntries = 5
	s, _ := mustOpen(t, opts)
	long := func() []facet.Incarnation {
		t.Helper()
		check(t, s.Sync(ctx))
		c, err := s.Collect(ctx)
		check(t, err)
		return c.Long
	}
	o := newOwner(t, s, testID(1), 1)
	for range 9 {
		o.commit()
	}
	last := o.commit().Position()
	check(t, o.r.Known(1, bootA, facet.Position{Epoch: 1, Seq: last.Seq - 1}))
	if l := long(); len(l) != 0 {
		t.Fatalf("long while it is open: %v", l)
	}
	want := content(t, o.pages)
	check(t, o.r.Close(o.pages))
	if l := long(); len(l) != 1 || l[0] != o.r.ID() {
		t.Fatalf("long: %v", l)
	}
	check(t, o.r.CheckpointIdle(ctx))
	if m := o.r.Meta(); m.Entries != 1 || len(long()) != 0 {
		t.Fatalf("%d entries above the file, long: %v", m.Entries, long())
	}
	// What is above the file and not known to be committed makes nobody long.
	p, err := o.r.Open(ctx, true)
	check(t, err)
	if !bytes.Equal(content(t, p), want) {
		t.Fatal("content differs")
	}
	o.pages = p
	for range 9 {
		o.commit()
	}
	check(t, o.r.Close(o.pages))
	if l := long(); len(l) != 0 {
		t.Fatalf("long with %d entries known: %v", o.r.Meta().CommitKnown, l)
	}
}

func TestCollectCarries(t *testing.T) {
	mem := disk.NewMem()
	opts := single(mem)
	opts.LogBudget = 1
	s, _ := mustOpen(t, opts)
	// One facet at rest with a promise and a base, one deleted, one busy.
	rest := newOwner(t, s, testID(1), 7)
	rest.commit()
	rest.checkpoint()
	want := content(t, rest.pages)
	check(t, rest.r.Close(rest.pages))
	gone := newOwner(t, s, testID(2), 3)
	check(t, gone.r.Close(gone.pages))
	check(t, gone.r.Tomb(ctx, time.Now()))
	busy := newOwner(t, s, testID(3), 1)
	for range 80 {
		busy.commit()
		check(t, s.Sync(ctx))
	}
	c, err := s.Collect(ctx)
	check(t, err)
	if len(c.Pins) != 1 || c.Pins[0] != busy.r.ID() {
		t.Fatalf("%+v", c)
	}
	check(t, busy.r.Close(busy.pages))
	for range 3 {
		r, err := s.Replica(c.Pins[0])
		check(t, err)
		check(t, r.CheckpointIdle(ctx))
		before := s.log.Segments()
		c, err = s.Collect(ctx)
		check(t, err)
		left := 0 // of those; what is carried may have begun a new one
		for _, now := range s.log.Segments() {
			if slices.ContainsFunc(before, func(b commitlog.SegmentInfo) bool { return b.ID == now.ID }) {
				left++
			}
		}
		if left != len(before)-c.Removed {
			t.Fatalf("%d segments, of them %d left, removed %d", len(before), left, c.Removed)
		}
		if len(c.Pins) == 0 {
			break
		}
	}
	if n := len(s.log.Segments()); n > 2 {
		t.Fatalf("%d segments are left", n)
	}
	check(t, s.Close())
	s, report := mustOpen(t, opts)
	if report.Facets != 2 || report.Tombs != 1 || report.Holed != 0 {
		t.Fatalf("%+v", report)
	}
	if _, err := s.Prepare(ctx, testID(1), 6, bootA); !errors.Is(err, ErrEpoch) {
		t.Fatalf("promise was lost: %v", err)
	}
	if _, err := s.Prepare(ctx, testID(2), 9, bootA); !errors.Is(err, ErrDeleted) {
		t.Fatalf("tombstone was lost: %v", err)
	}
	rest = newOwner(t, s, testID(1), 8)
	if got := rest.h.contents[tailOf(facet.Position{Epoch: 7, Seq: 2})]; !bytes.Equal(got, want) {
		t.Fatal("content differs")
	}
	check(t, rest.r.Close(rest.pages))
}

func TestInstallRefusals(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, options(mem))
	o := newOwner(t, s, testID(1), 1)
	a, b := o.commit(), o.commit()
	check(t, s.Sync(ctx))
	check(t, o.r.Known(1, bootA, a.Position()))
	check(t, o.r.Close(o.pages))
	// It matches the log: ignored, the tail stays (M: SNAP_TRUNC).
	sn := Snapshot{Epoch: 1, Boot: bootA, Position: a.Position(), Source: bytes.NewReader(o.h.contents[tailOf(a.Position())])}
	if _, err := o.r.Install(ctx, sn); err != nil || o.r.Position() != b.Position() {
		t.Fatalf("%v, log ends at %v", err, o.r.Position())
	}
	// Not what its sum says, not whole pages, too large: nothing changes.
	bad := bytes.Clone(o.h.contents[tailOf(b.Position())])
	bad[1] ^= 1
	next := facet.Position{Epoch: 1, Seq: 9, Sum: b.PostSum}
	for _, sn := range []Snapshot{
		{Epoch: 1, Boot: bootA, Position: next, Source: bytes.NewReader(bad)},
		{Epoch: 1, Boot: bootA, Position: next, Source: bytes.NewReader(bad[:len(bad)-1]), ComputeSum: true},
		{Epoch: 1, Boot: bootA, Position: next, Source: bytes.NewReader(append(bad, make([]byte, 1<<20)...)), ComputeSum: true, MaxPages: 9},
		{Epoch: 1, Boot: bootB, Position: next, Source: bytes.NewReader(bad), ComputeSum: true},
	} {
		if _, err := o.r.Install(ctx, sn); err == nil {
			t.Fatalf("%+v was installed", sn.Position)
		}
	}
	if list, err := mem.ReadDir("data/tmp"); err != nil || len(list) != 0 {
		t.Fatalf("left behind: %v, %v", list, err)
	}
	if m := o.r.Meta(); m.Last != b.Position() || m.Health != Healthy {
		t.Fatalf("%+v", m)
	}
}
