package replica

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
)

// TestManyAtOnce lets owners commit, checkpoint, hibernate and return while
// segments are collected and files scrubbed, then starts again and compares.
func TestManyAtOnce(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, single(mem))
	check(t, s.Wait(ctx, 0))
	const owners, rounds = 24, 6
	var last [owners][]byte
	var removed atomic.Int64
	var wg, side sync.WaitGroup
	stop := make(chan struct{})
	side.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, err := s.Collect(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			removed.Add(int64(c.Removed))
		}
	})
	side.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if r, err := s.Replica(testID(i % owners)); err == nil {
				if err := r.Scrub(ctx, nil); err != nil && !errors.Is(err, ErrOpen) {
					t.Error(err)
					return
				}
			}
		}
	})
	var ready sync.WaitGroup
	ready.Add(owners)
	for i := range owners {
		wg.Go(func() {
			for round := range rounds {
				o := tryOwner(t, s, testID(i), facet.Epoch(round+1))
				if round == 0 {
					ready.Done()
					ready.Wait() // so that checkpoints meet in one sync
				}
				for range 4 {
					o.commit()
				}
				last[i] = content(t, o.pages)
				o.checkpoint()
				o.commit()
				last[i] = content(t, o.pages)
				check(t, o.r.Close(o.pages))
			}
		})
	}
	wg.Wait()
	close(stop)
	side.Wait()
	if removed.Load() == 0 {
		t.Error("no segment was removed")
	}
	check(t, s.Close())
	s, report := mustOpen(t, single(mem))
	if report.Holed+report.Uncertain != 0 || report.Facets != owners {
		t.Fatalf("%+v", report)
	}
	for i := range owners {
		r, err := s.Replica(testID(i))
		check(t, err)
		p, err := r.Open(ctx, true)
		check(t, err)
		if !bytes.Equal(content(t, p), last[i]) {
			t.Errorf("content of %d differs", i)
		}
		check(t, r.Close(p))
	}
}

func tryOwner(t testing.TB, s *Store, id facet.Incarnation, epoch facet.Epoch) *owner {
	check(t, s.patient(ctx, func() error { _, err := s.Create(id); return err }))
	return newOwner(t, s, id, epoch)
}

// door lets an acknowledgement wait until it is opened.
type door struct {
	entered, open chan struct{}
}

func (g *door) Acked(facet.Incarnation, facet.Epoch, facet.Seq) {
	close(g.entered)
	<-g.open
}

// TestSyncAfterFailure: entries that became durable and were not acknowledged, since
// the disk failed just then, are not taken for acknowledged (R13).
func TestSyncAfterFailure(t *testing.T) {
	s, _ := mustOpen(t, single(disk.NewMem()))
	o := newOwner(t, s, testID(1), 1)
	check(t, s.Sync(ctx))
	before := o.acks.count()
	g := &door{make(chan struct{}), make(chan struct{})}
	c := sealed(t, o)
	check(t, o.r.Append(o.epoch, bootA, o.h.add(&c, content(t, o.pages)), 0, g))
	<-g.entered
	o.commit() // durable at some time, and told of once the door is open
	s.fail(syscall.EIO)
	close(g.open)
	if err := s.Sync(ctx); !errors.Is(err, syscall.EIO) || !errors.Is(err, ErrClosed) {
		t.Errorf("sync: %v", err)
	}
	if n := o.acks.count(); n != before {
		t.Errorf("%d acknowledgements after the failure", n-before)
	}
}

// sealed makes one random transaction and does not append it.
func sealed(t *testing.T, o *owner) facet.Commit {
	t.Helper()
	for {
		check(t, change(o.rng, o.pages))
		c, ok, err := o.pages.Seal(o.r.ID(), o.epoch)
		check(t, err)
		if ok {
			return c
		}
	}
}

// TestDiskFailureEndsTheStore: no retry, no acknowledgement, no base (R13).
func TestDiskFailureEndsTheStore(t *testing.T) {
	for _, fault := range []disk.Fault{
		{Ops: disk.OpWrite, Path: "*.db"}, {Ops: disk.OpDatasync, Path: "*.db"}, {Ops: disk.OpTruncate, Path: "*.db"},
		{Ops: disk.OpDatasync, Path: "*.seg"},
	} {
		mem := disk.NewMem()
		opts := single(mem)
		fatal := make(chan error, 2)
		opts.Fatal = func(err error) { fatal <- err }
		s, _ := mustOpen(t, opts)
		o := newOwner(t, s, testID(1), 1)
		for len(content(t, o.pages)) < 3*4096 {
			o.commit()
		}
		o.checkpoint()
		base := o.r.Meta().Base
		check(t, o.pages.Truncate(4096))
		c, _, err := o.pages.Seal(o.r.ID(), 1)
		check(t, err)
		check(t, o.append(&c))
		check(t, s.Sync(ctx))
		fault.Err = syscall.EIO
		mem.Inject(fault)
		var page [4096]byte
		page[7] = 7
		check(t, o.pages.WriteAt(page[:], 0))
		if c, _, err = o.pages.Seal(o.r.ID(), 1); err != nil {
			t.Fatal(err)
		}
		check(t, o.append(&c))
		n := o.acks.count()
		cp := o.pages.Checkpoint()
		if err := o.r.Checkpoint(ctx, cp); err == nil {
			t.Fatalf("%v: the checkpoint succeeded", fault.Ops)
		}
		cp.Abort()
		select {
		case err := <-fatal:
			if !errors.Is(err, syscall.EIO) || len(fatal) != 0 {
				t.Fatalf("%v: fatal: %v", fault.Ops, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%v: the store goes on", fault.Ops)
		}
		if _, err := s.Prepare(ctx, o.r.ID(), 2, bootA); !errors.Is(err, ErrClosed) {
			t.Fatalf("%v: prepare: %v", fault.Ops, err)
		}
		if b := o.r.Meta().Base; b != base {
			t.Fatalf("%v: base moved to %v", fault.Ops, b)
		}
		most := n + 1 // the last commit may have been durable before the failure
		if fault.Path == "*.seg" {
			most = n
		}
		if o.acks.count() > most {
			t.Fatal("acknowledged after the failure")
		}
		check(t, o.r.Close(o.pages))
		_ = s.Close() // it has failed; that is what is tested
	}
}

func TestFullDisk(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, single(mem))
	o := newOwner(t, s, testID(1), 1)
	o.commit()
	check(t, s.Sync(ctx))
	mem.SetQuota(mem.Used())
	cp := o.pages.Checkpoint()
	if err := o.r.Checkpoint(ctx, cp); !errors.Is(err, ErrFull) {
		t.Fatalf("checkpoint on a full disk: %v", err)
	}
	cp.Abort()
	// Reads go on, and promises have the reserve.
	if len(content(t, o.pages)) == 0 {
		t.Fatal("nothing to read")
	}
	if _, err := s.Prepare(ctx, o.r.ID(), 2, bootA); err != nil {
		t.Fatalf("a full node cannot be fenced: %v", err)
	}
	if _, err := s.Create(testID(2)); !errors.Is(err, ErrFull) && err != nil {
		t.Fatalf("create on a full disk: %v", err)
	}
	mem.SetQuota(-1)
	o.checkpoint()
	check(t, o.r.Close(o.pages))
	check(t, o.r.Scrub(ctx, nil))
}
