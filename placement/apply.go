package placement

import (
	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
)

// The transitions. Each decides by the table and the command alone, and
// changes nothing before it has decided.

func (s *state) refuse(o Outcome, index uint64) Result { return Result{Outcome: o, Index: index} }

// answer is a result with the row as it is now.
func (s *state) answer(o Outcome, index uint64, ref uint32) Result {
	return Result{Outcome: o, Index: index, Facet: s.rows.at(ref).value()}
}

// edit opens a row for a change by the entry at index.
func (s *state) edit(ref uint32, index uint64) *row {
	r := s.rows.edit(ref)
	r.index = index
	s.changed = append(s.changed, r.incarnation)
	return r
}

// lookup finds the row a command is about, or the outcome that refuses it.
func (s *state) lookup(id facet.Incarnation) (uint32, Outcome) {
	if ref, ok := s.findID(id); ok {
		return ref, Done
	}
	if s.tombs.has(s.hashID(id), id) {
		return 0, RefusedTombstoned
	}
	return 0, RefusedNoFacet
}

// checkOwner tells whether o is the registered process life of its node.
func (s *state) checkOwner(o Owner) Outcome {
	n := s.nodes[o.Node]
	switch {
	case n == nil:
		return RefusedNode
	case n.Boot != o.Boot:
		return RefusedBoot
	}
	return Done
}

// checkSet tells whether every member of a set is registered with that store
// and the owner is among them.
func (s *state) checkSet(set Set, o Owner) Outcome {
	for _, m := range set.Members() {
		switch n := s.nodes[m.Node]; {
		case n == nil:
			return RefusedNode
		case n.Store != m.Store:
			return RefusedStore
		}
	}
	if !set.Has(o.Node) {
		return RefusedSet
	}
	return Done
}

func (c RegisterNode) apply(s *state, index uint64) Result {
	old := s.nodes[c.Node]
	if node, ok := s.stores[c.Store]; ok && node != c.Node {
		return s.refuse(RefusedStore, index)
	}
	if old != nil {
		switch {
		case old.Store != c.Store && !c.ReplaceStore && !broken.Is(broken.StoreSwap):
			return s.refuse(RefusedStore, index)
		case old.Boot != c.Boot && !c.LeaseOver && (c.Machine.IsZero() || c.Machine != old.Machine):
			return s.refuse(RefusedLease, index)
		}
		delete(s.stores, old.Store)
	} else if len(s.nodes) >= MaxNodes {
		return s.refuse(RefusedFull, index)
	}
	n := &Node{ID: c.Node, Store: c.Store, Boot: c.Boot, Machine: c.Machine,
		API: c.API, Peer: c.Peer, Zone: c.Zone, Version: c.Version, Index: index}
	if old != nil {
		n.State = old.State
	}
	s.nodes[c.Node] = n
	s.stores[c.Store] = c.Node
	s.nodesChanged = true
	return Result{Outcome: Done, Index: index}
}

func (c SetNode) apply(s *state, index uint64) Result {
	old := s.nodes[c.Node]
	switch {
	case old == nil:
		return s.refuse(RefusedNode, index)
	case old.State != c.State:
		n := *old
		n.State, n.Index = c.State, index
		s.nodes[c.Node] = &n
		s.nodesChanged = true
	}
	return Result{Outcome: Done, Index: index}
}

func (c RemoveNode) apply(s *state, index uint64) Result {
	old := s.nodes[c.Node]
	switch {
	case old == nil:
		return Result{Outcome: Done, Index: index}
	case old.State == NodeActive || s.names(c.Node):
		return s.refuse(RefusedInUse, index)
	}
	delete(s.nodes, c.Node)
	delete(s.stores, old.Store)
	s.nodesChanged = true
	return Result{Outcome: Done, Index: index}
}

func (c Pin) apply(s *state, index uint64) Result {
	ref, o := s.lookup(c.Incarnation)
	if o != Done {
		return s.refuse(o, index)
	}
	r := s.rows.at(ref)
	switch {
	case r.pinned == c.Pinned:
		return s.answer(Done, index, ref)
	case !r.state.live():
		return s.answer(RefusedState, index, ref)
	}
	s.edit(ref, index).pinned = c.Pinned
	return s.answer(Done, index, ref)
}

func (Renew) apply(_ *state, index uint64) Result { return Result{Outcome: Done, Index: index} }

