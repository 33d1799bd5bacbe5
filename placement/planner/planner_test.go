package planner

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

func node(i int, zone string) Node {
	return Node{ID: cluster.NodeID(fmt.Sprintf("n%d", i)), Store: cluster.StoreID{15: byte(i)}, Zone: zone}
}

func randomFacet(rng *rand.Rand) (id facet.Incarnation) {
	for i := range id {
		id[i] = byte(rng.UintN(256))
	}
	return id
}

func TestOneNode(t *testing.T) {
	n := node(1, "")
	n.Load, n.FreeBytes = 1, 0
	for _, replicas := range []int{1, 3, 5} {
		p, err := Choose([]Node{n}, Request{Facet: facet.Incarnation{1}, Replicas: replicas})
		if err != nil || p.Owner != "n1" || p.Set.Len() != 1 || p.Set.Members()[0].Store != n.Store {
			t.Errorf("%d replicas: %+v, %v", replicas, p, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	two := []Node{node(1, ""), node(2, "")}
	drained := node(3, "")
	drained.Draining = true
	for _, tc := range []struct {
		nodes []Node
		r     Request
		want  error
	}{
		{nil, Request{Replicas: 1}, ErrNoNode},
		{[]Node{drained}, Request{Replicas: 1}, ErrNoNode},
		{two, Request{Replicas: 1, Avoid: []cluster.NodeID{"n1", "n2"}}, ErrNoNode},
		{two, Request{Replicas: 1, Pins: []cluster.NodeID{"n9"}}, ErrPin},
		{two, Request{Replicas: 3, Pins: []cluster.NodeID{"n1", "n1"}}, ErrPin},
		{two, Request{Replicas: 3, Pins: []cluster.NodeID{"n1", "n2"}}, ErrPin},
		{two, Request{Replicas: 1, Pins: []cluster.NodeID{"n1", "n2"}}, ErrPin},
		{two, Request{Replicas: 2}, nil},
		{two, Request{Replicas: 0}, nil},
		{two, Request{Replicas: 7}, nil},
	} {
		p, err := Choose(tc.nodes, tc.r)
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%+v: %+v, %v, want %v", tc.r, p, err, tc.want)
		}
	}
	// A pin is stronger than draining and avoiding.
	p, err := Choose([]Node{drained, two[0]}, Request{Replicas: 1, Pins: []cluster.NodeID{"n3"}, Avoid: []cluster.NodeID{"n3"}})
	if err != nil || p.Owner != "n3" {
		t.Errorf("pinned to a draining node: %+v, %v", p, err)
	}
}

// naive plans by trying every ordered choice, member by member: at each step
// the zones used least, and of those the highest draw.
func naive(nodes []Node, r Request) []cluster.NodeID {
	room := uint64(0)
	for _, n := range nodes {
		room = max(room, n.FreeBytes)
	}
	byID := map[cluster.NodeID]Node{}
	open := map[cluster.NodeID]bool{}
	for _, n := range nodes {
		byID[n.ID] = n
		open[n.ID] = !n.Draining
	}
	for _, id := range r.Avoid {
		open[id] = false
	}
	out := slices.Clone(r.Pins)
	for _, id := range out {
		open[id] = false
	}
	total := len(out)
	for _, ok := range open {
		if ok {
			total++
		}
	}
	want := r.Replicas
	for want > total {
		want -= 2
	}
	for len(out) < want {
		used := map[string]int{}
		for _, id := range out {
			used[byID[id].Zone]++
		}
		used[""] = 0
		var pick cluster.NodeID
		for id, ok := range open {
			if !ok {
				continue
			}
			a, b := byID[id], byID[pick]
			if pick == "" || used[a.Zone] < used[b.Zone] ||
				used[a.Zone] == used[b.Zone] && score(r.Facet, a, room) > score(r.Facet, b, room) {
				pick = id
			}
		}
		open[pick] = false
		out = append(out, pick)
	}
	return out
}

func TestAgainstNaive(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 4000 {
		var nodes []Node
		for i := range 1 + rng.IntN(9) {
			n := node(i+1, []string{"", "a", "b", "c"}[rng.IntN(4)])
			n.Weight, n.Load, n.FreeBytes = float64(rng.IntN(4)), rng.Float64(), rng.Uint64N(1<<40)
			n.Draining = rng.IntN(6) == 0
			nodes = append(nodes, n)
		}
		r := Request{Facet: randomFacet(rng), Replicas: 1 + 2*rng.IntN(3)}
		for _, n := range nodes {
			if rng.IntN(8) == 0 && len(r.Pins) < r.Replicas {
				r.Pins = append(r.Pins, n.ID)
			}
			if rng.IntN(8) == 0 {
				r.Avoid = append(r.Avoid, n.ID)
			}
		}
		p, err := Choose(nodes, r)
		if err != nil {
			if !errors.Is(err, ErrNoNode) && !errors.Is(err, ErrPin) {
				t.Fatal(err)
			}
			if want := naive(nodes, r); errors.Is(err, ErrNoNode) && len(want) > 0 {
				t.Fatalf("%v, naive finds %v", err, want)
			}
			continue
		}
		want := naive(nodes, r)
		if p.Owner != want[0] || p.Set.Len() != len(want) {
			t.Fatalf("%+v of %+v: %+v, want %v", r, nodes, p, want)
		}
		for _, id := range want {
			if !p.Set.Has(id) {
				t.Fatalf("%+v of %+v: %+v, want %v", r, nodes, p, want)
			}
		}
		rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		if again, err := Choose(nodes, r); err != nil || again.Owner != p.Owner || !again.Set.Equal(p.Set) {
			t.Fatalf("another order gives another plan: %+v, %v", again, err)
		}
	}
}

// TestShares checks that owners follow the weights, and that a new node takes
// facets only to itself.
func TestShares(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	nodes := []Node{node(1, ""), node(2, ""), node(3, "")}
	nodes[1].Weight = 2
	nodes[2].Load = 0.5
	const n = 20000
	owners := map[cluster.NodeID]int{}
	ids := make([]facet.Incarnation, n)
	before := make([]cluster.NodeID, n)
	for i := range ids {
		ids[i] = randomFacet(rng)
		p, err := Choose(nodes, Request{Facet: ids[i], Replicas: 1})
		if err != nil {
			t.Fatal(err)
		}
		owners[p.Owner]++
		before[i] = p.Owner
	}
	for id, share := range map[cluster.NodeID]float64{"n1": 1 / 3.5, "n2": 2 / 3.5, "n3": 0.5 / 3.5} {
		if got := float64(owners[id]) / n; math.Abs(got-share) > 0.02 {
			t.Errorf("%s owns %.3f, want %.3f", id, got, share)
		}
	}
	moved := 0
	for i, id := range ids {
		p, err := Choose(append(slices.Clone(nodes), node(4, "")), Request{Facet: id, Replicas: 1})
		if err != nil {
			t.Fatal(err)
		}
		if p.Owner != before[i] {
			if moved++; p.Owner != "n4" {
				t.Fatalf("facet moved from %s to %s when n4 came", before[i], p.Owner)
			}
		}
	}
	if got := float64(moved) / n; math.Abs(got-1/4.5) > 0.02 {
		t.Errorf("%.3f of the facets moved, want %.3f", got, 1/4.5)
	}
}

func TestZones(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var nodes []Node
	for i := range 9 {
		nodes = append(nodes, node(i+1, []string{"a", "a", "a", "a", "a", "b", "b", "c", "c"}[i]))
	}
	zone := func(id cluster.NodeID) string {
		return nodes[slices.IndexFunc(nodes, func(n Node) bool { return n.ID == id })].Zone
	}
	for range 500 {
		p, err := Choose(nodes, Request{Facet: randomFacet(rng), Replicas: 5})
		if err != nil {
			t.Fatal(err)
		}
		zones := map[string]int{}
		for _, m := range p.Set.Members() {
			zones[zone(m.Node)]++
		}
		if len(zones) != 3 || zones["a"] > 2 {
			t.Fatalf("%v is spread %v", p.Set, zones)
		}
	}
}

// TestHashStays pins the hash down.
func TestHashStays(t *testing.T) {
	if got := hash(facet.Incarnation{1, 2, 3, 15: 9}, "node-7"); got != wantHash {
		t.Errorf("hash changed: %#x, want %#x; every facet would move", got, uint64(wantHash))
	}
}

func BenchmarkChoose(b *testing.B) {
	var nodes []Node
	for i := range 30 {
		nodes = append(nodes, node(i+1, fmt.Sprint(i%3)))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Choose(nodes, Request{Facet: facet.Incarnation{1}, Replicas: 3}); err != nil {
			b.Fatal(err)
		}
	}
}

const wantHash = 0x1aa899cad5999f4
