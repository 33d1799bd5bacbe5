//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// tenancy is a cluster of three with a client of each node.
type tenancy struct {
	*cluster
	t       *testing.T
	ctx     context.Context
	clients []*client.Client
}

func newTenancy(t *testing.T) *tenancy {
	x := &tenancy{cluster: newCluster(t, 3, false), t: t}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	x.ctx = ctx
	for _, m := range x.members {
		x.clients = append(x.clients, dial(t, m.api(), client.Options{}))
	}
	return x
}

// cli runs a command of an operator, which must not fail.
func (x *tenancy) cli(args ...string) string {
	x.t.Helper()
	out, err := facetd(x.t, "", append(args, "--server", "http://"+x.members[0].api())...)
	if err != nil {
		x.t.Fatalf("facetd %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// facet is a facet by way of the client of a node.
func (x *tenancy) facet(k int, name string) *client.Facet {
	x.t.Helper()
	f, err := x.clients[k].Facet(name)
	if err != nil {
		x.t.Fatal(err)
	}
	return f
}

func (x *tenancy) refused(err error, code facet.Code, limit, value string) {
	x.t.Helper()
	var fe *facet.Error
	if !errors.As(err, &fe) || fe.Code != code || fe.Limit != limit || !strings.Contains(fe.Message, value) {
		x.t.Fatalf("refused with %v, want %v %s and %q in it", err, code, limit, value)
	}
}

// TestTenantFacets: all nodes make facets of a tenant at a time, and it gets exactly as
// many as it may; what it has goes on, and what is deleted gives room back.
func TestTenantFacets(t *testing.T) {
	x := newTenancy(t)
	const limit = 10
	x.cli("tenant", "defaults", "--facets", fmt.Sprint(limit))
	var made atomic.Int64
	var wg sync.WaitGroup
	for k := range x.clients {
		for i := range 8 {
			f := x.facet(k, fmt.Sprintf("acme/f-%d-%d", k, i))
			wg.Go(func() {
				if _, err := f.Exec(x.ctx, "CREATE TABLE t (v)"); err == nil {
					made.Add(1)
				} else if !errors.Is(err, facet.ErrLimit) {
					t.Errorf("make a facet: %v", err)
				}
			})
		}
	}
	wg.Wait()
	if n := made.Load(); n != limit {
		t.Fatalf("%d facets were made, limit %d", n, limit)
	}
	binding, err := x.clients[0].Bind("acme")
	if err != nil {
		t.Fatal(err)
	}
	var list []client.Info
	for info, err := range binding.List(x.ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, info)
	}
	if len(list) != limit {
		t.Fatalf("%d facets are there, limit %d", len(list), limit)
	}
	more := x.facet(1, "acme/more")
	_, err = more.Exec(x.ctx, "CREATE TABLE t (v)")
	x.refused(err, facet.CodeLimit, "facets", "limit facets = 10")
	if _, err := x.facet(2, "zeta/other").Exec(x.ctx, "CREATE TABLE t (v)"); err != nil {
		t.Fatalf("another tenant: %v", err)
	}
	one := x.facet(2, list[0].Name.String())
	x.cli("tenant", "set", "acme", "--facets", "3") // below what there is
	if _, err := one.Exec(x.ctx, "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatalf("a facet above a lowered limit: %v", err)
	}
	if err := one.Delete(x.ctx); err != nil {
		t.Fatal(err)
	}
	_, err = more.Exec(x.ctx, "CREATE TABLE t (v)")
	x.refused(err, facet.CodeLimit, "facets", "limit facets = 3")
	x.cli("tenant", "set", "acme", "--facets", "default")
	x.until("the facet that was deleted gives its room back", func() error {
		_, err := more.Exec(x.ctx, "CREATE TABLE t (v)")
		return err
	})
	if out := x.cli("tenant", "stat", "acme"); !strings.Contains(out, "10 (default)") {
		t.Errorf("stat:\n%s", out)
	}
}

// TestTenantBytes: facets of a tenant at three owners grow together to the limit, and not
// beyond it; what did not fit left nothing.
func TestTenantBytes(t *testing.T) {
	x := newTenancy(t)
	const limit = 4 << 20
	var facets []*client.Facet
	for k, m := range x.members {
		f := x.facet(k, fmt.Sprintf("acme/f%d", k))
		if _, err := f.Exec(x.ctx, "CREATE TABLE t (v)"); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Move(x.ctx, m.name); err != nil {
			t.Fatal(err)
		}
		facets = append(facets, f)
	}
	x.cli("tenant", "set", "acme", "--bytes", "4MiB", "--facet-bytes", "3MiB")
	rows := make([]int, len(facets))
	var wg sync.WaitGroup
	for k, f := range facets {
		wg.Go(func() {
			for {
				_, err := f.Exec(x.ctx, "INSERT INTO t VALUES (zeroblob(50000))")
				if err != nil {
					if !errors.Is(err, facet.ErrLimit) {
						t.Errorf("f%d: %v", k, err)
					}
					return
				}
				rows[k]++
			}
		})
	}
	wg.Wait()
	tn, err := x.clients[0].Tenant(x.ctx, "acme")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes in use, %d granted, rows %v", tn.Use.Bytes, tn.Use.GrantedBytes, rows)
	if tn.Use.Bytes > limit || tn.Use.Bytes < limit/2 {
		t.Errorf("the facets have %d bytes, limit %d", tn.Use.Bytes, limit)
	}
	_, err = facets[1].Exec(x.ctx, "INSERT INTO t VALUES (zeroblob(4000000))")
	if !errors.Is(err, facet.ErrLimit) {
		t.Errorf("a facet beyond its limit: %v", err)
	}
	for k, f := range facets {
		var n int
		if err := f.QueryRow(x.ctx, "SELECT count(*) FROM t").Scan(&n); err != nil || n != rows[k] {
			t.Errorf("f%d has %d rows, %v; %d were acknowledged", k, n, err, rows[k])
		}
	}
	// A facet of one owner makes room for those of the others.
	for _, sql := range []string{"DELETE FROM t", "VACUUM"} {
		if _, err := facets[0].Exec(x.ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	x.until("room that was made at one node is used at another", func() error {
		_, err := facets[1].Exec(x.ctx, "INSERT INTO t VALUES (zeroblob(50000))")
		return err
	})
}

// TestTenantFreeze: when the command returns nothing of the tenant succeeds at any node,
// not even what was under way; other tenants notice nothing; and unfrozen it has what was
// acknowledged.
func TestTenantFreeze(t *testing.T) {
	x := newTenancy(t)
	var frozen, thawed atomic.Bool
	var acked [3]atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	begun := make(chan struct{}, 6)
	for k, m := range x.members {
		for _, tenant := range []string{"acme", "other"} {
			f := x.facet(k, fmt.Sprintf("%s/f%d", tenant, k))
			if _, err := f.Exec(x.ctx, "CREATE TABLE t (v)"); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Move(x.ctx, m.name); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				for first := true; ; {
					select {
					case <-stop:
						return
					default:
					}
					late := frozen.Load() && !thawed.Load()
					_, err := f.Exec(x.ctx, "INSERT INTO t VALUES (1)")
					switch {
					case tenant == "other" && err != nil:
						t.Errorf("another tenant: %v", err)
						return
					case tenant == "other":
					case err == nil:
						acked[k].Add(1)
						if late && !thawed.Load() {
							t.Errorf("a write at n%d that began after the freeze succeeded", k+1)
							return
						}
					case !errors.Is(err, facet.ErrFrozen):
						t.Errorf("at n%d: %v", k+1, err)
						return
					}
					if first {
						first = false
						begun <- struct{}{}
					}
				}
			})
		}
	}
	for range 6 {
		<-begun
	}
	// A statement without end, and a transaction.
	long := make(chan error, 1)
	go func() {
		_, err := x.facet(0, "acme/long").Exec(x.ctx, "CREATE TABLE t AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c")
		long <- err
	}()
	x.cli("tenant", "set", "acme", "--statement-time", "10m")
	at := time.Now()
	x.cli("tenant", "freeze", "acme")
	frozen.Store(true)
	t.Logf("frozen after %v", time.Since(at))
	for k := range x.clients {
		var n int
		err := x.facet(k, "acme/f0").QueryRow(x.ctx, "SELECT 1").Scan(&n)
		x.refused(err, facet.CodeFrozen, "", "tenant acme is frozen")
	}
	if err := <-long; err == nil {
		t.Error("a statement without end ended well")
	}
	tn, err := x.clients[2].Tenant(x.ctx, "acme")
	if err != nil || tn.Frozen != "all" {
		t.Fatalf("told %+v, %v", tn, err)
	}
	for _, n := range tn.Nodes {
		if n.Frozen != "all" {
			t.Errorf("node %s does not know of the freeze: %+v", n.Node, n)
		}
	}
	thawed.Store(true)
	x.cli("tenant", "unfreeze", "acme")
	close(stop)
	wg.Wait()
	for k := range x.clients {
		var n int64
		err := x.facet(k, fmt.Sprintf("acme/f%d", k)).QueryRow(x.ctx, "SELECT count(*) FROM t").Scan(&n)
		if err != nil || n != acked[k].Load() {
			t.Errorf("f%d has %d rows, %v; %d were acknowledged", k, n, err, acked[k].Load())
		}
	}
}

// TestTenantRate: a tenant that asks as fast as it can gets its rate and is told when to
// come again; one beside it at the same node is served all the while.
func TestTenantRate(t *testing.T) {
	x := newTenancy(t)
	const rate = 40
	noisy, victim := x.facet(0, "noisy/main"), x.facet(0, "victim/main")
	for _, f := range []*client.Facet{noisy, victim} {
		if _, err := f.Exec(x.ctx, "CREATE TABLE t (v)"); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Move(x.ctx, "n1"); err != nil {
			t.Fatal(err)
		}
	}
	x.cli("tenant", "set", "noisy", "--requests", fmt.Sprint(rate))
	hasty := dial(t, x.members[0].api(), client.Options{RetryFor: -1})
	loud, err := hasty.Facet("noisy/main")
	if err != nil {
		t.Fatal(err)
	}
	var served, refused atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	begin := time.Now()
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, err := loud.Exec(x.ctx, "INSERT INTO t VALUES (1)")
				var fe *facet.Error
				switch {
				case err == nil:
					served.Add(1)
				case errors.As(err, &fe) && fe.Code == facet.CodeThrottled && fe.RetryAfter > 0:
					refused.Add(1)
				default:
					t.Errorf("noisy: %v", err)
					return
				}
			}
		})
	}
	for i := range 200 {
		ctx, cancel := context.WithTimeout(x.ctx, 20*time.Second)
		_, err := victim.Exec(ctx, "INSERT INTO t VALUES (1)")
		cancel()
		if err != nil {
			t.Fatalf("request %d of the victim: %v", i, err)
		}
	}
	// A client that waits as it is told is served.
	if _, err := noisy.Exec(x.ctx, "INSERT INTO t VALUES (1)"); err != nil && !errors.Is(err, facet.ErrThrottled) {
		t.Errorf("a patient client: %v", err)
	}
	close(stop)
	wg.Wait()
	most := int64(rate*(time.Since(begin).Seconds()+1)) + 8
	t.Logf("%d served, %d refused in %v", served.Load(), refused.Load(), time.Since(begin))
	if served.Load() > most || served.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d served, at most %d were to be; %d refused", served.Load(), most, refused.Load())
	}
}
