package service

import (
	"context"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// Tenants is what a node knows of tenants and lets operators decide about them. Every
// method may be called on any node and from any goroutine. All errors are *facet.Error
// or wrap one.
type Tenants interface {
	// Tenant tells what a tenant has, does and may. One that nobody has heard of has
	// nothing and may what the defaults say; CodeNotFound is not used.
	Tenant(ctx context.Context, name facet.Tenant) (Tenant, error)
	// Tenants lists up to limit tenants with settings of their own, those after the one
	// given, in the order of names, and tells whether there are more.
	Tenants(ctx context.Context, after facet.Tenant, limit int) (list []TenantRow, more bool, err error)
	// Busiest lists up to limit tenants that did most at this node in the last minute or
	// two, by requests, writes, bytes or time, the busiest first, and says over how long.
	Busiest(ctx context.Context, by string, limit int) (list []BusyTenant, over time.Duration, err error)
	// Defaults are the limits of tenants that have none of their own.
	Defaults(ctx context.Context) (facet.TenantLimits, error)
	// Change sets some settings of a tenant, or of the defaults where name is empty, and
	// leaves the others as they are. A freeze is in force at every node that follows the
	// placement table when it returns; others are told by Tenant.
	Change(ctx context.Context, name facet.Tenant, fields facet.TenantFields, to facet.TenantSettings) error
}

// BusyTenant is what a tenant did at one node for a while.
type BusyTenant struct {
	Name     facet.Tenant
	Requests int64
	Writes   int64         // requests that changed something
	Bytes    int64         // of requests and answers
	Time     time.Duration // in SQLite
}

// TenantRow is a tenant and what was set for it.
type TenantRow struct {
	Name     facet.Tenant
	Facets   uint64
	Settings facet.TenantSettings
}

// Tenant is all there is to tell about a tenant.
type Tenant struct {
	TenantRow
	InForce facet.TenantLimits // with the defaults; zero is no limit
	Nodes   []TenantUse        // every node, sorted by id
}

// TenantUse is what a tenant uses at one node: facets and bytes are those the node owns,
// so that the sum over all nodes counts each facet once.
type TenantUse struct {
	Node    cluster.NodeID
	Problem string       // why nothing is known of it; empty when it answered
	Freeze  facet.Freeze // as the node knows

	Facets   uint64
	Open     uint64 // of them, open for work
	Bytes    uint64
	Granted  uint64 // bytes it may grow by here without asking, counted against the total
	Memory   uint64
	UnderWay uint64 // requests
	Requests uint64 // of the last second, as the next two
	Refused  uint64
	Rows     uint64
}

// Use sums up what the nodes that answered tell.
func (t *Tenant) Use() (sum TenantUse) {
	for i := range t.Nodes {
		n := &t.Nodes[i]
		sum.Facets += n.Facets
		sum.Open += n.Open
		sum.Bytes += n.Bytes
		sum.Granted += n.Granted
		sum.Memory += n.Memory
		sum.UnderWay += n.UnderWay
		sum.Requests += n.Requests
		sum.Refused += n.Refused
		sum.Rows += n.Rows
	}
	return sum
}
