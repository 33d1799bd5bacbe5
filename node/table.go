package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/owner"
	"github.com/facetd/facetd/placement"
)

// proposals is the placement table as the owners of this node use it: reads from
// the local copy, changes through the Raft log.
type proposals struct {
	table    *placement.Table
	proposer placement.Proposer
	self     placement.Owner // this node in this process life
	set      placement.Set   // replica set of new facets
}

// applyWait bounds how long a proposer waits for its own table to apply what the
// log accepted.
const applyWait = 5 * time.Second

func (p *proposals) do(ctx context.Context, c placement.Command) (placement.Result, error) {
	res, err := p.proposer.Do(ctx, c)
	if err != nil {
		return res, placementError(err)
	}
	ctx, cancel := context.WithTimeout(ctx, applyWait)
	defer cancel()
	if err := p.table.WaitApplied(ctx, res.Index); err != nil {
		return res, facet.Errorf(facet.CodeUnavailable, "this node is behind the placement table; try again")
	}
	return res, nil
}

// placementError turns what the table or the log says into what a client may be
// told.
func placementError(err error) error {
	var refused *placement.Refusal
	if !errors.As(err, &refused) {
		var fe *facet.Error
		if errors.As(err, &fe) {
			return err
		}
		return facet.Errorf(facet.CodeUnavailable, "the placement table cannot be changed now: %v", err)
	}
	switch refused.Outcome {
	case placement.RefusedNoFacet, placement.RefusedTombstoned:
		return facet.Errorf(facet.CodeNotFound, "the facet was deleted")
	case placement.RefusedTenantLimit:
		return &facet.Error{Code: facet.CodeLimit, Limit: "facets", Message: "the tenant has as many facets as it may (limit facets); delete some or have the limit raised"}
	case placement.RefusedFull:
		return &facet.Error{Code: facet.CodeLimit, Limit: "table_rows", Message: "the cluster has as many facets as its placement table holds"}
	case placement.RefusedName:
		return facet.Errorf(facet.CodeExists, "the facet was changed by another request meanwhile")
	}
	return facet.Errorf(facet.CodeUnavailable, "the placement table refused: %v; try again", refused)
}

func (p *proposals) row(f placement.Facet) owner.Row {
	r := owner.Row{
		Incarnation: f.Incarnation, Epoch: f.Epoch, Owner: f.Owner.Node,
		Local:   f.Owner.Node == p.self.Node || f.Owner.Node == "",
		Mine:    f.Owner == p.self,
		Active:  f.State == placement.Active,
		New:     f.State == placement.Creating,
		Members: f.Next.Len(),
	}
	if n, ok := p.table.Node(f.Owner.Node); ok {
		r.OwnerURL = "http://" + n.API
	}
	return r
}

// Lookup implements owner.Placement.
func (p *proposals) Lookup(name facet.Name) (owner.Row, bool) {
	f, ok := p.table.Lookup(name)
	if !ok || f.State == placement.Deleting || f.State == placement.Retired {
		return owner.Row{}, false
	}
	return p.row(f), true
}

// Create implements owner.Placement.
func (p *proposals) Create(ctx context.Context, name facet.Name) (owner.Row, error) {
	return p.create(ctx, name, false)
}

// CreateDetached implements owner.Placement.
func (p *proposals) CreateDetached(ctx context.Context, name facet.Name) (owner.Row, error) {
	return p.create(ctx, name, true)
}

func (p *proposals) create(ctx context.Context, name facet.Name, detached bool) (owner.Row, error) {
	res, err := p.do(ctx, placement.Create{
		Name: name, Incarnation: facet.NewIncarnation(), Owner: p.self, Set: p.set, Detached: detached,
	})
	if err != nil {
		return owner.Row{}, err
	}
	if s := res.Facet.State; s == placement.Deleting || s == placement.Retired {
		return owner.Row{}, facet.Errorf(facet.CodeUnavailable, "a facet of that name is just being deleted; try again")
	}
	return p.row(res.Facet), nil
}

// Acquire implements owner.Placement.
func (p *proposals) Acquire(ctx context.Context, name facet.Name, row owner.Row) (owner.Row, error) {
	res, err := p.do(ctx, placement.Acquire{Incarnation: row.Incarnation, Owner: p.self, Expected: row.Epoch})
	if err != nil {
		return owner.Row{}, err
	}
	return p.row(res.Facet), nil
}

// Activate implements owner.Placement.
func (p *proposals) Activate(ctx context.Context, row owner.Row) error {
	_, err := p.do(ctx, placement.Activate{Incarnation: row.Incarnation, Epoch: row.Epoch, Boot: p.self.Boot})
	return err
}

// Bind implements owner.Placement.
func (p *proposals) Bind(ctx context.Context, name facet.Name, old, row owner.Row) error {
	_, err := p.do(ctx, placement.Bind{Name: name, Old: old.Incarnation, OldEpoch: old.Epoch, New: row.Incarnation})
	return err
}

// Delete implements owner.Placement.
func (p *proposals) Delete(ctx context.Context, row owner.Row) error {
	_, err := p.do(ctx, placement.Delete{Incarnation: row.Incarnation})
	return err
}

// Tomb implements owner.Placement.
func (p *proposals) Tomb(ctx context.Context, id facet.Incarnation) error {
	f, ok := p.table.ByIncarnation(id)
	if !ok {
		return nil
	}
	_, err := p.do(ctx, placement.Tomb{Incarnation: id, Epoch: f.Epoch})
	return err
}

// register announces this process life (rules R2, R3).
func (p *proposals) register(ctx context.Context, id cluster.ID, machine cluster.MachineID, api, peer, zone, version string, store cluster.StoreID) error {
	if _, err := p.do(ctx, placement.SetClusterID{ID: id}); err != nil {
		return fmt.Errorf("set cluster id: %w", err)
	}
	_, err := p.do(ctx, placement.RegisterNode{
		Node: p.self.Node, Store: store, Boot: p.self.Boot, Machine: machine,
		API: api, Peer: peer, Zone: zone,
		Version:   version[:min(len(version), cluster.MaxVersionLen)],
		LeaseOver: true, // no leases are given while there is one voter: the log's lock proves the last process gone
	})
	if err != nil {
		return fmt.Errorf("register node: %w", err)
	}
	return nil
}
