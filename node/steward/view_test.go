package steward

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/placement"
	"github.com/facetd/facetd/placement/planner"
)

// scene is a random view with a random row, for the pure decisions.
type scene struct {
	rng *rand.Rand
	v   *view
	f   placement.Facet
}

func storeOf(i, life int) cluster.StoreID { return cluster.StoreID{0: byte(i), 15: byte(life)} }
func bootOf(i, life int) cluster.BootID   { return cluster.BootID{0: byte(i), 15: byte(life)} }

func newScene(rng *rand.Rand) *scene {
	sc := &scene{rng: rng}
	cfg := &Config{Replicas: 1 + 2*rng.IntN(3), RepairAfter: time.Minute, ReplacedAfter: 10 * time.Second}
	n := 1 + rng.IntN(8)
	var nodes []placement.Node
	var dead []cluster.NodeID
	zones := 1 + rng.IntN(4)
	for i := 1; i <= n; i++ {
		nodes = append(nodes, placement.Node{ID: nodeID(i), Store: storeOf(i, rng.IntN(8)/7), Boot: bootOf(i, rng.IntN(2)),
			Zone: []string{"", "a", "b", "c"}[rng.IntN(zones)], State: placement.NodeState(max(0, rng.IntN(8)-5))})
		if rng.IntN(4) == 0 {
			dead = append(dead, nodeID(i))
		}
	}
	now := time.Unix(1e9, 0)
	seen := sightings{dead: map[cluster.NodeID]time.Time{}, stores: map[cluster.NodeID]store{}}
	for _, x := range nodes {
		seen.dead[x.ID] = now.Add(-time.Duration(rng.IntN(120)) * time.Second)
		seen.stores[x.ID] = store{x.Store, now.Add(-time.Duration(rng.IntN(20)) * time.Second)}
	}
	sc.v = seen.look(now, cfg, nodes, dead, nil)
	set := func() placement.Set {
		size := min(n, 1+2*rng.IntN(3))
		if size%2 == 0 {
			size--
		}
		var list []placement.Member
		for _, i := range rng.Perm(n)[:size] {
			list = append(list, placement.Member{Node: nodeID(i + 1), Store: storeOf(i+1, 0)})
		}
		s, err := placement.NewSet(list...)
		if err != nil {
			panic(err)
		}
		return s
	}
	sc.f = placement.Facet{Incarnation: facetID(rng.IntN(1 << 20)), Epoch: 7, Next: set(),
		State: []placement.State{placement.Creating, placement.Recovering, placement.Active, placement.Active, placement.Active, placement.Deleting}[rng.IntN(6)]}
	switch {
	case sc.f.State == placement.Creating:
	case rng.IntN(5) == 0 && sc.f.State == placement.Recovering:
		sc.f.Active = set()
	default:
		sc.f.Active = sc.f.Next
	}
	if rng.IntN(10) > 0 && sc.f.State != placement.Deleting {
		m := sc.f.Next.Members()[rng.IntN(sc.f.Next.Len())]
		var i int
		fmt.Sscanf(string(m.Node), "n%d", &i)
		sc.f.Owner = placement.Owner{Node: m.Node, Boot: bootOf(i, rng.IntN(2))}
	}
	return sc
}

func (sc *scene) String() string {
	s := fmt.Sprintf("row %+v\n", sc.f)
	for _, n := range sc.v.list {
		s += fmt.Sprintf("  %s %v zone %q alive %v store %v boot %v since %v known %v\n", n.ID, n.State, n.Zone, n.alive, n.Store, n.Boot,
			sc.v.now.Sub(n.since), sc.v.now.Sub(n.known))
	}
	return s
}

// fit counts, naively, the members of a set that live with the store they had.
func (sc *scene) fit(s placement.Set) (fit []cluster.NodeID) {
	for _, m := range s.Members() {
		for _, n := range sc.v.list {
			if n.ID == m.Node && n.Store == m.Store && n.alive {
				fit = append(fit, n.ID)
			}
		}
	}
	return fit
}

func eachScene(t *testing.T, n int, check func(t *testing.T, sc *scene)) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range n {
		sc := newScene(rng)
		if check(t, sc); t.Failed() {
			t.Fatal(sc)
		}
	}
}

