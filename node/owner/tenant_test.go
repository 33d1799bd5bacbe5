package owner

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/quota"
	"github.com/facetd/facetd/node/service"
)

// settings are those of every tenant in a test, and the sizes of its facets.
type settings struct {
	version atomic.Uint64
	mu      sync.Mutex
	set     facet.TenantSettings
	l       *life
}

func (s *settings) TenantsVersion() uint64 { return s.version.Load() }

func (s *settings) Settings(facet.Tenant) facet.TenantSettings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set
}

func (s *settings) change(f func(*facet.TenantSettings)) {
	s.mu.Lock()
	f(&s.set)
	s.mu.Unlock()
	s.version.Add(1)
	s.l.m.TenantsChanged()
}

// own is quota.Options.Own.
func (s *settings) own(facet.Tenant) (sum int64) {
	s.l.m.each(func(d *desk) {
		if n, open := s.l.m.Open(d.name); open {
			sum += int64(n) * facet.PageSize
		}
	})
	return sum
}

// startLimited starts a process whose tenants have settings.
func startLimited(t *testing.T, set facet.TenantSettings) (*life, *settings) {
	t.Helper()
	s := &settings{set: set}
	tenants, err := quota.New(quota.Options{Table: s, Own: s.own})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	w.tune = func(o *Options) { o.Tenants = tenants }
	s.l = w.start(t)
	t.Cleanup(func() { s.l.stop(t) })
	return s.l, s
}

func refusedBy(t *testing.T, err error, code facet.Code, limit string) {
	t.Helper()
	var fe *facet.Error
	if !errors.As(err, &fe) || fe.Code != code || fe.Limit != limit {
		t.Fatalf("refused with %v, want %v %s", err, code, limit)
	}
}

const endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c"

