package lease

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/placement"
)

// TestGone cuts a follower off that holds a lease and serves a facet. It is gone long
// before it is dead; who takes the facet over meanwhile is active once the lease is
// over, and not before.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		defer f.close()
		time.Sleep(2 * time.Second)
		leader := f.leader()
		var lost *voter
		for _, v := range f.of {
			if v != leader {
				lost = v
			}
		}
		id := testID(1)
		f.do(placement.Create{Name: nameOf(1), Incarnation: id, Owner: ownerOf(lost.n), Set: set(1, 2, 3)})
		f.activate(leader, lost, id, 1)
		time.Sleep(time.Second)
		gone, changed := leader.grants.Gone()
		if len(gone) != 0 {
			t.Fatalf("gone: %v", gone)
		}

		cut := time.Now()
		f.cut(lost)
		<-changed
		gone, _ = leader.grants.Gone()
		if !slices.Equal(gone, []cluster.NodeID{lost.id}) {
			t.Fatalf("gone: %v", gone)
		}
		if d := time.Since(cut); d < (silentTimes-1)*listenEvery || d > (silentTimes+2)*listenEvery {
			t.Errorf("gone %v after the cut", d)
		}
		if dead, _ := leader.grants.Dead(); len(dead) != 0 || !lost.holder.Valid() {
			t.Errorf("dead: %v", dead)
		}
		f.do(placement.Acquire{Incarnation: id, Owner: ownerOf(leader.n), Expected: 1})
		f.activate(leader, leader, id, 2)
		if lost.holder.Valid() {
			t.Error("activated while the node cut off had a lease")
		}

		f.heal()
		time.Sleep(2 * time.Second)
		if gone, _ := f.leader().grants.Gone(); len(gone) != 0 || !lost.holder.Valid() {
			t.Errorf("gone after it came back: %v", gone)
		}
	})
}

// TestGoneWithTheLeader: a node that fell silent together with the leader is gone for
// the next one soon after its election, those that live are not.
func TestGoneWithTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		defer f.close()
		time.Sleep(2 * time.Second)
		old := f.leader()
		f.cut(old)
		next := f.leader()
		elected := time.Now()
		_, changed := next.grants.Gone()
		<-changed
		gone, _ := next.grants.Gone()
		if !slices.Equal(gone, []cluster.NodeID{old.id}) {
			t.Fatalf("gone: %v", gone)
		}
		if d := time.Since(elected); d > (silentAtFirst+2)*listenEvery {
			t.Errorf("gone %v after the election", d)
		}
		time.Sleep(5 * time.Second)
		if gone, _ := next.grants.Gone(); !slices.Equal(gone, []cluster.NodeID{old.id}) {
			t.Errorf("gone: %v", gone)
		}
	})
}

// TestStandstill: a leader that stood still heard nobody, and takes nobody for gone.
func TestStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		check(t, w.grants.Close())
		var stall atomic.Bool
		last := time.Now()
		var err error
		w.grants, err = NewGrants(GrantsOptions{Log: w.log, Table: w.table, Node: "n1", Store: storeID(1), Clock: w.clock, Logger: quiet(),
			Answered: func(_ cluster.NodeID, since time.Time) bool {
				if stall.Swap(false) {
					time.Sleep(10 * time.Second)
					return false // the heartbeats stood still as well
				}
				last = time.Now()
				return last.After(since)
			}})
		check(t, err)
		w.do(register(1))
		w.do(register(2))
		time.Sleep(500 * time.Millisecond)
		for range 20 {
			stall.Store(true)
			time.Sleep(listenEvery + 10*time.Second + time.Millisecond)
			// n2 does not renew: it is dead, and nobody says that it was silent.
			w.grants.mu.Lock()
			silent := w.grants.nodes.of["n2"].isSilent()
			w.grants.mu.Unlock()
			if silent {
				t.Fatal("silent")
			}
			time.Sleep(2 * listenEvery)
		}
	})
}
