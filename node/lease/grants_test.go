package lease

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

// pending reports whether a judgement is still to come.
func pending(c chan judgement) bool {
	synctest.Wait()
	return len(c) == 0
}

// TestTakenFromALiveNode: ACTIVATE waits for the renewal that says that the facet
// is not served there any more (R40), and for nothing else of that lease.
func TestTakenFromALiveNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		w.settle()
		id := w.serve(1, 2)
		h := w.hold(2)
		defer h.Close()
		h.told.Store(w.table.Applied())
		time.Sleep(time.Second)
		if !h.Valid() {
			t.Fatal("no lease")
		}
		r := w.take(id, 1)
		j := w.activate(id, 2, 1)
		time.Sleep(quorum.RenewEvery + slack)
		if !pending(j) || !h.Valid() {
			t.Fatal("activated while the old holder may serve")
		}
		h.told.Store(r.Index)
		h.Wake()
		time.Sleep(slack)
		if pending(j) || !h.Valid() {
			t.Fatalf("not activated when the old holder was told; its lease holds: %v", h.Valid())
		}
		check(t, (<-j).err)
	})
}

// TestTakenFromADeafNode: one that is not told loses its lease, and then the facet
// may be activated, and not before.
func TestTakenFromADeafNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		w.settle()
		id := w.serve(1, 2)
		h := w.hold(2)
		defer h.Close()
		h.told.Store(w.table.Applied())
		time.Sleep(time.Second)
		w.take(id, 1)
		j := w.activate(id, 2, 1)
		for pending(j) {
			time.Sleep(10 * time.Millisecond)
		}
		v := <-j
		check(t, v.err)
		if h.Valid() {
			t.Error("activated while the old holder had a lease")
		}
		if v.after < wait-quorum.RenewEvery-slack || v.after > wait+slack {
			t.Errorf("activated after %v", v.after)
		}
		// It hears of everything at last and is granted again.
		h.told.Store(0)
		h.Wake()
		time.Sleep(slack)
		if !h.Valid() {
			t.Error("no lease though it was told everything")
		}
	})
}

// TestRevoked: a node that is not told of a revocation loses its lease, whether or
// not anybody waits for that (R40).
func TestRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		w.settle()
		id := w.serve(1, 2)
		h := w.hold(2)
		defer h.Close()
		h.told.Store(w.table.Applied())
		time.Sleep(time.Second)
		w.take(id, 1)
		time.Sleep(ttl)
		if h.Valid() {
			t.Error("renewed though a session may serve what was taken")
		}
	})
}

// TestTableIsAhead: a row is judged with what it says itself, for the leader may not
// have been told of it yet.
func TestTableIsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		w.settle()
		id := w.serve(1, 2)
		h := w.hold(2)
		defer h.Close()
		h.told.Store(w.table.Applied())
		time.Sleep(time.Second)
		w.grants.mu.Lock()
		defer w.grants.mu.Unlock()
		w.take(id, 1)
		row, _ := w.table.ByIncarnation(id)
		if at := w.grants.freeAt(&row, true); at < h.Deadline() {
			t.Errorf("free at %v, and the lease ends at %v", at, h.Deadline())
		}
	})
}

// TestDeadHolder: the lease of a node that is gone is waited out once, for all its
// facets.
func TestDeadHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		w.settle()
		a, b := w.serve(1, 2), w.serve(2, 2)
		h := w.hold(2)
		time.Sleep(time.Second)
		check(t, h.Close())
		died := w.clock()
		w.take(a, 1)
		v := <-w.activate(a, 2, 1)
		check(t, v.err)
		if v.after < wait-quorum.RenewEvery-slack || v.after > wait+slack {
			t.Errorf("activated after %v", v.after)
		}
		w.take(b, 1)
		if v := <-w.activate(b, 2, 1); v.err != nil || v.after > slack {
			t.Errorf("the second facet: %v after %v", v.err, v.after)
		}
		if list := w.dead(); !slices.Equal(list, []cluster.NodeID{"n2"}) {
			t.Errorf("dead: %v", list)
		}
		if time.Duration(w.clock()-died) > wait+3*slack {
			t.Error("it took too long")
		}
	})
}

// TestNoWait: what nobody serves is activated at once, in a new term too (R38).
func TestNoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		// Never activated.
		id := testID(1)
		w.do(placement.Create{Name: nameOf(1), Incarnation: id, Owner: ownerOf(2), Set: set(1, 2)})
		if v := <-w.activate(id, 1, 2); v.err != nil || v.after > slack {
			t.Errorf("a new facet: %v after %v", v.err, v.after)
		}
		// Released, by hand-over and by Release.
		w.do(placement.Acquire{Incarnation: id, Owner: ownerOf(1), Expected: 1, Released: bootID(2)})
		if v := <-w.activate(id, 2, 1); v.err != nil || v.after > slack {
			t.Errorf("handed over: %v after %v", v.err, v.after)
		}
		w.do(placement.Release{Incarnation: id, Epoch: 2, Boot: bootID(1)})
		w.do(placement.Acquire{Incarnation: id, Owner: ownerOf(2), Expected: 2})
		if v := <-w.activate(id, 3, 2); v.err != nil || v.after > slack {
			t.Errorf("released: %v after %v", v.err, v.after)
		}
		// The same process life again.
		w.do(placement.Acquire{Incarnation: id, Owner: ownerOf(2), Expected: 3})
		if v := <-w.activate(id, 4, 2); v.err != nil || v.after > slack {
			t.Errorf("the holder itself: %v after %v", v.err, v.after)
		}
	})
}

