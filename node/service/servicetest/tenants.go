package servicetest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/service"
)

// Tenants are settings of tenants on paper: a service.Tenants for tests. The zero value
// has none. It is safe for concurrent use.
type Tenants struct {
	// Nodes are told of every tenant, each with one open facet of 8 KiB.
	Nodes []cluster.NodeID

	mu       sync.Mutex
	tenants  map[facet.Tenant]facet.TenantSettings
	defaults facet.TenantLimits
}

var _ service.Tenants = (*Tenants)(nil)

// Tenant implements service.Tenants.
func (t *Tenants) Tenant(_ context.Context, name facet.Tenant) (service.Tenant, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	set := t.tenants[name]
	out := service.Tenant{TenantRow: t.row(name), InForce: set.Limits.Over(&t.defaults)}
	for _, id := range t.Nodes {
		out.Nodes = append(out.Nodes, service.TenantUse{Node: id, Freeze: set.Freeze, Facets: 1, Open: 1, Bytes: 8192, Memory: 65536, Requests: 5, Rows: 10})
	}
	return out, nil
}

// row tells of one tenant; mu is held.
func (t *Tenants) row(name facet.Tenant) service.TenantRow {
	return service.TenantRow{Name: name, Facets: uint64(len(t.Nodes)), Settings: t.tenants[name]}
}

// Tenants implements service.Tenants.
func (t *Tenants) Tenants(_ context.Context, after facet.Tenant, limit int) (list []service.TenantRow, more bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range t.tenants {
		if name > after {
			list = append(list, t.row(name))
		}
	}
	slices.SortFunc(list, func(a, b service.TenantRow) int { return strings.Compare(string(a.Name), string(b.Name)) })
	more = len(list) > limit
	return list[:min(len(list), limit)], more, nil
}

// Busiest implements service.Tenants: every tenant with settings makes a request a second.
func (t *Tenants) Busiest(_ context.Context, by string, limit int) (list []service.BusyTenant, over time.Duration, err error) {
	if by != "time" && by != "requests" && by != "writes" && by != "bytes" {
		return nil, 0, facet.Errorf(facet.CodeBadRequest, "not by %q", by)
	}
	rows, _, err := t.Tenants(context.Background(), "", limit)
	for _, r := range rows {
		list = append(list, service.BusyTenant{Name: r.Name, Requests: 60, Writes: 30, Bytes: 6000, Time: 60 * time.Millisecond})
	}
	return list, time.Minute, err
}

// Defaults implements service.Tenants.
func (t *Tenants) Defaults(context.Context) (facet.TenantLimits, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.defaults, nil
}

// Change implements service.Tenants.
func (t *Tenants) Change(_ context.Context, name facet.Tenant, fields facet.TenantFields, to facet.TenantSettings) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if name == "" {
		t.defaults = facet.TenantSettings{Limits: t.defaults}.With(fields, to).Limits
		return nil
	}
	if t.tenants == nil {
		t.tenants = make(map[facet.Tenant]facet.TenantSettings)
	}
	t.tenants[name] = t.tenants[name].With(fields, to)
	if t.tenants[name].IsZero() {
		delete(t.tenants, name)
	}
	return nil
}