// TestTakeoverAgainstNaive compares with the rules said one by one.
func TestTakeoverAgainstNaive(t *testing.T) {
	seen := map[verdict]int{}
	eachScene(t, 20000, func(t *testing.T, sc *scene) {
		a, got := sc.v.takeover(&sc.f)
		seen[got]++
		f := &sc.f
		set := f.Active
		if set.IsZero() {
			set = f.Next
		}
		fit := sc.fit(set)
		want := fine
		owner := sc.v.nodes[f.Owner.Node]
		switch {
		case f.State == placement.Deleting, f.Owner.IsZero():
		case owner.alive && owner.Boot == f.Owner.Boot: // serves
		case owner.alive && slices.Contains(fit, owner.ID): // came back and acquires by itself
		case len(fit) > set.Len()/2:
			want = orphan
		case f.Active.IsZero() && got == orphan && !a.Set.IsZero(): // begins anew
			want = orphan
			set = a.Set
			fit = sc.fit(set)
			if set.Len() < f.Next.Len() || len(fit) != set.Len() {
				t.Errorf("begins anew on %v", set)
			}
		default:
			want = unavailable
		}
		if got != want {
			t.Errorf("verdict %d, want %d", got, want)
		}
		if got != orphan {
			return
		}
		stay := slices.DeleteFunc(slices.Clone(fit), func(id cluster.NodeID) bool { return sc.v.nodes[id].State != placement.NodeActive })
		if len(stay) > 0 {
			fit = stay
		}
		switch to := sc.v.nodes[a.Owner.Node]; {
		case !slices.Contains(fit, a.Owner.Node):
			t.Errorf("given to %v, want one of %v", a.Owner, fit)
		case to.Boot != a.Owner.Boot, a.Expected != f.Epoch, !a.Released.IsZero(), !f.Active.IsZero() && !a.Set.IsZero():
			t.Errorf("%+v", a)
		}
	})
	for v := fine; v <= unavailable; v++ {
		if seen[v] < 200 {
			t.Errorf("verdict %d came %d times", v, seen[v])
		}
	}
}

// checkSet checks what holds for every set a plan asks for: it is odd, its members
// are registered as it says, its new ones live and stay, it has a majority that
// lives unless even the old one had none, and its zones are as many as could be.
func (sc *scene) checkSet(t *testing.T, p plan) {
	t.Helper()
	old := base(&sc.f)
	if p.set.Len()%2 == 0 || !p.set.Has(p.owner) {
		t.Errorf("set %v with owner %s", p.set, p.owner)
	}
	for _, m := range p.set.Members() {
		n := sc.v.nodes[m.Node]
		isNew := !slices.Contains(old.Members(), m)
		if n == nil || n.Store != m.Store || isNew && (!n.alive || n.State != placement.NodeActive) {
			t.Errorf("member %v of %v cannot be", m, p.set)
		}
		// No node in a zone used less could have been taken instead of a new one.
		if !isNew {
			continue
		}
		used := func(n *sight) (k int) {
			for _, x := range p.set.Members() {
				if z := sc.v.nodes[x.Node].Zone; x != m && z != "" && z == n.Zone {
					k++
				}
			}
			return k
		}
		for _, other := range sc.v.list {
			if other.open() && !p.set.Has(other.ID) && used(other) < used(n) {
				t.Errorf("%s in zone %q is taken into %v, %s in %q is better", n.ID, n.Zone, p.set, other.ID, other.Zone)
			}
		}
	}
}

func TestRepairPlans(t *testing.T) {
	seen := map[need]int{}
	eachScene(t, 20000, func(t *testing.T, sc *scene) {
		urgent := sc.rng.IntN(2) == 0
		p := sc.v.repair(&sc.f, urgent)
		seen[p.need]++
		old := base(&sc.f)
		var lost, must, keep []placement.Member // must: cannot stay whatever happens
		for _, m := range old.Members() {
			n := sc.v.nodes[m.Node]
			switch {
			case n.Store != m.Store:
				must = append(must, m)
				if urgent || sc.v.now.Sub(n.known) >= 10*time.Second {
					lost = append(lost, m)
				}
			case !n.alive && (urgent || sc.v.now.Sub(n.since) >= time.Minute):
				lost = append(lost, m)
			default:
				keep = append(keep, m)
			}
		}
		free := 0
		for _, n := range sc.v.list {
			if n.open() && !slices.ContainsFunc(keep, func(m placement.Member) bool { return m.Node == n.ID }) {
				free++
			}
		}
		switch {
		case !live(&sc.f) || sc.f.State == placement.Creating && !urgent:
			if p.need != nothing {
				t.Errorf("%+v", p)
			}
			return
		case p.need == nothing && len(lost) > 0:
			t.Errorf("nothing to do with %v lost", lost)
		case p.need == stuck && p.why == whyNoNode && len(must) == 0 && free > 0:
			t.Errorf("stuck with %d free nodes", free)
		case p.need != wanted:
			return
		case p.set.Equal(sc.f.Next) && pending(&sc.f) && len(lost) == 0:
			return // completes a change
		}
		sc.checkSet(t, p)
		if p.set.Len() < old.Len() || p.set.Len() > max(old.Len(), sc.v.replicas) {
			t.Errorf("size %d of %v", p.set.Len(), p.set)
		}
		for _, m := range keep {
			if !slices.Contains(p.set.Members(), m) {
				t.Errorf("%v is not kept in %v", m, p.set)
			}
		}
		if m, ok := p.set.Member(sc.f.Owner.Node); ok && sc.v.sound(m) && sc.v.nodes[m.Node].open() && p.owner != m.Node {
			t.Errorf("owner moves from %s to %s", m.Node, p.owner)
		}
		back := 0 // lost ones that stay
		for _, m := range lost {
			if slices.Contains(p.set.Members(), m) {
				back++
			}
		}
		if added := p.set.Len() - len(keep) - back; back > 0 && added < free {
			t.Errorf("%d lost members stay in %v and %d nodes are free", back, p.set, free-added)
		}
		if len(lost) == 0 && p.set.Len() == old.Len() {
			t.Errorf("moves %v to %v for nothing", old, p.set)
		}
		sc.settles(t, func(v *view, f *placement.Facet) plan { return v.repair(f, urgent) })
	})
	for n := nothing; n <= stuck; n++ {
		if seen[n] < 200 {
			t.Errorf("need %d came %d times", n, seen[n])
		}
	}
}

