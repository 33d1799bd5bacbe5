package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/disk"
)

func onDisk(tb testing.TB) Options {
	o := single(disk.OS(tb.TempDir()))
	o.Log = commitlog.Options{}
	return o
}

type nothing struct{}

func (nothing) Acked(facet.Incarnation, facet.Epoch, facet.Seq) {}

// BenchmarkAppend is the way of one 256-byte commit into the log, without the wait
// for the disk, which is shared by all that come meanwhile.
func BenchmarkAppend(b *testing.B) {
	s, _, err := Open(onDisk(b))
	check(b, err)
	defer s.Close()
	o := newOwner(b, s, testID(1), 1)
	c := facet.Commit{Incarnation: o.r.ID(), Kind: facet.KindCommit, Epoch: 1, DBPages: 9}
	page := make([]byte, 300)
	page[0], page[1], page[2], page[3], page[4] = 1, 1, 0, 255, 1 // page 1, one range of 256 bytes at 0
	page = page[:5+256]
	last := o.pages.Position()
	c.Pages = page
	b.ReportAllocs()
	for b.Loop() {
		c.Seq, c.PrevEpoch, c.PreSum = last.Seq+1, last.Epoch, last.Sum
		c.PostSum.Lo = c.PreSum.Lo + 1
		last = c.Position()
		for err := o.r.Append(1, bootA, &c, 0, nothing{}); err != nil; err = o.r.Append(1, bootA, &c, 0, nothing{}) {
			check(b, s.Wait(ctx, 300))
		}
	}
	b.StopTimer()
	check(b, s.Sync(ctx))
}

// onePage makes n facets with a promise, a barrier and a commit of one page.
func onePage(tb testing.TB, s *Store, n int) []*owner {
	tb.Helper()
	owners := make([]*owner, n)
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := w; i < n; i += 64 {
				owners[i] = light(tb, s, i)
			}
		})
	}
	wg.Wait()
	if err := s.Sync(ctx); err != nil {
		tb.Fatal(err)
	}
	return owners
}

// light is newOwner and one commit without a model.
func light(tb testing.TB, s *Store, i int) *owner {
	id := facet.NewIncarnation()
	var r Replica
	must := func(f func() error) {
		if err := s.patient(ctx, f); err != nil {
			tb.Error(err)
			runtime.Goexit()
		}
	}
	must(func() (err error) { r, err = s.Create(id); return err })
	must(func() error { _, err := s.Prepare(ctx, id, 1, bootA); return err })
	o := &owner{t: tb, r: r, epoch: 1, rng: rand.New(rand.NewPCG(1, uint64(i)))}
	must(func() (err error) { o.pages, err = r.Open(ctx, true); return err })
	bar := o.pages.Barrier(id, 1)
	must(func() error { return r.Append(1, bootA, &bar, 0, nothing{}) })
	var page [pages.Size]byte
	copy(page[:], fmt.Sprint("page of ", i))
	must(func() error { return o.pages.WriteAt(page[:], 0) })
	c, _, err := o.pages.Seal(id, 1)
	must(func() error { return err })
	must(func() error { return r.Append(1, bootA, &c, 0, nothing{}) })
	return o
}

// BenchmarkHibernate checkpoints and closes facets of one page, 512 at once, while
// one other facet commits all the time.
func BenchmarkHibernate(b *testing.B) {
	const n = 10000
	for b.Loop() {
		b.StopTimer()
		s, _, err := Open(onDisk(b))
		check(b, err)
		owners := onePage(b, s, n)
		stop, slowest := make(chan struct{}), make(chan time.Duration)
		busy := newOwner(b, s, testID(1), 1)
		go func() {
			var worst time.Duration
			for {
				select {
				case <-stop:
					slowest <- worst
					return
				default:
				}
				start := time.Now()
				busy.commit()
				if err := s.Sync(ctx); err != nil {
					panic(err)
				}
				worst = max(worst, time.Since(start))
			}
		}()
		b.StartTimer()
		start := time.Now()
		var wg sync.WaitGroup
		for w := range 512 {
			wg.Go(func() {
				for i := w; i < n; i += 512 {
					o := owners[i]
					cp := o.pages.Checkpoint()
					if err := o.r.Checkpoint(ctx, cp); err != nil {
						b.Error(err)
						return
					}
					cp.Done()
					if err := o.r.Close(o.pages); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		b.ReportMetric(n/time.Since(start).Seconds(), "facets/s")
		close(stop)
		b.ReportMetric(float64((<-slowest).Microseconds())/1000, "worst-commit-ms")
		b.ReportMetric(float64(s.files.synced)/float64(s.files.syncs), "files/sync")
		b.StopTimer()
		check(b, s.Close())
		b.StartTimer()
	}
}

// BenchmarkOpenIdle is the start of a node with 100,000 facets at rest.
func BenchmarkOpenIdle(b *testing.B) {
	const n = 100_000
	opts := onDisk(b)
	s, _, err := Open(opts)
	check(b, err)
	for i := range n {
		var id facet.Incarnation
		copy(id[:], fmt.Sprintf("%016d", i))
		check(b, s.patient(ctx, func() error { _, err := s.Create(id); return err }))
		check(b, s.patient(ctx, func() error { return s.PrepareFunc(id, 1, bootA, func(Promise) {}) }))
		st := s.lookup(id, false)
		base := pages.Base{Position: facet.Position{Epoch: 1, Seq: 2, Sum: facet.Sum{Hi: 1, Lo: uint64(i)}}, Pages: 1}
		check(b, s.patient(ctx, func() error {
			st.mu.Lock()
			defer st.mu.Unlock()
			l := s.wake(st)
			l.next = base
			return l.place(baseRecord(id, base, tail{1, 2}), pending{})
		}))
	}
	check(b, s.Sync(ctx))
	check(b, s.Close())
	var m0, m1 runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m0)
	for b.Loop() {
		s, report, err := Open(opts)
		check(b, err)
		if report.Facets != n || report.Holed > 0 {
			b.Fatalf("%+v", report)
		}
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&m1)
		t := &s.table
		b.ReportMetric(float64(len(t.chunks)*chunkLen*96+4*len(t.slots))/n, "table-B/facet")
		b.ReportMetric(float64(m1.HeapAlloc-m0.HeapAlloc)/n, "heap-B/facet")
		check(b, s.Close())
		b.StartTimer()
	}
}

// BenchmarkActivate is a cold open of a facet at rest and its first read.
func BenchmarkActivate(b *testing.B) {
	s, _, err := Open(onDisk(b))
	check(b, err)
	defer s.Close()
	o := newOwner(b, s, testID(1), 1)
	o.commit()
	check(b, s.Sync(ctx))
	o.checkpoint()
	check(b, o.r.Close(o.pages))
	var page [pages.Size]byte
	b.ReportAllocs()
	for b.Loop() {
		p, err := o.r.Open(context.Background(), true)
		check(b, err)
		if _, err := p.ReadAt(page[:], 0); err != nil {
			b.Fatal(err)
		}
		check(b, o.r.Close(p))
	}
}
