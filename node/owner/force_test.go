package owner

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/disk"
)

// force recovers n from the copy at node k.
func (w *town) force(n facet.Name, k int) (Row, error) {
	r := w.node(k)
	row, ok := r.Lookup(n)
	if !ok {
		w.t.Fatal("no such facet")
	}
	return r.m.ForceRecover(w.t.Context(), row)
}

// swept has a node compare its copies with the table.
func (w *town) swept(k int) {
	w.check(w.node(k).keeper.Sweep(w.t.Context()))
}

// TestForceRecover: a facet of which one copy of three is left goes on from that one,
// under its name and with a new id, and the lost nodes change nothing when they are back
// (R25).
func TestForceRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 5)
		defer w.stop()
		n := name("a")
		id := w.found(n, 1, 2, 3)
		r := w.node(1)
		r.must(n, "CREATE TABLE t (v)")
		for i := range 20 {
			r.must(n, "INSERT INTO t VALUES (?)", i)
		}
		w.holds(id, 3, 1, time.Second)
		mems := map[int]*disk.Mem{1: w.node(1).kill(), 2: w.node(2).kill()}
		before, _ := w.node(3).store.Replica(id)
		at := before.Position()

		// The usual ways are closed.
		w.take(n, 3, 3)
		if _, err := w.node(3).run(n, "SELECT 1"); !errors.Is(err, facet.ErrUnavailable) {
			t.Errorf("without a majority: %v", err)
		}
		row, err := w.force(n, 3)
		w.check(err)
		want := facet.Lineage{Source: id, At: at, Lossy: true}
		if got, ok := w.node(3).Lookup(n); !ok || got.Incarnation != row.Incarnation || got.Incarnation == id || got.Lineage != want {
			t.Errorf("the name leads to %+v, want lineage %+v", got, want)
		}
		if got := w.node(3).count(n); got != 20 {
			t.Errorf("%d rows of 20", got)
		}
		w.node(3).must(n, "INSERT INTO t VALUES (20)")
		if !w.node(3).table.Tombstoned(id) {
			t.Error("the old id is not gone")
		}

		// Those that are back keep nothing of the old id, and follow the new one.
		for k, mem := range mems {
			back := w.start(k, mem, 2)
			w.swept(k)
			if back.store.Has(id) {
				t.Errorf("n%d keeps its old copy", k)
			}
			if _, err := back.run(n, "SELECT 1"); !errors.Is(err, facet.ErrNotOwner) {
				t.Errorf("n%d answers %v", k, err)
			}
		}
		if got := w.node(3).count(n); got != 21 {
			t.Errorf("%d rows of 21", got)
		}
		// The new facet is as good as any: it outlives its owner.
		w.holds(row.Incarnation, 4, 3, 10*time.Second)
		w.node(3).kill()
		w.take(n, 4, 4)
		if got := w.node(4).count(n); got != 21 {
			t.Errorf("%d rows of 21 at another member", got)
		}
	})
}

// TestForceRecoverOpen: the copy of an owner that is still open, with a write that
// nobody confirms. Whoever waits hears that its outcome is unknown, and the write, which
// may have been acknowledged for all the copy knows, is in the new facet.
func TestForceRecoverOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 5)
		defer w.stop()
		n := name("a")
		id := w.found(n, 1, 2, 3)
		r := w.node(1)
		r.must(n, "CREATE TABLE t (v)")
		w.node(2).kill()
		w.node(3).kill()
		_, done := r.submit(request(n, stmt("INSERT INTO t VALUES (1)")))
		synctest.Wait()
		if _, err := w.force(n, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := r.answer(done); !errors.Is(err, facet.ErrUnknownOutcome) {
			t.Errorf("a write nobody confirmed: %v", err)
		}
		if got := r.count(n); got != 1 {
			t.Errorf("%d rows", got)
		}
		if r.store.Has(id) {
			t.Error("the old copy is kept")
		}
	})
}

// TestForceRecoverEmpty: a facet that was made and never written to.
func TestForceRecoverEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 5)
		defer w.stop()
		n := name("a")
		id := w.found(n, 1, 2, 3)
		w.check(w.node(1).m.Wake(t.Context(), n))
		w.holds(id, 3, 1, time.Second)
		w.node(1).kill()
		w.node(2).kill()
		w.take(n, 3, 3)
		if _, err := w.force(n, 3); err != nil {
			t.Fatal(err)
		}
		w.node(3).must(n, "CREATE TABLE t (v)")
		w.node(3).must(n, "INSERT INTO t VALUES (1)")
		if got := w.node(3).count(n); got != 1 {
			t.Errorf("%d rows", got)
		}
	})
}