// TestFreezeStopsWhatRuns: what runs is interrupted, what waits is refused, an open
// transaction is rolled back, new requests are refused; and all is as it was afterwards.
func TestFreezeStopsWhatRuns(t *testing.T) {
	l, s := startLimited(t, facet.TenantSettings{})
	a, b := name("a"), name("b")
	l.must(t, a, "CREATE TABLE t (v)")
	l.must(t, b, "CREATE TABLE t (v)")
	req := request(b, stmt("BEGIN"), stmt("INSERT INTO t VALUES (1)"))
	req.KeepTx = true
	begun, err := l.run(req)
	if err != nil {
		t.Fatal(err)
	}
	s.change(func(s *facet.TenantSettings) { s.Limits.StatementMillis = 3_600_000 })
	_, running := l.submit(request(a, stmt(endless)))
	for l.m.lookup(a).current.Load() == nil { // it runs
		runtime.Gosched()
	}
	_, waiting := l.submit(request(a, stmt("INSERT INTO t VALUES (2)")))

	s.change(func(s *facet.TenantSettings) { s.Freeze = facet.FreezeAll })
	for what, c := range map[string]<-chan *service.Call{"running": running, "waiting": waiting} {
		call := <-c
		err := call.Err
		if err == nil { // a request that is not atomic fails in its step
			err = stepError(t, call.Response.Result)
		}
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	_, err = l.run(request(a, stmt("SELECT 1")))
	refusedBy(t, err, facet.CodeFrozen, "")
	_, err = l.run(request(name("new"), stmt("CREATE TABLE t (v)")))
	refusedBy(t, err, facet.CodeFrozen, "")
	if _, ok := l.Lookup(name("new")); ok {
		t.Error("a facet was made for a frozen tenant")
	}
	_, err = l.run(facet.Request{Name: b, Tx: begun.Response.Tx, Steps: []facet.Step{stmt("COMMIT")}})
	refusedBy(t, err, facet.CodeFrozen, "")

	s.change(func(s *facet.TenantSettings) { s.Freeze = facet.NotFrozen })
	for n, want := range map[facet.Name]int64{a: 0, b: 0} {
		if got := l.must(t, n, "SELECT count(*) FROM t")[0][0]; got.Int != want {
			t.Errorf("%v has %d rows, want %d", n, got.Int, want)
		}
	}
	_, err = l.run(facet.Request{Name: b, Tx: begun.Response.Tx, Steps: []facet.Step{stmt("COMMIT")}})
	refusedBy(t, err, facet.CodeTxClosed, "")
}

func stepError(t *testing.T, r facet.Result) error {
	t.Helper()
	for len(r) > 0 {
		it, rest, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if it.Kind == facet.ItemError {
			e, err := facet.DecodeError(it.Body)
			if err != nil {
				t.Fatal(err)
			}
			return e
		}
		r = rest
	}
	return nil
}

// TestFreezeOfWrites: reads go on, nothing is changed, nothing is made.
func TestFreezeOfWrites(t *testing.T) {
	l, s := startLimited(t, facet.TenantSettings{})
	l.must(t, name("a"), "CREATE TABLE t (v)")
	s.change(func(s *facet.TenantSettings) { s.Freeze = facet.FreezeWrites })
	l.must(t, name("a"), "SELECT count(*) FROM t")
	for _, sql := range []string{"INSERT INTO t VALUES (1)", "CREATE TABLE u (v)", "DELETE FROM t"} {
		_, err := l.run(request(name("a"), stmt(sql)))
		refusedBy(t, err, facet.CodeFrozen, "")
	}
	_, err := l.run(request(name("new"), stmt("CREATE TABLE t (v)")))
	refusedBy(t, err, facet.CodeFrozen, "")
}

// TestLimitsReachOpenFacets: a facet that is open when its tenant's limits change keeps
// to the new ones with its next request, stays readable above a lowered one, and can be
// deleted from.
func TestLimitsReachOpenFacets(t *testing.T) {
	l, s := startLimited(t, facet.TenantSettings{})
	n := name("a")
	l.must(t, n, "CREATE TABLE t (v)")
	const fill = "INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 500) SELECT hex(zeroblob(1000)) FROM c"
	l.must(t, n, fill) // a megabyte
	s.change(func(s *facet.TenantSettings) { s.Limits.FacetBytes = 256 << 10 })
	_, err := l.run(request(n, stmt(fill)))
	refusedBy(t, err, facet.CodeLimit, "facet_bytes")
	if got := l.must(t, n, "SELECT count(*) FROM t")[0][0].Int; got != 500 {
		t.Errorf("%d rows can be read, want 500", got)
	}
	l.must(t, n, "DELETE FROM t")
	l.must(t, n, "VACUUM")
	l.must(t, n, "INSERT INTO t VALUES (1)")
	_, err = l.run(request(n, stmt(fill)))
	refusedBy(t, err, facet.CodeLimit, "facet_bytes")

	s.change(func(s *facet.TenantSettings) { s.Limits.FacetBytes, s.Limits.StatementMillis = 0, 20 })
	_, err = l.run(request(n, stmt(endless)))
	refusedBy(t, err, facet.CodeTimeout, "")
	s.change(func(s *facet.TenantSettings) { s.Limits.StatementMillis = 0 })
	l.must(t, n, fill)
	s.change(func(s *facet.TenantSettings) { s.Limits.MemoryBytes = 1 << 20 })
	_, err = l.run(request(n, stmt("SELECT count(*) FROM (SELECT v||random() AS w FROM t ORDER BY w)")))
	refusedBy(t, err, facet.CodeLimit, "memory_bytes")
}

// TestTotalBytesOfFacets: facets of one tenant grow together to their limit and no
// further, in one statement, in a transaction and at its COMMIT; what did not fit left
// nothing, and room that was made can be used.
func TestTotalBytesOfFacets(t *testing.T) {
	const limit = 2 << 20
	l, s := startLimited(t, facet.TenantSettings{Limits: facet.TenantLimits{TotalBytes: limit}})
	fill := func(rows int) string {
		return fmt.Sprintf("INSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT %d) SELECT hex(zeroblob(1500)) FROM c", rows)
	}
	names := []facet.Name{name("a"), name("b"), name("c")}
	for _, n := range names {
		l.must(t, n, "CREATE TABLE t (v)")
	}
	var err error
	written := map[facet.Name]int64{}
	for i := 0; err == nil && i < 1000; i++ {
		n := names[i%len(names)]
		if _, err = l.run(request(n, stmt(fill(10)))); err == nil {
			written[n] += 10
		}
		if sum := s.own(""); sum > limit {
			t.Fatalf("the facets have %d bytes, limit %d", sum, limit)
		}
	}
	refusedBy(t, err, facet.CodeLimit, "total_bytes")
	if sum := s.own(""); sum < limit*9/10 {
		t.Errorf("refused at %d bytes of %d", sum, limit)
	}
	// In a transaction that spans requests; what it took is given back.
	req := request(names[0], stmt("BEGIN"), stmt(fill(500)))
	req.KeepTx = true
	call, err := l.run(req)
	if err == nil {
		_, err = l.run(facet.Request{Name: names[0], Tx: call.Response.Tx, Steps: []facet.Step{stmt("COMMIT")}})
	}
	refusedBy(t, err, facet.CodeLimit, "total_bytes")
	if tx := call.Response.Tx; !tx.IsZero() {
		_, _ = l.run(facet.Request{Name: names[0], Tx: tx, Steps: []facet.Step{stmt("ROLLBACK")}}) // if it is open still
	}
	for n, want := range written {
		if got := l.must(t, n, "SELECT count(*) FROM t")[0][0].Int; got != want {
			t.Errorf("%v has %d rows, want %d", n, got, want)
		}
	}
	l.must(t, names[1], "DELETE FROM t")
	l.must(t, names[1], "VACUUM")
	l.must(t, names[0], fill(50))
	if sum := s.own(""); sum > limit {
		t.Fatalf("the facets have %d bytes, limit %d", sum, limit)
	}
}

// TestRefusedRequestsLeaveNothing: what a rate refuses makes no facet and no desk.
func TestRefusedRequestsLeaveNothing(t *testing.T) {
	l, _ := startLimited(t, facet.TenantSettings{Limits: facet.TenantLimits{RequestsPerSecond: 1, ConcurrentRequests: 10}})
	refused := 0
	for i := range 50 {
		n := name(fmt.Sprint("f", i))
		if _, err := l.run(request(n, stmt("CREATE TABLE t (v)"))); err != nil {
			refusedBy(t, err, facet.CodeThrottled, "requests_per_second")
			refused++
			if _, ok := l.Lookup(n); ok || l.m.lookup(n) != nil {
				t.Fatal("a refused request made something")
			}
		}
	}
	if refused == 0 {
		t.Error("nothing was refused")
	}
}
