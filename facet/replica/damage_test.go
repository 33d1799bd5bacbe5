package replica

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
)

// logSegment is the name of the newest segment and where its last used block is.
func logSegment(t *testing.T, mem *disk.Mem) (name string, lastBlock int) {
	t.Helper()
	list, err := mem.ReadDir("data/log")
	check(t, err)
	for _, e := range list {
		if strings.HasSuffix(e.Name, ".seg") {
			name = path.Join("data/log", e.Name)
		}
	}
	check(t, mem.Corrupt(name, func(b []byte) {
		for at := 0; at < len(b); at += disk.BlockSize {
			if !bytes.Equal(b[at:at+disk.BlockSize], make([]byte, disk.BlockSize)) {
				lastBlock = at
			}
		}
	}))
	return name, lastBlock
}

func TestHoleInTheLog(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, single(mem))
	hit := newOwner(t, s, testID(1), 1)
	check(t, s.Sync(ctx))
	sound := newOwner(t, s, testID(2), 1)
	check(t, s.Sync(ctx))
	name, at := logSegment(t, mem)
	hit.commit()
	check(t, s.Sync(ctx))
	sound.commit()
	check(t, s.Sync(ctx))
	want := content(t, sound.pages)
	check(t, sound.r.Close(sound.pages))
	check(t, hit.r.Close(hit.pages))
	check(t, s.Close())
	// The batch with the commit of hit rots: nobody can tell whose it was, but the
	// other one's log is seen to be whole.
	check(t, mem.Corrupt(name, func(b []byte) { b[at+disk.BlockSize+100] ^= 1 }))
	for boot := range 2 {
		s, report := mustOpen(t, single(mem))
		if report.Holed != 1 || len(report.Log.Damage) != 1 {
			t.Fatalf("boot %d: %+v", boot, report)
		}
		p, err := s.Prepare(ctx, hit.r.ID(), facet.Epoch(2+boot), bootA)
		if err != nil || p.Health != Holed {
			t.Fatalf("%+v, %v", p, err)
		}
		r, err := s.Replica(hit.r.ID())
		check(t, err)
		if _, err := r.Open(ctx, true); !errors.Is(err, facet.ErrCorrupt) {
			t.Fatalf("open of a holed facet: %v", err)
		}
		if err := r.CheckpointIdle(ctx); !errors.Is(err, facet.ErrCorrupt) {
			t.Fatalf("checkpoint of a holed facet: %v", err)
		}
		c := facet.Commit{Incarnation: hit.r.ID(), Kind: facet.KindBarrier, Epoch: 2, Seq: 2, PrevEpoch: 1}
		if err := r.Append(facet.Epoch(2+boot), bootA, &c, 0, &acks{}); !errors.Is(err, ErrDamaged) {
			t.Fatalf("append to a holed facet: %v", err)
		}
		o := newOwner(t, s, sound.r.ID(), facet.Epoch(2+boot))
		if !bytes.Equal(content(t, o.pages), want) {
			t.Fatal("content differs")
		}
		check(t, o.r.Close(o.pages))
		check(t, s.Close())
	}
}

func TestUncertainTail(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, single(mem))
	o := newOwner(t, s, testID(1), 1)
	o.commit()
	check(t, s.Sync(ctx))
	o.commit()
	check(t, s.Sync(ctx))
	mem = mem.Image(rand.New(rand.NewPCG(1, 1)), disk.KeepAll)
	check(t, o.r.Close(o.pages))
	name, at := logSegment(t, mem)
	check(t, mem.Corrupt(name, func(b []byte) { b[at+100] ^= 1 }))

	s, report := mustOpen(t, single(mem))
	if report.Uncertain != 1 || report.Holed != 0 {
		t.Fatalf("%+v", report)
	}
	p, err := s.Prepare(ctx, testID(1), 2, bootA)
	if err != nil || p.Health != Uncertain || p.Last.Seq != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	check(t, s.Close())
	s, report = mustOpen(t, single(mem)) // it stays so until an owner has been here
	if report.Uncertain != 1 {
		t.Fatalf("%+v", report)
	}
	o = newOwner(t, s, testID(1), 3)
	check(t, s.Sync(ctx))
	if h := o.r.Meta().Health; h != Healthy {
		t.Fatalf("health %v after the barrier", h)
	}
	check(t, o.r.Close(o.pages))
	check(t, s.Close())
	if _, report = mustOpen(t, single(mem)); report.Uncertain != 0 {
		t.Fatalf("%+v", report)
	}
}

