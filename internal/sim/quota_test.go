package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/service"
)

// The limits that are exact (docs/design/0007): the number of facets of a tenant, the
// bytes of each of them, and the requests a node runs for a tenant in a second. Those of
// all bytes and of rows have room for more by design, and are not looked at here.
const (
	cappedFacets   = 4
	cappedBytes    = 24 * pages.Size
	cappedRequests = 12
)

const (
	capped facet.Tenant = "capped" // may have few small facets
	slowed facet.Tenant = "slowed" // may ask seldom
)

// quotas is what is known of tenants with limits, and what was wrong.
type quotas struct {
	w    *world
	stop chan struct{}
	wg   sync.WaitGroup

	mu   sync.Mutex
	runs map[string][]ran // requests of slowed that ran, by process
}

// ran is when a request that ran was sent, and answered.
type ran struct{ from, to time.Duration }

// limits sets the limits of two tenants and has them work, until the function returned
// is called.
func (w *world) limits() (stop func()) {
	if !w.plan.capped {
		return func() {}
	}
	set := func(tenant facet.Tenant, fields facet.TenantFields, l facet.TenantLimits) {
		var err error
		if !w.until(time.Minute, func() bool {
			lead := w.leader()
			if lead == nil {
				return false
			}
			ctx, cancel := context.WithTimeout(lead.ctx, 5*time.Second)
			defer cancel()
			err = lead.node.Service().(service.Tenants).Change(ctx, tenant, fields, facet.TenantSettings{Limits: l})
			return err == nil
		}) {
			w.problem("limits of %s cannot be set: %v", tenant, err)
		}
	}
	set(capped, facet.FieldOf(0)|facet.FieldOf(1), facet.TenantLimits{Facets: cappedFacets, FacetBytes: cappedBytes})
	set(slowed, facet.FieldOf(3), facet.TenantLimits{RequestsPerSecond: cappedRequests})
	q := &quotas{w: w, stop: make(chan struct{}), runs: map[string][]ran{}}
	for i := range 2 {
		q.wg.Go(func() { q.fill(w.session(2000 + i)) })
	}
	q.wg.Go(func() { q.rush(w.session(2010)) })
	q.wg.Go(q.watch)
	return func() {
		close(q.stop)
		q.wg.Wait()
		for life, list := range q.runs {
			if why := tooFast(list, cappedRequests); why != "" {
				w.problem("%s ran more requests for %s than its limit of %d a second: %s", life, slowed, cappedRequests, why)
			}
		}
	}
}

// each calls f now and then until the end.
func (q *quotas) each(rng *rand.Rand, pause time.Duration, f func()) {
	for {
		select {
		case <-q.stop:
			return
		case <-time.After(time.Duration(1 + rng.Int64N(int64(2*pause)))):
			f()
		}
	}
}

// fill makes facets, writes to them and deletes them, with more names and more rows than
// the tenant may have.
func (q *quotas) fill(s *session) {
	q.each(s.rng, 150*time.Millisecond, func() {
		name := facet.Name{Tenant: capped, Facet: fmt.Sprint("q", s.rng.IntN(2*cappedFacets))}
		ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
		defer cancel()
		if s.rng.IntN(8) == 0 {
			if l := s.target(name); l != nil {
				err := s.deleteAt(ctx, l, name)
				q.w.note(noteOp + "delete of a limited tenant " + outcomeOf(err))
			}
			return
		}
		resp, l, err := s.follow(ctx, facet.Request{Name: name, Atomic: true, Steps: []facet.Step{
			step("CREATE TABLE IF NOT EXISTS t(x)"),
			step("INSERT INTO t SELECT zeroblob(?)", int64(500+s.rng.IntN(12000))),
			step("SELECT page_count FROM pragma_page_count()"),
		}})
		switch {
		case err == nil:
			for r := resp.Result; len(r) > 0; {
				it, rest, err := r.Next()
				if err != nil {
					break
				}
				if r = rest; it.Kind == facet.ItemError {
					e, _ := facet.DecodeError(it.Body)
					if e != nil && e.Code == facet.CodeLimit {
						q.w.note("limit of bytes met")
					}
					continue
				}
				if it.Kind != facet.ItemRow {
					continue
				}
				if row, err := facet.Values(it.Body).Decode(nil); err == nil && row[0].Int*pages.Size > cappedBytes {
					q.w.problem("%s has %d pages at %s, and %d bytes are its limit", name, row[0].Int, l.name, cappedBytes)
				}
			}
		case codeOf(err) == facet.CodeLimit:
			q.w.note("limit met: " + limitOf(err))
		case !retryable(err):
			q.w.problem("a write to %s: %v", name, err)
		}
		q.w.note(noteOp + "write of a limited tenant " + outcomeOf(err))
	})
}

