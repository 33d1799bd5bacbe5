package owner

import (
	"fmt"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/service"
)

// queued puts n desks of a tenant in line.
func queued(c *crew, tenant string, n int) {
	for i := range n {
		d := &desk{name: facet.Name{Tenant: facet.Tenant(tenant), Facet: fmt.Sprint("f", i)}}
		c.join(d)
		c.line.add(d)
	}
}

// TestTurns: tenants take turns however many desks each has, the desks of one in the
// order they came; who took more than a turn is passed over for as many, and who is
// alone is not.
func TestTurns(t *testing.T) {
	c := &crew{}
	c.line.most = 100
	take := func(n int) (got string) {
		t.Helper()
		for range n {
			d := c.line.take()
			if d == nil {
				return got + " nobody"
			}
			got += " " + d.name.String()
		}
		return got
	}
	queued(c, "noisy", 500)
	queued(c, "a", 2)
	queued(c, "b", 1)
	if got, want := take(6), " noisy/f0 a/f0 b/f0 noisy/f1 a/f1 noisy/f2"; got != want {
		t.Errorf("served%s, want%s", got, want)
	}
	c.line.shares["noisy"].charge(4 * turnTime) // three more than its turn
	queued(c, "a", 5)
	if got, want := take(6), " a/f0 a/f1 a/f2 noisy/f3 a/f3 noisy/f4"; got != want {
		t.Errorf("with debts served%s, want%s", got, want)
	}
	c.line.shares["noisy"].charge(time.Hour)
	c.line.shares["a"].charge(3 * turnTime)
	if got, want := take(3), " a/f4 noisy/f5 noisy/f6"; got != want {
		t.Errorf("where all owe served%s, want%s", got, want)
	}
	// One that has all the workers it may have waits, and holds up nobody else.
	c.line.most = 2
	c.line.shares["noisy"].busy = 2
	queued(c, "b", 1)
	if got, want := take(2), " b/f0 nobody"; got != want {
		t.Errorf("beside one with all its workers served%s, want%s", got, want)
	}
	c.line.shares["noisy"].busy = 1
	if got, want := take(500), ""; len(got) == 0 || got[:10] != " noisy/f7 " {
		t.Errorf("then served%.40s, want noisy/f7 and on%s", got, want)
	}
	if c.line.waiting != 0 || len(c.line.ring) != 0 {
		t.Errorf("%d desks in line, %d tenants in the ring", c.line.waiting, len(c.line.ring))
	}
}

// TestTurnsBounded: however long tenants take turns, the line keeps no more memory than
// those who wait need.
func TestTurnsBounded(t *testing.T) {
	c := &crew{}
	c.line.most = 100
	for i := range 10 {
		queued(c, fmt.Sprint("t", i), 10)
	}
	for range 100_000 {
		d := c.line.take()
		c.line.add(d)
	}
	if n := cap(c.line.ring); n > 64 {
		t.Errorf("the ring of 10 tenants has room for %d", n)
	}
	for _, s := range c.line.shares {
		if n := cap(s.line); n > 64 {
			t.Errorf("a line of 10 desks has room for %d", n)
		}
	}
}

// TestNoisyTenant: one worker, a tenant whose many facets have long lines of requests
// that take as long as a turn, and another tenant whose single request comes last. It is
// answered after a few turns, not after the lines.
func TestNoisyTenant(t *testing.T) {
	l := newWorld().start(t)
	defer l.stop(t)
	const facets, requests = 40, 3
	noisy := func(i int) facet.Name { return facet.Name{Tenant: "noisy", Facet: fmt.Sprint("f", i)} }
	victim := facet.Name{Tenant: "victim", Facet: "main"}
	l.must(t, victim, "CREATE TABLE t (v)")
	for i := range facets {
		l.must(t, noisy(i), "CREATE TABLE t (v)")
	}
	c := &l.m.crew
	c.mu.Lock()
	c.hands, c.line.most = 1, mostOfOne(1)
	c.mu.Unlock()
	const busy = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 8000) SELECT count(*) FROM c"
	var done []<-chan *service.Call
	for range requests {
		for i := range facets {
			_, d := l.submit(request(noisy(i), stmt(busy)))
			done = append(done, d)
		}
	}
	// unanswered leaves out those that have their answers.
	unanswered := func(calls []<-chan *service.Call) (left []<-chan *service.Call) {
		for _, d := range calls {
			select {
			case <-d:
			default:
				left = append(left, d)
			}
		}
		return left
	}
	_, d := l.submit(request(victim, stmt("INSERT INTO t VALUES (1)")))
	before := unanswered(done)
	if call := <-d; call.Err != nil {
		t.Fatal(call.Err)
	}
	after := unanswered(before)
	// Without turns all of them go first.
	if n := len(before) - len(after); n > len(done)/4 {
		t.Errorf("%d requests of the noisy tenant, %d in all, went before the only one of the other", n, len(done))
	}
	for _, d := range after {
		select {
		case <-d:
		case <-time.After(time.Minute):
			t.Fatal("a request of the noisy tenant is not answered")
		}
	}
}