// TestNewLeaderWaits: a new leader knows no grants and waits them out (R39).
func TestNewLeaderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.do(register(1))
		w.do(register(2))
		w.settle()
		before, after := w.serve(1, 2), w.serve(2, 2)
		w.take(before, 1)
		w.stop()
		w.start()
		defer w.stop()
		won := time.Now()
		w.take(after, 1)
		for i, j := range []chan judgement{w.activate(before, 2, 1), w.activate(after, 2, 1)} {
			v := <-j
			check(t, v.err)
			if d := time.Since(won); d < wait || d > wait+slack {
				t.Errorf("facet %d activated %v after the term began", i+1, d)
			}
		}
		if _, ok := w.grants.LeaseAge("n2"); ok {
			t.Error("a grant nobody gave")
		}
	})
}

// TestTakenTwice: between two looks of the leader a facet may be taken, activated
// again and taken again. The renewal that covers the first revocation says nothing
// about the second.
func TestTakenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		w.do(register(3))
		w.settle()
		id := w.serve(1, 2)
		h := w.hold(2)
		defer h.Close()
		time.Sleep(time.Second)
		// n2 takes it again itself: its first activation is revoked, and covered.
		r := w.do(placement.Acquire{Incarnation: id, Owner: ownerOf(2), Expected: 1})
		h.told.Store(r.Index)
		time.Sleep(quorum.RenewEvery + slack)
		w.grants.mu.Lock()
		w.do(placement.Activate{Incarnation: id, Epoch: 2, Boot: bootID(2)})
		w.take(id, 2)
		w.grants.mu.Unlock()
		j := w.activate(id, 3, 1)
		time.Sleep(quorum.RenewEvery + slack)
		if !pending(j) {
			t.Fatal("activated while n2 serves")
		}
		h.told.Store(0)
		h.Wake()
		time.Sleep(slack)
		if pending(j) {
			t.Fatal("not activated when n2 was told")
		}
		check(t, (<-j).err)
	})
}

// TestMissedChanges: a leader that could not follow the table begins its term anew.
func TestMissedChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		w.settle()
		id := w.serve(1, 2)
		h := w.hold(2)
		defer h.Close()
		h.told.Store(w.table.Applied())
		time.Sleep(time.Second)
		r := w.take(id, 1)
		j := w.activate(id, 2, 1)
		synctest.Wait()
		w.grants.mu.Lock()
		w.grants.follow(placement.Changes{All: true})
		w.grants.mu.Unlock()
		missed := time.Now()
		v := <-j // n2 is deaf
		check(t, v.err)
		if d := time.Since(missed); d < wait || d > wait+slack || h.Valid() {
			t.Errorf("activated %v later, old lease holds: %v", d, h.Valid())
		}
		h.told.Store(r.Index + 1000)
		h.Wake()
		time.Sleep(slack)
		if !h.Valid() {
			t.Error("no lease afterwards")
		}
	})
}

// TestDead: a node is dead when its lease is over as far as the leader can know.
func TestDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		h := w.hold(2)
		time.Sleep(10 * time.Second)
		if list := w.dead(); len(list) != 0 || !w.grants.Alive("n1") || !w.grants.Alive("n2") || w.grants.Alive("n3") {
			t.Fatalf("dead: %v", list)
		}
		// One that registers and never renews.
		_, changed := w.grants.Dead()
		begin := time.Now()
		w.do(register(3))
		<-changed
		if d := time.Since(begin); d < wait || d > wait+slack || !slices.Equal(w.dead(), []cluster.NodeID{"n3"}) {
			t.Errorf("dead after %v: %v", d, w.dead())
		}
		_, changed = w.grants.Dead()
		check(t, h.Close())
		begin = time.Now()
		<-changed
		if d := time.Since(begin); d < wait-quorum.RenewEvery-slack || d > wait || w.grants.Alive("n2") {
			t.Errorf("dead after %v: %v", d, w.dead())
		}
		// It comes back.
		_, changed = w.grants.Dead()
		h = w.hold(2)
		<-changed
		synctest.Wait() // the grant is on its way
		if !w.grants.Alive("n2") || !h.Valid() {
			t.Errorf("dead: %v", w.dead())
		}
		check(t, h.Close())
		// Nobody is dead in a term that has just begun, or on one that leads none.
		w.settle()
		old := w.grants
		w.stop()
		if list, _ := old.Dead(); len(list) != 0 || !old.Alive("n2") {
			t.Errorf("dead on a node that does not lead: %v", list)
		}
		w.start()
		if list := w.dead(); len(list) != 0 {
			t.Errorf("dead in a new term: %v", list)
		}
		time.Sleep(wait - time.Millisecond)
		if list := w.dead(); len(list) != 0 {
			t.Errorf("dead before the new leader can know: %v", list)
		}
		time.Sleep(slack)
		if list := w.dead(); !slices.Equal(list, []cluster.NodeID{"n2", "n3"}) {
			t.Errorf("dead: %v", list)
		}
	})
}

