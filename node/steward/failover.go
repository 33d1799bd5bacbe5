package steward

import (
	"github.com/facetd/facetd/placement"
	"github.com/facetd/facetd/placement/planner"
)

// verdict is what is to be done about the owner of a row.
type verdict uint8

const (
	fine        verdict = iota // nothing
	orphan                     // the owner is gone and another member takes over
	unavailable                // the owner is gone, and so are too many members
)

// ownerGone reports whether nobody serves the facet and its owner will not take it
// back by itself: its node is dead, or lives again without what it would need. A
// node that came back as it was acquires its facets on use, and is left to do so.
func (v *view) ownerGone(f *placement.Facet) bool {
	n := v.nodes[f.Owner.Node]
	switch {
	case n == nil || !n.alive:
		return true
	case n.Boot == f.Owner.Boot:
		return false
	}
	// Another process life: it must be a member that can be recovered from.
	m, ok := base(f).Member(n.ID)
	return !ok || m.Store != n.Store
}

// takeover decides about the owner of a row. A row that was released waits for its
// first use: whoever is asked acquires it.
func (v *view) takeover(f *placement.Facet) (placement.Acquire, verdict) {
	if !live(f) || f.Owner.IsZero() || !v.ownerGone(f) {
		return placement.Acquire{}, fine
	}
	if a, ok := v.appoint(f); ok {
		return a, orphan
	}
	return placement.Acquire{}, unavailable
}

// appoint gives a facet an owner that can recover it: a sound member of its base,
// on a node that stays if there is one. The set is the active one, so that a
// failover during a change of the set takes the change back (rule R43). ok is
// false when too few members are sound.
func (v *view) appoint(f *placement.Facet) (a placement.Acquire, ok bool) {
	a = placement.Acquire{Incarnation: f.Incarnation, Expected: f.Epoch}
	set := base(f)
	if !v.majority(set) {
		if !f.Active.IsZero() {
			return a, false // R25
		}
		// Nothing was ever acknowledged, so there is nothing to recover: a facet whose
		// first members died before it was activated begins anew on others.
		p, err := planner.Choose(v.candidates, planner.Request{Facet: f.Incarnation, Replicas: v.replicas})
		if err != nil || p.Set.Len() < set.Len() {
			return a, false
		}
		set, a.Set = p.Set, p.Set
	}
	to, ok := v.elect(f, set, (*sight).open)
	if !ok {
		to, ok = v.elect(f, set, anyNode)
	}
	if !ok {
		return a, false
	}
	a.Owner = placement.Owner{Node: to, Boot: v.nodes[to].Boot}
	return a, true
}
