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

// TestOperationsMeet: a drain, a repair and a rebalance at once want to move the same
// facets, and never ask for one at the same time.
func TestOperationsMeet(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 6)...)
		w.create(0, 300, 3, ids(1, 3)...)
		s := w.steward(func(c *Config) { c.Rate = 10000 })
		s.Lead(1)
		w.kill("n2")
		var started []Operation
		for _, r := range []Request{{Kind: Drain, Node: "n1"}, {Kind: Repair}, {Kind: Rebalance}} {
			o, err := s.Start(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			started = append(started, o)
		}
		for _, o := range started {
			if o = w.ends(s, o.ID, time.Minute); o.Status == Running || o.Done == 0 {
				t.Errorf("%+v", o)
			}
		}
		w.eventually("n2 is replaced and n1 owns nothing", 5*time.Minute, func() bool { return w.sound() && w.owned()["n1"] == 0 })
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
		w.eventually("the drain says what it waits for", time.Minute, func() bool {
			m := s.List()[0].Message
			return strings.HasPrefix(m, "1 left, tried again in ") && strings.Contains(m, "a transaction is open") && strings.Contains(m, stubborn.String())
		})
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
		if o = w.ends(s, o.ID, time.Second); o.Status != Cancelled || o.Done == 0 || o.Done >= o.Total || !strings.Contains(o.Message, "node n1 is active again") {
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
			{Request{Kind: Rebalance, Rate: MaxRate + 1}, ErrInvalid},
			{Request{Kind: Remove, Node: "n1"}, ErrInUse},
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
		if _, err := s.Start(t.Context(), Request{Kind: Remove, Node: "n3"}); !errors.Is(err, ErrAlive) {
			t.Error(err)
		}
		if _, err := s.Start(t.Context(), Request{Kind: Remove, Node: "n1", Force: true}); !errors.Is(err, ErrInUse) {
			t.Error(err)
		}
		o, err = s.Start(t.Context(), Request{Kind: Remove, Node: "n3", Force: true})
		if err != nil {
			t.Fatal(err)
		}
		if o = w.ends(s, o.ID, time.Second); o.Status != Completed || len(w.count().removed) != 1 || w.count().removed[0] != "n3" {
			t.Errorf("%+v, removed %v", o, w.count().removed)
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
		if o = w.ends(s, o.ID, time.Minute); o.Status != Completed || w.held()["n2"] != 0 {
			t.Errorf("%+v, held %s", o, text(w.held()))
		}
		o, err = s.Start(t.Context(), Request{Kind: Remove, Node: "n2"})
		if err != nil {
			t.Fatal(err)
		}
		if o = w.ends(s, o.ID, time.Second); o.Status != Completed || len(w.count().removed) != 1 {
			t.Errorf("%+v, removed %v", o, w.count().removed)
		}
	})
}

// TestDecommissionByForce: three nodes become two, and no copy is the last one lost.
func TestDecommissionByForce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		w.create(0, 90, 3, ids(1, 3)...)
		s := w.steward(nil)
		s.Lead(1)
		o, err := s.Start(t.Context(), Request{Kind: Decommission, Node: "n1", Force: true, Rate: 10})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if o = w.ends(s, o.ID, time.Minute); o.Status != Completed || o.Rate != 10 || o.Auto || len(s.List()) != 1 {
			t.Errorf("%+v", s.List())
		}
		if took := time.Since(start); took < 11*time.Second || took > 13*time.Second {
			t.Errorf("30 owners and 90 sets at 10 a second took %v", took)
		}
		time.Sleep(10 * time.Minute) // nobody changes his mind
		if n := w.held(); n["n1"] != 0 || n["n2"]+n["n3"] != 90 {
			t.Errorf("held %s", text(n))
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
