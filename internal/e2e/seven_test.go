//go:build unix

package e2e

import (
	"fmt"
	"slices"
	"testing"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// TestSevenNodes grows a cluster of three nodes in three zones to seven while a
// program writes. Every facet keeps one copy in each zone, the load spreads, and only
// what must be is moved: old nodes get nothing new. The program sees no error.
func TestSevenNodes(t *testing.T) {
	zone := func(k int) string { return fmt.Sprintf("z%d", (k-1)%3+1) } // n1 z1, n2 z2, n3 z3, n4 z1, …
	c := newClusterOf(t, 3, false, func(k int) []string { return []string{"--zone", zone(k)} })
	p := startProgram(c)
	w := newWriters(c, 412) // 420 with the program's
	before := placements(t, w.cl[0])
	for k := 4; k <= 7; k++ {
		c.join("--zone", zone(k))
	}
	p.goesOn()
	c.operation(w.cl[0], client.OperationRequest{Kind: "rebalance"})
	p.goesOn()
	after := placements(t, w.cl[0])

	owned, held, moved := map[string]int{}, map[string]int{}, 0
	for name, now := range after {
		old := before[name]
		owned[now.Owner]++
		zones := map[string]bool{}
		for _, node := range now.Replicas {
			held[node]++
			zones[zone(int(node[1]-'0'))] = true
			if node <= "n3" && !slices.Contains(old.Replicas, node) {
				t.Errorf("%s: %s got a copy, and nobody needed to give it one: %v, then %v", name, node, old.Replicas, now.Replicas)
			}
		}
		if len(now.Replicas) != 3 || len(zones) != 3 {
			t.Errorf("%s has its copies on %v, in %d zones", name, now.Replicas, len(zones))
		}
		if now.Owner != old.Owner {
			moved++
		}
	}
	n := len(after)
	t.Logf("%d facets; owned %v; copies %v; %d changed their owner", n, owned, held, moved)
	for k := 1; k <= 7; k++ {
		node, share := fmt.Sprintf("n%d", k), n/7
		// Placement is by hash (rendezvous): shares are as even as a draw makes them,
		// here within four standard deviations.
		if owned[node] < share/2 || owned[node] > share*3/2 {
			t.Errorf("%s owns %d of %d facets, its share is %d", node, owned[node], n, share)
		}
		peers := 2 // nodes of its zone
		if zone(k) == "z1" {
			peers = 3
		}
		if share := n / peers; held[node] < share*3/4 || held[node] > share*5/4 {
			t.Errorf("%s keeps %d of %d copies of its zone, its share is %d", node, held[node], n, share)
		}
	}
	if most := n*4/7 + n/10; moved > most {
		t.Errorf("%d of %d facets changed their owner; new nodes own four sevenths, %d", moved, n, n*4/7)
	}

	// Whichever node is asked, the owner's word counts.
	for _, m := range c.alive() {
		cl, err := client.Open(t.Context(), []string{"http://" + m.api()}, client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		f, err := cl.Facet("acme/notes-0")
		if err != nil {
			t.Fatal(err)
		}
		if info, err := f.Stat(t.Context()); err != nil || !info.Active || info.SizeBytes < 2*4096 {
			t.Errorf("%s tells of a facet in use: %+v, %v", m.name, info, err)
		}
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
	}

	// One of them goes, and nothing is lost.
	c.members[6].kill()
	p.goesOn()
	p.finish()
}

// placements tells where every facet of the tenant is.
func placements(t *testing.T, cl *client.Client) map[facet.Name]client.Info {
	t.Helper()
	all := map[facet.Name]client.Info{}
	for info, err := range cl.List(t.Context(), "acme", "") {
		if err != nil {
			t.Fatal(err)
		}
		all[info.Name] = info
	}
	return all
}