func (c Create) apply(s *state, index uint64) Result {
	if ref, ok := s.findID(c.Incarnation); ok {
		if r := s.rows.at(ref); r.name() == c.Name && (r.bound || c.Detached) {
			return s.answer(Existed, index, ref)
		}
		return s.answer(RefusedIncarnation, index, ref)
	}
	if !c.Detached {
		if ref, ok := s.findName(c.Name); ok {
			return s.answer(Existed, index, ref)
		}
	}
	if s.tombs.has(s.hashID(c.Incarnation), c.Incarnation) && !broken.Is(broken.ReusedID) {
		return s.refuse(RefusedTombstoned, index)
	}
	if o := s.checkOwner(c.Owner); o != Done {
		return s.refuse(o, index)
	}
	if o := s.checkSet(c.Set, c.Owner); o != Done {
		return s.refuse(o, index)
	}
	if s.rows.live >= MaxFacets {
		return s.refuse(RefusedFull, index)
	}
	if !c.Detached {
		if o := s.mayName(c.Name.Tenant); o != Done {
			return s.refuse(o, index)
		}
	}
	r := row{
		incarnation: c.Incarnation, facet: c.Name.Facet, tenant: s.tenantOf(c.Name.Tenant),
		owner: s.shareOwner(c.Owner), next: s.shareSet(c.Set), epoch: epochOf(s.generation),
		index: index, state: Creating, bound: !c.Detached,
	}
	if !c.Lineage.IsZero() {
		l := c.Lineage // on its own: a pointer to c would keep all of it
		r.lineage = &l
	}
	if c.Active && !c.Detached && s.generation == 0 {
		// Rule R21 is met: no holder was before this one, and the epoch is its own.
		r.state, r.active, r.activeEpoch, r.holder = Active, r.next, r.epoch, r.owner
	}
	ref := s.addRow(r)
	s.changed = append(s.changed, c.Incarnation)
	return s.answer(Done, index, ref)
}

func (c Acquire) apply(s *state, index uint64) Result {
	ref, o := s.lookup(c.Incarnation)
	if o != Done {
		return s.refuse(o, index)
	}
	r := s.rows.at(ref)
	set := c.Set
	if set.IsZero() {
		if set = (Set{r.active}); set.IsZero() || broken.Is(broken.KeepsChange) {
			set = Set{r.next}
		}
	}
	next, ok := nextEpoch(c.Expected, s.generation)
	if r.epoch == next && ok && r.owner != nil && *r.owner == c.Owner && r.state.live() && set.Equal(Set{r.next}) &&
		(r.activeEpoch == r.epoch || !r.heldBy(c.Released)) {
		// The same proposal again. A holder activated since is not the one that
		// gave its word; one that was not activated since would be gone.
		return s.answer(Done, index, ref)
	}
	switch {
	case !r.state.live():
		return s.answer(RefusedState, index, ref)
	case r.epoch != c.Expected || !ok:
		return s.answer(RefusedEpoch, index, ref)
	}
	if o := s.checkOwner(c.Owner); o != Done {
		return s.answer(o, index, ref)
	}
	if !c.Set.IsZero() {
		if o := s.checkSet(c.Set, c.Owner); o != Done {
			return s.answer(o, index, ref)
		}
	} else if m, ok := set.Member(c.Owner.Node); !ok {
		return s.answer(RefusedSet, index, ref)
	} else if m.Store != s.nodes[c.Owner.Node].Store {
		return s.answer(RefusedStore, index, ref) // a replaced disk keeps nothing of this facet
	}
	r = s.edit(ref, index)
	r.epoch, r.owner, r.next = next, s.shareOwner(c.Owner), s.shareSet(set)
	if r.heldBy(c.Released) {
		r.holder = nil
	}
	if r.state == Active {
		r.state = Recovering
	}
	return s.answer(Done, index, ref)
}

// checkOwnerOf tells whether an epoch of a row was issued to a process life.
func checkOwnerOf(r *row, epoch facet.Epoch, boot cluster.BootID) Outcome {
	switch {
	case r.epoch != epoch:
		return RefusedEpoch
	case r.owner == nil || r.owner.Boot != boot:
		return RefusedBoot
	}
	return Done
}

func (c Activate) apply(s *state, index uint64) Result {
	ref, o := s.lookup(c.Incarnation)
	if o != Done {
		return s.refuse(o, index)
	}
	r := s.rows.at(ref)
	if o := checkOwnerOf(r, c.Epoch, c.Boot); o != Done && !broken.Is(broken.NoCAS) {
		return s.answer(o, index, ref)
	}
	switch r.state {
	case Active: // rule R21 was met before: the same epoch, the same boot
		return s.answer(Done, index, ref)
	case Creating, Recovering:
	default:
		return s.answer(RefusedState, index, ref)
	}
	// A boot superseded since it acquired may still activate: it holds the
	// epoch until somebody acquires the next one, and its lease decides reads.
	r = s.edit(ref, index)
	r.state, r.active, r.activeEpoch, r.holder = Active, r.next, c.Epoch, r.owner
	return s.answer(Done, index, ref)
}

