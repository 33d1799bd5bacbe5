package follower

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/placement"
)

// bubble runs f in virtual time and closes the world behind it.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		f(t, w)
	})
}

// TestReads: an answer shows what is known to be committed, no more and no less, and
// says where it is.
func TestReads(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.found("a")
		s.exec("CREATE TABLE t (v)")
		s.tell()
		var last facet.Bookmark
		for i := range int64(50) {
			s.exec("INSERT INTO t VALUES (?)", i)
			if n, b := s.read(last, "SELECT count(*) FROM t"); n != i || b.Seq < last.Seq {
				t.Errorf("not told: %d rows at %v, want %d", n, b, i)
			}
			s.tell()
			n, b := s.read(last, "SELECT count(*) FROM t")
			if n != i+1 || b != s.bookmark() {
				t.Errorf("told: %d rows at %v, want %d at %v", n, b, i+1, s.bookmark())
			}
			last = b
		}
		s.exec("ALTER TABLE t ADD COLUMN w DEFAULT 7")
		s.tell()
		if n, _ := s.read(last, "SELECT sum(w) FROM t"); n != 350 {
			t.Errorf("sum %d", n)
		}
		if c, err := w.ask(s.request("SELECT * FROM missing")); !errors.Is(err, facet.ErrSQL) {
			t.Errorf("%v, %v", c.Response, err)
		}
		if st := w.m.Stats(); st.Open != 1 || st.Opened != 1 || st.HandedOn != 0 || st.Reads != 102 {
			t.Errorf("%+v", st)
		}
	})
}

// TestWaits: a request with a bookmark waits until the copy is there, has the owner
// asked, and goes to the owner when it does not come to be.
func TestWaits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.found("a")
		s.exec("CREATE TABLE t (v)")
		s.exec("INSERT INTO t VALUES (1)")
		req := s.request("SELECT count(*) FROM t")
		req.After = s.bookmark()

		// Nobody answers the question.
		began := time.Now()
		if _, err := w.ask(req); !errors.Is(err, facet.ErrNotOwner) || time.Since(began) != MaxWait {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if n := w.asks(); n < 2 || n > 12 {
			t.Errorf("the owner was asked %d times", n)
		}
		// A request with less time does not wait for longer.
		req.Timeout = 100 * time.Millisecond
		began = time.Now()
		if _, err := w.ask(req); !errors.Is(err, facet.ErrNotOwner) || time.Since(began) != req.Timeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		req.Timeout = 0
		// It is told by itself, in the middle.
		_, done := w.submit(req)
		time.Sleep(MaxWait / 2)
		if len(done) > 0 {
			t.Error("answered though it is not there")
		}
		s.tell()
		synctest.Wait()
		if len(done) != 1 {
			t.Fatal("not answered at once when it came")
		}
		if c := <-done; c.Err != nil || number(t, c) != 1 {
			t.Errorf("%v", c.Err)
		}
		// The owner tells when it is asked.
		w.told(func(facet.Incarnation) { s.tell() })
		s.exec("INSERT INTO t VALUES (2)")
		began = time.Now()
		if n, _ := s.read(s.bookmark(), "SELECT count(*) FROM t"); n != 2 || time.Since(began) > askAgain {
			t.Errorf("%d rows after %v", n, time.Since(began))
		}
		// And a little after a read that waits for nothing.
		time.Sleep(askSometimes)
		s.exec("INSERT INTO t VALUES (3)")
		check(t, w.store.Sync(t.Context()))
		s.read(facet.Bookmark{}, "SELECT 1")
		synctest.Wait()
		if n, _ := s.read(facet.Bookmark{}, "SELECT count(*) FROM t"); n != 3 {
			t.Errorf("%d rows", n)
		}
	})
}

