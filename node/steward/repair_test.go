package steward

import (
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// TestRepairByItself: a member that was dead for long enough has a successor, and
// not earlier; a disk that was replaced is filled again soon.
func TestRepairByItself(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 4)...)
		w.create(0, 60, 3, ids(1, 3)...)
		s := w.steward(func(c *Config) { c.RepairAfter, c.Rate = time.Minute, 1 }) // Rate is not that of repairs
		s.Lead(1)
		w.kill("n1")
		time.Sleep(55 * time.Second)
		if w.count().copies != 0 {
			t.Fatalf("%d copies made before RepairAfter", w.count().copies)
		}
		time.Sleep(6 * time.Second)
		if l := s.List(); len(l) != 1 || l[0].Kind != Repair || !l[0].Auto || l[0].Status != Running || l[0].Done == 0 {
			t.Fatalf("%+v", l)
		}
		w.eventually("n1 is replaced", 5*time.Second, func() bool { return w.held()["n1"] == 0 })
		if o := w.ends(s, s.List()[0].ID, time.Second); o.Status != Completed || o.Done != 60 {
			t.Errorf("%+v", o)
		}
		// n2 loses its disk: there are n1 (back) and n2 itself to take its place.
		w.start("", "n1")
		time.Sleep(time.Minute)
		w.kill("n2")
		time.Sleep(time.Second)
		w.replace("", "n2")
		time.Sleep(DefaultReplacedAfter - 2*time.Second)
		if w.count().copies != 60 {
			t.Errorf("%d copies made before ReplacedAfter", w.count().copies)
		}
		w.eventually("the lost copies are replaced", 10*time.Second, func() bool { return w.sound() })
		n := w.held()
		if n["n1"] < 15 || n["n2"] < 15 || n["n1"]+n["n2"] != 60 {
			t.Errorf("held %s", text(n))
		}
	})
}

// sound reports whether every set has three members that live with their stores.
func (w *world) sound() bool {
	for f := range w.table.Facets() {
		if pending(&f) || f.Active.Len() != 3 {
			return false
		}
		for _, m := range f.Active.Members() {
			if n := w.nodes[m.Node]; !n.alive || n.store != m.Store {
				return false
			}
		}
	}
	return true
}

// TestGrowFromOne: a cluster of one becomes one of three.
func TestGrowFromOne(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", "n1")
		w.create(0, 100, 1, "n1")
		s := w.steward(nil)
		s.Lead(1)
		time.Sleep(time.Hour)
		w.start("", "n2")
		time.Sleep(time.Hour)
		if w.count().copies != 0 || len(s.List()) != 0 {
			t.Fatalf("%d copies made with two nodes, %+v", w.count().copies, s.List())
		}
		w.start("", "n3")
		time.Sleep(1500 * time.Millisecond)
		if l := s.List(); len(l) != 1 || !l[0].Auto || l[0].Done == 100 {
			t.Fatalf("%+v", l)
		}
		// Slow by itself, at once when asked to.
		o, err := s.Start(t.Context(), Request{Kind: Repair})
		if err != nil {
			t.Fatal(err)
		}
		if o = w.ends(s, o.ID, 5*time.Second); o.Status != Completed || !w.sound() {
			t.Errorf("%+v", o)
		}
		if l := s.List(); len(l) != 2 || l[1].Status != Cancelled {
			t.Errorf("%+v", l)
		}
		if n := w.owned(); n["n1"] != 100 {
			t.Errorf("owners moved: %s", text(n))
		}
	})
}

// TestRepairWithoutNodes: nothing shrinks, and the failure says why.
func TestRepairWithoutNodes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		w.create(0, 9, 3, ids(1, 3)...)
		s := w.steward(func(c *Config) { c.RepairAfter = time.Second })
		s.Lead(1)
		w.kill("n3")
		time.Sleep(time.Minute)
		if st := s.Stats(); st.Unrepaired != 9 || len(s.List()) != 0 || w.held()["n3"] != 9 {
			t.Errorf("%+v, %+v, held %s", st, s.List(), text(w.held()))
		}
		o, err := s.Start(t.Context(), Request{Kind: Repair})
		if err != nil {
			t.Fatal(err)
		}
		if o = w.ends(s, o.ID, time.Minute); o.Status != Failed || o.Failed != 9 || !strings.Contains(o.Message, whyNoNode) {
			t.Errorf("%+v", o)
		}
		w.start("", "n4")
		w.eventually("n3 is replaced", time.Minute, w.sound)
	})
}

