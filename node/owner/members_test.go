package owner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node/service"
)

// TestReplicated: what is acknowledged is in every copy, and a member that was away
// is caught up by the log.
func TestReplicated(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, id facet.Incarnation, r *resident) {
		for i := range 20 {
			r.must(n, "INSERT INTO t VALUES (?)", i)
		}
		if got := r.count(n); got != 20 {
			t.Errorf("%d rows", got)
		}
		w.holds(id, 2, 1, time.Second)
		w.holds(id, 3, 1, time.Second)
		if _, err := w.node(2).run(n, "SELECT 1"); !errors.Is(err, facet.ErrNotOwner) {
			t.Errorf("another node answers %v", err)
		}

		w.net.Partition([]string{"n1", "n2"}, []string{"n3"})
		for i := range 20 {
			r.must(n, "INSERT INTO t VALUES (?)", i)
		}
		w.net.HealAll()
		w.holds(id, 3, 1, 10*time.Second)
		if got := r.count(n); got != 40 {
			t.Errorf("%d rows", got)
		}
	})
}

// soon fails the test if f takes longer than that.
func soon(t *testing.T, what string, within time.Duration, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(within):
		t.Fatalf("%s: not done after %v", what, within)
	}
}

// TestLongAway: a member that was away for so long that nobody dialled it any more
// is caught up when it comes back, though nobody asks for it but the session.
func TestLongAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		w.tune = nil
		n := name("a")
		id := w.found(n, 1, 2, 3)
		r := w.node(1)
		r.must(n, "CREATE TABLE t (v)")
		w.holds(id, 3, 1, time.Second)
		mem := w.node(3).kill()
		for range 40 {
			r.must(n, "INSERT INTO t VALUES (1)")
			time.Sleep(5 * time.Second)
		}
		w.start(3, mem, 2)
		w.holds(id, 3, 1, 10*time.Second)
	})
}

// TestReadsAtTheEnd: a read that waits for a majority when its session is closed for
// a handover is answered.
func TestReadsAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		w.leases = false
		n := name("a")
		w.found(n, 1, 2, 3)
		r := w.node(1)
		r.must(n, "CREATE TABLE t (v)")
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		_, done := r.submit(request(n, stmt("SELECT count(*) FROM t")))
		synctest.Wait()
		soon(t, "move", time.Minute, func() {
			if err := r.m.Move(t.Context(), n, Transfer{Owner: "n2"}); err != nil {
				t.Log("move:", err)
			}
		})
		if _, err := r.answer(done); err == nil {
			t.Error("a read was answered that nobody confirmed")
		}
	})
}

// TestCloseWithoutMajority: jobs that wait for a commit that never comes do not keep
// a node from stopping, and everybody is answered.
func TestCloseWithoutMajority(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, _ facet.Incarnation, r *resident) {
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		_, write := r.submit(request(n, stmt("INSERT INTO t VALUES (1)")))
		synctest.Wait()
		gone := make(chan error, 1)
		go func() { gone <- r.m.Delete(context.Background(), n) }()
		synctest.Wait()
		_, read := r.submit(request(n, stmt("SELECT count(*) FROM t")))
		time.Sleep(100 * time.Millisecond)
		soon(t, "close", time.Minute, func() { r.stop(0) })
		if _, err := r.answer(write); !errors.Is(err, facet.ErrUnknownOutcome) {
			t.Errorf("write: %v", err)
		}
		if _, err := r.answer(read); err == nil {
			t.Error("a read was answered")
		}
		if err := <-gone; err == nil {
			t.Error("a facet was deleted without a majority")
		}
	})
}

