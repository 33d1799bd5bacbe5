//go:build unix

package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
)

// go test ./internal/e2e -run Figures -figures -v -timeout 20m
var figures = flag.Bool("figures", false, "measure how long faults and operations keep callers waiting")

// TestFigures measures, on three nodes and the client on one machine: how long until
// each of 1,000 facets takes a write again when their owner is killed, how long the
// planned move of a facet keeps its writer waiting, and how long the drain of 1,000
// facets takes. It fails only when a request fails: what the figures should be is a
// matter of a quiet machine.
func TestFigures(t *testing.T) {
	if !*figures {
		t.Skip("it measures, and that takes a minute: -figures")
	}
	const facets = 1000
	c := newCluster(t, 3, false, "--idle-after", "10m")
	w := newWriters(c, facets)
	first := c.leader(w.cl[0]) // the worst one to lose
	w.gather(first)
	w.drain(first)
	w.gather(first)
	w.kill(first)
	first.launch()
	first.ready()
	w.move()
}

// writers writes to many facets.
type writers struct {
	c      *cluster
	cl     []*client.Client
	facets int
}

func newWriters(c *cluster, facets int) *writers {
	w := &writers{c: c, facets: facets}
	for range 4 {
		w.cl = append(w.cl, c.dial(client.Options{Idempotent: true, RetryFor: patience}))
	}
	begin := time.Now()
	w.each(64, func(i int) error {
		return w.facet(i).Script(c.t.Context(), "CREATE TABLE note (v)")
	})
	c.t.Logf("%d facets created by 64 callers in %v: %.0f a second", facets, time.Since(begin).Round(time.Millisecond), float64(facets)/time.Since(begin).Seconds())
	return w
}

func (w *writers) facet(i int) *client.Facet {
	f, err := w.cl[i%len(w.cl)].Facet(fmt.Sprintf("acme/f%d", i))
	if err != nil {
		w.c.t.Fatal(err)
	}
	return f
}

// each does something with every facet, n at a time.
func (w *writers) each(n int, do func(i int) error) {
	next := make(chan int)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					w.c.t.Error(err)
				}
			}
		})
	}
	for i := range w.facets {
		next <- i
	}
	close(next)
	wg.Wait()
}

func (w *writers) write(ctx context.Context, i int) error {
	_, err := w.facet(i).Exec(ctx, "INSERT INTO note VALUES (1)")
	return err
}

// gather makes the node the owner of all facets, and opens them.
func (w *writers) gather(m *member) {
	for _, kind := range []string{"drain", "undrain"} {
		for _, o := range w.c.alive() {
			if o != m {
				w.c.operation(w.cl[0], client.OperationRequest{Kind: kind, Node: o.name, Rate: 100_000})
			}
		}
	}
	w.each(64, func(i int) error { return w.write(w.c.t.Context(), i) })
	st := w.c.status(w.cl[0])
	if n, _ := st.Node(m.name); n.Owned != w.facets {
		w.c.t.Logf("%s owns %d of %d facets", m.name, n.Owned, w.facets)
	}
}

// drain drains the node while 16 callers write.
func (w *writers) drain(m *member) {
	ctx, stop := context.WithCancel(w.c.t.Context())
	var wg sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				begin := time.Now()
				if err := w.write(w.c.t.Context(), rand.IntN(w.facets)); err != nil {
					w.c.t.Errorf("a write failed during a drain: %v", err)
				}
				mu.Lock()
				took = append(took, time.Since(begin))
				mu.Unlock()
			}
		})
	}
	begin := time.Now()
	w.c.operation(w.cl[0], client.OperationRequest{Kind: "drain", Node: m.name})
	d := time.Since(begin)
	stop()
	wg.Wait()
	w.c.t.Logf("drain of %d facets: %v; %d writes meanwhile: %s", w.facets, d.Round(time.Millisecond), len(took), quantiles(took))
	w.c.operation(w.cl[0], client.OperationRequest{Kind: "undrain", Node: m.name})
}

// kill kills the owner of all facets while each is written to, and measures the time
// to the next write that is acknowledged.
func (w *writers) kill(m *member) {
	killed := make(chan struct{})
	var at time.Time // written before killed is closed
	took := make([]time.Duration, w.facets)
	var wg, warm sync.WaitGroup
	for i := range w.facets {
		warm.Add(1)
		wg.Go(func() {
			first := sync.OnceFunc(warm.Done)
			for {
				dead := false
				select {
				case <-killed:
					dead = true // this write is asked for after the kill
				default:
				}
				if err := w.write(w.c.t.Context(), i); err != nil {
					w.c.t.Errorf("a write failed: %v", err)
				}
				if dead {
					took[i] = time.Since(at)
					return
				}
				first()
				timer := time.NewTimer(time.Second + rand.N(time.Second))
				select {
				case <-killed:
				case <-timer.C:
				}
				timer.Stop()
			}
		})
	}
	warm.Wait()
	led := w.c.leader(w.cl[0]) == m
	m.kill()
	at = time.Now()
	close(killed)
	wg.Wait()
	w.c.t.Logf("owner of %d active facets killed (it led placement: %v), time to the next acknowledged write of each: %s", w.facets, led, quantiles(took))
}

// move moves one facet from node to node while it is written to, and measures the
// longest time between two acknowledged writes around each move.
func (w *writers) move() {
	const moves = 100
	ctx, stop := context.WithCancel(w.c.t.Context())
	type ack struct{ at, gap time.Duration }
	var acks []ack
	begin := time.Now()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var last time.Duration
		for ctx.Err() == nil {
			if err := w.write(w.c.t.Context(), 0); err != nil {
				w.c.t.Errorf("a write failed during a move: %v", err)
			}
			now := time.Since(begin)
			acks = append(acks, ack{now, now - last})
			last = now
		}
	}()
	type span struct{ from, to time.Duration }
	var spans []span
	var took []time.Duration
	for i := range moves {
		to := w.c.members[i%len(w.c.members)]
		from := time.Since(begin)
		if _, err := w.facet(0).Move(w.c.t.Context(), to.name); err != nil {
			w.c.t.Errorf("move to %s: %v", to.name, err)
		}
		spans = append(spans, span{from, time.Since(begin)})
		took = append(took, time.Since(begin)-from)
		time.Sleep(50 * time.Millisecond) // of quiet, to measure in the next lines
	}
	stop()
	<-ended
	var quiet, pauses []time.Duration
	for _, s := range spans {
		var longest time.Duration
		for _, a := range acks {
			if a.at >= s.from && a.at-a.gap <= s.to {
				longest = max(longest, a.gap)
			}
		}
		pauses = append(pauses, longest)
	}
	for _, a := range acks {
		quiet = append(quiet, a.gap)
	}
	w.c.t.Logf("%d planned moves of one facet under one writer, longest time between two of its acknowledged writes: %s", moves, quantiles(pauses))
	w.c.t.Logf("the moves themselves took: %s", quantiles(took))
	w.c.t.Logf("all times between two acknowledged writes: %s", quantiles(quiet))
}

// quantiles tells how a set of durations is spread.
func quantiles(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	slices.Sort(d)
	q := func(p float64) time.Duration {
		return d[min(len(d)-1, int(p*float64(len(d))))].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p90 %v, p99 %v, most %v (%d)", q(.5), q(.9), q(.99), d[len(d)-1].Round(100*time.Microsecond), len(d))
}