// TestOldEntriesDoNotHeal sends an uncertain copy the entry it lost, from a newer
// session: there may have been others behind it, so only the session's own barrier
// makes the copy sound.
func TestOldEntriesDoNotHeal(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, single(mem))
	o := newOwner(t, s, testID(1), 1)
	o.commit()
	check(t, s.Sync(ctx))
	o.commit()
	check(t, s.Sync(ctx))
	var lost facet.Commit
	for c, err := range o.r.Entries(3) {
		check(t, err)
		lost = *c
		lost.Pages = bytes.Clone(c.Pages)
	}
	mem = mem.Image(rand.New(rand.NewPCG(1, 1)), disk.KeepAll)
	check(t, o.r.Close(o.pages))
	name, at := logSegment(t, mem)
	check(t, mem.Corrupt(name, func(b []byte) { b[at+100] ^= 1 }))

	s, _ = mustOpen(t, single(mem))
	r, err := s.Replica(testID(1))
	check(t, err)
	if lost.Seq != 3 || r.Position().Seq != 2 {
		t.Fatalf("lost %v, log ends at %v", lost.Position(), r.Position())
	}
	_, err = s.Prepare(ctx, testID(1), 3, bootA)
	check(t, err)
	acks := nothing{}
	check(t, r.Append(3, bootA, &lost, 0, acks))
	check(t, s.Sync(ctx))
	if h := r.Meta().Health; h != Uncertain {
		t.Fatalf("health %v after an old entry", h)
	}
	barrier := facet.Commit{
		Incarnation: testID(1), Kind: facet.KindBarrier, Epoch: 3, Seq: 4, PrevEpoch: lost.Epoch,
		PreSum: lost.PostSum, PostSum: lost.PostSum, DBPages: lost.DBPages,
	}
	check(t, r.Append(3, bootA, &barrier, 0, acks))
	check(t, s.Sync(ctx))
	if h := r.Meta().Health; h != Healthy {
		t.Fatalf("health %v after the barrier", h)
	}
	check(t, s.Close())
}

// gate holds back every sync of log segments while it is closed.
type gate struct {
	mu   sync.RWMutex
	seen chan struct{}
}

func (g *gate) observe(op disk.Op, name string) {
	if op == disk.OpDatasync && strings.HasSuffix(name, ".seg") {
		select {
		case g.seen <- struct{}{}:
		default:
		}
		g.mu.RLock()
		defer g.mu.RUnlock()
	}
}

func TestAcknowledgedOnlyWhenDurable(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, options(mem))
	o := newOwner(t, s, testID(1), 1)
	check(t, s.Sync(ctx))
	n := o.acks.count()
	g := &gate{seen: make(chan struct{}, 1)}
	mem.Observe(g.observe)
	g.mu.Lock()
	c := o.commit()
	<-g.seen                                                           // its sync has begun and does not end
	check(t, o.r.Append(1, bootA, c, 0, o.acks))                       // found, not durable
	check(t, o.r.Append(1, bootA, o.h.commits[tail{1, 1}], 0, o.acks)) // durable, but R9: not before the promise and all else
	promised := make(chan Promise, 1)
	check(t, s.PrepareFunc(o.r.ID(), 1, bootA, func(p Promise) { promised <- p }))
	early, earlyPromises := o.acks.count()-n, len(promised)
	g.mu.Unlock()
	mem.Observe(nil)
	if early != 0 || earlyPromises != 0 {
		t.Fatalf("%d acknowledgements and %d promises before the sync", early, earlyPromises)
	}
	check(t, s.Sync(ctx))
	if o.acks.count() != n+3 || len(promised) != 1 {
		t.Fatalf("%d acknowledgements and %d promises after it", o.acks.count()-n, len(promised))
	}
	check(t, o.r.Close(o.pages))
}

// slowSource is a snapshot that waits half-way.
type slowSource struct {
	io.Reader
	half, goOn chan struct{}
	once       sync.Once
}

func (s *slowSource) Read(p []byte) (int, error) {
	s.once.Do(func() {
		close(s.half)
		<-s.goOn
	})
	return s.Reader.Read(p)
}

// TestInstallRacesAppends appends what makes the snapshot unnecessary while it is
// being received: the log stays as it is.
func TestInstallRacesAppends(t *testing.T) {
	s, _ := mustOpen(t, options(disk.NewMem()))
	o := newOwner(t, s, testID(1), 1)
	check(t, o.r.Close(o.pages))
	far := o.h.store(t, tail{1, 1})
	var list []*facet.Commit
	for len(list) < 3 {
		check(t, change(o.rng, far))
		c, ok, err := far.Seal(o.r.ID(), 1)
		check(t, err)
		if ok {
			list = append(list, o.h.add(&c, content(t, far)))
		}
	}
	at := list[1].Position()
	for _, fill := range []bool{true, false} {
		src := &slowSource{Reader: bytes.NewReader(o.h.contents[tailOf(at)]), half: make(chan struct{}), goOn: make(chan struct{})}
		done := make(chan error, 1)
		if !fill {
			// Another owner's snapshot, where the log has nothing of it.
			b := far.Barrier(o.r.ID(), 2)
			at = o.h.add(&b, content(t, far)).Position()
			src.Reader = bytes.NewReader(o.h.contents[tailOf(at)])
		}
		go func() {
			_, err := o.r.Install(ctx, Snapshot{Epoch: at.Epoch, Boot: bootA, Position: at, Source: src})
			done <- err
		}()
		<-src.half
		if fill {
			for _, c := range list {
				check(t, o.r.Append(1, bootA, c, 0, o.acks))
			}
		}
		close(src.goOn)
		check(t, <-done)
		want := at
		if fill {
			want = list[2].Position()
		}
		if got := o.r.Position(); got != want {
			t.Fatalf("log ends at %v, want %v", got, want)
		}
		p, err := o.r.Open(ctx, true)
		check(t, err)
		if !bytes.Equal(content(t, p), o.h.contents[tailOf(want)]) {
			t.Fatal("content differs")
		}
		check(t, o.r.Close(p))
	}
}