// TestSnapshotIsWhatCommits: a write waits for a member that needs a snapshot first.
func TestSnapshotIsWhatCommits(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, id facet.Incarnation, r *resident) {
		w.holds(id, 3, 1, time.Second)
		w.net.Partition([]string{"n1", "n2"}, []string{"n3"})
		time.Sleep(5 * time.Second)
		for range 20 {
			r.must(n, "INSERT INTO t VALUES (1)")
		}
		r.m.CheckpointSoon(n)
		time.Sleep(5 * time.Second)
		w.net.Partition([]string{"n1"}, []string{"n2"}, []string{"n3"})
		_, write := r.submit(request(n, stmt("INSERT INTO t VALUES (1)")))
		time.Sleep(time.Second)
		w.net.Partition([]string{"n1", "n3"}, []string{"n2"})
		if _, err := r.answer(write); err != nil {
			t.Errorf("write: %v", err)
		}
		w.holds(id, 3, 1, time.Second)
		if got := r.count(n); got != 21 {
			t.Errorf("%d rows", got)
		}
	})
}

// TestDeleteOfWhatIsElsewhere: a facet that was taken over while its deletion waited
// is not deleted under its new owner (rule R47).
func TestDeleteOfWhatIsElsewhere(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, _ facet.Incarnation, r *resident) {
		r.hook = func() {
			w.take(n, 1, 2)
			w.node(2).must(n, "INSERT INTO t VALUES (1)")
		}
		if err := r.m.Delete(t.Context(), n); !errors.Is(err, facet.ErrNotOwner) {
			t.Errorf("delete: %v", err)
		}
		if got := w.node(2).count(n); got != 1 {
			t.Errorf("%d rows", got)
		}
	})
}

// TestDeleteByAnOldTable: a node whose table has not heard that a facet was made does not
// say that there is none.
func TestDeleteByAnOldTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		n := name("a")
		r := w.node(1)
		r.deafen()
		w.found(n, 2, 1, 3)
		w.node(2).must(n, "CREATE TABLE t (v)")
		if err := r.m.Delete(t.Context(), n); !errors.Is(err, facet.ErrUnavailable) {
			t.Errorf("delete at a node that hears nothing: %v", err)
		}
		if _, err := r.m.Export(t.Context(), n); !errors.Is(err, facet.ErrUnavailable) {
			t.Errorf("export at a node that hears nothing: %v", err)
		}
		r.hear()
		if err := r.m.Delete(t.Context(), n); !errors.Is(err, facet.ErrNotOwner) {
			t.Errorf("delete: %v", err)
		}
		if err := r.m.Delete(t.Context(), name("b")); !errors.Is(err, facet.ErrNotFound) {
			t.Errorf("delete of what is not there: %v", err)
		}
	})
}

// TestGrow is a change of the set from one member to three (rule R42), with a new
// member that is started anew while it is filled.
func TestGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		n := name("a")
		id := w.found(n, 1)
		r := w.node(1)
		r.must(n, "CREATE TABLE t (v)")
		for range 20 {
			r.must(n, "INSERT INTO t VALUES (1)")
		}
		mem := w.node(3).kill()
		moved := make(chan error, 1)
		go func() { moved <- r.m.Move(t.Context(), n, Transfer{Owner: "n1", Set: r.members(w.set(1, 2, 3))}) }()
		time.Sleep(5 * time.Second)
		r.must(n, "INSERT INTO t VALUES (1)") // it serves while it fills
		if row, _ := r.Lookup(n); len(row.NextSet) != 1 || len(moved) > 0 {
			t.Error("the set changes before its members are filled")
		}
		w.start(3, mem, 2)
		select {
		case err := <-moved:
			w.check(err)
		case <-time.After(2 * time.Minute):
			t.Fatal("the set does not change")
		}
		if got := r.count(n); got != 21 {
			t.Errorf("%d rows", got)
		}
		row, _ := r.Lookup(n)
		if len(row.ActiveSet) != 3 || !row.Active {
			t.Errorf("row: %+v", row)
		}
		w.holds(id, 2, 1, time.Second)
		w.holds(id, 3, 1, time.Second)
		// And one of them is replaced.
		w.take(n, 2, 2)
		if got := w.node(2).count(n); got != 21 {
			t.Errorf("%d rows at the new owner", got)
		}
	})
}

