//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
)

// TestRollingRestart stops every node gracefully and starts it again, under load. No
// request may fail, those without a key neither.
func TestRollingRestart(t *testing.T) {
	s := newSite(t, false, short)
	s.load.calm.Store(true)
	s.rollingRestart()
	s.load.finish()
}

func (s *site) rollingRestart() {
	for _, m := range s.alive() {
		begin := time.Now()
		m.term()
		s.t.Logf("%s stopped in %v", m.name, time.Since(begin).Round(time.Millisecond))
		s.load.progress()
		m.launch()
		m.ready()
		s.load.progress()
	}
}

// TestOperations drains and undrains nodes, adds a fourth one and takes the first
// one out, under load. No request may fail.
func TestOperations(t *testing.T) {
	s := newSite(t, false, short)
	s.load.calm.Store(true)
	s.drainEach()
	s.replaceFirst()
	s.load.finish()
}

func (s *site) drainEach() {
	for _, m := range s.alive() {
		s.operation(s.load.probe, client.OperationRequest{Kind: "drain", Node: m.name})
		s.counts(m, "was drained", func(n client.Node) bool { return n.Owned == 0 })
		s.load.progress()
		s.operation(s.load.probe, client.OperationRequest{Kind: "undrain", Node: m.name})
	}
}

// replaceFirst adds a node and removes the oldest one.
func (s *site) replaceFirst() {
	first, added := s.alive()[0], s.join()
	s.load.progress()
	s.operation(s.load.probe, client.OperationRequest{Kind: "rebalance"})
	s.operation(s.load.probe, client.OperationRequest{Kind: "decommission", Node: first.name})
	s.counts(first, "was decommissioned", func(n client.Node) bool { return n.Owned == 0 && n.Held == 0 })
	s.counts(added, "took its place", func(n client.Node) bool { return n.Held == len(s.load.facets) })
	first.term()
	first.removed = true
	s.operation(s.load.probe, client.OperationRequest{Kind: "remove", Node: first.name})
	s.until(first.name+" is gone", func() error {
		st := s.status(s.load.probe)
		if _, ok := st.Node(first.name); ok {
			return fmt.Errorf("%s still knows it", st.Self)
		}
		return nil
	})
	s.voting(s.load.probe, 3)
	s.load.progress()
}

// counts waits until a node's numbers are right in the eyes of whoever is asked, who
// may be behind the leader for a moment.
func (s *site) counts(m *member, after string, right func(client.Node) bool) {
	s.t.Helper()
	s.until(fmt.Sprintf("all see that %s %s", m.name, after), func() error {
		st := s.status(s.load.probe)
		if n, ok := st.Node(m.name); !ok || !right(n) {
			return fmt.Errorf("%s says that it owns %d and keeps %d of %d", st.Self, n.Owned, n.Held, len(s.load.facets))
		}
		return nil
	})
}

