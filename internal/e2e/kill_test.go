package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// TestKill9UnderLoad writes to many facets, kills the process again and again,
// and then looks for every acknowledged write. Half of the callers use idempotency
// keys: their writes go on through the kills and must be there exactly once. The
// others stop believing at the first error; what they were told must be there, and
// what they were not told may be there once.
func TestKill9UnderLoad(t *testing.T) {
	const facets, callers, kills = 24, 12, 4
	dir, addr := t.TempDir(), freeAddr(t)
	p := start(t, dir, addr)
	setup := dial(t, addr, client.Options{})
	for f := range facets {
		fac := facetNamed(t, setup, f)
		if err := fac.Script(t.Context(), "CREATE TABLE t (id TEXT); CREATE TABLE copy (id TEXT)"); err != nil {
			t.Fatal(err)
		}
	}
	type write struct {
		facet int
		id    string
	}
	var mu sync.Mutex
	acked, unknown := make(map[write]bool), make(map[write]bool)
	var writes atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for c := range callers {
		keyed := c%2 == 0
		cl := dial(t, addr, client.Options{Idempotent: keyed, RetryFor: time.Minute})
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				w := write{(c + i) % facets, fmt.Sprintf("%d-%d", c, i)}
				_, err := facetNamed(t, cl, w.facet).Batch(context.WithoutCancel(ctx),
					client.Stmt{SQL: "INSERT INTO t VALUES (?)", Args: []any{w.id}},
					client.Stmt{SQL: "INSERT INTO copy VALUES (?)", Args: []any{w.id}})
				mu.Lock()
				switch {
				case err == nil:
					acked[w] = true
					writes.Add(1)
				case keyed:
					t.Errorf("a keyed write failed although the node came back: %v", err)
				case errors.Is(err, facet.ErrUnknownOutcome):
					unknown[w] = true
				case errors.Is(err, facet.ErrUnavailable):
				default:
					t.Errorf("neither done, not done nor unknown: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range kills {
		// Let a random number of writes through, so that the kill finds the node in
		// all states.
		for target := writes.Load() + 200 + rng.Int64N(3000); writes.Load() < target; {
			select {
			case err := <-p.done:
				t.Fatalf("facetd ended: %v\n%s", err, p.out.String())
			case <-time.After(time.Millisecond): // a poll of the other goroutines' progress
			}
		}
		p.kill()
		p = start(t, dir, addr)
	}
	for target := writes.Load() + 200; writes.Load() < target; {
		time.Sleep(time.Millisecond) // a poll of the other goroutines' progress, bounded by the test's deadline
	}
	stop()
	wg.Wait()
	t.Logf("%d writes acknowledged, %d with unknown outcome, %d kills", len(acked), len(unknown), kills)

	check := dial(t, addr, client.Options{})
	for f := range facets {
		fac := facetNamed(t, check, f)
		rows, err := fac.Query(t.Context(), "SELECT t.id, count(*), (SELECT count(*) FROM copy WHERE copy.id = t.id) FROM t GROUP BY t.id")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id string
			var n, copies int
			if err := rows.Scan(&id, &n, &copies); err != nil {
				t.Fatal(err)
			}
			w := write{f, id}
			switch {
			case n != 1 || copies != 1:
				t.Errorf("%v is there %d and %d times", w, n, copies)
			case !acked[w] && !unknown[w]:
				t.Errorf("%v was never written, or said not to be", w)
			}
			delete(acked, w)
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
		var ok string
		if err := fac.QueryRow(t.Context(), "PRAGMA integrity_check").Scan(&ok); err != nil || ok != "ok" {
			t.Errorf("integrity of facet %d: %s %v", f, ok, err)
		}
	}
	if len(acked) > 0 {
		n := 0
		for w := range acked {
			if t.Errorf("acknowledged and gone: %v", w); n == 10 {
				break
			}
			n++
		}
		t.Fatalf("%d acknowledged writes are gone", len(acked))
	}
}

func facetNamed(t *testing.T, c *client.Client, i int) *client.Facet {
	f, err := c.Facet(fmt.Sprintf("acme/f%d", i))
	if err != nil {
		t.Fatal(err)
	}
	return f
}
