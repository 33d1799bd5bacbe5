package owner

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
)

// mark runs a statement that asks for a bookmark, at or after another one.
func (r *resident) mark(n facet.Name, after facet.Bookmark, sql string) (facet.Bookmark, error) {
	r.town.t.Helper()
	req := request(n, stmt(sql))
	req.Bookmark, req.After, req.Atomic = true, after, true
	call, done := r.submit(req)
	_, err := r.answer(done)
	if err != nil {
		if b := call.Response.Bookmark; !b.IsZero() {
			r.town.t.Errorf("%s: the bookmark %v comes with %v", sql, b, err)
		}
		return facet.Bookmark{}, err
	}
	if p, b := call.Response.Position, call.Response.Bookmark; b.Epoch != p.Epoch || b.Seq != p.Seq {
		r.town.t.Errorf("%s: the bookmark %v is not of the answer's position %v", sql, b, p)
	}
	return call.Response.Bookmark, nil
}

// TestBookmarks: one that an answer gave is honoured by every later owner; what names
// nothing the facet ever was is refused, before anything is done.
func TestBookmarks(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, id facet.Incarnation, r *resident) {
		first, err := r.mark(n, facet.Bookmark{}, "INSERT INTO t VALUES (1)")
		w.check(err)
		if first.Facet != id || first.Seq == 0 {
			t.Errorf("bookmark %v of %v", first, id)
		}
		same, err := r.mark(n, first, "SELECT * FROM t")
		w.check(err)
		if same != first {
			t.Errorf("a read gives %v after %v", same, first)
		}
		plain, done := r.submit(request(n, stmt("SELECT 1")))
		if _, err := r.answer(done); err != nil || !plain.Response.Bookmark.IsZero() {
			t.Errorf("unasked: %v, %v", plain.Response.Bookmark, err)
		}

		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		r.kill()
		w.net.HealAll()
		w.take(n, 2, 3)
		next := w.node(3)
		second, err := next.mark(n, first, "INSERT INTO t VALUES (2)")
		w.check(err)
		if second.Seq <= first.Seq || second.Epoch <= first.Epoch || second.String() <= first.String() {
			t.Errorf("%v does not come after %v", second, first)
		}

		never, later, other := second, second, second
		never.Seq++
		later.Epoch++
		other.Facet[0]++
		for _, bad := range []facet.Bookmark{never, later, other} {
			for _, sql := range []string{"SELECT * FROM t", "INSERT INTO t VALUES (3)"} {
				if _, err := next.mark(n, bad, sql); !errors.Is(err, facet.ErrBookmark) {
					t.Errorf("%v: %s: %v", bad, sql, err)
				}
			}
		}
		if got := next.count(n); got != 2 {
			t.Errorf("%d rows", got)
		}

		// The name is free again, and then another facet's.
		w.check(next.m.Delete(t.Context(), n))
		for _, sql := range []string{"SELECT 1", "CREATE TABLE t (v)"} {
			if _, err := next.mark(n, second, sql); !errors.Is(err, facet.ErrBookmark) {
				t.Errorf("deleted: %s: %v", sql, err)
			}
		}
		w.found(n, 3, 2)
		if _, err := next.mark(n, second, "SELECT 1"); !errors.Is(err, facet.ErrBookmark) {
			t.Errorf("made again: %v", err)
		}
	})
}

// TestBookmarkOfTheNextOwner: an owner that was replaced and does not know it must not
// call the bookmarks of its successor bad.
func TestBookmarkOfTheNextOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		n := name("a")
		w.found(n, 1, 2, 3)
		old := w.node(1)
		old.must(n, "CREATE TABLE t (v)")
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		old.deafen()
		w.take(n, 2, 2)
		b, err := w.node(2).mark(n, facet.Bookmark{}, "INSERT INTO t VALUES (1)")
		w.check(err)
		req := request(n, stmt("SELECT count(*) FROM t"))
		req.After = b
		_, read := old.submit(req)
		time.Sleep(time.Second)
		if len(read) > 0 {
			t.Errorf("the old owner answers %v", (<-read).Err)
		}
		w.net.HealAll()
		if _, err := old.answer(read); err == nil || errors.Is(err, facet.ErrBookmark) {
			t.Errorf("the old owner: %v", err)
		}
		old.hear()
		if _, err := old.mark(n, b, "SELECT 1"); !errors.Is(err, facet.ErrNotOwner) {
			t.Errorf("old owner: %v", err)
		}
	})
}

// TestTell: a member that asks hears what is committed (R10), and no other does; a facet
// at rest is opened for it.
func TestTell(t *testing.T) {
	keptByThree(t, func(t *testing.T, w *town, n facet.Name, id facet.Incarnation, r *resident) {
		r.must(n, "INSERT INTO t VALUES (1)")
		w.holds(id, 2, 1, time.Second)
		w.holds(id, 3, 1, time.Second)
		known := func(node int) (facet.Seq, facet.Seq) {
			t.Helper()
			c, err := w.node(node).store.Replica(id)
			w.check(err)
			m := c.Meta()
			return m.CommitKnown, m.Last.Seq
		}
		for _, node := range []int{2, 3} {
			if k, last := known(node); k == last {
				t.Errorf("node %d knows it by itself: the test shows nothing", node)
			}
		}
		w.check(r.m.Tell(t.Context(), id, "n2"))
		time.Sleep(100 * time.Millisecond)
		if k, last := known(2); k != last {
			t.Errorf("node 2 knows %v of %v", k, last)
		}
		if k, last := known(3); k == last {
			t.Error("node 3 was told too")
		}
		w.check(r.m.Tell(t.Context(), id, "n9")) // no member: nobody is told

		time.Sleep(2 * DefaultIdleAfter)
		if _, open := r.m.Open(n); open {
			t.Fatal("the facet does not rest")
		}
		w.check(r.m.Tell(t.Context(), id, "n3"))
		time.Sleep(100 * time.Millisecond)
		if k, last := known(3); k != last {
			t.Errorf("node 3 knows %v of %v", k, last)
		}
		if err := w.node(2).m.Tell(t.Context(), id, "n3"); !errors.Is(err, facet.ErrNotOwner) {
			t.Errorf("told by another node: %v", err)
		}
		if err := r.m.Tell(t.Context(), facet.NewIncarnation(), "n3"); !errors.Is(err, facet.ErrNotFound) {
			t.Errorf("of a facet that is not there: %v", err)
		}
	})
}