func TestVacatePlans(t *testing.T) {
	seen := map[need]int{}
	eachScene(t, 20000, func(t *testing.T, sc *scene) {
		node := sc.v.list[sc.rng.IntN(len(sc.v.list))]
		sc.close(node)
		force := sc.rng.IntN(4) == 0
		p := sc.v.vacate(&sc.f, node.ID, force)
		seen[p.need]++
		old := base(&sc.f)
		switch named := sc.f.Next.Has(node.ID) || sc.f.Active.Has(node.ID); {
		case !named:
			if p.need != nothing {
				t.Errorf("%+v", p)
			}
			return
		case p.need == nothing:
			t.Error("left where it is")
		case p.need == stuck || !live(&sc.f) || !old.Has(node.ID):
			return
		}
		sc.checkSet(t, p)
		if p.set.Has(node.ID) || p.set.Len() < min(old.Len(), 3, sc.v.replicas) && !force {
			t.Errorf("%+v", p)
		}
		kept, could := 0, 0
		for _, m := range old.Members() {
			if m.Node != node.ID && sc.v.nodes[m.Node].Store == m.Store {
				could++
				if slices.Contains(p.set.Members(), m) {
					kept++
				}
			}
		}
		if kept != min(could, p.set.Len()) {
			t.Errorf("%d of %d members are kept in %v", kept, could, p.set)
		}
		sc.settles(t, func(v *view, f *placement.Facet) plan { return v.vacate(f, node.ID, force) })
	})
	for n := nothing; n <= stuck; n++ {
		if seen[n] < 200 {
			t.Errorf("need %d came %d times", n, seen[n])
		}
	}
}

func TestLeavePlans(t *testing.T) {
	eachScene(t, 20000, func(t *testing.T, sc *scene) {
		node := sc.v.list[sc.rng.IntN(len(sc.v.list))]
		sc.close(node)
		p := sc.v.leave(&sc.f, node.ID)
		others := slices.DeleteFunc(sc.fit(base(&sc.f)), func(id cluster.NodeID) bool { return id == node.ID || !sc.v.nodes[id].open() })
		switch {
		case !live(&sc.f) || sc.f.Owner.Node != node.ID:
			if p.need == stuck || p.need == wanted && !pending(&sc.f) {
				t.Errorf("%+v", p)
			}
		case len(others) > 0:
			if p.need != wanted || !slices.Contains(others, p.owner) || !p.set.IsZero() {
				t.Errorf("%+v, want an owner of %v", p, others)
			}
		case p.need == nothing:
			t.Error("left where it is")
		case p.need == wanted:
			sc.checkSet(t, p)
			if p.owner == node.ID || !sc.v.nodes[p.owner].open() {
				t.Errorf("%+v", p)
			}
		}
	})
}

