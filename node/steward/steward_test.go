package steward

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

func bubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t)) })
}

// TestFailoverOfManyFacets: ten thousand facets of a dead node cost twenty entries
// and spread evenly.
func TestFailoverOfManyFacets(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 7)...)
		w.create(0, 10000, 3, "n1", "n2", "n3") // n1 owns a third
		w.create(10000, 10000, 3, "n1", "n4", "n5", "n6", "n7")
		s := w.steward(nil)
		s.Lead(1)
		synctest.Wait()
		before := w.owned()
		w.kill("n1")
		w.eventually("n1 owns nothing", time.Second, func() bool { return w.owned()["n1"] == 0 })
		synctest.Wait()
		if want := before["n1"]/batch + 1; w.count().entries > want || w.count().takes != before["n1"] {
			t.Errorf("%d takeovers in %d entries, want %d in %d", w.count().takes, w.count().entries, before["n1"], want)
		}
		after := w.owned()
		for _, id := range ids(2, 3) {
			if got, want := after[id]-before[id], 3334/2; got < want*9/10 || got > want*11/10 {
				t.Errorf("%s took %d facets over, want about %d", id, got, want)
			}
		}
		for _, id := range ids(4, 5) { // the two that follow n1 in its sets
			if got, want := after[id]-before[id], 2000/2; got < want*9/10 || got > want*11/10 {
				t.Errorf("%s took %d facets over, want about %d", id, got, want)
			}
		}
		if st := s.Stats(); st.TakenOver != uint64(before["n1"]) || st.Refused != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// TestFailoverLeavesAloneWhatItMust: released facets, facets of a node that came
// back, and facets whose majority is gone (rule R25), until it is back.
func TestFailoverLeavesAloneWhatItMust(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		w.create(0, 6, 3, "n1", "n2", "n3")
		released, _ := w.table.ByIncarnation(facetID(0))
		w.must(placement.Release{Incarnation: released.Incarnation, Epoch: 1, Boot: released.Owner.Boot})
		s := w.steward(nil)
		s.Lead(1)
		w.kill("n2")
		w.start("", "n2") // before the steward looks
		synctest.Wait()
		if w.count().takes != 0 {
			t.Fatalf("%d takeovers though n2 is back", w.count().takes)
		}
		w.kill("n1", "n2")
		time.Sleep(5 * time.Second)
		if st := s.Stats(); w.count().takes != 0 || st.Unavailable != 3 || st.Dead != 2 { // n1 owns one, n2 two
			t.Errorf("%d takeovers, %+v; want none and 3 unavailable", w.count().takes, st)
		}
		w.start("", "n2")
		w.eventually("n1's facets have an owner", time.Second, func() bool { return w.owned()["n1"] == 0 })
		time.Sleep(5 * time.Second)
		if st := s.Stats(); st.Unavailable != 0 || w.count().takes != 1 {
			t.Errorf("%d takeovers, %+v; want 1 and none unavailable", w.count().takes, st)
		}
		if f, _ := w.table.ByIncarnation(released.Incarnation); !f.Owner.IsZero() {
			t.Errorf("a released facet was given to %v", f.Owner)
		}
	})
}

// TestOwnersThatDieInTurn: the heir of a facet dies too, and its heir.
func TestOwnersThatDieInTurn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 5)...)
		w.create(0, 200, 5, ids(1, 5)...)
		s := w.steward(func(c *Config) { c.Replicas = 5 })
		s.Lead(1)
		for i := 1; i <= 2; i++ {
			w.kill(nodeID(i))
			w.eventually("a dead node owns nothing", time.Second, func() bool { return w.owned()[nodeID(i)] == 0 })
		}
		// n1 is back, gets facets by a move, and dies at once: those were taken over a
		// moment ago and stay where they are for a while.
		w.start("", "n1")
		moved := 0
		for f := range w.table.OwnedBy("n3") {
			if err := w.Order(t.Context(), "n3", Order{Kind: Move, Incarnation: f.Incarnation, Epoch: f.Epoch, Owner: "n1"}); err != nil {
				t.Fatal(err)
			}
			moved++
		}
		w.kill("n1")
		time.Sleep(3 * time.Second)
		held := w.owned()["n1"]
		if held == 0 || held == moved {
			t.Errorf("%d of the %d facets that moved to n1 are held back, want those that were taken over just now", held, moved)
		}
		w.eventually("n1 owns nothing", hold, func() bool { return w.owned()["n1"] == 0 })
	})
}