// TestLearnersComeBack: two new members are filled; one that was full goes and comes
// back when the other is full: that is noticed.
func TestLearnersComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		n := name("a")
		w.found(n, 1)
		r := w.node(1)
		r.must(n, "CREATE TABLE t (v)")
		w.net.Partition([]string{"n1", "n2"}, []string{"n3"})
		moved := make(chan error, 1)
		go func() { moved <- r.m.Move(t.Context(), n, Transfer{Owner: "n1", Set: r.members(w.set(1, 2, 3))}) }()
		time.Sleep(5 * time.Second) // n2 is full
		w.net.Partition([]string{"n1", "n3"}, []string{"n2"})
		time.Sleep(20 * time.Second) // n3 is full
		w.net.HealAll()
		select {
		case err := <-moved:
			w.check(err)
		case <-time.After(time.Minute):
			t.Error("the set does not change")
		}
		if got := r.count(n); got != 0 {
			t.Errorf("%d rows", got)
		}
	})
}

// TestOwnerFromOutside: a node that was to bring a facet to another set and could not
// gives it back to the active one (rule R43).
func TestOwnerFromOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 5)
		defer w.stop()
		n := name("a")
		w.found(n, 1, 2, 3)
		r := w.node(1)
		r.must(n, "CREATE TABLE t (v)")
		r.must(n, "INSERT INTO t VALUES (1)")
		w.check(r.m.Move(t.Context(), n, Transfer{Owner: "n4", Set: r.members(w.set(3, 4, 5))}))
		w.net.Partition([]string{"n1", "n2", "n4"}, []string{"n3", "n5"})
		x := w.node(4)
		if _, err := x.run(n, "SELECT count(*) FROM t"); err == nil {
			t.Error("a facet is served without a majority of its next set")
		} else {
			t.Log(err)
		}
		if _, err := x.run(n, "SELECT count(*) FROM t"); !errors.Is(err, facet.ErrNotOwner) {
			t.Errorf("the second try: %v", err)
		}
		row, _ := x.Lookup(n)
		if got := w.node(int(row.Owner[1] - '0')).count(n); got != 1 || row.Owner == "n4" {
			t.Errorf("%d rows at %s", got, row.Owner)
		}
	})
}

// TestReplaced: an owner that is cut off and replaced acknowledges nothing any more,
// and answers no read once another one may have written (rules R24, R28, R33).
func TestReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		n := name("a")
		w.found(n, 1, 2, 3)
		old := w.node(1)
		old.must(n, "CREATE TABLE t (v)")
		old.must(n, "INSERT INTO t VALUES (1)")
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		old.deafen()
		if got := old.count(n); got != 1 {
			t.Errorf("%d rows under the lease", got)
		}
		_, write := old.submit(request(n, stmt("INSERT INTO t VALUES (2)")))
		w.take(n, 2, 2)
		began := time.Now()
		next := w.node(2)
		next.must(n, "INSERT INTO t VALUES (3)")
		if time.Since(began) < townTTL/2 {
			t.Errorf("the new owner served after %v, while there was a lease", time.Since(began))
		}
		_, read := old.submit(request(n, stmt("SELECT count(*) FROM t")))
		time.Sleep(time.Second)
		if len(read) > 0 || len(write) > 0 {
			t.Error("the old owner answers")
		}
		w.net.HealAll()
		if _, err := old.answer(write); !errors.Is(err, facet.ErrUnknownOutcome) {
			t.Errorf("write at the old owner: %v", err)
		}
		if rows, err := old.answer(read); err == nil {
			t.Errorf("read at the old owner: %v", rows)
		}
		old.hear()
		if _, err := old.run(n, "SELECT count(*) FROM t"); !errors.Is(err, facet.ErrNotOwner) {
			t.Errorf("old owner: %v", err)
		}
		if got := next.must(n, "SELECT sum(v) FROM t")[0][0].Int; got != 4 {
			t.Errorf("sum %d", got)
		}
		// And it goes back, with nothing in between.
		w.check(next.m.Move(t.Context(), n, Transfer{Owner: "n1"}))
		if got := old.count(n); got != 2 {
			t.Errorf("%d rows", got)
		}
	})
}

