package steward

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// TestFailoverOfManyFacets: ten thousand facets of a dead node cost twenty entries
// and spread evenly.
func TestFailoverOfManyFacets(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 7)...)
		w.create(0, 10000, 3, "n1", "n2", "n3") // n1 owns a third
		w.create(10000, 5000, 3, "n1", "n4", "n5", "n6", "n7")
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
			if got, want := after[id]-before[id], 1000/2; got < want*9/10 || got > want*11/10 {
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

// TestSilentOwners: the facets of a node that fell silent are taken over while its
// lease runs; it cannot be removed before it is dead.
func TestSilentOwners(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		w.create(0, 6, 3, "n1", "n2", "n3")
		s := w.steward(nil)
		s.Lead(1)
		w.hush("n1", true)
		w.eventually("n1 owns nothing", 100*time.Millisecond, func() bool { return w.owned()["n1"] == 0 })
		if !w.Alive("n1") {
			t.Error("it is dead")
		}
		taken := w.count().takes
		w.hush("n1", false)
		time.Sleep(time.Minute)
		if n := w.count().takes; n != taken || w.owned()["n1"] != 0 {
			t.Errorf("%d facets were taken over after it spoke again", n-taken)
		}
	})
}

// TestEntryOfTheDead: a row that comes to a node after it died is seen as well.
func TestEntryOfTheDead(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		s := w.steward(nil)
		s.Lead(1)
		w.kill("n1")
		time.Sleep(65 * time.Second) // no scan is near
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