// TestEntryOfTheDead: a row that comes to a node after it died is seen as well.
func TestEntryOfTheDead(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		s := w.steward(nil)
		s.Lead(1)
		w.kill("n1")
		time.Sleep(time.Minute)
		w.create(0, 3, 3, ids(1, 3)...)
		w.eventually("n1 owns nothing", 100*time.Millisecond, func() bool { return w.owned()["n1"] == 0 })
	})
}

// TestFirstMembersDie: a facet that was never activated has nothing to recover, and
// begins anew when its members died.
func TestFirstMembersDie(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 6)...)
		set, _ := placement.NewSet(placement.Member{Node: "n1", Store: w.nodes["n1"].store},
			placement.Member{Node: "n2", Store: w.nodes["n2"].store}, placement.Member{Node: "n3", Store: w.nodes["n3"].store})
		w.must(placement.Create{Name: facet.Name{Tenant: "a", Facet: "f"}, Incarnation: facetID(1),
			Owner: placement.Owner{Node: "n1", Boot: w.nodes["n1"].boot}, Set: set})
		s := w.steward(nil)
		s.Lead(1)
		w.kill("n1", "n2")
		time.Sleep(time.Second)
		f, _ := w.table.ByIncarnation(facetID(1))
		if f.Next.Len() != 3 || f.Next.Has("n1") || f.Next.Has("n2") || !f.Next.Has(f.Owner.Node) || f.State != placement.Creating {
			t.Errorf("%+v", f)
		}
	})
}

// TestProposalsThatFail: takeovers are tried until they are in the table.
func TestProposalsThatFail(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		w.create(0, 3000, 3, ids(1, 3)...)
		s := w.steward(nil)
		s.Lead(1)
		n := 0
		w.during(nil, func() error {
			if n++; n%3 != 0 {
				return errors.New("no quorum just now")
			}
			return nil
		})
		w.kill("n1")
		w.eventually("n1 owns nothing", 10*time.Second, func() bool { return w.owned()["n1"] == 0 })
	})
}

func TestDrain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 4)...)
		w.create(0, 2000, 3, ids(1, 4)...)
		w.create(2000, 5, 1, "n1") // nobody else keeps them
		s := w.steward(func(c *Config) { c.Replicas = 1 })
		s.Lead(1)
		dry, err := s.Start(t.Context(), Request{Kind: Drain, Node: "n1", DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		if dry = w.ends(s, dry.ID, time.Second); dry.Total != 505 || dry.Done != 0 || dry.Status != Completed {
			t.Fatalf("dry run: %+v", dry)
		}
		held, start := w.held(), time.Now()
		o, err := s.Start(t.Context(), Request{Kind: Drain, Node: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.Start(t.Context(), Request{Kind: Drain, Node: "n1"}); err != nil || again.ID != o.ID || again.Auto {
			t.Errorf("started twice: %+v, %v", again, err)
		}
		if o = w.ends(s, o.ID, 10*time.Second); o.Status != Completed || o.Done != 505 || o.Total != 505 || o.Failed != 0 {
			t.Errorf("%+v", o)
		}
		if took := time.Since(start); took < 900*time.Millisecond || took > 3*time.Second {
			t.Errorf("505 facets at 500 a second took %v", took)
		}
		if w.count().atOnce > DefaultConcurrency || w.count().atOnce < 2 {
			t.Errorf("%d orders at once", w.count().atOnce)
		}
		if n := w.owned()["n1"]; n != 0 {
			t.Errorf("n1 owns %d", n)
		}
		if after := w.held(); after["n1"] != held["n1"]-5 {
			t.Errorf("copies moved: %s, before %s", text(after), text(held))
		}
		for f := range w.table.Facets() {
			if pending(&f) {
				t.Errorf("%v is not complete without n1: %+v", f.Incarnation, f)
			}
		}
		if _, err := s.Start(t.Context(), Request{Kind: Undrain, Node: "n1"}); err != nil {
			t.Fatal(err)
		}
		if n, _ := w.table.Node("n1"); n.State != placement.NodeActive {
			t.Errorf("n1 is %v", n.State)
		}
	})
}

// TestDrainGoesOn: the leader changes in the middle, twice, and a node dies.
func TestDrainGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 5)...)
		w.create(0, 6000, 3, ids(1, 5)...)
		a, b := w.steward(nil), w.steward(nil)
		a.Lead(1)
		if _, err := a.Start(t.Context(), Request{Kind: Drain, Node: "n1"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(700 * time.Millisecond)
		w.mu.Lock()
		w.term = 2
		w.mu.Unlock()
		b.Lead(2) // before a knows
		time.Sleep(100 * time.Millisecond)
		a.Stop()
		if l := a.List(); l[0].Status != Interrupted {
			t.Errorf("%+v", l[0])
		}
		if _, err := a.Start(t.Context(), Request{Kind: Repair}); !errors.Is(err, ErrNotLeading) {
			t.Errorf("start without leading: %v", err)
		}
		w.kill("n2")
		time.Sleep(500 * time.Millisecond)
		w.mu.Lock()
		w.term = 3
		w.mu.Unlock()
		b.Stop()
		a.Lead(3)
		synctest.Wait()
		l := a.List()
		if len(l) != 1 || l[0].Kind != Drain || l[0].Node != "n1" || l[0].Status != Running {
			t.Errorf("%+v", l)
		}
		if o := w.ends(a, l[0].ID, time.Minute); o.Status != Completed {
			t.Errorf("%+v", o)
		}
		if n := w.owned(); n["n1"] != 0 || n["n2"] != 0 {
			t.Errorf("owned %s", text(n))
		}
	})
}

