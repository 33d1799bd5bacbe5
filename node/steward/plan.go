package steward

import (
	"math/bits"
	"slices"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/placement"
	"github.com/facetd/facetd/placement/planner"
)

// plan is where a facet should go.
type plan struct {
	need  need
	owner cluster.NodeID
	set   placement.Set // empty: as it is
	why   string        // when it is stuck
}

type need uint8

const (
	nothing need = iota // the row is as it should be
	wanted              // it should change
	stuck               // it should change and cannot now
)

const (
	whyMajority = "too few of its members live"
	whyNoNode   = "no other node may keep it"
	whyNoOwner  = "no other node may own it"
	// Its owner finds what it is told to move by name.
	whyNameless = "an import that is under way, or was cut short, has not given it its name; the rest of one is deleted after half an hour"
)

// leave is the plan of a drain: the node owns nothing. Replicas stay, but for a
// facet that nobody else keeps.
func (v *view) leave(f *placement.Facet, node cluster.NodeID) plan {
	if !live(f) {
		return plan{}
	}
	if f.Owner.Node != node {
		if pending(f) && f.Active.Has(node) && !f.Next.Has(node) {
			return plan{need: wanted, owner: f.Owner.Node, set: f.Next} // moved away, and not complete without the node
		}
		return plan{}
	}
	old := base(f)
	away := func(n *sight) bool { return n.ID != node && n.open() }
	if to, ok := v.elect(f, old, away); ok {
		return plan{need: wanted, owner: to}
	}
	set, ok := v.mend(f, func(m placement.Member) bool { return m.Node == node }, false, min(old.Len(), 3, v.replicas))
	if !ok {
		return plan{need: stuck, why: whyNoNode}
	}
	to, ok := v.elect(f, set, away)
	if !ok {
		return plan{need: stuck, why: whyNoOwner}
	}
	return plan{need: wanted, owner: to, set: set}
}

// vacate is the plan of a decommission: no row names the node. Where fewer nodes
// are left than a set has members it shrinks, to three at least (rule R43) or to
// the replication factor if that is one; by force, to one.
func (v *view) vacate(f *placement.Facet, node cluster.NodeID, force bool) plan {
	if !f.Active.Has(node) && !f.Next.Has(node) && f.Owner.Node != node {
		return plan{}
	}
	if !live(f) {
		return plan{need: wanted} // its deletion must end first
	}
	old := base(f)
	if !old.Has(node) { // only the set of a change under way has it, which has to end first
		return plan{need: wanted, owner: f.Owner.Node, set: old}
	}
	least := min(old.Len(), 3, v.replicas)
	if force || broken.Is(broken.BelowThree) {
		least = 1
	}
	set, ok := v.mend(f, func(m placement.Member) bool { return m.Node == node }, false, least)
	if !ok {
		return plan{need: stuck, why: whyNoNode}
	}
	return v.moveTo(f, set)
}

// repair is the plan that restores a set: its lost members have successors, and it
// has as many members as are wanted and can be had. urgent counts every member as
// lost that is not sound now. What cannot be replaced stays: nothing shrinks by
// itself (rule R25).
func (v *view) repair(f *placement.Facet, urgent bool) plan {
	if !live(f) || f.State == placement.Creating && !urgent {
		return plan{} // who creates it is still at it, or the first use goes on with it
	}
	old := base(f)
	lost := 0
	for _, m := range old.Members() {
		if v.lost(m, urgent) {
			lost++
		}
	}
	if lost == 0 && old.Len() >= min(v.replicas, v.mayHave(old)) {
		if pending(f) { // whoever began the change did not end it
			return plan{need: wanted, owner: f.Owner.Node, set: f.Next}
		}
		return plan{}
	}
	if !v.majority(old) {
		return plan{need: stuck, why: whyMajority}
	}
	set, ok := v.mend(f, func(m placement.Member) bool { return v.lost(m, urgent) }, true, old.Len())
	switch {
	case (!ok || set.Equal(old)) && lost > 0:
		return plan{need: stuck, why: whyNoNode}
	case !ok || set.Equal(old):
		return plan{}
	}
	return v.moveTo(f, set)
}

// mayHave is the size a set could have: its sound members and every open node.
func (v *view) mayHave(old placement.Set) int {
	n := v.room
	for _, m := range old.Members() {
		if v.sound(m) && !v.nodes[m.Node].open() {
			n++
		}
	}
	if n%2 == 0 {
		n--
	}
	return n
}