// TestStory is what docs/OPERATIONS.md tells, done as it says: three nodes, a program
// that writes in a loop, each node killed in turn, one drained, a fourth added, the
// first removed. The program never sees an error, and in the end every number it was
// told of is there once.
func TestStory(t *testing.T) {
	c := newCluster(t, 3, false)
	p := startProgram(c)
	// A person types commands at a node that is not the one they are about.
	operator := func(at *member, args ...string) string {
		t.Helper()
		p.goesOn()
		out, err := facetd(t, "", append(args, "--server", "http://"+at.api())...)
		if err != nil {
			t.Fatalf("facetd %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		t.Logf("facetd %s\n%s", strings.Join(args, " "), out)
		p.goesOn()
		return out
	}
	n1, n2, n3 := c.members[0], c.members[1], c.members[2]
	for _, m := range c.members {
		m.kill()
		p.goesOn() // without it
		m.launch()
		m.ready()
		p.goesOn()
	}
	operator(n1, "status")
	operator(n1, "node", "drain", "n2")
	n2.term() // an upgrade
	n2.launch()
	n2.ready()
	operator(n1, "node", "undrain", "n2")
	n4 := c.join()
	operator(n2, "rebalance")
	// A clone of what the program writes to, at one moment, by way of a node that may
	// not own it.
	operator(n4, "facet", "clone", "acme/notes-0", "test/notes")
	operator(n2, "node", "decommission", "n1")
	n1.term()
	n1.removed = true
	operator(n2, "node", "remove", "n1")
	out := operator(n4, "status")
	if strings.Contains(out, "n1 ") || !strings.Contains(out, "n4 ") {
		t.Errorf("n1 went and n4 came, but the status is:\n%s", out)
	}
	c.voting(p.cl, 3)
	// The cluster is whole without the node it began with: it loses another one.
	n3.kill()
	p.goesOn()
	p.finish()
	clone, err := p.cl.Facet("test/notes")
	if err != nil {
		t.Fatal(err)
	}
	cloned := p.numbers(clone)
	if len(cloned) == 0 || len(cloned) > len(p.told[0]) || !slices.Equal(cloned, p.told[0][:len(cloned)]) {
		t.Errorf("the clone holds %v, its source %v: it is not what that held at any moment", cloned, p.told[0])
	}
}

// program is a Go program that writes numbers in a loop, to one facet after the
// other, each of them with an idempotency key of the SDK.
type program struct {
	c      *cluster
	cl     *client.Client
	facets []*client.Facet
	stop   context.CancelFunc
	ended  chan struct{}

	mu    sync.Mutex
	told  [][]int // by facet: the numbers that were acknowledged
	slow  time.Duration
	moved chan struct{} // closed and replaced with every number
}

func startProgram(c *cluster) *program {
	p := &program{c: c, cl: c.dial(client.Options{Idempotent: true}), ended: make(chan struct{}), moved: make(chan struct{})}
	for i := range 8 {
		f, err := p.cl.Facet(fmt.Sprintf("acme/notes-%d", i))
		if err != nil {
			c.t.Fatal(err)
		}
		if err := f.Script(c.t.Context(), "CREATE TABLE note (i INTEGER NOT NULL)"); err != nil {
			c.t.Fatal(err)
		}
		p.facets = append(p.facets, f)
	}
	p.told = make([][]int, len(p.facets))
	ctx, stop := context.WithCancel(c.t.Context())
	p.stop = stop
	go p.run(ctx)
	c.t.Cleanup(func() { stop(); <-p.ended })
	return p
}

func (p *program) run(ctx context.Context) {
	defer close(p.ended)
	for i := 0; ctx.Err() == nil; i++ {
		at := i % len(p.facets)
		begin := time.Now()
		each, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		_, err := p.facets[at].Exec(each, "INSERT INTO note VALUES (?)", i)
		cancel()
		if err != nil {
			p.c.t.Errorf("the program sees an error: %v", err)
			return
		}
		p.mu.Lock()
		p.told[at] = append(p.told[at], i)
		p.slow = max(p.slow, time.Since(begin))
		close(p.moved)
		p.moved = make(chan struct{})
		p.mu.Unlock()
	}
}

// goesOn waits until the program has written to every facet again.
func (p *program) goesOn() {
	p.c.t.Helper()
	timeout := time.After(patience)
	for range len(p.facets) + 1 {
		p.mu.Lock()
		moved := p.moved
		p.mu.Unlock()
		select {
		case <-moved:
		case <-p.ended:
			p.c.t.Fatal("the program ended")
		case <-timeout:
			p.c.t.Fatalf("the program has waited for %v", patience)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.c.t.Logf("the slowest write since the last such line took %v", p.slow.Round(time.Millisecond))
	p.slow = 0
}

// finish stops the program and compares what it was told with what is there.
func (p *program) finish() {
	t := p.c.t
	t.Helper()
	p.stop()
	<-p.ended
	all := 0
	for at, f := range p.facets {
		there := p.numbers(f)
		all += len(there)
		if len(there) != len(p.told[at]) {
			t.Errorf("facet %d holds %d numbers, the program was told of %d", at, len(there), len(p.told[at]))
		}
		for k := range min(len(there), len(p.told[at])) {
			if there[k] != p.told[at][k] {
				t.Errorf("facet %d: number %d is %d, and was %d when it was written", at, k, there[k], p.told[at][k])
				break
			}
		}
	}
	t.Logf("%d numbers are there, each once and in its place", all)
}

// numbers are what a facet holds, as they were written.
func (p *program) numbers(f *client.Facet) (there []int) {
	t := p.c.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	rows, err := f.Query(ctx, "SELECT i FROM note ORDER BY rowid")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var i int
		if err := rows.Scan(&i); err != nil {
			t.Fatal(err)
		}
		there = append(there, i)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		t.Fatal(err)
	}
	return there
}
