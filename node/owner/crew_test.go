package owner

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/service"
)

// TestLongRequestsHoldNobodyUp: more endless statements than the crew has hands,
// and the facets in line behind them are served all the same.
func TestLongRequestsHoldNobodyUp(t *testing.T) {
	w := newWorld()
	// They end when they are canceled, however slow the machine is.
	w.tune = func(o *Options) { o.Limits.StatementTime, o.Limits.RequestTime = time.Hour, time.Hour }
	l := w.start(t)
	defer l.stop(t)
	long := 2*defaultHands() + 1
	for i := range 2 * long {
		l.must(t, name(fmt.Sprint("f", i)), "CREATE TABLE t (v)")
	}
	calls := make([]*service.Call, long)
	done := make([]<-chan *service.Call, long)
	for i := range calls {
		calls[i], done[i] = l.submit(request(name(fmt.Sprint("f", i)), stmt("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c")))
	}
	for i := range long {
		l.must(t, name(fmt.Sprint("f", long+i)), "INSERT INTO t VALUES (1)")
		l.must(t, name(fmt.Sprint("new", i)), "CREATE TABLE t (v)")
	}
	for i, c := range calls {
		c.Cancel()
		if c := <-done[i]; !errors.Is(c.Err, facet.ErrCanceled) {
			t.Errorf("request %d: %v", i, c.Err)
		}
	}
}

// TestCrewCounts: whatever happened, in the end nobody is counted and nobody waits.
func TestCrewCounts(t *testing.T) {
	l := newWorld().start(t)
	l.m.crew.hands, l.m.crew.line.most = 1, mostOfOne(1)
	var done []<-chan *service.Call
	for i := range 300 {
		n := name(fmt.Sprint("f", i%40))
		for _, sql := range []string{"CREATE TABLE IF NOT EXISTS t (v)", "INSERT INTO t VALUES (1)", "SELECT count(*) FROM t"} {
			_, d := l.submit(request(n, stmt(sql)))
			done = append(done, d)
		}
	}
	for _, d := range done {
		if c := <-d; c.Err != nil {
			t.Fatal(c.Err)
		}
	}
	l.stop(t)
	if c := &l.m.crew; len(c.out) != 0 || c.line.waiting != 0 || len(c.line.ring) != 0 || len(c.line.shares) != 0 || len(c.idle) != 0 {
		t.Errorf("%d workers at work, %d desks in line, %d shares, %d workers idle", len(c.out), c.line.waiting, len(c.line.shares), len(c.idle))
	}
}
