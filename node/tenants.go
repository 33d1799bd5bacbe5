package node

import (
	"context"
	"sync"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/node/quota"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/placement"
)

const (
	// useTimeout bounds how long one node is asked what a tenant uses there.
	useTimeout = time.Second

	// sweepTenantsEvery is how often the use of tenants is measured: what is told as "a
	// second" is this.
	sweepTenantsEvery = time.Second

	// freezeWait bounds how long a freeze waits for the other nodes to know of it. Those
	// that follow the placement table do within a heartbeat of Raft.
	freezeWait = 2 * time.Second
)

// sweepTenants measures the tenants in use, and forgets those that are not.
func (n *Node) sweepTenants() {
	tick := time.NewTicker(sweepTenantsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.tenants.Sweep()
		case <-n.ctx.Done():
			return
		}
	}
}

// limitsOf are the limits of an engine for a facet of the tenant.
func (n *Node) limitsOf(tenant facet.Tenant) engine.Limits {
	l := n.limits
	if most := n.table.Settings(tenant).Limits.FacetBytes; most != 0 {
		l.FacetBytes = int64(min(most, facet.MaxPages*pages.Size))
	}
	return l
}

// mayImport says before a file is read why it cannot become a facet. The table decides
// once more when the facet gets its name.
func (n *Node) mayImport(tenant facet.Tenant, exists bool) error {
	if err := n.tenants.Check(tenant, true); err != nil || exists {
		return err
	}
	most := n.table.Settings(tenant).Limits.Facets
	if use, _ := n.table.Tenant(tenant); most != 0 && use.Facets >= most {
		return facetsError(tenant, most)
	}
	return nil
}

// meter is peer.Config.Meter.
func (n *Node) meter() peer.Meter {
	if n.acks.owners.Load() == nil {
		return nil
	}
	return meter{n}
}

type meter struct{ n *Node }

// TenantUse implements peer.Meter.
func (m meter) TenantUse(tenant facet.Tenant) peer.TenantUse {
	n := m.n
	u := peer.TenantUse{Applied: n.table.Applied(), Freeze: n.table.Settings(tenant).Freeze}
	u.Granted = uint64(n.tenants.Granted(tenant)) // before the sizes
	use := n.tenants.Of(tenant)
	u.UnderWay, u.Requests, u.Refused, u.Rows = uint64(use.UnderWay), uint64(use.Requests), uint64(use.Refused), uint64(use.Rows)
	n.owned(tenant, func(f placement.Facet) {
		size, open := n.sizeOf(f)
		u.Facets++
		u.Bytes += uint64(size)
		if open {
			u.Open++
			u.Memory += uint64(n.owners.Memory(f.Name))
		}
	})
	return u
}

// owned shows the facets of a tenant that this node owns.
func (n *Node) owned(tenant facet.Tenant, see func(placement.Facet)) {
	for after := ""; ; {
		page := n.table.List(tenant, after, placement.MaxList)
		for _, f := range page {
			if f.Owner.Node == n.dir.Node && !gone(f) {
				see(f)
			}
		}
		if len(page) < placement.MaxList {
			return
		}
		after = page[len(page)-1].Name.Facet
	}
}

// sizeOf is the size of a facet with a copy here: of an open one as it is, else as its
// file has it, which may lack what came after the last checkpoint.
func (n *Node) sizeOf(f placement.Facet) (bytes int64, open bool) {
	if p, open := n.owners.Open(f.Name); open {
		return int64(p) * pages.Size, true
	}
	if r, err := n.replicas.Replica(f.Incarnation); err == nil {
		return int64(r.Meta().BasePages) * pages.Size, false
	}
	return 0, false
}

// ownBytes is quota.Options.Own.
func (n *Node) ownBytes(tenant facet.Tenant) (sum int64) {
	n.owned(tenant, func(f placement.Facet) {
		size, _ := n.sizeOf(f)
		sum += size
	})
	return sum
}

// othersBytes is quota.Options.Others. A node that does not answer counts as it last
// said, as long as the table has it own facets of the tenant.
func (n *Node) othersBytes(ctx context.Context, tenant facet.Tenant, known map[cluster.NodeID]int64) (sum int64) {
	silent := map[cluster.NodeID]bool{}
	for _, u := range n.uses(ctx, tenant) {
		switch {
		case u.Node == n.dir.Node:
		case u.Problem != "":
			silent[u.Node] = known[u.Node] != 0
		default:
			known[u.Node] = int64(u.Bytes + u.Granted)
			sum += known[u.Node]
		}
	}
	for after := ""; len(silent) > 0; {
		page := n.table.List(tenant, after, placement.MaxList)
		for _, f := range page {
			if silent[f.Owner.Node] {
				sum += known[f.Owner.Node]
				delete(silent, f.Owner.Node)
			}
			after = f.Name.Facet
		}
		if len(page) < placement.MaxList {
			break
		}
	}
	return sum
}