// rush asks more often than the tenant may.
func (q *quotas) rush(s *session) {
	name := facet.Name{Tenant: slowed, Facet: "r"}
	q.each(s.rng, 25*time.Millisecond, func() {
		ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
		defer cancel()
		from := time.Since(q.w.began)
		sql := "SELECT 1"
		if s.rng.IntN(8) == 0 {
			sql = "CREATE TABLE IF NOT EXISTS t(x)" // which makes the facet
		}
		_, l, err := s.follow(ctx, facet.Request{Name: name, Steps: []facet.Step{step(sql)}})
		switch {
		case err == nil:
			q.mu.Lock()
			q.runs[l.name] = append(q.runs[l.name], ran{from, time.Since(q.w.began)})
			q.mu.Unlock()
		case codeOf(err) == facet.CodeThrottled:
			q.w.note("limit met: " + limitOf(err))
		case codeOf(err) == facet.CodeNotFound:
		case !retryable(err):
			q.w.problem("a read of %s: %v", name, err)
		}
		q.w.note(noteOp + "read of a limited tenant " + outcomeOf(err))
	})
}

// follow sends a request once to whoever owns the facet.
func (s *session) follow(ctx context.Context, req facet.Request) (resp facet.Response, l *life, err error) {
	err = errGone
	for range 3 {
		if l = s.target(req.Name); l == nil || l.wait(ctx) != nil {
			return resp, l, errGone
		}
		s.travel()
		resp, err = s.call(ctx, l, req)
		owner, moved := ownerIn(err)
		if !moved {
			break
		}
		s.owner[req.Name] = owner
	}
	if err != nil && codeOf(err).Class() != facet.Definite {
		delete(s.owner, req.Name)
	}
	return resp, l, err
}

// watch looks all the time at what tables and stores say.
func (q *quotas) watch() {
	q.each(q.w.rand(), 25*time.Millisecond, func() {
		for _, l := range q.w.running() {
			names := map[facet.Incarnation]facet.Name{}
			bound := map[string]bool{}
			for row := range l.node.Table().Facets() {
				if row.Name.Tenant != capped {
					continue
				}
				names[row.Incarnation] = row.Name
				if row.Bound {
					bound[row.Name.Facet] = true
				}
			}
			if len(bound) > cappedFacets {
				q.w.problem("%s: the table has %d facets of %s, and %d are its limit: %v", l.name, len(bound), capped, cappedFacets, slices.Sorted(maps.Keys(bound)))
			}
			l.node.Copies(func(c replica.Meta) bool {
				if name, ok := names[c.ID]; ok && int64(c.BasePages)*pages.Size > cappedBytes {
					q.w.problem("%s: the file of %s has %d pages, and %d bytes are its limit", l.name, name, c.BasePages, cappedBytes)
				}
				return true
			})
		}
	})
}

// tooFast tells where requests of one process were more than rate a second and a second's
// worth at once, empty if they were not. What was sent and answered within a time ran in
// it.
func tooFast(list []ran, rate int) string {
	for _, first := range list {
		within := slices.DeleteFunc(slices.Clone(list), func(r ran) bool { return r.from < first.from })
		slices.SortFunc(within, func(a, b ran) int { return int(a.to - b.to) })
		for i, last := range within {
			took := last.to - first.from
			if most := float64(rate) * (1 + took.Seconds()); float64(i+1) > most+1 {
				return fmt.Sprintf("%d from %v to %v", i+1, first.from, last.to)
			}
		}
	}
	return ""
}

func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case retryable(err) && codeOf(err).Class() != facet.Retry && codeOf(err).Class() != facet.Redirect:
		return "unknown"
	}
	return "refused"
}

func limitOf(err error) string {
	if e, ok := errors.AsType[*facet.Error](err); ok {
		return e.Limit
	}
	return ""
}