// TestOwnDiskStalls: others commit while the owner's own log takes nothing. It is
// noticed, and what is kept in memory for it is bounded (rule R32).
func TestOwnDiskStalls(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, id facet.Incarnation, r *resident) {
		time.Sleep(time.Second)
		r.mem.Inject(disk.Fault{Ops: disk.OpDatasync, Path: "data/log/*", Delay: 30 * time.Second, Times: 1})
		var last <-chan *service.Call
		for i := range 2 * quorum.MaxWindow {
			_, last = r.submit(request(n, stmt("INSERT INTO t VALUES (?)", i)))
		}
		time.Sleep(5 * time.Second)
		s := r.m.sessions.find(id)
		s.mu.Lock()
		kept, committed := len(s.recent.entries), s.core.Committed()
		s.mu.Unlock()
		if kept > quorum.MaxWindow+1 || committed < quorum.MaxWindow/2 || !r.m.Stalled() {
			t.Errorf("%d entries are kept, committed up to %v, stalled: %v", kept, committed, r.m.Stalled())
		}
		if _, err := r.answer(last); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if got := r.count(n); got != 2*quorum.MaxWindow || r.m.Stalled() {
			t.Errorf("%d rows, stalled: %v", got, r.m.Stalled())
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.recent.entries) > 0 {
			t.Errorf("%d entries are kept at the end", len(s.recent.entries))
		}
	})
}

// TestQuorumReads: without leases reads ask a majority; with one they are fresh, and
// without one they wait (rule R34).
func TestQuorumReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		w.leases = false
		n := name("a")
		w.found(n, 1, 2, 3)
		r := w.node(1)
		r.must(n, "CREATE TABLE t (v)")
		for i := range 10 {
			r.must(n, "INSERT INTO t VALUES (1)")
			if got := r.count(n); got != int64(i+1) {
				t.Errorf("%d rows, want %d", got, i+1)
			}
		}
		w.net.Partition([]string{"n1", "n3"}, []string{"n2"})
		if got := r.count(n); got != 10 {
			t.Errorf("%d rows", got)
		}
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		_, read := r.submit(request(n, stmt("SELECT count(*) FROM t")))
		time.Sleep(sweepEvery) // not so long that the session gives up
		if len(read) > 0 {
			t.Error("a read is answered that nobody confirmed")
		}
		w.net.HealAll()
		if rows, err := r.answer(read); err != nil || rows[0][0].Int != 10 {
			t.Errorf("%v, %v", rows, err)
		}
	})
}

// TestQuorumReadByWish: a request may want a majority though the lease is good (R34,
// R41): its answer waits for one, and that of others does not.
func TestQuorumReadByWish(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, _ facet.Incarnation, r *resident) {
		r.must(n, "INSERT INTO t VALUES (1)")
		wish := request(n, stmt("SELECT count(*) FROM t"))
		wish.Read = facet.ReadQuorum
		_, first := r.submit(wish)
		if rows, err := r.answer(first); err != nil || rows[0][0].Int != 1 {
			t.Errorf("%v, %v", rows, err)
		}
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		_, read := r.submit(wish)
		failing := request(n, stmt("SELECT missing FROM t"))
		failing.Read, failing.Atomic = facet.ReadQuorum, true
		_, broken := r.submit(failing)
		if got := r.count(n); got != 1 {
			t.Errorf("under the lease %d rows", got)
		}
		time.Sleep(10 * time.Second) // longer than without a lease: the session has no reason to give up
		if len(read) > 0 || len(broken) > 0 {
			t.Error("an answer left that nobody confirmed")
		}
		w.net.HealAll()
		if rows, err := r.answer(read); err != nil || rows[0][0].Int != 1 {
			t.Errorf("%v, %v", rows, err)
		}
		if _, err := r.answer(broken); !errors.Is(err, facet.ErrSQL) {
			t.Errorf("error: %v", err)
		}
	})
}

