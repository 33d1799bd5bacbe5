package replica

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
)

// holed makes a facet of five entries of epoch 1, all acknowledged, whose third
// batch from the end has rotted. It returns the disk and the owner, whose history
// knows what was lost.
func holed(t *testing.T) (*disk.Mem, *owner) {
	t.Helper()
	mem := disk.NewMem()
	s, _ := mustOpen(t, options(mem))
	o := newOwner(t, s, testID(1), 1)
	o.commit()
	check(t, s.Sync(ctx))
	name, at := logSegment(t, mem)
	for range 3 {
		o.commit()
		check(t, s.Sync(ctx))
	}
	check(t, o.r.Close(o.pages))
	check(t, s.Close())
	check(t, mem.Corrupt(name, func(b []byte) { b[at+disk.BlockSize+100] ^= 1 }))
	return mem, o
}

// reopen is the next process life on a disk.
func reopen(t *testing.T, s *Store, mem *disk.Mem) (*Store, Replica, Meta) {
	t.Helper()
	if s != nil {
		check(t, s.Close())
	}
	s, _ = mustOpen(t, options(mem))
	r, err := s.Replica(testID(1))
	check(t, err)
	return s, r, r.Meta()
}

// install sends the database at an entry of the history.
func (o *owner) install(r Replica, epoch facet.Epoch, at tail) {
	o.t.Helper()
	p := o.h.store(o.t, at)
	_, err := r.Install(ctx, Snapshot{Epoch: epoch, Boot: bootA, Position: p.Position(), Source: bytes.NewReader(content(o.t, p))})
	check(o.t, err)
}

// barrier adds the barrier of a session to the history, behind at.
func (o *owner) barrier(epoch facet.Epoch, at tail) *facet.Commit {
	p := o.h.store(o.t, at)
	b := p.Barrier(o.h.id, epoch)
	return o.h.add(&b, content(o.t, p))
}

// TestSnapshotDoesNotHeal replaces a damaged copy by a snapshot that ends below
// what the copy had acknowledged: it must not be believed (M: SNAP_HEALS), over
// restarts and whatever else is sent, until the barrier of a session above the one
// promised when the damage was found is here.
func TestSnapshotDoesNotHeal(t *testing.T) {
	mem, o := holed(t)
	s, r, m := reopen(t, nil, mem)
	if m.Health != Holed {
		t.Fatalf("%+v", m)
	}
	p, err := s.Prepare(ctx, r.ID(), 2, bootA)
	check(t, err)
	if p.Health != Holed {
		t.Fatalf("%+v", p)
	}
	o.install(r, 2, tail{1, 3})
	for range 2 { // the second time from what the log says
		if p, err = s.Prepare(ctx, r.ID(), 2, bootA); err != nil || p.Health != Uncertain || p.Last.Seq != 3 {
			t.Fatalf("after the snapshot: %+v, %v", p, err)
		}
		s, r, _ = reopen(t, s, mem)
	}
	// M: EARLY_HEAL. What it had acknowledged comes again, one by one.
	for seq := facet.Seq(4); seq <= 5; seq++ {
		check(t, r.Append(2, bootA, o.h.commits[tail{1, seq}], 0, &acks{}))
		check(t, s.Sync(ctx))
		if h := r.Meta().Health; h != Uncertain {
			t.Fatalf("%v after entry %v of the old epoch", h, seq)
		}
	}
	s, r, _ = reopen(t, s, mem)
	check(t, r.Append(2, bootA, o.barrier(2, tail{1, 5}), 0, &acks{}))
	check(t, s.Sync(ctx))
	if h := r.Meta().Health; h != Healthy {
		t.Fatalf("%v after the barrier", h)
	}
	if _, _, m = reopen(t, s, mem); m.Health != Healthy || m.Last.Seq != 6 {
		t.Fatalf("after the last restart: %+v", m)
	}
}

// TestHealthAfterSnapshots tells which snapshots prove a copy whole.
func TestHealthAfterSnapshots(t *testing.T) {
	for _, tc := range []struct {
		what string
		// found is the epoch promised before the copy is found to have diverged.
		found   facet.Epoch
		session facet.Epoch // that sends the snapshot, which ends in its barrier if
		whole   bool
		want    Health
	}{
		{"the session that was promised sends again", 3, 3, true, Uncertain},
		{"a newer session, below its barrier", 3, 4, false, Uncertain},
		{"a newer session, with its barrier", 3, 4, true, Healthy},
	} {
		s, _ := mustOpen(t, options(disk.NewMem()))
		o := newOwner(t, s, testID(1), 1)
		o.commit()
		check(t, o.r.Close(o.pages))
		_, err := s.Prepare(ctx, o.r.ID(), tc.found, bootA)
		check(t, err)
		s.quarantine(o.r.st, Diverged)
		at := tail{1, 2}
		if tc.whole {
			at = tailOf(o.barrier(tc.session, at).Position())
		}
		o.install(o.r, tc.session, at)
		m := o.r.Meta()
		if m.Health != tc.want || m.Base.Seq != at.seq {
			t.Errorf("%s: %+v, want %v", tc.what, m, tc.want)
		}
		// An uncertain copy that gets a snapshot is no better for it.
		if m.Health == Uncertain {
			next := tailOf(o.barrier(9, at).Position())
			o.install(o.r, 10, next)
			if h := o.r.Meta().Health; h != Uncertain {
				t.Errorf("%s: %v after a second snapshot", tc.what, h)
			}
			check(t, o.r.Append(10, bootA, o.barrier(10, next), 0, &acks{}))
			check(t, s.Sync(ctx))
			if h := o.r.Meta().Health; h != Healthy {
				t.Errorf("%s: %v after the barrier", tc.what, h)
			}
		}
		check(t, s.Close())
	}
}

