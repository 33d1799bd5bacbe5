package quota

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// member is one node of a cluster that has nothing but sizes.
type member struct {
	set *Tenants
	own atomic.Int64
}

// town is a cluster of members. Questions take the time of lag.
type town struct {
	members []*member
	lag     func() time.Duration
}

func newTown(t *testing.T, n int, limit uint64, lag func() time.Duration) *town {
	t.Helper()
	w := &town{lag: lag}
	tab := &table{set: facet.TenantSettings{Limits: facet.TenantLimits{TotalBytes: limit}}}
	for range n {
		m := &member{}
		var err error
		m.set, err = New(Options{
			Table: tab,
			Own:   func(facet.Tenant) int64 { return m.own.Load() },
			Others: func(_ context.Context, name facet.Tenant, _ map[cluster.NodeID]int64) int64 {
				var sum atomic.Int64
				var wg sync.WaitGroup
				for _, other := range w.members {
					if other != m {
						wg.Go(func() {
							time.Sleep(w.lag())
							granted := other.set.Granted(name)
							time.Sleep(w.lag())
							sum.Add(granted + other.own.Load())
							time.Sleep(w.lag())
						})
					}
				}
				wg.Wait()
				return sum.Load()
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		w.members = append(w.members, m)
	}
	return w
}

func (w *town) bytes() (sum int64) {
	for _, m := range w.members {
		sum += m.own.Load()
	}
	return sum
}

// TestTotalBytes: facets on several nodes grow, roll back and shrink as they like, with
// questions that take their time. Together they are never larger than the limit, and when
// all are done a node can use what is left but for what the others hold.
func TestTotalBytes(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		const limit, nodes, writers = 100 << 20, 4, 5
		rng := rand.New(rand.NewPCG(seed, 0))
		var mu sync.Mutex
		draw := func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			return rng.IntN(n)
		}
		w := newTown(t, nodes, limit, func() time.Duration { return time.Duration(draw(3000)) * time.Microsecond })
		var wg sync.WaitGroup
		var refused, used atomic.Int64
		for _, m := range w.members {
			for range writers {
				wg.Go(func() {
					tn := m.set.Use("acme")
					defer m.set.Unuse(tn)
					size := int64(0)
					for range 400 {
						time.Sleep(time.Duration(draw(20)) * time.Millisecond)
						if draw(40) == 0 { // a VACUUM
							m.own.Add(-size / 2)
							tn.Grown(0, -size/2, true)
							size -= size / 2
							continue
						}
						taken := int64(0)
						var err error
						for range 1 + draw(4) { // pages of one transaction
							var n int64
							n, err = tn.Grow(int64(1+draw(64))<<12, nil)
							if taken += n; err != nil {
								break
							}
						}
						if err != nil {
							limitOf(t, err, facet.CodeLimit, LimitTotalBytes)
							refused.Add(1)
						}
						grew := int64(0)
						if err == nil && draw(10) > 0 { // else it is rolled back
							grew = taken
							m.own.Add(grew)
							size += grew
							used.Add(1)
						}
						time.Sleep(time.Duration(draw(2)) * time.Millisecond)
						tn.Grown(taken, grew, true)
						if sum := w.bytes(); sum > limit {
							t.Errorf("%d bytes, limit %d", sum, limit)
							return
						}
					}
				})
			}
		}
		wg.Wait()
		t.Logf("%d bytes of %d; %d transactions grew, %d were refused", w.bytes(), limit, used.Load(), refused.Load())
		if refused.Load() == 0 || used.Load() == 0 {
			t.Error("nothing was shown: nobody was refused, or nobody grew")
		}
		time.Sleep(grantFor + grantGrace + refuseFor)
		tn := w.members[0].set.Use("acme")
		rest := limit - w.bytes()
		if taken, err := tn.Grow(rest, nil); err != nil {
			t.Errorf("what is left, %d bytes, is refused: %v", rest, err)
		} else {
			w.members[0].own.Add(taken)
			tn.Grown(taken, taken, true)
		}
		_, err := w.members[1].set.Use("acme").Grow(1, nil)
		limitOf(t, err, facet.CodeLimit, LimitTotalBytes)
	})
}

// TestTwoAskAtOnce: of two nodes that want the last room at the same moment at most one
// has it.
func TestTwoAskAtOnce(t *testing.T) {
	for round := range 50 {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(round), 1))
			var mu sync.Mutex
			w := newTown(t, 2, 1<<20, func() time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return time.Duration(rng.IntN(1000)) * time.Microsecond
			})
			var got atomic.Int64
			var wg sync.WaitGroup
			for _, m := range w.members {
				wg.Go(func() {
					if n, err := m.set.Use("acme").Grow(700<<10, nil); err == nil {
						got.Add(n)
					}
				})
			}
			wg.Wait()
			if n := got.Load(); n > 1<<20 {
				t.Fatalf("round %d: both got %d bytes together", round, n)
			}
		})
	}
}

// TestGrowAsksSeldom: a facet that grows asks for a chunk, not for every page; one at its
// limit asks once in a while, and room that was made is found at once where it was made.
func TestGrowAsksSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		var own atomic.Int64
		tab := &table{set: facet.TenantSettings{Limits: facet.TenantLimits{TotalBytes: 64 << 20}}}
		s, err := New(Options{
			Table: tab, Own: func(facet.Tenant) int64 { return own.Load() },
			Others: func(context.Context, facet.Tenant, map[cluster.NodeID]int64) int64 { asked++; return 0 },
		})
		if err != nil {
			t.Fatal(err)
		}
		tn := s.Use("acme")
		grow := func(n int64) error {
			taken, err := tn.Grow(n, nil)
			own.Add(taken)
			tn.Grown(taken, taken, true)
			return err
		}
		for range 1024 {
			if err := grow(4096); err != nil {
				t.Fatal(err)
			}
		}
		if asked != 4 {
			t.Errorf("asked %d times for 4 MiB in chunks of 1 MiB", asked)
		}
		if err := grow(60 << 20); err != nil {
			t.Fatalf("all the rest in one step: %v", err)
		}
		before := asked
		for range 100 {
			limitOf(t, grow(4096), facet.CodeLimit, LimitTotalBytes)
		}
		if asked != before+1 {
			t.Errorf("asked %d times at the limit", asked-before)
		}
		own.Add(-8192)
		tn.Grown(0, -8192, true)
		if err := grow(8192); err != nil {
			t.Errorf("after room was made: %v", err)
		}
		tab.change(func(s *facet.TenantSettings) { s.Limits.TotalBytes = 0 })
		if err := grow(1 << 40); err != nil {
			t.Errorf("without a limit: %v", err)
		}
	})
}