// TestRefusals: what is refused for a moment is tried again; what is refused for
// long is failed, with the reason, and the operation comes back to it.
func TestRefusals(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		w.create(0, 90, 3, ids(1, 3)...)
		tries := map[facet.Incarnation]int{}
		stubborn, open := facetID(0), false
		w.refuse = func(to cluster.NodeID, o Order) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if tries[o.Incarnation]++; tries[o.Incarnation] == 1 || o.Incarnation == stubborn && !open {
				return errors.New("a transaction is open")
			}
			return nil
		}
		s := w.steward(nil)
		s.Lead(1)
		o, err := s.Start(t.Context(), Request{Kind: Drain, Node: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		o = w.ends(s, o.ID, time.Minute)
		if o.Status != Failed || o.Done != 29 || o.Failed != 1 || o.Total != 30 ||
			!strings.Contains(o.Message, "a transaction is open") || !strings.Contains(o.Message, stubborn.String()) {
			t.Errorf("%+v", o)
		}
		if tries[stubborn] != maxAttempts {
			t.Errorf("tried %d times", tries[stubborn])
		}
		w.mu.Lock()
		open = true
		w.mu.Unlock()
		w.eventually("the drain is taken up again", 3*time.Minute, func() bool { return w.owned()["n1"] == 0 })
		if o = w.ends(s, o.ID, time.Minute); o.Status != Completed || o.Done != 30 || o.Total != 30 || o.Failed != 0 || o.Message != "" {
			t.Errorf("%+v", o)
		}
	})
}

func TestCancel(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		w.create(0, 3000, 3, ids(1, 3)...)
		s := w.steward(nil)
		s.Lead(1)
		o, err := s.Start(t.Context(), Request{Kind: Drain, Node: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := s.Cancel(t.Context(), o.ID); err != nil {
			t.Fatal(err)
		}
		if o = w.ends(s, o.ID, time.Second); o.Status != Cancelled || o.Done == 0 || o.Done >= o.Total {
			t.Errorf("%+v", o)
		}
		if n, _ := w.table.Node("n1"); n.State != placement.NodeActive {
			t.Errorf("n1 is %v", n.State)
		}
		owned := w.owned()["n1"]
		time.Sleep(5 * time.Minute)
		if n := w.owned()["n1"]; n != owned {
			t.Errorf("n1 owned %d facets and owns %d", owned, n)
		}
		if err := s.Cancel(t.Context(), "9-9"); !errors.Is(err, ErrNoOperation) {
			t.Error(err)
		}
		if err := s.Cancel(t.Context(), o.ID); err != nil {
			t.Error(err)
		}
	})
}

func TestStartRefuses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 4)...)
		s := w.steward(nil)
		s.Lead(1)
		for _, tc := range []struct {
			r    Request
			want error
		}{
			{Request{Kind: "tidy"}, ErrInvalid},
			{Request{Kind: Drain}, ErrInvalid},
			{Request{Kind: Repair, Node: "n1"}, ErrInvalid},
			{Request{Kind: Drain, Node: "n9"}, ErrNoNode},
			{Request{Kind: Decommission, Node: "n1", DryRun: true}, nil},
		} {
			if _, err := s.Start(t.Context(), tc.r); !errors.Is(err, tc.want) {
				t.Errorf("%+v: %v, want %v", tc.r, err, tc.want)
			}
		}
		w.must(placement.SetNode{Node: "n4", State: placement.NodeDecommissioning})
		if _, err := s.Start(t.Context(), Request{Kind: Drain, Node: "n4"}); !errors.Is(err, ErrConflict) {
			t.Error(err)
		}
		if _, err := s.Start(t.Context(), Request{Kind: Decommission, Node: "n1"}); !errors.Is(err, ErrTooFewNodes) {
			t.Error(err)
		}
	})
}