// TestDamageAgain finds new damage on a copy that is uncertain already: what it
// acknowledged since then is in doubt too.
func TestDamageAgain(t *testing.T) {
	mem, o := holed(t)
	s, r, _ := reopen(t, nil, mem)
	o.install(r, 2, tail{1, 3}) // uncertain since epoch 1
	_, err := s.Prepare(ctx, r.ID(), 5, bootA)
	check(t, err)
	check(t, r.Append(5, bootA, o.h.commits[tail{1, 4}], 0, &acks{}))
	check(t, s.Sync(ctx))
	check(t, r.Append(5, bootA, o.h.commits[tail{1, 5}], 0, &acks{}))
	check(t, s.Sync(ctx))
	mem = mem.Image(rand.New(rand.NewPCG(1, 1)), disk.KeepAll)
	name, at := logSegment(t, mem)
	check(t, mem.Corrupt(name, func(b []byte) { b[at+100] ^= 1 }))
	s, r, m := reopen(t, nil, mem)
	if m.Health != Uncertain || m.Promised != 5 || m.Last.Seq != 4 {
		t.Fatalf("%+v", m)
	}
	check(t, r.Append(5, bootA, o.h.commits[tail{1, 5}], 0, &acks{}))
	b := o.barrier(5, tail{1, 5})
	check(t, r.Append(5, bootA, b, 0, &acks{}))
	check(t, s.Sync(ctx))
	if h := r.Meta().Health; h != Uncertain {
		t.Fatalf("%v after the barrier of the session whose entries were lost", h)
	}
	check(t, r.Append(6, bootA, o.barrier(6, tailOf(b.Position())), 0, &acks{}))
	check(t, s.Sync(ctx))
	if h := r.Meta().Health; h != Healthy {
		t.Fatalf("%v after the barrier of the next one", h)
	}
}

// TestImportStaysHealthy is a snapshot into a copy that has nothing, on a single
// node: there is nothing to doubt.
func TestImportStaysHealthy(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, single(mem))
	r, err := s.Create(testID(1))
	check(t, err)
	_, err = s.Prepare(ctx, r.ID(), 1, bootA)
	check(t, err)
	_, err = r.Install(ctx, Snapshot{
		Epoch: 1, Boot: bootA, Position: facet.Position{Epoch: 1, Seq: 1}, ComputeSum: true,
		Source: bytes.NewReader(bytes.Repeat([]byte("facet"), facet.PageSize)),
	})
	check(t, err)
	if m := r.Meta(); m.Health != Healthy || m.CommitKnown != 1 || m.Durable != 1 {
		t.Fatalf("%+v", m)
	}
	check(t, s.Close())
	s, report := mustOpen(t, single(mem))
	if report.Uncertain+report.Holed != 0 {
		t.Fatalf("%+v", report)
	}
	check(t, s.Close())
}

// TestKnownWaitsForTheInstall holds the sync of an INSTALL back: a crash would
// still leave the old log, so nothing of the snapshot counts as durable or known
// before (I4), on a node alone either.
func TestKnownWaitsForTheInstall(t *testing.T) {
	for _, alone := range []bool{false, true} {
		mem := disk.NewMem()
		opts := options(mem)
		opts.SingleNode = alone
		s, _ := mustOpen(t, opts)
		r, err := s.Create(testID(1))
		check(t, err)
		_, err = s.Prepare(ctx, r.ID(), 1, bootA)
		check(t, err)
		g := &gate{seen: make(chan struct{}, 1)}
		mem.Observe(g.observe)
		g.mu.Lock()
		done := make(chan error, 1)
		go func() {
			_, err := r.Install(ctx, Snapshot{
				Epoch: 1, Boot: bootA, Position: facet.Position{Epoch: 1, Seq: 7}, ComputeSum: true,
				Source: bytes.NewReader(make([]byte, facet.PageSize)),
			})
			done <- err
		}()
		<-g.seen
		if m := r.Meta(); m.Base.Seq != 7 || m.Durable != 0 || m.CommitKnown != 0 {
			t.Errorf("before the sync: %+v", m)
		}
		g.mu.Unlock()
		mem.Observe(nil)
		check(t, <-done)
		if m := r.Meta(); m.Durable != 7 || m.CommitKnown != 7 {
			t.Errorf("after it: %+v", m)
		}
		check(t, s.Close())
	}
}