// TestCloseWithUnconfirmedReads: a node that closes under its lease, while reads wait for
// a majority that does not answer, waits as long as it may and then answers them. It
// used to look whether they are answered without a pause; time stands still here then.
func TestCloseWithUnconfirmedReads(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, _ facet.Incarnation, r *resident) {
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		wish := request(n, stmt("SELECT count(*) FROM t"))
		wish.Read = facet.ReadQuorum
		_, read := r.submit(wish)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_ = r.m.Close(ctx) // its time is up
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("closing took %v", took)
		}
		if _, err := r.answer(read); err == nil {
			t.Error("an answer left that nobody confirmed")
		}
	})
}

// TestOwnerDies: the owner's process ends; another member recovers all that was
// acknowledged, and the one that comes back catches up, by a snapshot.
func TestOwnerDies(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, id facet.Incarnation, r *resident) {
		for range 20 {
			r.must(n, "INSERT INTO t VALUES (1)")
		}
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		_, lost := r.submit(request(n, stmt("INSERT INTO t VALUES (1)")))
		synctest.Wait()
		mem := r.kill()
		if _, err := r.answer(lost); !errors.Is(err, facet.ErrUnknownOutcome) {
			t.Errorf("write: %v", err)
		}
		w.net.HealAll()
		w.take(n, 2, 3)
		next := w.node(3)
		if got := next.count(n); got != 20 {
			t.Errorf("%d rows", got)
		}
		for range 20 {
			next.must(n, "INSERT INTO t VALUES (1)")
		}
		next.m.CheckpointSoon(n)
		time.Sleep(5 * time.Second)
		next.must(n, "INSERT INTO t VALUES (1)")
		r = w.start(1, mem, 2)
		w.holds(id, 1, 3, 10*time.Second)
		// And it becomes the owner again by a handover.
		w.check(next.m.Move(t.Context(), n, Transfer{Owner: "n1"}))
		if got := r.count(n); got != 41 {
			t.Errorf("%d rows", got)
		}
	})
}

// TestRestWithoutOne: a facet goes to rest while a member is away, which gets what it
// lacks when it is back.
func TestRestWithoutOne(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, id facet.Incarnation, r *resident) {
		mem := w.node(3).kill()
		r.must(n, "INSERT INTO t VALUES (1)")
		time.Sleep(5 * time.Minute)
		if r.m.Sessions() != 0 {
			t.Error("the facet does not rest")
		}
		w.start(3, mem, 2)
		w.holds(id, 3, 1, 10*time.Second)
		time.Sleep(5 * time.Minute)
		if r.m.Sessions() != 0 {
			t.Error("the facet does not rest again")
		}
		if got := r.count(n); got != 1 {
			t.Errorf("%d rows", got)
		}
	})
}

// TestOwnerDiesAtBirth: a facet is made active (R47), and its owner dies before anybody
// has heard of it. Whoever is next begins with nothing, and serves.
func TestOwnerDiesAtBirth(t *testing.T) {
	for _, next := range []string{"another", "the same again"} {
		t.Run(next, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTown(t, 3)
				defer w.stop()
				n := name("a")
				id := w.found(n, 1, 2, 3)
				mem := w.node(1).kill()
				by := 2
				if next != "another" {
					w.start(1, mem, 2)
					by = 1
				}
				w.take(n, 2, by)
				r := w.node(by)
				r.must(n, "CREATE TABLE t (v)")
				r.must(n, "INSERT INTO t VALUES (1)")
				if row, _ := r.Lookup(n); row.Epoch != 2 || row.ActiveEpoch != 2 {
					t.Errorf("row %+v", row)
				}
				if by == 2 {
					w.start(1, mem, 2)
				}
				w.holds(id, 1, by, 20*time.Second)
				w.holds(id, 3, by, 20*time.Second)
			})
		})
	}
}