func TestBalancePlans(t *testing.T) {
	eachScene(t, 20000, func(t *testing.T, sc *scene) {
		sc.f.Pinned = sc.rng.IntN(4) == 0
		p := sc.v.balance(&sc.f, nil)
		if p.need != wanted {
			return
		}
		old := base(&sc.f)
		if sc.f.Pinned && p.owner != sc.f.Owner.Node && !sc.f.Owner.IsZero() && sc.v.nodes[sc.f.Owner.Node].alive {
			t.Errorf("pinned facet moves to %s", p.owner)
		}
		if p.set.IsZero() {
			if !old.Has(p.owner) {
				t.Errorf("owner %s of %v", p.owner, old)
			}
			return
		}
		if p.set.Len()%2 == 0 || p.set.Len() < old.Len() || !p.set.Has(p.owner) {
			t.Errorf("%+v", p)
		}
		if pending(&sc.f) {
			return // what is under way ends first, and then it is planned anew
		}
		for _, m := range p.set.Members() {
			if n := sc.v.nodes[m.Node]; n.Store != m.Store || !old.Has(m.Node) && !n.open() {
				t.Errorf("member %v of %v cannot be", m, p.set)
			}
		}
	})
}

// TestBalanceSparesDraining: a node that is only drained keeps the copies it has, gets
// no others, and owns nothing; one that is decommissioned keeps none.
func TestBalanceSparesDraining(t *testing.T) {
	for _, state := range []placement.NodeState{placement.NodeDraining, placement.NodeDecommissioning} {
		look := func(states ...placement.NodeState) *view {
			var s sightings
			var list []placement.Node
			for i := 1; i <= 5; i++ {
				n := placement.Node{ID: nodeID(i), Store: storeOf(i, 0), Boot: bootOf(i, 0)}
				if i <= len(states) {
					n.State = states[i-1]
				}
				list = append(list, n)
			}
			return s.look(time.Unix(1e9, 0), &Config{Replicas: 3, RepairAfter: time.Minute, ReplacedAfter: time.Minute}, list, nil, nil)
		}
		before, after := look(), look(state)
		held, moved := 0, 0
		for i := range 500 {
			f := placement.Facet{Incarnation: facetID(i), State: placement.Active, Epoch: 1}
			p, err := planner.Choose(before.candidates, planner.Request{Facet: f.Incarnation, Replicas: 3})
			if err != nil {
				t.Fatal(err)
			}
			f.Active, f.Next, f.Owner.Node = p.Set, p.Set, p.Owner
			q := after.balance(&f, nil)
			owner, set := f.Owner.Node, f.Active
			if q.need == wanted {
				owner = q.owner
				if !q.set.IsZero() {
					set = q.set
				}
			}
			if f.Active.Has("n1") {
				held++
			}
			if !set.Equal(f.Active) {
				moved++
			}
			if owner == "n1" || set.Has("n1") && !f.Active.Has("n1") {
				t.Fatalf("%v: %s gets %v, owned by %s before and by %s after", state, f.Active, set, f.Owner.Node, owner)
			}
			// A facet that is there already stays.
			f.Active, f.Next, f.Owner.Node = set, set, owner
			if q := after.balance(&f, nil); q.need != nothing {
				t.Fatalf("%v: a second rebalance moves %v to %+v", state, f.Active, q)
			}
		}
		if want := map[bool]int{true: 0, false: held}[state == placement.NodeDraining]; moved != want || held == 0 {
			t.Errorf("%v: %d sets of the %d with the node change, want %d", state, moved, held, want)
		}
	}
}

// close takes a node out of those that may be given something.
func (sc *scene) close(n *sight) {
	if n.open() {
		sc.v.room--
	}
	n.State = placement.NodeDecommissioning
	for i := range sc.v.candidates {
		if sc.v.candidates[i].ID == n.ID {
			sc.v.candidates[i].Draining = true
		}
	}
}

// settles carries a plan out step by step as an owner would, and checks that every
// step is one that may be taken and that they come to an end where nothing is
// wanted.
func (sc *scene) settles(t *testing.T, want func(*view, *placement.Facet) plan) {
	t.Helper()
	f := sc.f
	for range maxSteps {
		p := want(sc.v, &f)
		s := sc.v.next(&f, p)
		switch s.kind {
		case stepDone, stepStuck:
			return
		case stepFinish:
			t.Errorf("finishes a living facet")
			return
		case stepAcquire:
			f.Epoch++
			f.Owner, f.Next = s.acquire.Owner, base(&f)
			if !s.acquire.Set.IsZero() {
				f.Next = s.acquire.Set
			}
			if !f.Active.IsZero() {
				f.State = placement.Recovering
			}
			if len(sc.fit(base(&f))) <= base(&f).Len()/2 {
				t.Errorf("an epoch was issued without a majority")
			}
			continue
		}
		if s.to != f.Owner.Node || !sc.v.nodes[s.to].alive || s.order.Epoch != f.Epoch {
			t.Errorf("%+v to %s, owner %v", s.order, s.to, f.Owner)
		}
		f.Owner.Boot = sc.v.nodes[s.to].Boot // it takes it back first if it must
		f.State, f.Active = placement.Active, f.Next
		if s.order.Kind == Wake {
			if s.order.Owner != "" || !s.order.Set.IsZero() {
				t.Errorf("a wake that names a place, which no node takes: %+v", s.order)
			}
			continue
		}
		if !s.order.Set.IsZero() {
			f.Next = s.order.Set
		}
		f.Epoch, f.State = f.Epoch+1, placement.Recovering
		f.Owner = placement.Owner{Node: s.order.Owner, Boot: sc.v.nodes[s.order.Owner].Boot}
		if !f.Next.Has(f.Owner.Node) {
			t.Errorf("owner %v is not in %v", f.Owner, f.Next)
		}
	}
	t.Errorf("does not come to an end: %+v", f)
}

