package owner

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node/service"
)

// Rules that were enforced, and that the tests there were would hardly have missed.
// Package internal/mutation breaks them one at a time.

// TestAnswersInOrder: what waits for one commit is answered in the order it ran, errors
// among it, and not before (R29, R30).
func TestAnswersInOrder(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, _ facet.Incarnation, r *resident) {
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		var mu sync.Mutex
		var order []int
		submit := func(i int, sql string) {
			req := request(n, stmt(sql))
			req.Atomic = true
			r.m.Submit(&service.Call{Request: req, Done: func(*service.Call) {
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
			}})
		}
		submit(0, "INSERT INTO t VALUES (1)")
		submit(1, "SELECT count(*) FROM t")
		submit(2, "SELECT * FROM nothing")
		submit(3, "INSERT INTO t VALUES (2)")
		submit(4, "SELECT count(*) FROM t")
		time.Sleep(time.Second)
		mu.Lock()
		if len(order) > 0 {
			t.Errorf("answered without a majority: %v", order)
		}
		mu.Unlock()
		w.net.HealAll()
		time.Sleep(30 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(order, []int{0, 1, 2, 3, 4}) {
			t.Errorf("answered in the order %v", order)
		}
	})
}

// TestLeaseIsTestedLast: a read ran under a lease that is over when the commit it saw is
// acknowledged. It asks a majority then, and while none answers it waits (R33).
func TestLeaseIsTestedLast(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, _ facet.Incarnation, r *resident) {
		time.Sleep(time.Second)
		w.net.Partition([]string{"n1", "n2"}, []string{"n3"})
		const stall = 2 * time.Second
		w.node(2).mem.Inject(disk.Fault{Ops: disk.OpDatasync, Path: "data/log/*", Delay: stall, Times: 1})
		_, write := r.submit(request(n, stmt("INSERT INTO t VALUES (1)")))
		_, read := r.submit(request(n, stmt("SELECT count(*) FROM t")))
		time.Sleep(time.Second)
		w.mu.Lock()
		w.leases = false
		w.mu.Unlock()
		// The network takes 1 ms: the acknowledgement comes 2 ms behind the stall, and what
		// the read then asks is still on its way.
		time.Sleep(stall - time.Second + 2500*time.Microsecond)
		w.net.Partition([]string{"n1"}, []string{"n2"}, []string{"n3"})
		time.Sleep(time.Second)
		if len(write) == 0 {
			t.Error("the write is not acknowledged: the test tests nothing")
		}
		if len(read) > 0 {
			t.Error("a read is answered by a lease that was over")
		}
		w.net.HealAll()
		if rows, err := r.answer(read); err != nil || rows[0][0].Int != 1 {
			t.Errorf("%v, %v", rows, err)
		}
	})
}

// TestSpentEpoch: a session dies with a commit that nobody acknowledged. Its epoch is
// never used again: the next session has one of its own (R31).
func TestSpentEpoch(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, id facet.Incarnation, r *resident) {
		before, _ := r.Lookup(n)
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		_, lost := r.submit(request(n, stmt("INSERT INTO t VALUES (1)")))
		synctest.Wait()
		r.m.sessions.find(id).die(errors.New("a test ends it"))
		if _, err := r.answer(lost); !errors.Is(err, facet.ErrUnknownOutcome) {
			t.Errorf("write: %v", err)
		}
		w.net.HealAll()
		r.must(n, "INSERT INTO t VALUES (2)")
		if after, _ := r.Lookup(n); after.Epoch <= before.Epoch {
			t.Errorf("epoch %v goes on after its session died", after.Epoch)
		}
	})
}

// TestTableEndsASession: an owner that hears from its table alone that it was replaced,
// for the other members cannot reach it, ends its session at once (R24).
func TestTableEndsASession(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, _ facet.Incarnation, r *resident) {
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		_, write := r.submit(request(n, stmt("INSERT INTO t VALUES (1)")))
		synctest.Wait()
		w.take(n, 2, 2)
		synctest.Wait()
		if len(write) == 0 {
			t.Error("the session of a replaced owner goes on")
		} else if _, err := r.answer(write); !errors.Is(err, facet.ErrUnknownOutcome) {
			t.Errorf("write: %v", err)
		}
		w.net.HealAll()
	})
}

// TestNothingUncommittedLeaves: neither an export, of which clones are made, nor a
// snapshot for a member shows what a majority has not acknowledged (R44, R48).
func TestNothingUncommittedLeaves(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, id facet.Incarnation, r *resident) {
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		_, write := r.submit(request(n, stmt("INSERT INTO t VALUES (1)")))
		synctest.Wait()
		s := r.m.sessions.find(id)
		within := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			t.Cleanup(cancel)
			return ctx
		}
		if sn, err := s.committedSnapshot(within()); err == nil {
			t.Errorf("a snapshot at %v, committed is %v", sn.Position(), s.core.Committed())
			sn.Close()
		}
		if e, err := r.m.Export(within(), n); err == nil {
			t.Errorf("an export at %v, committed is %v", e.Position(), s.core.Committed())
			e.Close()
		}
		w.net.HealAll()
		if _, err := r.answer(write); err != nil {
			t.Errorf("write: %v", err)
		}
	})
}

// TestLostCopyIsNotMadeAnew: a member of the active set that lost its copy owns nothing
// and makes no empty one to own (R3).
func TestLostCopyIsNotMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		n := name("a")
		id := w.found(n, 1, 2, 3)
		mem := w.node(3).kill()
		w.node(1).must(n, "CREATE TABLE t (v)")
		w.take(n, 1, 2) // of the first epoch a member may hold nothing
		w.node(2).must(n, "INSERT INTO t VALUES (1)")
		w.net.Partition([]string{"n1", "n2"}, []string{"n3"})
		r := w.start(3, mem, 2)
		w.take(n, 1, 3)
		if _, err := r.run(n, "SELECT count(*) FROM t"); err == nil {
			t.Error("an owner without a copy serves")
		}
		if r.store.Has(id) {
			t.Error("the lost copy was made anew")
		}
		w.net.HealAll()
	})
}