// importRoom takes the room of a database of n pages that is to become a facet, and
// returns how to give it back when it has, or has not.
func (n *Node) importRoom(tenant facet.Tenant, pageCount uint32) (done func(made bool), err error) {
	t := n.tenants.Use(tenant)
	size := int64(pageCount) * pages.Size
	taken, err := t.Grow(size, nil)
	return func(made bool) {
		if !made {
			size = 0
		}
		t.Grown(taken, size, true)
		n.tenants.Unuse(t)
	}, err
}

// uses asks every node what a tenant uses there, all at a time.
func (n *Node) uses(ctx context.Context, tenant facet.Tenant) []service.TenantUse {
	ctx, cancel := context.WithTimeout(ctx, useTimeout)
	defer cancel()
	nodes := n.table.Nodes()
	out := make([]service.TenantUse, len(nodes))
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() {
			u, err := n.useAt(ctx, nodes[i].ID, tenant)
			out[i] = service.TenantUse{
				Node: nodes[i].ID, Freeze: u.Freeze, Facets: u.Facets, Open: u.Open, Bytes: u.Bytes, Granted: u.Granted,
				Memory: u.Memory, UnderWay: u.UnderWay, Requests: u.Requests, Refused: u.Refused, Rows: u.Rows,
			}
			if err != nil {
				out[i].Problem = err.Error()
			}
		})
	}
	wg.Wait()
	return out
}

func (n *Node) useAt(ctx context.Context, id cluster.NodeID, tenant facet.Tenant) (peer.TenantUse, error) {
	if id == n.dir.Node || n.peers == nil {
		return meter{n}.TenantUse(tenant), nil
	}
	return n.peers.Peer(id).TenantUse(ctx, tenant)
}

var _ service.Tenants = svc{}

// Tenant implements service.Tenants.
func (s svc) Tenant(ctx context.Context, name facet.Tenant) (service.Tenant, error) {
	use, _ := s.n.table.Tenant(name)
	return service.Tenant{
		TenantRow: service.TenantRow{Name: name, Facets: use.Facets, Settings: use.Settings},
		InForce:   s.n.table.Settings(name).Limits,
		Nodes:     s.n.uses(ctx, name),
	}, nil
}

// Tenants implements service.Tenants.
func (s svc) Tenants(_ context.Context, after facet.Tenant, limit int) (list []service.TenantRow, more bool, err error) {
	rows := s.n.table.Tenants(after, limit+1)
	more = len(rows) > limit || len(rows) == placement.MaxList
	rows = rows[:min(len(rows), limit)]
	for _, r := range rows {
		list = append(list, service.TenantRow{Name: r.Tenant, Facets: r.Facets, Settings: r.Settings})
	}
	return list, more, nil
}

// Busiest implements service.Tenants.
func (s svc) Busiest(_ context.Context, by string, limit int) ([]service.BusyTenant, time.Duration, error) {
	order := quota.Orders[by]
	if order == nil {
		return nil, 0, facet.Errorf(facet.CodeBadRequest, "tenants are busy by requests, writes, bytes or time, not by %.20q", by)
	}
	busy, over := s.n.tenants.Busiest(order, limit)
	list := make([]service.BusyTenant, len(busy))
	for i, b := range busy {
		list[i] = service.BusyTenant(b)
	}
	return list, over, nil
}

// Defaults implements service.Tenants.
func (s svc) Defaults(context.Context) (facet.TenantLimits, error) { return s.n.table.Defaults(), nil }

// Change implements service.Tenants.
func (s svc) Change(ctx context.Context, name facet.Tenant, fields facet.TenantFields, to facet.TenantSettings) error {
	known := facet.FieldsKnown
	if name == "" {
		known = facet.FieldsOfLimits
	}
	if fields == 0 || fields&^known != 0 {
		return facet.Errorf(facet.CodeBadRequest, "nothing to change, or something that tenants do not have")
	}
	to = facet.TenantSettings{}.With(fields, to) // the others are zero in the log
	if _, err := s.n.rows.do(ctx, placement.ChangeTenant{Tenant: name, Fields: fields, Settings: to}); err != nil {
		return err
	}
	if fields&facet.FieldFreeze != 0 {
		s.n.frozenEverywhere(ctx, name, to.Freeze)
	}
	return nil
}

// frozenEverywhere waits until every node that answers knows of a freeze, and for
// freezeWait at most: one that does not follow the placement table is no reason to say
// that it failed.
func (n *Node) frozenEverywhere(ctx context.Context, tenant facet.Tenant, want facet.Freeze) {
	ctx, cancel := context.WithTimeout(ctx, freezeWait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := false
		for _, u := range n.uses(ctx, tenant) {
			missing = missing || u.Problem == "" && u.Freeze != want
		}
		if !missing {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