// TestOwnerFetchesAll: a member that was away when the facet was made never got a
// copy. When it becomes the owner it adopts the log of another, from the beginning.
func TestOwnerFetchesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		n := name("a")
		w.found(n, 1, 2, 3)
		mem := w.node(3).kill()
		w.node(1).must(n, "CREATE TABLE t (v)")
		w.node(1).must(n, "INSERT INTO t VALUES (1)")
		r := w.start(3, mem, 2)
		w.take(n, 1, 3)
		if got := r.count(n); got != 1 {
			t.Errorf("%d rows", got)
		}
	})
}

// TestOwnerWithoutCopy: the same, and what was in the log is in the files of the
// others by now. It gives the facet on instead of calling it corrupt.
func TestOwnerWithoutCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		n := name("a")
		id := w.found(n, 1, 2, 3)
		mem := w.node(3).kill()
		w.node(1).must(n, "CREATE TABLE t (v)")
		w.node(1).must(n, "INSERT INTO t VALUES (1)")
		time.Sleep(5 * time.Minute) // it rests
		r := w.start(3, mem, 2)
		w.take(n, 1, 3)
		if _, err := r.run(n, "SELECT count(*) FROM t"); !errors.Is(err, facet.ErrNotOwner) {
			t.Errorf("the owner without a copy says %v", err)
		}
		row, _ := r.Lookup(n)
		by := int(row.Owner[1] - '0')
		if got := w.node(by).count(n); got != 1 || by == 3 {
			t.Errorf("%d rows at %s", got, row.Owner)
		}
		w.node(by).must(n, "INSERT INTO t VALUES (2)")
		w.holds(id, 3, by, 20*time.Second)
	})
}

// TestOwnCopyDamaged: the owner's log is damaged. Another member serves, and heals
// the copy.
func TestOwnCopyDamaged(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, id facet.Incarnation, r *resident) {
		for range 20 {
			r.must(n, "INSERT INTO t VALUES (1)")
		}
		mem := r.kill()
		w.check(mem.Corrupt("data/log/00000001.seg", func(b []byte) {
			for i := 5 * 4096; i < 6*4096; i++ {
				b[i] ^= 0x55
			}
		}))
		r = w.start(1, mem, 2)
		copy, err := r.store.Replica(id)
		w.check(err)
		if h := copy.Meta().Health; h < replica.Holed {
			t.Fatalf("the copy is %v", h)
		}
		w.take(n, 2, 1)
		if _, err := r.run(n, "SELECT count(*) FROM t"); !errors.Is(err, facet.ErrNotOwner) {
			t.Errorf("the damaged owner says %v", err)
		}
		row, _ := r.Lookup(n)
		if got := w.node(int(row.Owner[1] - '0')).count(n); got != 20 || row.Owner == "n1" {
			t.Errorf("%d rows at %s", got, row.Owner)
		}
		w.node(int(row.Owner[1]-'0')).must(n, "INSERT INTO t VALUES (1)")
		w.holds(id, 1, int(row.Owner[1]-'0'), 20*time.Second)
		if h := copy.Meta().Health; h != replica.Healthy {
			t.Errorf("the copy is %v", h)
		}
	})
}

