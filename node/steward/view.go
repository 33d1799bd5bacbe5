package steward

import (
	"slices"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/placement"
	"github.com/facetd/facetd/placement/planner"
)

// view is what decisions are made on: the nodes at one moment. It does not change.
// Every decision is a method of it that takes a row and returns what to do: no
// clock, no table, no I/O.
//
// The words of the decisions: a member is *sound* when its node lives with the
// store the member names; *replaced* when its node is registered with another
// store, so that the copy is gone for good (rule R3); *lost* when it is replaced or
// dead for so long that another one should take its place. The *base* of a row is
// the set whose majority recovers it: the active one, or the next one of a facet
// that was never activated and has nothing to recover.
type view struct {
	now           time.Time
	replicas      int
	repairAfter   time.Duration // negative: never
	replacedAfter time.Duration
	nodes         map[cluster.NodeID]*sight
	list          []*sight       // by id
	candidates    []planner.Node // all nodes; those that may take nothing new are Draining
	room          int            // how many candidates may take something new
}

// sight is one node in a view.
type sight struct {
	placement.Node
	alive bool
	since time.Time // when this leader saw it dead first; only if not alive
	known time.Time // since when this leader knows it with this store
}

// open reports whether the node may be given something new.
func (n *sight) open() bool { return n.alive && n.State == placement.NodeActive }

// sightings is what the leader remembers of the nodes from view to view. It
// belongs to one goroutine at a time.
type sightings struct {
	dead   map[cluster.NodeID]time.Time
	stores map[cluster.NodeID]store
}

type store struct {
	id    cluster.StoreID
	known time.Time
}

// look makes a view of the nodes as they are now, and remembers what is new.
func (s *sightings) look(now time.Time, cfg *Config, nodes []placement.Node, gone []cluster.NodeID, hints map[cluster.NodeID]Hint) *view {
	v := &view{
		now: now, replicas: cfg.Replicas, repairAfter: cfg.RepairAfter, replacedAfter: cfg.ReplacedAfter,
		nodes: make(map[cluster.NodeID]*sight, len(nodes)),
	}
	dead, stores := map[cluster.NodeID]time.Time{}, map[cluster.NodeID]store{}
	for _, node := range nodes {
		n := &sight{Node: node, alive: !slices.Contains(gone, node.ID)}
		if !n.alive {
			n.since = now
			if since, ok := s.dead[n.ID]; ok {
				n.since = since
			}
			dead[n.ID] = n.since
		}
		n.known = now
		if known, ok := s.stores[n.ID]; ok && known.id == n.Store {
			n.known = known.known
		}
		stores[n.ID] = store{n.Store, n.known}
		v.nodes[n.ID] = n
		v.list = append(v.list, n)
		v.candidates = append(v.candidates, planner.Node{
			ID: n.ID, Store: n.Store, Zone: n.Zone, Draining: !n.open(),
			Load: hints[n.ID].Load, FreeBytes: hints[n.ID].FreeBytes,
		})
		if n.open() {
			v.room++
		}
	}
	s.dead, s.stores = dead, stores
	return v
}

// ripens is the next moment at which a member becomes lost by time alone.
func (v *view) ripens() (at time.Time, ok bool) {
	for _, n := range v.list {
		for _, t := range [...]struct {
			may bool
			at  time.Time
		}{
			{!n.alive && v.repairAfter >= 0, n.since.Add(v.repairAfter)},
			{true, n.known.Add(v.replacedAfter)},
		} {
			if t.may && t.at.After(v.now) && (!ok || t.at.Before(at)) {
				at, ok = t.at, true
			}
		}
	}
	return at, ok
}

// live reports whether a facet in this state may have an owner.
func live(f *placement.Facet) bool {
	return f.State == placement.Creating || f.State == placement.Recovering || f.State == placement.Active
}

// pending reports whether a change of the set waits for its activation.
func pending(f *placement.Facet) bool { return !f.Active.IsZero() && !f.Next.Equal(f.Active) }

func base(f *placement.Facet) placement.Set {
	if f.Active.IsZero() {
		return f.Next
	}
	return f.Active
}

func (v *view) replaced(m placement.Member) bool {
	n := v.nodes[m.Node]
	return n == nil || n.Store != m.Store
}

func (v *view) sound(m placement.Member) bool { return !v.replaced(m) && v.nodes[m.Node].alive }

// lost reports whether m should have a successor; urgent does not wait.
func (v *view) lost(m placement.Member, urgent bool) bool {
	n := v.nodes[m.Node]
	switch {
	case n == nil:
		return true
	case n.Store != m.Store:
		return urgent || v.now.Sub(n.known) >= v.replacedAfter
	case n.alive:
		return false
	}
	return urgent || v.repairAfter >= 0 && v.now.Sub(n.since) >= v.repairAfter
}

// majority reports whether so many members are sound that an owner can be
// activated (rules R16 and R20). Without them a facet is left alone (rule R25).
func (v *view) majority(s placement.Set) bool {
	n := 0
	for _, m := range s.Members() {
		if v.sound(m) {
			n++
		}
	}
	return n > s.Len()/2
}

// elect picks one of the sound members of a set whose nodes are fit, by rendezvous:
// the facets of a lost node spread over all that keep them.
func (v *view) elect(f *placement.Facet, s placement.Set, fit func(*sight) bool) (cluster.NodeID, bool) {
	var nodes [placement.MaxMembers]planner.Node
	fits := nodes[:0]
	for _, m := range s.Members() {
		if v.sound(m) && fit(v.nodes[m.Node]) {
			fits = append(fits, planner.Node{ID: m.Node, Store: m.Store})
		}
	}
	p, err := planner.Choose(fits, planner.Request{Facet: f.Incarnation, Replicas: 1})
	return p.Owner, err == nil
}

func anyNode(*sight) bool { return true }