func (c Release) apply(s *state, index uint64) Result {
	ref, o := s.lookup(c.Incarnation)
	if o != Done {
		return s.refuse(o, index)
	}
	r := s.rows.at(ref)
	if r.epoch == c.Epoch && r.owner == nil && r.state.live() {
		return s.answer(Done, index, ref)
	}
	if r.activeEpoch == c.Epoch && r.epoch > c.Epoch && (r.holder == nil || r.heldBy(c.Boot)) {
		if r.holder != nil {
			s.edit(ref, index).holder = nil
		}
		return s.answer(Done, index, ref)
	}
	if o := checkOwnerOf(r, c.Epoch, c.Boot); o != Done {
		return s.answer(o, index, ref)
	}
	r = s.edit(ref, index)
	r.owner = nil
	if r.heldBy(c.Boot) {
		r.holder = nil
	}
	if r.state == Active {
		r.state = Recovering
	}
	return s.answer(Done, index, ref)
}

func (c Delete) apply(s *state, index uint64) Result {
	ref, o := s.lookup(c.Incarnation)
	switch {
	case o == RefusedTombstoned:
		return Result{Outcome: Done, Index: index}
	case o != Done:
		return s.refuse(o, index)
	}
	r := s.rows.at(ref)
	if !r.state.live() {
		return s.answer(Done, index, ref)
	}
	next, ok := nextEpoch(r.epoch, s.generation)
	if !ok || c.Expected != 0 && c.Expected != r.epoch {
		return s.answer(RefusedEpoch, index, ref)
	}
	r = s.edit(ref, index)
	r.epoch, r.owner, r.state = next, nil, Deleting
	return s.answer(Done, index, ref)
}

func (c Tomb) apply(s *state, index uint64) Result {
	ref, o := s.lookup(c.Incarnation)
	switch {
	case o == RefusedTombstoned:
		return Result{Outcome: Done, Index: index}
	case o != Done:
		return s.refuse(o, index)
	}
	r := s.rows.at(ref)
	switch {
	case r.state != Deleting && r.state != Retired:
		return s.answer(RefusedState, index, ref)
	case r.epoch != c.Epoch:
		return s.answer(RefusedEpoch, index, ref)
	}
	s.changed = append(s.changed, c.Incarnation)
	s.dropRow(ref)
	s.tombs.add(s.hashID(c.Incarnation), c.Incarnation, s.hashID)
	return Result{Outcome: Done, Index: index}
}

func (c Bind) apply(s *state, index uint64) Result {
	ref, o := s.lookup(c.New)
	if o != Done {
		return s.refuse(o, index)
	}
	r := s.rows.at(ref)
	if r.bound && r.name() == c.Name {
		return s.answer(Done, index, ref)
	}
	switch {
	case !r.state.live():
		return s.answer(RefusedState, index, ref)
	case r.tenant.name != c.Name.Tenant:
		return s.answer(RefusedName, index, ref)
	}
	oldRef, taken := s.findName(c.Name)
	switch {
	case taken && s.rows.at(oldRef).incarnation != c.Old && !broken.Is(broken.BindAny):
		return s.answer(RefusedName, index, oldRef)
	case !taken && !c.Old.IsZero():
		return s.refuse(RefusedName, index)
	case !taken && !r.bound:
		if o := s.mayName(c.Name.Tenant); o != Done {
			return s.answer(o, index, ref)
		}
	}
	if taken {
		old := s.rows.at(oldRef)
		next, ok := nextEpoch(old.epoch, s.generation)
		switch {
		case !old.state.live(), c.Unserved && old.state == Active:
			return s.answer(RefusedState, index, oldRef)
		case old.epoch != c.OldEpoch && !broken.Is(broken.BindAny) || !ok:
			return s.answer(RefusedEpoch, index, oldRef)
		}
		s.unbind(oldRef)
		old = s.edit(oldRef, index)
		old.epoch, old.owner, old.state = next, nil, Retired
	}
	s.unbind(ref)
	s.edit(ref, index)
	s.bind(ref, c.Name.Facet)
	return s.answer(Done, index, ref)
}

func (c SetClusterID) apply(s *state, index uint64) Result {
	if !s.cluster.IsZero() && s.cluster != c.ID {
		return s.refuse(RefusedCluster, index)
	}
	s.cluster = c.ID
	return Result{Outcome: Done, Index: index}
}

func (c RaiseGeneration) apply(s *state, index uint64) Result {
	if c.Generation < s.generation {
		return s.refuse(RefusedGeneration, index)
	}
	s.generation = c.Generation
	return Result{Outcome: Done, Index: index}
}