// TestChangeThatCannotEnd: new members die before a change of the set is activated;
// it is taken back, and another one made.
func TestChangeThatCannotEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 7)...)
		w.create(0, 1, 3, ids(1, 3)...)
		f, _ := w.table.ByIncarnation(facetID(0))
		next, _ := placement.NewSet(f.Active.Members()[0], placement.Member{Node: "n4", Store: w.nodes["n4"].store},
			placement.Member{Node: "n5", Store: w.nodes["n5"].store})
		w.must(placement.Acquire{Incarnation: f.Incarnation, Owner: f.Owner, Expected: f.Epoch, Set: next, Released: f.Owner.Boot})
		s := w.steward(nil)
		s.Lead(1)
		w.kill("n4", "n5")
		w.must(placement.SetNode{Node: "n2", State: placement.NodeDecommissioning})
		w.eventually("n2 keeps nothing", 10*time.Second, func() bool { return w.held()["n2"] == 0 && w.sound() })
		if f, _ = w.table.ByIncarnation(facetID(0)); !f.Active.Has("n1") || !f.Active.Has("n3") || w.count().takes != 1 {
			t.Errorf("%v after %d takeovers", f.Active, w.count().takes)
		}
	})
}

// TestRebalance: seven nodes of which three have everything; only what must moves,
// pinned owners stay, and a second rebalance finds nothing to do.
func TestRebalance(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		const n = 1400
		w.create(0, n, 3, ids(1, 3)...)
		pinned := map[facet.Incarnation]cluster.NodeID{}
		for f := range w.table.Facets() {
			if len(pinned) < 30 {
				pinned[f.Incarnation] = f.Owner.Node
				w.must(placement.Pin{Incarnation: f.Incarnation, Pinned: true})
			}
		}
		s := w.steward(func(c *Config) { c.Concurrency, c.Rate = 64, 5000 })
		s.Lead(1)
		// In a cluster of three only owners move.
		o, _ := s.Start(t.Context(), Request{Kind: Rebalance})
		if o = w.ends(s, o.ID, time.Minute); o.Status != Completed || w.count().copies != 0 {
			t.Fatalf("%+v, %d copies", o, w.count().copies)
		}
		w.start("", ids(4, 7)...)
		dry, _ := s.Start(t.Context(), Request{Kind: Rebalance, DryRun: true})
		dry = w.ends(s, dry.ID, time.Minute)
		o, _ = s.Start(t.Context(), Request{Kind: Rebalance})
		if o = w.ends(s, o.ID, time.Minute); o.Status != Completed || o.Done != dry.Total || o.Failed != 0 {
			t.Fatalf("%+v, dry run %+v", o, dry)
		}
		// Of three copies 3·4/7 belong on the new nodes now, and no others move.
		if want := n * 3 * 4 / 7; w.count().copies < want*95/100 || w.count().copies > want*105/100 {
			t.Errorf("%d copies were made, want about %d", w.count().copies, want)
		}
		onNew := 0
		for i := 4; i <= 7; i++ {
			onNew += w.held()[nodeID(i)]
		}
		if onNew != w.count().copies {
			t.Errorf("%d copies were made and %d are on new nodes", w.count().copies, onNew)
		}
		for _, m := range []map[cluster.NodeID]int{w.owned(), w.held()} {
			total := 0
			for _, k := range m {
				total += k
			}
			for id, k := range m {
				if want := total / 7; k < want*85/100 || k > want*115/100 {
					t.Errorf("%s has %d of %d", id, k, total)
				}
			}
		}
		for id, owner := range pinned {
			if f, _ := w.table.ByIncarnation(id); f.Owner.Node != owner {
				t.Errorf("pinned facet moved from %s to %s", owner, f.Owner.Node)
			}
		}
		dry, _ = s.Start(t.Context(), Request{Kind: Rebalance, DryRun: true})
		if dry = w.ends(s, dry.ID, time.Minute); dry.Total != 0 {
			t.Errorf("%d facets are not where the last rebalance put them", dry.Total)
		}
	})
}