// TestGrowthMovesOnlyWhatItMust checks the planner's sets through balance: from 3 to
// 7 nodes a facet keeps every member that is not replaced by a new node, and as many
// move as the shares say. Zones make no difference to that.
func TestGrowthMovesOnlyWhatItMust(t *testing.T) {
	for _, zones := range [][]string{{""}, {"a", "b", "c", "a", "b", "c", "a"}} {
		nodes := func(n int) *view {
			var s sightings
			var list []placement.Node
			for i := 1; i <= n; i++ {
				list = append(list, placement.Node{ID: nodeID(i), Store: storeOf(i, 0), Boot: bootOf(i, 0), Zone: zones[(i-1)%len(zones)]})
			}
			return s.look(time.Unix(1e9, 0), &Config{Replicas: 3, RepairAfter: time.Minute, ReplacedAfter: time.Minute}, list, nil, nil)
		}
		three, seven := nodes(3), nodes(7)
		const n = 7000
		moved, owners := 0, 0
		for i := range n {
			f := placement.Facet{Incarnation: facetID(i), State: placement.Active, Epoch: 1}
			f.Active, _ = placement.NewSet(placement.Member{Node: "n1", Store: storeOf(1, 0)},
				placement.Member{Node: "n2", Store: storeOf(2, 0)}, placement.Member{Node: "n3", Store: storeOf(3, 0)})
			f.Next = f.Active
			f.Owner.Node = "n1"
			if p := three.balance(&f, nil); p.need == wanted {
				if !p.set.IsZero() {
					t.Fatalf("the set of a facet on three nodes changes: %+v", p)
				}
				f.Owner.Node = p.owner
			}
			f.Owner.Boot = seven.nodes[f.Owner.Node].Boot
			p := seven.balance(&f, nil)
			if p.need != wanted {
				continue
			}
			used := map[string]int{}
			for _, m := range p.set.Members() {
				if !f.Active.Has(m.Node) {
					moved++
				}
				if z := seven.nodes[m.Node].Zone; z != "" {
					if used[z]++; used[z] > 1 {
						t.Fatalf("%v has two in zone %s", p.set, z)
					}
				}
			}
			if p.owner != f.Owner.Node {
				owners++
				if f.Active.Has(p.owner) {
					t.Fatalf("the owner moves from %s to %s, both there before", f.Owner.Node, p.owner)
				}
			}
		}
		// A draw for each slot among seven instead of three, or for each zone among
		// two or three instead of one.
		want := 3 * 4.0 / 7
		if len(zones) > 1 {
			want = 2.0/3 + 1.0/2 + 1.0/2
		}
		if got := float64(moved) / n; got < want-0.05 || got > want+0.05 {
			t.Errorf("zones %v: %.3f copies a facet moved, want %.3f", zones, got, want)
		}
		if got := float64(owners) / n; got < 4.0/7-0.03 || got > 4.0/7+0.03 {
			t.Errorf("zones %v: %.3f of the owners moved, want %.3f", zones, got, 4.0/7)
		}
	}
}

// TestTimeAlone: a member is lost when the moment announced has come, not before.
func TestTimeAlone(t *testing.T) {
	eachScene(t, 5000, func(t *testing.T, sc *scene) {
		at, ok := sc.v.ripens()
		var m placement.Member
		old := base(&sc.f)
		m = old.Members()[0]
		later := *sc.v
		later.now = sc.v.now.Add(time.Hour)
		becomes := !sc.v.lost(m, false) && later.lost(m, false)
		if becomes && !ok {
			t.Fatal("nothing is announced")
		}
		if !ok {
			return
		}
		later.now = at.Add(-1)
		if !sc.v.lost(m, false) && later.lost(m, false) {
			t.Errorf("%v is lost before %v", m, at.Sub(sc.v.now))
		}
	})
}
