package steward

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// TestChaos lets nodes die, come back, lose their disks, drain and undrain, while the
// leader changes, owners refuse and facets are created and deleted. Whatever
// happened, once it is quiet every facet has a living owner, a whole set, and is
// nowhere it should not be. The world checks every takeover on the way.
func TestChaos(t *testing.T) {
	seeds := []uint64{1, 2, rand.Uint64()}
	for _, seed := range seeds {
		bubble(t, func(t *testing.T, w *world) { chaos(t, w, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// stores reports whether no copy is lost: then one disk may be.
func (w *world) stores() bool {
	for f := range w.table.Facets() {
		for _, m := range slices.Concat(base(&f).Members(), f.Next.Members()) {
			if w.nodes[m.Node].store != m.Store {
				return false
			}
		}
	}
	return true
}

func chaos(t *testing.T, w *world, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 5))
	const nodes, facets = 7, 400
	zone := func(i int) string { return string(rune('a' + i%3)) }
	for i := 1; i <= nodes; i++ {
		w.start(zone(i), nodeID(i))
	}
	w.create(0, facets, 3, ids(1, nodes)...)
	config := func(c *Config) { c.RepairAfter, c.RepairRate = 20*time.Second, 200 }
	stewards := []*Steward{w.steward(config), w.steward(config)}
	leader := 0
	stewards[0].Lead(1)
	refuses := rand.New(rand.NewPCG(seed, 6))
	w.during(func(cluster.NodeID, Order) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if refuses.IntN(10) == 0 {
			return errors.New("not now")
		}
		return nil
	}, nil)
	term, created, dead := uint64(1), facets, 0
	for range 120 {
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
		i := 1 + rng.IntN(nodes)
		id := nodeID(i)
		switch k := rng.IntN(10); {
		case k < 3 && w.Alive(id) && dead < 2:
			w.kill(id)
			dead++
		case k < 6 && !w.Alive(id):
			dead--
			if rng.IntN(3) == 0 && w.stores() {
				w.replace(zone(i), id)
			} else {
				w.start(zone(i), id)
			}
		case k == 6:
			kind := []Kind{Drain, Undrain, Repair, Rebalance}[rng.IntN(4)]
			r := Request{Kind: kind}
			if _, about := states[kind]; about {
				r.Node = id
			}
			if _, err := stewards[leader].Start(t.Context(), r); err != nil && !errors.Is(err, ErrTooMany) {
				t.Fatal(err)
			}
		case k == 7:
			term++
			w.mu.Lock()
			w.term = term
			w.mu.Unlock()
			old := stewards[leader]
			leader = 1 - leader
			stewards[leader].Lead(term)
			time.Sleep(time.Duration(rng.IntN(500)) * time.Millisecond)
			old.Stop()
		case k == 8 && w.Alive(id):
			list := []placement.Member{{Node: id, Store: w.nodes[id].store}}
			for j := 1; j <= nodes && len(list) < 3; j++ {
				if x := nodeID(j); x != id && w.Alive(x) {
					list = append(list, placement.Member{Node: x, Store: w.nodes[x].store})
				}
			}
			set, _ := placement.NewSet(list...)
			w.must(placement.Create{Name: facet.Name{Tenant: "new", Facet: facetID(created).String()}, Incarnation: facetID(created),
				Owner: placement.Owner{Node: id, Boot: w.nodes[id].boot}, Set: set})
			created++
		case k == 9:
			w.apply(placement.Delete{Incarnation: facetID(rng.IntN(created))})
		}
	}
	w.during(nil, nil)
	for i := 1; i <= nodes; i++ {
		if !w.Alive(nodeID(i)) {
			w.start(zone(i), nodeID(i))
		}
	}
	drained := map[cluster.NodeID]bool{}
	for _, n := range w.table.Nodes() {
		drained[n.ID] = n.State != placement.NodeActive
	}
	if len(drained) > 0 { // leave room for sets of three
		n := nodes
		for id := range drained {
			if drained[id] {
				if n--; n < 4 {
					w.must(placement.SetNode{Node: id, State: placement.NodeActive})
					drained[id] = false
				}
			}
		}
	}
	quiet := func() bool {
		for f := range w.table.Facets() {
			if !live(&f) || pending(&f) || drained[f.Owner.Node] && f.State != placement.Creating {
				return false
			}
			if o := w.nodes[f.Owner.Node]; o == nil || !o.alive {
				return false
			}
			for _, m := range base(&f).Members() {
				if w.nodes[m.Node].store != m.Store && f.State != placement.Creating {
					return false
				}
			}
		}
		return true
	}
	w.eventually("quiet", 10*time.Minute, func() bool { time.Sleep(5 * time.Second); return quiet() }, func() {
		for _, n := range w.table.Nodes() {
			t.Logf("%s %v drained %v", n.ID, n.State, drained[n.ID])
		}
		k := 0
		for f := range w.table.Facets() {
			bad := !live(&f) || pending(&f) || drained[f.Owner.Node] || f.Owner.IsZero()
			for _, m := range base(&f).Members() {
				bad = bad || w.nodes[m.Node].store != m.Store
			}
			if bad && k < 5 {
				k++
				t.Logf("%+v", f)
			}
		}
		for _, o := range stewards[leader].List()[:10] {
			t.Logf("%+v", o)
		}
		t.Logf("%+v", stewards[leader].Stats())
	})
	for f := range w.table.Facets() {
		if base(&f).Len() != 3 {
			t.Errorf("%v in %v", f.Incarnation, base(&f))
		}
	}
	t.Logf("seed %d: %+v; %d operations", seed, stewards[leader].Stats(), len(stewards[leader].List()))
}