// TestStrangers: only the process life that is registered gets a lease.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		ask := func(node cluster.NodeID, boot cluster.BootID) error {
			done := make(chan error, 1)
			w.grants.RenewFunc(node, boot, peer.RenewRequest{Applied: w.table.Applied(), Stamp: 1}, func(_ peer.Grant, err error) { done <- err })
			return <-done
		}
		check(t, ask("n2", bootID(2)))
		if err := ask("n2", bootID(9)); !errors.Is(err, peer.ErrRefused) {
			t.Errorf("another boot: %v", err)
		}
		if err := ask("n9", bootID(2)); !errors.Is(err, peer.ErrRefused) {
			t.Errorf("another node: %v", err)
		}
		next := register(2)
		next.Boot = bootID(22)
		w.do(next)
		if err := ask("n2", bootID(2)); !errors.Is(err, peer.ErrRefused) {
			t.Errorf("a boot that was replaced: %v", err)
		}
	})
}

// TestGrantWaitsForItsEntry: a renewal is answered when an entry of the placement log is
// committed that was proposed after it came in, and not before (R36). A leader that was
// deposed without noticing never gets that far.
func TestGrantWaitsForItsEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		time.Sleep(time.Second)
		open := w.log.hold()
		type answer struct {
			g   peer.Grant
			err error
		}
		answers := make(chan answer, 2)
		renew := func(stamp time.Duration) {
			w.grants.RenewFunc("n2", bootID(2), peer.RenewRequest{Applied: w.table.Applied(), Stamp: stamp}, func(g peer.Grant, err error) {
				answers <- answer{g, err}
			})
		}
		renew(1)
		time.Sleep(time.Second) // the round has begun, and its entry is not committed
		renew(2)                // belongs to the next round
		time.Sleep(time.Second)
		early := len(answers)
		open()
		if early > 0 {
			t.Fatalf("answered before the entry of the round is committed: %+v", <-answers)
		}
		for _, stamp := range []time.Duration{1, 2} {
			if a := <-answers; a.err != nil || a.g.Stamp != stamp || a.g.TTL != ttl {
				t.Errorf("renewal %d: %+v", stamp, a)
			}
		}
	})
}

// TestRounds: of two renewals of one boot the later one counts, rounds keep their
// distance, and what waits is answered when the term ends.
func TestRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.do(register(1))
		w.do(register(2))
		time.Sleep(time.Second)
		entries := w.log.entries.Load()
		answers := make(chan peer.Grant, 100)
		var busy atomic.Int32
		for i := range 50 {
			w.grants.RenewFunc("n2", bootID(2), peer.RenewRequest{Applied: w.table.Applied(), Stamp: time.Duration(1 + i)}, func(g peer.Grant, err error) {
				if err == nil {
					answers <- g
				} else if errors.Is(err, peer.ErrBusy) {
					busy.Add(1)
				}
			})
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(slack)
		if n := w.log.entries.Load() - entries; n < int64(500*time.Millisecond/RoundEvery) || n > int64(500*time.Millisecond/RoundEvery)+2 {
			t.Errorf("%d rounds in half a second", n)
		}
		if len(answers)+int(busy.Load()) != 50 {
			t.Errorf("%d grants and %d refusals of 50", len(answers), busy.Load())
		}
		last := peer.Grant{}
		for len(answers) > 0 {
			last = <-answers
		}
		if last.Stamp != 50 || last.TTL != ttl {
			t.Errorf("the last grant: %+v", last)
		}
		check(t, w.raft.Close())
		done := make(chan error, 1)
		go func() {
			_, err := w.grants.Renew(t.Context(), bootID(1), peer.RenewRequest{Stamp: 1})
			done <- err
		}()
		if err := <-done; err == nil {
			t.Error("granted by a log that is closed")
		}
		check(t, w.grants.Close())
		check(t, w.grants.Close())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.grants.Renew(ctx, bootID(1), peer.RenewRequest{Stamp: 1}); !errors.Is(err, peer.ErrNotLeader) && !errors.Is(err, peer.ErrBusy) {
			t.Errorf("after Close: %v", err)
		}
	})
}