func TestDecommission(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("a", "n1", "n2")
		w.start("b", "n3", "n4")
		w.start("c", "n5", "n6")
		w.create(0, 900, 3, "n1", "n3", "n5")
		gone, _ := w.table.ByIncarnation(facetID(0))
		w.must(placement.Delete{Incarnation: gone.Incarnation})
		s := w.steward(nil)
		s.Lead(1)
		o, err := s.Start(t.Context(), Request{Kind: Decommission, Node: "n3"})
		if err != nil {
			t.Fatal(err)
		}
		if o = w.ends(s, o.ID, 2*time.Minute); o.Status != Completed || o.Failed != 0 {
			t.Errorf("%+v", o)
		}
		if len(w.count().removed) != 1 || w.count().removed[0] != "n3" {
			t.Errorf("removed %v", w.count().removed)
		}
		if w.count().copies != 899 {
			t.Errorf("%d copies made, want 899", w.count().copies)
		}
		for f := range w.table.Facets() {
			// Minimal, and zone b again has one: n4 is its only other node.
			if !f.Active.Has("n1") || !f.Active.Has("n4") || !f.Active.Has("n5") || pending(&f) {
				t.Fatalf("%v: %v", f.Incarnation, f.Active)
			}
		}
		if _, ok := w.table.Node("n3"); ok {
			t.Error("n3 is still registered")
		}
	})
}

// TestDecommissionOfTheDead: a node that will never be back.
func TestDecommissionOfTheDead(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 5)...)
		w.create(0, 500, 3, ids(1, 5)...)
		s := w.steward(func(c *Config) { c.RepairAfter = -1 })
		s.Lead(1)
		w.kill("n2")
		time.Sleep(time.Hour)
		if n := w.held()["n2"]; n != 300 {
			t.Errorf("n2 holds %d of 300 though nothing is repaired by itself", n)
		}
		o, err := s.Start(t.Context(), Request{Kind: Decommission, Node: "n2"})
		if err != nil {
			t.Fatal(err)
		}
		if o = w.ends(s, o.ID, time.Minute); o.Status != Completed || len(w.count().removed) != 1 {
			t.Errorf("%+v, removed %v", o, w.count().removed)
		}
	})
}

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

// TestRebalance: seven nodes of which three have everything; only what must moves,
// pinned owners stay, and a second rebalance finds nothing to do.
func TestRebalance(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		const n = 2100
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

// TestDeletionsEnd: a row whose deletion nobody finishes is finished.
func TestDeletionsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		w.create(0, 50, 3, ids(1, 3)...)
		w.must(placement.Delete{Incarnation: facetID(0)}) // before the term
		s := w.steward(nil)
		s.Lead(1)
		for i := 1; i < 40; i++ {
			w.must(placement.Delete{Incarnation: facetID(i)})
		}
		time.Sleep(finishAfter - time.Second)
		if len(w.count().finishes) != 0 {
			t.Errorf("finished too soon")
		}
		w.eventually("the rows are gone", 10*time.Second, func() bool { return w.table.Counts().Rows == 10 })
		time.Sleep(time.Minute)
		for id, n := range w.count().finishes {
			if n != 2 { // the first one failed
				t.Errorf("%v was finished %d times", id, n)
			}
		}
		if st := s.Stats(); st.Finished != 40 {
			t.Errorf("%+v", st)
		}
	})
}

// TestIdleScans: nothing walks the table when nothing happens.
func TestIdleScans(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		w.create(0, 10, 3, ids(1, 3)...)
		s := w.steward(nil)
		s.Lead(1)
		time.Sleep(10 * time.Minute)
		if n := s.Stats().Scans; n > 3 { // the first, one after the nodes were new, one when stores ripen
			t.Errorf("%d scans of a table that did not change", n)
		}
	})
}

// TestOperationsAreBounded: the list forgets the oldest that ended.
func TestOperationsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		s := w.steward(nil)
		s.Lead(1)
		for range MaxOperations + 20 {
			o, err := s.Start(t.Context(), Request{Kind: Rebalance, DryRun: true})
			if err != nil {
				t.Fatal(err)
			}
			w.ends(s, o.ID, time.Second)
		}
		l := s.List()
		if len(l) != MaxOperations || l[0].ID != fmt.Sprintf("1-%d", MaxOperations+20) {
			t.Errorf("%d operations, the newest %s", len(l), l[0].ID)
		}
		_ = s.Close()
		_ = s.Close()
		if s.Lead(7); s.Stats().Leading {
			t.Error("a closed steward leads")
		}
	})
}