// TestForceRecoverRefuses: nothing is given up that need not be.
func TestForceRecoverRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 6)
		defer w.stop()
		n := name("a")
		id := w.found(n, 1, 2, 3, 4, 5)
		r := w.node(1)
		r.must(n, "CREATE TABLE t (v)")
		w.holds(id, 4, 1, time.Second)
		w.holds(id, 5, 1, time.Second)
		refused := func(k int, why string) {
			t.Helper()
			before := len(w.log)
			_, err := w.force(n, k)
			if err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("at n%d: %v, want: %s", k, err, why)
			}
			if len(w.log) != before {
				t.Errorf("at n%d: refused, and the table was changed: %T", k, w.log[len(w.log)-1])
			}
		}
		refused(1, "nothing is to be forced")
		refused(6, "keeps no copy of acme/a that counts; the nodes that did are n1, n2, n3, n4, n5")

		// n5 misses a write, and then there are only n4 and n5.
		mem := w.node(5).kill()
		r.must(n, "INSERT INTO t VALUES (1)")
		w.holds(id, 4, 1, time.Second)
		for k := 1; k <= 3; k++ {
			w.node(k).kill()
		}
		w.start(5, mem, 2)
		w.take(n, 5, 5)
		refused(5, "node n4 has a newer copy")

		c, err := w.node(4).store.Replica(id)
		w.check(err)
		row, _ := w.node(4).Lookup(n)
		s := w.node(4).m.Survey(t.Context(), &row)
		answered := 0
		for _, x := range s.Copies {
			if x.Err == nil {
				answered++
			}
		}
		if s.Refused != nil || s.Own.Last != c.Position() || answered != 2 || s.Pages != 2 || s.Recoverable {
			t.Errorf("survey at n4: %+v", s)
		}

		// The other one that is left promises the epoch of the retirement, to nobody.
		if _, err := w.force(n, 4); err != nil {
			t.Fatal(err)
		}
		left, err := w.node(5).store.Replica(id)
		w.check(err)
		if e, boot := left.Promised(); e <= row.Epoch+1 || boot != (replica.Boot{}) {
			t.Errorf("n5 promised epoch %v to %x", e, boot)
		}
	})
}

// TestForceRecoverPastTheLiving: a node that is cut off from the other members, and not
// from the placement leader, cannot take their facet from them: they serve it.
func TestForceRecoverPastTheLiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 5)
		defer w.stop()
		n := name("a")
		id := w.found(n, 1, 2, 3)
		w.node(1).must(n, "CREATE TABLE t (v)")
		w.holds(id, 3, 1, time.Second)
		w.net.Partition([]string{"n1", "n2", "n4", "n5"}, []string{"n3"})
		w.node(1).must(n, "INSERT INTO t VALUES (1)")
		gone := cluster.NodeID("")
		w.node(3).m.opts.Seen = func(id cluster.NodeID) bool { return id != gone }
		if _, err := w.force(n, 3); err == nil || !strings.Contains(err.Error(), "seems to live and does not answer node n3") {
			t.Errorf("past a majority that serves: %v", err)
		}
		gone = "n1" // one that may be half of a majority is enough
		if _, err := w.force(n, 3); err == nil || !strings.Contains(err.Error(), "node n2 keeps a copy") {
			t.Errorf("past a member that lives: %v", err)
		}
		if got := w.node(1).count(n); got != 1 {
			t.Errorf("%d rows", got)
		}
	})
}

// TestForceRecoverWaitsForTheLease: the last owner lives, hears nothing of the placement
// table and may answer reads for as long as its lease is valid.
func TestForceRecoverWaitsForTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 7)
		defer w.stop()
		n := name("a")
		id := w.found(n, 1, 2, 3, 4, 5)
		old := w.node(1)
		old.must(n, "CREATE TABLE t (v)")
		w.holds(id, 2, 1, time.Second)
		for k := 3; k <= 5; k++ {
			w.node(k).kill()
		}
		old.deafen()
		until := old.until
		if _, err := old.run(n, "SELECT count(*) FROM t"); err != nil {
			t.Fatalf("the old owner has a lease: %v", err)
		}
		if _, err := w.force(n, 2); err != nil {
			t.Fatal(err)
		}
		if now := time.Now(); now.Before(until) {
			t.Errorf("the name led to the new facet %v before the lease of the old owner was over", until.Sub(now))
		}
		w.node(2).must(n, "INSERT INTO t VALUES (1)")
		if out, err := old.run(n, "SELECT count(*) FROM t"); err == nil {
			t.Errorf("the old owner still answers: %v", out)
		}
	})
}

// TestForceRecoverOvertaken: the others come back in the middle of it, and the facet is
// recovered by the rules. What was acknowledged since must not be given up.
func TestForceRecoverOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 5)
		defer w.stop()
		n := name("a")
		id := w.found(n, 1, 2, 3)
		w.node(1).must(n, "CREATE TABLE t (v)")
		w.holds(id, 3, 1, time.Second)
		mem := w.node(1).kill()
		w.node(2).kill()
		r := w.node(3)
		row, _ := r.Lookup(n)
		own, err := r.m.seize(t.Context(), &row)
		w.check(err)
		next, at, err := r.m.cloneOwn(t.Context(), &row, own)
		w.check(err)
		w.check(r.m.activateDetached(&next))

		w.start(1, mem, 2)
		r.must(n, "INSERT INTO t VALUES (1)") // acknowledged by n1 and n3
		if err := r.m.succeed(t.Context(), &row, &next, at); !errors.Is(err, facet.ErrExists) {
			t.Errorf("over a facet that is served: %v", err)
		}
		if got := r.count(n); got != 1 {
			t.Errorf("%d rows: an acknowledged write is lost", got)
		}
		if now, _ := r.Lookup(n); now.Incarnation != id || !r.table.Tombstoned(next.Incarnation) {
			t.Errorf("the name leads to %v; the new facet is gone: %v", now.Incarnation, r.table.Tombstoned(next.Incarnation))
		}
		// The whole of it says the same from the start.
		if _, err := w.force(n, 3); err == nil {
			t.Error("forced, although there is a majority")
		}
	})
}