// TestHandsOn: what is not for a copy goes to the owner as it came.
func TestHandsOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.found("a")
		s.exec("CREATE TABLE t (v)")
		s.tell()
		s.read(facet.Bookmark{}, "SELECT count(*) FROM t")
		to := func(what string, req facet.Request) {
			t.Helper()
			c, err := w.ask(req)
			if !errors.Is(err, facet.ErrNotOwner) || len(c.Response.Result) > 0 || !c.Response.Bookmark.IsZero() || !c.Response.Position.IsZero() {
				t.Errorf("%s: %+v, %v", what, c.Response, err)
			}
		}
		read, write := s.request("SELECT 1"), s.request("INSERT INTO t VALUES (1)")
		to("a write", write)
		mixed := write
		mixed.Atomic, mixed.Steps = false, []facet.Step{stmt("SELECT 1"), stmt("DELETE FROM t")}
		to("a write behind a read", mixed)
		tx := read
		tx.Tx = facet.NewTxID()
		to("a transaction", tx)
		begin := s.request("BEGIN")
		begin.Atomic, begin.KeepTx = false, true
		to("the begin of one", begin)
		key := read
		key.Key = facet.Key{Client: [16]byte{1}, N: 1}
		to("a key", key)
		other := read
		other.After = s.bookmark()
		other.After.Facet[3]++
		to("a bookmark of another facet", other)
		unknown := read
		unknown.Name.Facet = "b"
		to("a name nobody knows", unknown)

		readOnly := write
		readOnly.ReadOnly = true
		if _, err := w.ask(readOnly); !errors.Is(err, facet.ErrReadOnly) {
			t.Errorf("a write that must not: %v", err)
		}

		own, away := w.found("own"), w.found("away")
		w.apply(placement.Acquire{Incarnation: own.id, Owner: placement.Owner{Node: "n2", Boot: bootID(2)}, Expected: 1})
		to("a facet of this node", own.request("SELECT 1"))
		w.apply(placement.Acquire{Incarnation: away.id, Owner: placement.Owner{Node: "n1", Boot: bootID(1)}, Expected: 1, Set: setOf(1, 3, 4)})
		w.apply(placement.Activate{Incarnation: away.id, Epoch: 2, Boot: bootID(1)})
		to("a facet that is kept elsewhere", away.request("SELECT 1"))

		// The copy goes, or can no longer be believed.
		check(t, s.r.Drop(t.Context(), s.r.Meta().Promised))
		to("a dropped copy", read)
		w.apply(placement.Delete{Incarnation: s.id, Expected: 1})
		to("a deleted facet", read)
	})
}

// TestUnderChange reads at random while the copy is written and brought to its file:
// each answer is one committed state, and none is older than one before.
func TestUnderChange(t *testing.T) {
	for seed := range uint64(4) {
		bubble(t, func(t *testing.T, w *world) {
			rng := rand.New(rand.NewPCG(seed, 6))
			s := w.found("a")
			s.exec("CREATE TABLE t (k INTEGER PRIMARY KEY, v)")
			s.tell()
			w.told(func(facet.Incarnation) { s.tell() })
			at := map[facet.Seq]int64{s.pages.Position().Seq: 0}
			var rows int64
			var last facet.Bookmark
			for i := range int64(200) {
				switch rng.IntN(10) {
				case 0:
					s.tell()
					if err := s.r.CheckpointIdle(t.Context()); err != nil && !errors.Is(err, replica.ErrOpen) {
						t.Fatal(err)
					}
				case 1, 2, 3, 4:
					var after facet.Bookmark
					switch rng.IntN(3) {
					case 0:
						after = last
					case 1:
						check(t, w.store.Sync(t.Context()))
						after = s.bookmark()
					}
					n, b := s.read(after, "SELECT count(*) FROM t WHERE length(v) = 3000")
					if want, ok := at[b.Seq]; !ok || n != want {
						t.Fatalf("seed %d: %d rows at %v, want %d", seed, n, b, want)
					}
					if b.Seq < last.Seq {
						t.Fatalf("seed %d: went from %v back to %v", seed, last, b)
					}
					last = b
				case 5:
					s.exec("DELETE FROM t WHERE k = (SELECT min(k) FROM t)")
					if rows > 0 {
						rows--
					}
					at[s.pages.Position().Seq] = rows
				default:
					s.exec("INSERT INTO t VALUES (?, zeroblob(3000))", i)
					rows++
					at[s.pages.Position().Seq] = rows
				}
			}
			if st := w.m.Stats(); st.Opened < 2 || st.Reads == 0 {
				t.Errorf("seed %d: %+v", seed, st)
			}
		})
	}
}

