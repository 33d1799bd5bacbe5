package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/owner"
	"github.com/facetd/facetd/node/quota"
	"github.com/facetd/facetd/placement"
	"github.com/facetd/facetd/placement/planner"
)

// proposals is the placement table as the owners of this node use it: reads from
// the local copy, changes through the Raft log.
type proposals struct {
	n        *Node
	table    *placement.Table
	propose  func(ctx context.Context, c placement.Command) (placement.Result, error)
	self     placement.Owner // this node in this process life
	replicas int             // replication factor of new facets
}

// applyWait bounds how long a proposer waits for its own table to apply what the
// log accepted.
const applyWait = 5 * time.Second

// do proposes c and returns when this node's table shows what came of it.
func (p *proposals) do(ctx context.Context, c placement.Command) (placement.Result, error) {
	res, err := p.propose(ctx, c)
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
// told. A refusal stays to be found.
func placementError(err error) error {
	var refused *placement.Refusal
	if !errors.As(err, &refused) {
		var fe *facet.Error
		if errors.As(err, &fe) {
			return err
		}
		if errors.Is(err, consensus.ErrFull) {
			return facet.Errorf(facet.CodeDiskFull, "the node has no room for its placement log; make room on its disk")
		}
		return facet.Errorf(facet.CodeUnavailable, "the placement table cannot be changed now: %v", err)
	}
	told := facet.Errorf(facet.CodeUnavailable, "the placement table refused: %v; try again", refused)
	switch refused.Outcome {
	case placement.RefusedNoFacet, placement.RefusedTombstoned:
		told = facet.Errorf(facet.CodeNotFound, "the facet was deleted")
	case placement.RefusedTenantLimit:
		told = &facet.Error{Code: facet.CodeLimit, Limit: "facets", Message: "the tenant has as many facets as it may (limit facets); delete some or have the limit raised"}
	case placement.RefusedFull:
		told = &facet.Error{Code: facet.CodeLimit, Limit: "table_rows", Message: "the cluster has as many facets as its placement table holds"}
	case placement.RefusedName:
		told = facet.Errorf(facet.CodeExists, "the facet was changed by another request meanwhile")
	}
	return &refusal{told, refused}
}

// named puts what the table says of a tenant into a refusal because of it.
func (p *proposals) named(tenant facet.Tenant, err error) error {
	var r *refusal
	if !errors.As(err, &r) {
		return err
	}
	switch r.why.Outcome {
	case placement.RefusedTenantLimit:
		r.told = facetsError(tenant, p.table.Settings(tenant).Limits.Facets)
	case placement.RefusedFrozen:
		r.told = quota.FrozenError(tenant, max(p.table.Settings(tenant).Freeze, facet.FreezeWrites))
	}
	return err
}

func facetsError(tenant facet.Tenant, most uint64) *facet.Error {
	return &facet.Error{Code: facet.CodeLimit, Limit: facet.LimitNames[0], Message: fmt.Sprintf(
		"tenant %s has as many facets as it may (limit facets = %d); delete some or have the limit raised", tenant, most)}
}

// refusal is what a client is told, with the reason for those inside the node.
type refusal struct {
	told error
	why  *placement.Refusal
}

func (r *refusal) Error() string   { return r.told.Error() }
func (r *refusal) Unwrap() []error { return []error{r.told, r.why} }

func (p *proposals) row(f placement.Facet) owner.Row {
	r := owner.Row{
		Name: f.Name, Incarnation: f.Incarnation, Epoch: f.Epoch, Owner: f.Owner.Node, Boot: f.Owner.Boot,
		Mine:   f.Owner == p.self,
		Active: f.State == placement.Active && f.ActiveEpoch == f.Epoch,
		// Epoch 1 is issued by Create alone; later generations may begin with an
		// epoch that was not the facet's first.
		New:       f.ActiveEpoch <= 1,
		First:     f.Epoch == 1,
		ActiveSet: p.members(f.Active), NextSet: p.members(f.Next), ActiveEpoch: f.ActiveEpoch,
		Lineage: f.Lineage,
	}
	if r.Owner == "" { // given back: anybody's of the set
		r.Owner = p.anyOf(f)
	}
	r.Local = r.Owner == p.self.Node
	if n, ok := p.table.Node(r.Owner); ok {
		r.OwnerURL = apiURL(n.API)
	}
	return r
}

// anyOf is a member that may acquire a facet nobody owns: this node if it may, else
// one that seems to be there.
func (p *proposals) anyOf(f placement.Facet) cluster.NodeID {
	set := f.Active
	if set.IsZero() {
		set = f.Next
	}
	if set.Has(p.self.Node) {
		return p.self.Node
	}
	for _, m := range set.Members() {
		if p.n.seen(m.Node) == cluster.StatusAlive {
			return m.Node
		}
	}
	if list := set.Members(); len(list) > 0 {
		return list[0].Node
	}
	return p.self.Node
}

func (p *proposals) members(s placement.Set) []owner.Member {
	list := s.Members()
	out := make([]owner.Member, len(list))
	for i, m := range list {
		out[i] = owner.Member{Node: m.Node, Store: m.Store}
		if n, ok := p.table.Node(m.Node); ok && n.Store == m.Store {
			out[i].Boot = n.Boot
		}
	}
	return out
}

func gone(f placement.Facet) bool {
	return f.State == placement.Deleting || f.State == placement.Retired
}

// Lookup implements owner.Placement.
func (p *proposals) Lookup(name facet.Name) (owner.Row, bool) {
	f, ok := p.table.Lookup(name)
	if !ok || gone(f) {
		return owner.Row{}, false
	}
	return p.row(f), true
}

// ByIncarnation implements owner.Placement.
func (p *proposals) ByIncarnation(id facet.Incarnation) (owner.Row, bool) {
	f, ok := p.table.ByIncarnation(id)
	if !ok {
		return owner.Row{}, false
	}
	return p.row(f), true
}

// Confirm implements owner.Placement. An entry that changes nothing is committed,
// and what was committed before it is applied here then. A node that is the whole
// cluster has nobody to learn from.
func (p *proposals) Confirm(ctx context.Context, name facet.Name) (owner.Row, bool, error) {
	if p.table.Counts().Nodes > 1 {
		if _, err := p.do(ctx, placement.Renew{}); err != nil {
			return owner.Row{}, false, err
		}
	}
	row, ok := p.Lookup(name)
	return row, ok, nil
}

// Create implements owner.Placement.
func (p *proposals) Create(ctx context.Context, name facet.Name) (owner.Row, error) {
	id := facet.NewIncarnation()
	for {
		plan, err := planner.Choose(p.candidates(), planner.Request{Facet: id, Replicas: p.replicas})
		if err != nil {
			return owner.Row{}, facet.Errorf(facet.CodeUnavailable, "no node may take a new facet: %v", err)
		}
		n, ok := p.table.Node(p.ownerOf(plan))
		if !ok {
			return owner.Row{}, facet.Errorf(facet.CodeUnavailable, "node %s was removed meanwhile; try again", plan.Owner)
		}
		row, err := p.create(ctx, placement.Create{
			Name: name, Incarnation: id, Owner: placement.Owner{Node: n.ID, Boot: n.Boot}, Set: plan.Set, Active: true,
		})
		if !errors.Is(err, placement.RefusedBoot) || ctx.Err() != nil {
			return row, err
		}
		// The owner was started anew meanwhile: with its new process life then.
	}
}

// CreateDetached implements owner.Placement.
func (p *proposals) CreateDetached(ctx context.Context, name facet.Name, of facet.Lineage) (owner.Row, error) {
	id := facet.NewIncarnation()
	set, err := p.ownSet(id)
	if err != nil {
		return owner.Row{}, err
	}
	return p.create(ctx, placement.Create{Name: name, Incarnation: id, Owner: p.self, Set: set, Detached: true, Lineage: of})
}

// ownSet is the set of a new facet that this node owns.
func (p *proposals) ownSet(id facet.Incarnation) (placement.Set, error) {
	plan, err := planner.Choose(p.candidates(), planner.Request{Facet: id, Replicas: p.replicas, Pins: []cluster.NodeID{p.self.Node}})
	if err != nil {
		return placement.Set{}, facet.Errorf(facet.CodeUnavailable, "no nodes for a new facet: %v", err)
	}
	return plan.Set, nil
}

func (p *proposals) create(ctx context.Context, c placement.Create) (owner.Row, error) {
	res, err := p.do(ctx, c)
	if err != nil {
		return owner.Row{}, p.named(c.Name.Tenant, err)
	}
	if gone(res.Facet) {
		return owner.Row{}, facet.Errorf(facet.CodeUnavailable, "a facet of that name is just being deleted; try again")
	}
	return p.row(res.Facet), nil
}

// candidates are the nodes that may get new facets. Gossip is a hint here: nodes
// that seem gone are left out while there are enough others, and come last else: a
// facet created with one dead member of three lives with the others.
func (p *proposals) candidates() []planner.Node {
	nodes := p.table.Nodes()
	out := make([]planner.Node, 0, len(nodes))
	able, hints := 0, p.n.hints()
	for _, n := range nodes {
		h := hintOf(hints, n.ID)
		c := planner.Node{
			ID: n.ID, Store: n.Store, Zone: n.Zone, Draining: n.State != placement.NodeActive,
			Load: h.Load, FreeBytes: h.FreeBytes,
		}
		if p.n.seen(n.ID) != cluster.StatusAlive {
			c.Load = 1
		} else if !c.Draining {
			able++
		}
		out = append(out, c)
	}
	for i := range out {
		switch {
		case able >= p.replicas:
			out[i].Draining = out[i].Draining || out[i].Load == 1
		case able == 0:
			out[i].Draining = false // every node leaves, or gossip sees nobody: better any than none
		}
	}
	return out
}

// ownerOf is who shall own a new facet: the planner's choice, or if that node seems
// gone, another member.
func (p *proposals) ownerOf(plan planner.Plan) cluster.NodeID {
	if p.n.seen(plan.Owner) != cluster.StatusAlive {
		for _, m := range plan.Set.Members() {
			if p.n.seen(m.Node) == cluster.StatusAlive {
				return m.Node
			}
		}
	}
	return plan.Owner
}

// Acquire implements owner.Placement.
func (p *proposals) Acquire(ctx context.Context, row owner.Row, t owner.Transfer) (owner.Row, error) {
	c := placement.Acquire{Incarnation: row.Incarnation, Owner: p.self, Expected: row.Epoch}
	if t.Owner != "" && t.Owner != p.self.Node {
		n, ok := p.table.Node(t.Owner)
		if !ok {
			return owner.Row{}, facet.Errorf(facet.CodeBadRequest, "node %s is not in the cluster", t.Owner)
		}
		c.Owner = placement.Owner{Node: n.ID, Boot: n.Boot}
	}
	if t.Released {
		c.Released = p.self.Boot
	}
	if len(t.Set) > 0 {
		members := make([]placement.Member, len(t.Set))
		for i, m := range t.Set {
			members[i] = placement.Member{Node: m.Node, Store: m.Store}
		}
		set, err := placement.NewSet(members...)
		if err != nil {
			return owner.Row{}, facet.Errorf(facet.CodeBadRequest, "%v", err)
		}
		c.Set = set
	}
	res, err := p.do(ctx, c)
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
func (p *proposals) Bind(ctx context.Context, name facet.Name, old, row owner.Row, unserved bool) error {
	res, err := p.propose(ctx, placement.Bind{Name: name, Old: old.Incarnation, OldEpoch: old.Epoch, New: row.Incarnation, Unserved: unserved})
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, applyWait)
		defer cancel()
		err = p.table.WaitApplied(ctx, res.Index)
	}
	var refused *placement.Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused), errors.Is(err, consensus.ErrFull):
		return p.named(name.Tenant, placementError(err))
	}
	return facet.Errorf(facet.CodeUnknownOutcome, "whether %s leads to its new content now is not known: %v", name, err)
}

// Delete implements owner.Placement.
func (p *proposals) Delete(ctx context.Context, row owner.Row) error {
	if _, err := p.do(ctx, placement.Delete{Incarnation: row.Incarnation, Expected: row.Epoch}); err != nil {
		return err
	}
	f, ok := p.table.ByIncarnation(row.Incarnation)
	if !ok || f.Holder != p.self {
		return nil
	}
	// The caller has closed the session that served it: nobody has to wait for this
	// process's lease before the tombstone (rule R40).
	_, err := p.do(ctx, placement.Release{Incarnation: row.Incarnation, Epoch: f.ActiveEpoch, Boot: p.self.Boot})
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
