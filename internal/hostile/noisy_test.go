package hostile

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/internal/token"
)

// go test ./internal/hostile -run NoisyNeighbour -figures -v -timeout 20m
var figures = flag.Bool("figures", false, "measure what noisy neighbours do to others, for longer")

// noise is one way to be a bad neighbour: what one of its callers does, again and again.
type noise struct {
	name    string
	callers int
	make    func(w *noisy, ctx context.Context, caller int) func() error
}

// noisy is a world with victims who are measured.
type noisy struct {
	*world
	victims []*client.Facet
}

func (n *noisy) facet(tok, name string) *client.Facet {
	f, err := n.client(tok).Facet(name)
	if err != nil {
		n.t.Fatal(err)
	}
	return f
}

func sqlNoise(name string, callers int, sql string, args ...any) noise {
	return noise{name, callers, func(n *noisy, ctx context.Context, caller int) func() error {
		f := n.facet(n.mallory, fmt.Sprintf("mallory/n%d", caller))
		return func() error {
			_, err := f.Exec(ctx, sql, args...)
			return err
		}
	}}
}

var noises = []noise{
	sqlNoise("endless CTEs in 20 facets", 20, "WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r) SELECT count(*) FROM r"),
	sqlNoise("full scans", 8, "SELECT count(*) FROM t WHERE v LIKE '%never%'"),
	sqlNoise("tiny commits", 64, "UPDATE one SET v=v+1"),
	sqlNoise("commits of 4 MiB", 4, "REPLACE INTO t VALUES(0, randomblob(4000000))"),
	sqlNoise("large results", 4, "SELECT v FROM t LIMIT 5000"),
	{"new connections", 8, func(n *noisy, ctx context.Context, caller int) func() error {
		return func() error {
			c, err := client.Open(ctx, []string{n.n.Addr().String()}, client.Options{Token: n.mallory, RetryFor: -1})
			if err != nil {
				return err
			}
			defer c.Close()
			f, err := c.Facet("mallory/n0")
			if err == nil {
				_, err = f.Exec(ctx, "SELECT 1")
			}
			return err
		}
	}},
}

// TestNoisyNeighbour measures victims alone and beside each kind of noise. It fails when a
// request of a victim does, or takes an age; the ratio of the two is printed, for what it
// should be is a matter of a quiet machine.
func TestNoisyNeighbour(t *testing.T) {
	n := &noisy{world: newWorld(t, nil)}
	n.set("mallory", `{"statement_ms":2000}`)
	facets, requests := 4, 10
	if *figures {
		facets, requests = 32, 400
	}
	for i := range facets {
		name := fmt.Sprintf("v%d/main", i)
		tok := n.sign(token.Claims{Tenant: fmt.Sprintf("v%d", i), Facets: []string{"*"}, Access: token.Admin})
		n.mustExec(tok, name, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1,1)")
		n.victims = append(n.victims, n.facet(tok, name))
	}
	for i := range 20 {
		n.mustExec(n.mallory, fmt.Sprintf("mallory/n%d", i), "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE one(v); INSERT INTO one VALUES(0); "+
			"WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<5000) INSERT INTO t SELECT i, hex(randomblob(50)) FROM r")
	}
	for i := 20; i < 64; i++ {
		n.mustExec(n.mallory, fmt.Sprintf("mallory/n%d", i), "CREATE TABLE one(v); INSERT INTO one VALUES(0)")
	}
	was := inUse()
	n.measure(requests) // warm
	alone := n.measure(requests)
	t.Logf("%-28s p50 %8v  p99 %8v", "alone", alone.at(50), alone.at(99))
	for _, kind := range noises {
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var done, refused atomic.Int64
		for caller := range kind.callers {
			once := kind.make(n, ctx, caller)
			wg.Go(func() {
				for ctx.Err() == nil {
					if err := once(); err == nil {
						done.Add(1)
					} else {
						refused.Add(1)
					}
				}
			})
		}
		beside := n.measure(requests)
		held := inUse()
		stop()
		wg.Wait()
		t.Logf("%-28s p50 %8v  p99 %8v  %5.1f times alone; the attacker: %d done, %d refused", kind.name, beside.at(50), beside.at(99),
			float64(beside.at(99))/float64(alone.at(99)), done.Load(), refused.Load())
		if held.heap > was.heap+512<<20 {
			t.Errorf("%s: the process holds %d MiB more", kind.name, (held.heap-was.heap)>>20)
		}
		n.unharmed()
	}
}

// times are how long requests took.
type times []time.Duration

func (t times) at(percent int) time.Duration {
	return t[min(len(t)*percent/100, len(t)-1)].Round(time.Microsecond)
}

// measure has every victim write and read, one request after the other.
func (n *noisy) measure(requests int) times {
	n.t.Helper()
	var mu sync.Mutex
	var all times
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(n.t.Context(), 5*time.Minute)
	defer cancel()
	for _, f := range n.victims {
		wg.Go(func() {
			own := make(times, 0, requests)
			for i := range requests {
				begin := time.Now()
				var err error
				if i%2 == 0 {
					_, err = f.Exec(ctx, "UPDATE t SET v=v+1 WHERE id=1")
				} else {
					var v int
					err = f.QueryRow(ctx, "SELECT v FROM t WHERE id=1").Scan(&v)
				}
				if err != nil {
					n.t.Errorf("request %d of a victim: %v", i, err)
					return
				}
				own = append(own, time.Since(begin))
			}
			mu.Lock()
			all = append(all, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(all) == 0 {
		n.t.Fatal("no victim was served")
	}
	slices.Sort(all)
	return all
}