// TestTooMuchAboveTheFile: a copy whose log is long, or changed much since its file, is
// brought to the file before it is read, and while it is.
func TestTooMuchAboveTheFile(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.found("a")
		s.exec("CREATE TABLE t (v)")
		s.exec("INSERT INTO t VALUES (1)")
		for range maxEntries { // barriers are as good, and quick
			b := s.pages.Barrier(s.id, 1)
			check(t, s.append(&b))
		}
		s.exec("INSERT INTO t VALUES (2)")
		s.tell()
		if n, _ := s.read(s.bookmark(), "SELECT count(*) FROM t"); n != 2 {
			t.Errorf("%d rows", n)
		}
		if st := w.m.Stats(); st.Checkpoints != 1 || s.r.Meta().Entries != 0 {
			t.Errorf("%+v, %d entries", st, s.r.Meta().Entries)
		}
		for range 10 {
			s.exec("INSERT INTO t VALUES (zeroblob(1 << 20))")
		}
		s.tell()
		if n, _ := s.read(s.bookmark(), "SELECT count(*) FROM t"); n != 12 {
			t.Errorf("%d rows", n)
		}
		if st := w.m.Stats(); st.Checkpoints != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// TestRests: a view that nobody uses is closed, and keeps nothing of its facet awake.
func TestRests(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.found("a")
		s.exec("CREATE TABLE t (v)")
		s.tell()
		s.read(facet.Bookmark{}, "SELECT count(*) FROM t")
		time.Sleep(DefaultIdleAfter / 2)
		s.read(facet.Bookmark{}, "SELECT count(*) FROM t")
		time.Sleep(DefaultIdleAfter - time.Second)
		if st := w.m.Stats(); st.Open != 1 || st.Opened != 1 {
			t.Errorf("in use: %+v", st)
		}
		time.Sleep(2 * time.Second)
		if st := w.m.Stats(); st.Open != 0 {
			t.Errorf("idle: %+v", st)
		}
		if n, _ := s.read(s.bookmark(), "SELECT count(*) FROM t"); n != 0 {
			t.Errorf("%d rows", n)
		}
		if st := w.m.Stats(); st.Open != 1 || st.Opened != 2 {
			t.Errorf("again: %+v", st)
		}
	})
}

// TestViewsAreBounded: the one used least makes room for another, and where all are in
// use the owner answers.
func TestViewsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var all []*source
		for i := range maxViews + 2 {
			s := w.found(fmt.Sprint("f", i))
			s.exec("CREATE TABLE t (v)")
			s.tell()
			all = append(all, s)
			s.read(facet.Bookmark{}, "SELECT count(*) FROM t")
			time.Sleep(time.Millisecond)
		}
		if st := w.m.Stats(); st.Open != maxViews || st.Opened != maxViews+2 || st.HandedOn != 0 {
			t.Errorf("%+v", st)
		}
		w.m.mu.Lock()
		for i, s := range all {
			if (w.m.views[s.id] != nil) != (i >= 2) {
				t.Errorf("view %d: %v", i, w.m.views[s.id] != nil)
			}
		}
		w.m.mu.Unlock()
		// All wait for what does not come.
		var waiting []chan *service.Call
		for _, s := range all[2:] {
			req := s.request("SELECT 1")
			req.After = s.bookmark()
			req.After.Seq++
			_, done := w.submit(req)
			waiting = append(waiting, done)
		}
		if _, err := w.ask(all[0].request("SELECT 1")); !errors.Is(err, facet.ErrNotOwner) {
			t.Errorf("%v", err)
		}
		for _, done := range waiting {
			if c := <-done; !errors.Is(c.Err, facet.ErrNotOwner) {
				t.Errorf("%v", c.Err)
			}
		}
	})
}

// TestCancel: a call that is given up is answered so, whether it waits or runs.
func TestCancel(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.found("a")
		s.exec("CREATE TABLE t (v)")
		s.tell()
		req := s.request("SELECT 1")
		req.After = s.bookmark()
		req.After.Seq++
		c, done := w.submit(req)
		synctest.Wait()
		c.Cancel()
		synctest.Wait()
		if len(done) != 1 || !errors.Is(c.Err, facet.ErrCanceled) {
			t.Errorf("%d, %v", len(done), c.Err)
		}
	})
	// In real time: a statement that runs does not let a bubble's time pass.
	w := newWorld(t)
	defer w.close()
	s := w.found("a")
	s.exec("CREATE TABLE t (v)")
	s.tell()
	s.read(facet.Bookmark{}, "SELECT count(*) FROM t")
	c, done := w.submit(s.request("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"))
	c.Cancel()
	if <-done; !errors.Is(c.Err, facet.ErrCanceled) {
		t.Errorf("%v", c.Err)
	}
}

// TestClose: what waits is left to the owner, and what comes later too.
func TestClose(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		s := w.found("a")
		s.exec("CREATE TABLE t (v)")
		s.tell()
		s.read(facet.Bookmark{}, "SELECT count(*) FROM t")
		req := s.request("SELECT 1")
		req.After = s.bookmark()
		req.After.Seq++
		_, done := w.submit(req)
		synctest.Wait()
		check(t, w.m.Close())
		if len(done) != 1 {
			t.Fatal("a call is left")
		}
		if c := <-done; !errors.Is(c.Err, facet.ErrNotOwner) {
			t.Errorf("%v", c.Err)
		}
		if _, err := w.ask(s.request("SELECT 1")); !errors.Is(err, facet.ErrNotOwner) {
			t.Errorf("%v", err)
		}
	})
}
