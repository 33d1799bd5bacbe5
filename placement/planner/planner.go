// Package planner chooses where a facet lives: its owner and its replica set.
//
// It is one pure function. It owns the choice and its reasons: pins first, then
// as many zones as there are, then weighted rendezvous, so that a node that
// comes or goes moves only the facets it must. It refuses to know who is alive,
// to read the table or to change it: the node that proposes a command gathers
// the candidates, plans, and puts the plan into the command. Any goroutine may
// call it.
package planner

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// Node is a candidate.
type Node struct {
	ID    cluster.NodeID
	Store cluster.StoreID
	Zone  string // empty: a zone of its own
	// Weight is the node's share compared with the others'; 0 means 1.
	Weight float64
	// Load is how busy it is, from 0 to 1; a node at 1 still gets a little.
	Load float64
	// FreeBytes is the room left for data. Nodes are drawn by it in proportion
	// to the roomiest one; zero everywhere means that nobody knows.
	FreeBytes uint64
	// Draining keeps new facets away, pins excepted.
	Draining bool
}

// Request is what to place.
type Request struct {
	Facet facet.Incarnation
	// Replicas is the size wanted: 1, 3 or 5. With fewer nodes the plan has
	// the largest odd number there is.
	Replicas int
	// Pins are nodes the set must have. The first is the owner.
	Pins []cluster.NodeID
	// Avoid are nodes the set must not have, unless pinned.
	Avoid []cluster.NodeID
}

// Plan is the choice.
type Plan struct {
	Owner cluster.NodeID
	Set   placement.Set
}

// Errors of Choose.
var (
	ErrNoNode = errors.New("no node may take the facet")
	ErrPin    = errors.New("a pin cannot be obeyed")
)

// Choose picks owner and replica set. The same request and the same nodes, in
// whatever order, give the same plan.
func Choose(nodes []Node, r Request) (Plan, error) {
	if r.Replicas < 1 || r.Replicas > placement.MaxMembers || r.Replicas%2 == 0 {
		return Plan{}, fmt.Errorf("plan facet %v: %d replicas, want 1, 3 or 5", r.Facet, r.Replicas)
	}
	if len(r.Pins) > r.Replicas {
		return Plan{}, fmt.Errorf("plan facet %v: %w: %d pins for %d replicas", r.Facet, ErrPin, len(r.Pins), r.Replicas)
	}
	room := uint64(0)
	for _, n := range nodes {
		room = max(room, n.FreeBytes)
	}
	var chosen []Node
	for _, id := range r.Pins {
		i := slices.IndexFunc(nodes, func(n Node) bool { return n.ID == id })
		if i < 0 || contains(chosen, id) {
			return Plan{}, fmt.Errorf("plan facet %v: %w: node %s is not there or pinned twice", r.Facet, ErrPin, id)
		}
		chosen = append(chosen, nodes[i])
	}
	var rest []scored
	for _, n := range nodes {
		if !n.Draining && !slices.Contains(r.Avoid, n.ID) && !contains(chosen, n.ID) {
			rest = append(rest, scored{n, score(r.Facet, n, room)})
		}
	}
	slices.SortFunc(rest, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.ID, b.ID))
	})
	want := min(r.Replicas, len(chosen)+len(rest))
	if want%2 == 0 {
		want--
	}
	if want < 1 {
		return Plan{}, fmt.Errorf("plan facet %v: %w", r.Facet, ErrNoNode)
	}
	if want < len(chosen) { // two pins and nobody else: a set of two survives nothing
		return Plan{}, fmt.Errorf("plan facet %v: %w: %d pins and no other node", r.Facet, ErrPin, len(chosen))
	}
	for len(chosen) < want {
		i := leastUsedZone(rest, chosen)
		chosen = append(chosen, rest[i].Node)
		rest = slices.Delete(rest, i, i+1)
	}
	members := make([]placement.Member, len(chosen))
	for i, n := range chosen {
		members[i] = placement.Member{Node: n.ID, Store: n.Store}
	}
	set, err := placement.NewSet(members...)
	if err != nil {
		return Plan{}, fmt.Errorf("plan facet %v: %w", r.Facet, err)
	}
	return Plan{Owner: chosen[0].ID, Set: set}, nil
}

type scored struct {
	Node
	score float64
}

func contains(nodes []Node, id cluster.NodeID) bool {
	return slices.ContainsFunc(nodes, func(n Node) bool { return n.ID == id })
}

// leastUsedZone is the best candidate among those whose zone has the fewest of
// the chosen. rest is sorted, the best first.
func leastUsedZone(rest []scored, chosen []Node) int {
	best, fewest := 0, math.MaxInt
	for i, c := range rest {
		used := 0
		for _, n := range chosen {
			if n.Zone != "" && n.Zone == c.Zone {
				used++
			}
		}
		if used < fewest {
			best, fewest = i, used
		}
	}
	return best
}

// score is the node's draw for the facet: -weight / ln(u) with u from their
// hash, which makes a node win in proportion to its weight and lose only what
// another one gains.
func score(id facet.Incarnation, n Node, room uint64) float64 {
	u := (float64(hash(id, n.ID)>>11) + 0.5) / (1 << 53) // in (0, 1)
	return -weight(n, room) / math.Log(u)
}

// weight brings share, load and room together. It is never zero: a busy or
// full node comes last, and is still better than none.
func weight(n Node, room uint64) float64 {
	const least = 0.01
	w := n.Weight
	if !(w > 0) || math.IsInf(w, 1) {
		w = 1
	}
	if load := min(max(n.Load, 0), 1); load > 0 {
		w *= max(1-load, least)
	}
	if room > 0 {
		w *= max(float64(n.FreeBytes)/float64(room), least)
	}
	return w
}

// hash mixes facet and node. It must stay what it is: another one would move
// every facet at the next rebalance.
func hash(id facet.Incarnation, node cluster.NodeID) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	mix := func(v uint64) {
		hi, lo := bits.Mul64(h^v, 0xd6e8feb86659fd93)
		h = hi ^ lo ^ bits.RotateLeft64(v, 29)
	}
	for i := 0; i < len(id); i += 8 {
		var v uint64
		for _, b := range id[i : i+8] {
			v = v<<8 | uint64(b)
		}
		mix(v)
	}
	for i := range len(node) {
		mix(uint64(node[i]) + 1)
	}
	h ^= h >> 32
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 29
	h *= 0x94d049bb133111eb
	return h ^ h>>32
}
