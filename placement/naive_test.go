package placement

import (
	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// model is the table told naively: plain maps, searched from end to end.
type model struct {
	rows     map[facet.Incarnation]Facet
	dead     map[facet.Incarnation]bool
	nodes    map[cluster.NodeID]RegisterNode
	states   map[cluster.NodeID]NodeState
	tenants  map[facet.Tenant]facet.TenantSettings
	defaults facet.TenantLimits
	id       cluster.ID
	gen      uint16
}

func newModel() *model {
	return &model{rows: map[facet.Incarnation]Facet{}, dead: map[facet.Incarnation]bool{},
		nodes: map[cluster.NodeID]RegisterNode{}, states: map[cluster.NodeID]NodeState{}, tenants: map[facet.Tenant]facet.TenantSettings{}}
}

func (m *model) byName(n facet.Name) (Facet, bool) {
	for _, f := range m.rows {
		if f.Bound && f.Name == n {
			return f, true
		}
	}
	return Facet{}, false
}

// mayName is why a tenant gets no further name, or 0.
func (m *model) mayName(t facet.Tenant) Outcome {
	most := m.tenants[t].Limits.Facets
	if most == 0 {
		most = m.defaults.Facets
	}

	n := uint64(0)
	for _, f := range m.rows {
		if f.Bound && f.Name.Tenant == t {
			n++
		}
	}
	switch {
	case m.tenants[t].Freeze != facet.NotFrozen:
		return RefusedFrozen
	case most != 0 && most != facet.NoLimit && n >= most:
		return RefusedTenantLimit
	}
	return 0
}

func (m *model) badOwner(o Owner) Outcome {
	if n, ok := m.nodes[o.Node]; !ok {
		return RefusedNode
	} else if n.Boot != o.Boot {
		return RefusedBoot
	}
	return 0
}

func (m *model) badSet(s Set, o Owner) Outcome {
	for _, x := range s.Members() {
		if n, ok := m.nodes[x.Node]; !ok {
			return RefusedNode
		} else if n.Store != x.Store {
			return RefusedStore
		}
	}
	if !s.Has(o.Node) {
		return RefusedSet
	}
	return 0
}

func (m *model) next(e facet.Epoch) facet.Epoch {
	return max(e+1, facet.Epoch(m.gen)<<48+1)
}

func isLive(f Facet) bool { return f.State <= Active }

func first(os ...Outcome) Outcome {
	for _, o := range os {
		if o != 0 {
			return o
		}
	}
	return 0
}

// apply gives the outcome and the incarnation of the row in the answer.
func (m *model) apply(c Command, index uint64) (Outcome, facet.Incarnation) {
	var none facet.Incarnation
	missing := func(id facet.Incarnation) Outcome {
		if m.dead[id] {
			return RefusedTombstoned
		}
		return RefusedNoFacet
	}
	put := func(f Facet) (Outcome, facet.Incarnation) {
		f.Index = index
		m.rows[f.Incarnation] = f
		return Done, f.Incarnation
	}
	switch c := c.(type) {
	case RegisterNode:
		for _, n := range m.nodes {
			if n.Store == c.Store && n.Node != c.Node {
				return RefusedStore, none
			}
		}
		if old, ok := m.nodes[c.Node]; ok {
			if old.Store != c.Store && !c.ReplaceStore {
				return RefusedStore, none
			}
			same := !c.Machine.IsZero() && c.Machine == old.Machine
			if old.Boot != c.Boot && !same && !c.LeaseOver {
				return RefusedLease, none
			}
		}
		m.nodes[c.Node] = c
		return Done, none
	case Create:
		if f, ok := m.rows[c.Incarnation]; ok {
			if f.Name == c.Name && (c.Detached || f.Bound) {
				return Existed, f.Incarnation
			}
			return RefusedIncarnation, f.Incarnation
		}
		if f, ok := m.byName(c.Name); ok && !c.Detached {
			return Existed, f.Incarnation
		}
		if m.dead[c.Incarnation] {
			return RefusedTombstoned, none
		}
		if o := first(m.badOwner(c.Owner), m.badSet(c.Set, c.Owner)); o != 0 {
			return o, none
		}
		if o := m.mayName(c.Name.Tenant); o != 0 && !c.Detached {
			return o, none
		}
		f := Facet{Name: c.Name, Incarnation: c.Incarnation, State: Creating, Bound: !c.Detached,
			Epoch: m.next(0), Owner: c.Owner, Next: c.Set, Lineage: c.Lineage}
		if c.Active && !c.Detached && f.Epoch == 1 {
			f.State, f.ActiveEpoch, f.Active, f.Holder = Active, f.Epoch, f.Next, f.Owner
		}
		return put(f)
	case Acquire:
		f, ok := m.rows[c.Incarnation]
		if !ok {
			return missing(c.Incarnation), none
		}
		set := c.Set
		if set.IsZero() {
			set = f.Active
		}
		if set.IsZero() {
			set = f.Next
		}
		again := isLive(f) && f.Owner == c.Owner && f.Epoch == m.next(c.Expected) && set.Equal(f.Next)
		wordStands := f.ActiveEpoch == f.Epoch || f.Holder.IsZero() || f.Holder.Boot != c.Released
		if again && wordStands {
			return Done, f.Incarnation
		}
		if !isLive(f) {
			return RefusedState, f.Incarnation
		}
		if f.Epoch != c.Expected {
			return RefusedEpoch, f.Incarnation
		}
		o := m.badOwner(c.Owner)
		if o == 0 && !c.Set.IsZero() {
			o = m.badSet(set, c.Owner)
		} else if o == 0 {
			if k, ok := set.Member(c.Owner.Node); !ok {
				o = RefusedSet
			} else if k.Store != m.nodes[c.Owner.Node].Store {
				o = RefusedStore
			}
		}
		if o != 0 {
			return o, f.Incarnation
		}
		f.Epoch, f.Owner, f.Next = m.next(f.Epoch), c.Owner, set
		if f.Holder.Boot == c.Released {
			f.Holder = Owner{}
		}
		if f.State == Active {
			f.State = Recovering
		}
		return put(f)
	case Activate:
		f, ok := m.rows[c.Incarnation]
		switch {
		case !ok:
			return missing(c.Incarnation), none
		case f.Epoch != c.Epoch:
			return RefusedEpoch, f.Incarnation
		case f.Owner.Boot != c.Boot:
			return RefusedBoot, f.Incarnation
		case f.State == Active:
			return Done, f.Incarnation
		}
		f.State, f.Active, f.ActiveEpoch, f.Holder = Active, f.Next, f.Epoch, f.Owner
		return put(f)
	case Release:
		f, ok := m.rows[c.Incarnation]
		switch {
		case !ok:
			return missing(c.Incarnation), none
		case f.Epoch > c.Epoch && f.ActiveEpoch == c.Epoch && f.Holder.IsZero():
			return Done, f.Incarnation
		case f.Epoch > c.Epoch && f.ActiveEpoch == c.Epoch && f.Holder.Boot == c.Boot:
			f.Holder = Owner{}
			return put(f)
		case f.Epoch != c.Epoch:
			return RefusedEpoch, f.Incarnation
		case isLive(f) && f.Owner.IsZero():
			return Done, f.Incarnation
		case f.Owner.Boot != c.Boot:
			return RefusedBoot, f.Incarnation
		}
		if f.Holder.Boot == c.Boot {
			f.Holder = Owner{}
		}
		f.Owner = Owner{}
		if f.State == Active {
			f.State = Recovering
		}
		return put(f)
	case Delete:
		f, ok := m.rows[c.Incarnation]
		switch {
		case m.dead[c.Incarnation]:
			return Done, none
		case !ok:
			return RefusedNoFacet, none
		case !isLive(f):
			return Done, f.Incarnation
		case c.Expected != 0 && c.Expected != f.Epoch:
			return RefusedEpoch, f.Incarnation
		}
		f.Epoch, f.Owner, f.State = m.next(f.Epoch), Owner{}, Deleting
		return put(f)
	case Tomb:
		f, ok := m.rows[c.Incarnation]
		switch {
		case m.dead[c.Incarnation]:
			return Done, none
		case !ok:
			return RefusedNoFacet, none
		case isLive(f):
			return RefusedState, f.Incarnation
		case f.Epoch != c.Epoch:
			return RefusedEpoch, f.Incarnation
		}
		delete(m.rows, c.Incarnation)
		m.dead[c.Incarnation] = true
		return Done, none
	case Bind:
		f, ok := m.rows[c.New]
		if !ok {
			return missing(c.New), none
		}
		if f.Bound && f.Name == c.Name {
			return Done, f.Incarnation
		}
		if !isLive(f) {
			return RefusedState, f.Incarnation
		}
		if f.Name.Tenant != c.Name.Tenant {
			return RefusedName, f.Incarnation
		}
		old, taken := m.byName(c.Name)
		switch {
		case taken && old.Incarnation != c.Old:
			return RefusedName, old.Incarnation
		case !taken && c.Old != none:
			return RefusedName, none
		case !taken && !f.Bound && m.mayName(c.Name.Tenant) != 0:
			return m.mayName(c.Name.Tenant), f.Incarnation
		case taken && (!isLive(old) || c.Unserved && old.State == Active):
			return RefusedState, old.Incarnation
		case taken && old.Epoch != c.OldEpoch:
			return RefusedEpoch, old.Incarnation
		}
		if taken {
			old.Bound, old.Epoch, old.Owner, old.State = false, m.next(old.Epoch), Owner{}, Retired
			put(old)
		}
		f.Name, f.Bound = c.Name, true
		return put(f)
	case SetClusterID:
		if m.id != (cluster.ID{}) && m.id != c.ID {
			return RefusedCluster, none
		}
		m.id = c.ID
		return Done, none
	case SetTenantLimits:
		set := m.tenants[c.Tenant]
		set.Limits = c.Limits
		m.tenants[c.Tenant] = set
		return Done, none
	case ChangeTenant: // of what randomCommand draws
		set := m.tenants[c.Tenant]
		if c.Tenant == "" {
			set = facet.TenantSettings{Limits: m.defaults}
		}
		if c.Fields&facet.FieldOf(0) != 0 {
			set.Limits.Facets = c.Settings.Limits.Facets
		}
		if c.Fields&facet.FieldOf(7) != 0 {
			set.Limits.MemoryBytes = c.Settings.Limits.MemoryBytes
		}
		if c.Fields&facet.FieldFreeze != 0 {
			set.Freeze = c.Settings.Freeze
		}
		if c.Tenant == "" {
			m.defaults = set.Limits
		} else {
			m.tenants[c.Tenant] = set
		}
		return Done, none
	case RaiseGeneration:
		if c.Generation < m.gen {
			return RefusedGeneration, none
		}
		m.gen = c.Generation
		return Done, none
	case Renew:
		return Done, none
	case SetNode:
		if _, ok := m.nodes[c.Node]; !ok {
			return RefusedNode, none
		}
		m.states[c.Node] = c.State
		return Done, none
	case RemoveNode:
		if _, ok := m.nodes[c.Node]; !ok {
			return Done, none
		}
		for _, f := range m.rows {
			if f.Owner.Node == c.Node || f.Next.Has(c.Node) || f.Active.Has(c.Node) {
				return RefusedInUse, none
			}
		}
		if m.states[c.Node] == NodeActive {
			return RefusedInUse, none
		}
		delete(m.nodes, c.Node)
		delete(m.states, c.Node)
		return Done, none
	case Pin:
		f, ok := m.rows[c.Incarnation]
		switch {
		case !ok:
			return missing(c.Incarnation), none
		case f.Pinned == c.Pinned:
			return Done, f.Incarnation
		case !isLive(f):
			return RefusedState, f.Incarnation
		}
		f.Pinned = c.Pinned
		return put(f)
	}
	panic("unknown command")
}