// balance is the plan of a rebalance: owner and set are what the planner chooses
// among all nodes that stay. A pinned facet keeps its owner. Nodes that are dead
// and not yet given up keep their share: a facet that would move to one waits, and
// none moves only because a node is away for a moment. So does one that is draining: it
// keeps the copies it has, gets no others, and owns nothing but what is pinned to it.
// Hints are those the operation began with, so that it does not run after its own effects.
func (v *view) balance(f *placement.Facet, hints map[cluster.NodeID]Hint) plan {
	if !live(f) || f.State == placement.Creating {
		return plan{}
	}
	old := base(f)
	nodes := make([]planner.Node, 0, len(v.list))
	for _, n := range v.list {
		gone := !n.alive && v.repairAfter >= 0 && v.now.Sub(n.since) >= v.repairAfter
		stays := n.State == placement.NodeActive || n.State == placement.NodeDraining && old.Has(n.ID)
		nodes = append(nodes, planner.Node{
			ID: n.ID, Store: n.Store, Zone: n.Zone, Draining: gone || !stays,
			FreeBytes: coarse(hints[n.ID].FreeBytes),
		})
	}
	r := planner.Request{Facet: f.Incarnation, Replicas: max(v.replicas, old.Len()|1)}
	if f.Pinned && v.nodes[f.Owner.Node] != nil {
		r.Pins = []cluster.NodeID{f.Owner.Node}
	}
	p, err := planner.Choose(nodes, r)
	if err != nil || p.Set.Len() < old.Len() || !v.majority(p.Set) {
		return plan{}
	}
	for _, m := range p.Set.Members() {
		if !v.nodes[m.Node].alive && !old.Has(m.Node) {
			return plan{}
		}
	}
	owner := p.Owner
	if !v.nodes[owner].alive || v.nodes[owner].State == placement.NodeDraining && len(r.Pins) == 0 {
		owner = v.heir(f, p.Set)
	}
	switch same := p.Set.Equal(old); {
	case owner == "":
		return plan{}
	case same && (owner == f.Owner.Node || f.Owner.IsZero()) && !pending(f):
		return plan{}
	case same:
		return plan{need: wanted, owner: owner}
	}
	return plan{need: wanted, owner: owner, set: p.Set}
}

// coarse rounds room down to a power of two: nodes that are nearly alike are alike,
// and a rebalance does not move facets for a few bytes.
func coarse(room uint64) uint64 {
	if room == 0 {
		return 0
	}
	return 1 << (bits.Len64(room) - 1)
}

// moveTo is the plan to have a facet in a set, its owner unchanged if possible.
func (v *view) moveTo(f *placement.Facet, set placement.Set) plan {
	owner := v.heir(f, set)
	if owner == "" {
		return plan{need: stuck, why: whyNoOwner}
	}
	return plan{need: wanted, owner: owner, set: set}
}

// heir is the owner a facet should have in a set: the one it has, another member of
// today, or a new one; nodes that stay before others.
func (v *view) heir(f *placement.Facet, set placement.Set) cluster.NodeID {
	if m, ok := set.Member(f.Owner.Node); ok && v.sound(m) && v.nodes[m.Node].open() {
		return m.Node
	}
	old := base(f)
	stays := func(n *sight) bool { return n.open() && old.Has(n.ID) }
	for _, fit := range []func(*sight) bool{stays, (*sight).open, anyNode} {
		if to, ok := v.elect(f, set, fit); ok {
			return to
		}
	}
	return ""
}

// mend is the set nearest to a facet's own without the members to drop: all others
// stay, and the planner chooses the missing ones, zones respected. With retain,
// dropped members whose copies are not lost for good come back while there are too
// few nodes to replace all. The set has an odd number of members, at least least; ok
// is false if that cannot be had.
//
// Invariant: every member of the result is registered with the store it names, and
// every new one is open.
func (v *view) mend(f *placement.Facet, drop func(placement.Member) bool, retain bool, least int) (set placement.Set, ok bool) {
	old := base(f)
	var kept, spare []placement.Member
	for _, m := range old.Members() {
		switch {
		case v.replaced(m): // the table takes no such member
		case !drop(m):
			kept = append(kept, m)
		case retain:
			spare = append(spare, m)
		}
	}
	// The one that died last is the first to be retained.
	slices.SortStableFunc(spare, func(a, b placement.Member) int {
		return v.nodes[b.Node].since.Compare(v.nodes[a.Node].since)
	})
	for want := max(old.Len()|1, v.replicas); want >= max(least, 1); want -= 2 {
		for n := range len(spare) + 1 {
			pins := append(slices.Clone(kept), spare[:n]...)
			if len(pins) > want {
				if n == 0 {
					return v.shrink(f, kept, want)
				}
				break
			}
			if set, ok := v.choose(f, v.candidates, pins, want); ok {
				return set, true
			}
		}
	}
	return placement.Set{}, false
}

// choose lets the planner complete a set to exactly want members, of which a
// majority is sound: others could not be activated.
func (v *view) choose(f *placement.Facet, nodes []planner.Node, keep []placement.Member, want int) (placement.Set, bool) {
	pins := make([]cluster.NodeID, len(keep))
	for i, m := range keep {
		pins[i] = m.Node
	}
	p, err := planner.Choose(nodes, planner.Request{Facet: f.Incarnation, Replicas: want, Pins: pins})
	return p.Set, err == nil && p.Set.Len() == want && v.majority(p.Set)
}

// shrink picks want of the members of a set that has to become smaller: those that
// live, the owner among them, and others only if these are too few.
func (v *view) shrink(f *placement.Facet, kept []placement.Member, want int) (placement.Set, bool) {
	var owner, living []placement.Member
	var nodes, dead []planner.Node
	for _, m := range kept {
		n := planner.Node{ID: m.Node, Store: m.Store, Zone: v.nodes[m.Node].Zone}
		if !v.sound(m) {
			dead = append(dead, n)
			continue
		}
		nodes, living = append(nodes, n), append(living, m)
		if m.Node == f.Owner.Node {
			owner = append(owner, m)
		}
	}
	if len(living) >= want {
		return v.choose(f, nodes, owner, want)
	}
	return v.choose(f, append(nodes, dead...), living, want)
}
