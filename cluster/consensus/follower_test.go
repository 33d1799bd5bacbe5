package consensus

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/placement"
)

// TestTableAtAFollower creates rows through a node that does not lead and reads
// them there: the wait for its own table is short.
func TestTableAtAFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		tables := map[cluster.NodeID]*placement.Table{}
		for _, id := range names(3) {
			tables[id] = placement.NewTable()
			f.start(id, func(c *Config) { c.Expect, c.StateMachine = 3, tables[id] })
		}
		f.see()
		b := f.follower()
		p := placement.Proposer{Propose: b.node.Propose}
		store := cluster.NewStoreID()
		var worst time.Duration
		for i := range 50 {
			time.Sleep(100 * time.Millisecond)
			res, err := p.Do(t.Context(), placement.RegisterNode{Node: cluster.NodeID(fmt.Sprintf("x%d", i)), Store: store, Boot: cluster.NewBootID()})
			store = cluster.NewStoreID()
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := tables[b.id].WaitApplied(t.Context(), res.Index); err != nil {
				t.Fatal(err)
			}
			worst = max(worst, time.Since(start))
			if got := len(tables[b.id].Nodes()); got != i+1 {
				t.Errorf("%d nodes in its table, want %d", got, i+1)
			}
		}
		t.Logf("worst wait for its own table: %v", worst)
		if worst > 5*time.Millisecond {
			t.Errorf("waited %v", worst)
		}
	})
}

// TestTableAtABystander watches a node that neither leads nor proposes: it hears at
// once of a few commits after a pause, which is what a node waits for that another
// one makes the owner of a facet.
func TestTableAtABystander(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		tables := map[cluster.NodeID]*placement.Table{}
		for _, id := range names(3) {
			tables[id] = placement.NewTable()
			f.start(id, func(c *Config) { c.Expect, c.StateMachine = 3, tables[id] })
		}
		f.see()
		b := f.follower()
		p := placement.Proposer{Propose: f.leader(10 * time.Second).node.Propose}
		var worst time.Duration
		for i := range 40 {
			if i%nudgeBurst == 0 {
				time.Sleep(100 * time.Millisecond)
			}
			res, err := p.Do(t.Context(), placement.RegisterNode{Node: cluster.NodeID(fmt.Sprintf("x%d", i)), Store: cluster.NewStoreID(), Boot: cluster.NewBootID()})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := tables[b.id].WaitApplied(t.Context(), res.Index); err != nil {
				t.Fatal(err)
			}
			worst = max(worst, time.Since(start))
		}
		t.Logf("worst wait for its table: %v", worst)
		if worst >= nudgeAll {
			t.Errorf("waited %v", worst)
		}
	})
}
