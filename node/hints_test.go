package node

import (
	"testing"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/steward"
	"github.com/facetd/facetd/placement/planner"
)

func TestRoom(t *testing.T) {
	for _, c := range []struct {
		free      int64
		was, want uint8
	}{
		{0, 0, 1}, {1 << 30, 0, 30}, {1<<30 - 1, 0, 29}, {1<<40 + 5, 0, 40},
		{1<<30 - 1, 30, 30}, {1 << 30, 29, 29}, // near the border it stays
		{1<<30 - 1<<28, 30, 29}, {1<<30 + 1<<28, 29, 30}, {1 << 20, 30, 20},
	} {
		if got := room(c.free, c.was); got != c.want {
			t.Errorf("%d bytes after %d are %d, want %d", c.free, c.was, got, c.want)
		}
	}
	for _, c := range []struct {
		used, budget int64
		want         uint8
	}{{0, 800, 0}, {99, 800, 0}, {100, 800, 1}, {799, 800, 7}, {5000, 800, 8}, {-5, 800, 0}, {5, 0, 0}} {
		if got := load(c.used, c.budget); got != c.want {
			t.Errorf("%d of %d are %d eighths, want %d", c.used, c.budget, got, c.want)
		}
	}
}

func TestHints(t *testing.T) {
	got := hintsOf([]cluster.Member{
		{ID: "a", Room: 40}, {ID: "alike", Room: 39, Load: 5}, {ID: "small", Room: 36}, {ID: "silent"}, {ID: "busy", Room: 40, Load: 8},
	})
	want := map[cluster.NodeID]steward.Hint{
		"a": {FreeBytes: 1 << 40}, "alike": {FreeBytes: 1 << 40}, "small": {FreeBytes: 1 << 36},
		"silent": {FreeBytes: 1 << 40}, "busy": {FreeBytes: 1 << 40, Load: 7.0 / 8},
	}
	for id, h := range want {
		if got[id] != h {
			t.Errorf("%s: %+v, want %+v", id, got[id], h)
		}
	}
	if h := hintOf(got, "unseen"); h != (steward.Hint{FreeBytes: 1 << 40}) {
		t.Errorf("a node that was not seen: %+v", h)
	}
	for id, h := range hintsOf([]cluster.Member{{ID: "a"}, {ID: "b"}}) {
		if h != (steward.Hint{}) {
			t.Errorf("%s, where nobody says anything: %+v", id, h)
		}
	}
	// The planner follows: the small one gets a sixteenth of what the others get.
	n := map[cluster.NodeID]int{}
	for i := range 4000 {
		var nodes []planner.Node
		for j, id := range []cluster.NodeID{"a", "alike", "small"} {
			nodes = append(nodes, planner.Node{ID: id, Store: cluster.StoreID{byte(j + 1)}, Load: got[id].Load, FreeBytes: got[id].FreeBytes})
		}
		p, err := planner.Choose(nodes, planner.Request{Facet: facet.Incarnation{byte(i), byte(i >> 8), 7}, Replicas: 1})
		if err != nil {
			t.Fatal(err)
		}
		n[p.Owner]++
	}
	if n["small"] < 60 || n["small"] > 200 || n["a"] < 1700 || n["alike"] < 1700 {
		t.Errorf("facets by node: %v", n)
	}
}