// TestOwnFileDamaged: the owner finds only when it opens the facet that its own file is
// damaged. Its caller is told to try again, and not that the facet is corrupt.
func TestOwnFileDamaged(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, id facet.Incarnation, r *resident) {
		r.must(n, "INSERT INTO t VALUES (1)")
		time.Sleep(5 * time.Minute) // it rests, in files
		r.must(n, "INSERT INTO t VALUES (2)")
		time.Sleep(time.Second)
		mem := r.kill()
		w.check(mem.Corrupt("data/facets/"+id.String()[:2]+"/"+id.String()+".db", func(b []byte) { b[facet.PageSize+100] ^= 1 }))
		r = w.start(1, mem, 2)
		w.take(n, 2, 1)
		_, err := r.run(n, "SELECT count(*) FROM t")
		if !errors.Is(err, facet.ErrUnavailable) || !strings.Contains(err.Error(), "checksum") {
			t.Errorf("the damaged owner says %v", err)
		}
		if _, err := r.run(n, "SELECT count(*) FROM t"); !errors.Is(err, facet.ErrNotOwner) {
			t.Errorf("asked again the damaged owner says %v", err)
		}
		row, _ := r.Lookup(n)
		if got := w.node(int(row.Owner[1] - '0')).count(n); got != 2 || row.Owner == "n1" {
			t.Errorf("%d rows at %s", got, row.Owner)
		}
	})
}

// TestDamagedCopyAhead: a copy that is damaged was brought further to its file than the
// owner's, which is in use. It is replaced all the same, and not only when the owner rests.
func TestDamagedCopyAhead(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, id facet.Incarnation, r *resident) {
		time.Sleep(5 * time.Minute) // it rests, in files
		for range 5 {
			r.must(n, "INSERT INTO t VALUES (1)")
			time.Sleep(time.Second)
		}
		copy, err := w.node(3).store.Replica(id)
		w.check(err)
		w.check(copy.CheckpointIdle(t.Context()))
		own, err := r.store.Replica(id)
		w.check(err)
		before := own.Meta().Base.Seq
		if at := copy.Meta().Base.Seq; before == 0 || at <= before {
			t.Fatalf("the copy is at %d in its file, the owner at %d", at, before)
		}
		w.check(copy.Outvoted(copy.Position()))
		for range 3 {
			r.must(n, "INSERT INTO t VALUES (1)")
			time.Sleep(time.Second)
		}
		w.holds(id, 3, 1, 5*time.Second)
		if own.Meta().Base.Seq != before {
			t.Error("the owner rested")
		}
	})
}

// TestImportReplicated: an import is on a majority before its name leads to it, and
// on all soon.
func TestImportReplicated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		n, m := name("a"), name("b")
		w.found(n, 1, 2, 3)
		r := w.node(1)
		r.must(n, "CREATE TABLE t (v)")
		r.must(n, "INSERT INTO t VALUES (1)")
		e, err := r.m.Export(t.Context(), n)
		w.check(err)
		path := filepath.Join(t.TempDir(), "x.db")
		f, err := os.Create(path)
		w.check(err)
		_, err = e.WriteTo(f)
		w.check(err)
		w.check(f.Close())
		pages, sum := uint32(e.Size()/facet.PageSize), e.Position().Sum
		w.check(e.Close())
		w.net.Partition([]string{"n1", "n2"}, []string{"n3"})
		w.check(r.m.Import(t.Context(), m, path, pages, sum, facet.Lineage{}, false))
		row, _ := r.Lookup(m)
		w.holds(row.Incarnation, 2, 1, time.Second)
		w.net.HealAll()
		r.must(m, "INSERT INTO t VALUES (1)")
		w.holds(row.Incarnation, 3, 1, 20*time.Second)
		w.take(m, 2, 3)
		if got := w.node(3).count(m); got != 2 {
			t.Errorf("%d rows", got)
		}
		// And over what is there.
		w.check(r.m.Import(t.Context(), n, path, pages, sum, facet.Lineage{}, true))
		if got := r.count(n); got != 1 {
			t.Errorf("%d rows", got)
		}
	})
}
