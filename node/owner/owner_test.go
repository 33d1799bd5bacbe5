package owner

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node/service"
)

// TestManyFacetsManyCallers checks that concurrent callers of many facets each see
// their own writes and nobody else's.
func TestManyFacetsManyCallers(t *testing.T) {
	l := newWorld().start(t)
	defer l.stop(t)
	var wg sync.WaitGroup
	for c := range 16 {
		wg.Go(func() {
			for i := range 40 {
				n := name(fmt.Sprintf("f%d", (c*7+i)%10))
				if _, err := l.run(request(n, stmt("CREATE TABLE IF NOT EXISTS t (caller INT, n INT)"))); err != nil {
					t.Error(err)
					return
				}
				if _, err := l.run(request(n, stmt("INSERT INTO t VALUES (?, ?)", c, i))); err != nil {
					t.Error(err)
					return
				}
				got, err := l.run(request(n, stmt("SELECT count(*) FROM t WHERE caller = ? AND n = ?", c, i)))
				if err != nil {
					t.Error(err)
					return
				}
				if r := rows(t, got.Response.Result); len(r) != 1 || r[0][0].Int != 1 {
					t.Errorf("caller %d does not see its write %d: %v", c, i, r)
					return
				}
			}
		})
	}
	wg.Wait()
	total := int64(0)
	for i := range 10 {
		total += l.must(t, name(fmt.Sprintf("f%d", i)), "SELECT count(*) FROM t")[0][0].Int
	}
	if total != 16*40 {
		t.Fatalf("%d rows, want %d", total, 16*40)
	}
}

// TestGate holds the disk's sync back: neither the write nor a read that saw it may
// answer, and a read of another facet may (rule R29).
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		l := w.start(t)
		defer l.stop(t)
		l.must(t, name("a"), "CREATE TABLE t (v)")
		l.must(t, name("b"), "CREATE TABLE t (v)")
		w.mem.Inject(disk.Fault{Ops: disk.OpDatasync, Path: "data/log/*", Delay: time.Second, Times: 1})
		began := time.Now()
		_, write := l.submit(request(name("a"), stmt("INSERT INTO t VALUES (1)")))
		synctest.Wait()
		_, dirty := l.submit(request(name("a"), stmt("SELECT count(*) FROM t")))
		_, failing := l.submit(request(name("a"), stmt("SELECT * FROM nothing")))
		_, other := l.submit(request(name("b"), stmt("SELECT count(*) FROM t")))
		if c := <-other; c.Err != nil || time.Since(began) > 0 {
			t.Errorf("a read of another facet waited %v: %v", time.Since(began), c.Err)
		}
		synctest.Wait()
		for what, ch := range map[string]any{"write": write, "read": dirty, "error": failing} {
			if len(ch.(<-chan *service.Call)) > 0 {
				t.Errorf("the %s answered before the commit was durable", what)
			}
		}
		if c := <-dirty; c.Err != nil || rows(t, c.Response.Result)[0][0].Int != 1 || time.Since(began) < time.Second {
			t.Errorf("read: %v after %v", c.Err, time.Since(began))
		}
		<-write
		<-failing
	})
}

// TestInteractiveTransaction covers isolation, both limits and late requests.
func TestInteractiveTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newWorld().start(t)
		defer l.stop(t)
		n := name("a")
		l.must(t, n, "CREATE TABLE t (v)")
		begin := func() facet.TxID {
			t.Helper()
			req := request(n, stmt("BEGIN"), stmt("INSERT INTO t VALUES (1)"))
			req.KeepTx = true
			c, err := l.run(req)
			if err != nil || c.Response.Tx.IsZero() {
				t.Fatal(err)
			}
			return c.Response.Tx
		}
		in := func(id facet.TxID, sql string) error {
			req := request(n, stmt(sql))
			req.Tx, req.KeepTx = id, true
			_, err := l.run(req)
			return err
		}
		count := func() int64 { t.Helper(); return l.must(t, n, "SELECT count(*) FROM t")[0][0].Int }

		id := begin()
		_, waiting := l.submit(request(n, stmt("SELECT count(*) FROM t")))
		synctest.Wait()
		if len(waiting) > 0 {
			t.Fatal("a request ran inside somebody's transaction")
		}
		if err := in(facet.NewTxID(), "SELECT 1"); !errors.Is(err, facet.ErrTxClosed) {
			t.Fatalf("a stranger's id: %v", err)
		}
		if err := in(id, "COMMIT"); err != nil {
			t.Fatal(err)
		}
		if c := <-waiting; c.Err != nil || rows(t, c.Response.Result)[0][0].Int != 1 {
			t.Fatal("the request that waited did not see the commit")
		}
		if err := in(id, "SELECT 1"); !errors.Is(err, facet.ErrTxClosed) {
			t.Fatalf("after commit: %v", err)
		}

		id = begin()
		time.Sleep(DefaultTxIdle + time.Millisecond)
		if err := in(id, "COMMIT"); !errors.Is(err, facet.ErrTxClosed) {
			t.Fatalf("after the idle limit: %v", err)
		}
		if c := count(); c != 1 {
			t.Fatalf("%d rows: an expired transaction left a trace", c)
		}

		id = begin()
		began := time.Now()
		var err error
		for err == nil {
			time.Sleep(DefaultTxIdle / 2)
			err = in(id, "SELECT 1")
		}
		if d := time.Since(began); !errors.Is(err, facet.ErrTxClosed) || d < DefaultTxTotal || d > DefaultTxTotal+DefaultTxIdle {
			t.Fatalf("total limit: %v after %v", err, d)
		}
		if c := count(); c != 1 {
			t.Fatalf("%d rows: an expired transaction left a trace", c)
		}
	})
}

// TestCancel covers calls that wait and calls that run.
func TestCancel(t *testing.T) {
	l := newWorld().start(t)
	defer l.stop(t)
	n := name("a")
	l.must(t, n, "CREATE TABLE t (v)")
	running, done := l.submit(request(n, stmt("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c")))
	waiting, done2 := l.submit(request(n, stmt("INSERT INTO t VALUES (1)")))
	waiting.Cancel()
	running.Cancel()
	if _, err := (<-done).Response, (<-done2).Err; !errors.Is(err, facet.ErrCanceled) {
		t.Fatal(err)
	}
	if c := l.must(t, n, "SELECT count(*) FROM t")[0][0].Int; c != 0 {
		t.Fatal("a canceled request took effect")
	}
}

// TestHibernation wakes facets that went idle, in the same epoch.
func TestHibernation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newWorld().start(t)
		defer l.stop(t)
		for i := range 200 {
			n := name(fmt.Sprintf("f%d", i))
			l.must(t, n, "CREATE TABLE t (v)")
			l.must(t, n, "INSERT INTO t VALUES (?)", i)
		}
		time.Sleep(DefaultIdleAfter + 5*time.Second)
		synctest.Wait()
		if s := l.m.Stats(); s.Active != 0 {
			t.Fatalf("%d facets are still open", s.Active)
		}
		desks := 0
		l.m.each(func(*desk) { desks++ })
		if desks != 0 {
			t.Fatalf("%d desks are left", desks)
		}
		for i := range 200 {
			n := name(fmt.Sprintf("f%d", i))
			if v := l.must(t, n, "SELECT v FROM t")[0][0].Int; v != int64(i) {
				t.Fatalf("facet %d has %d", i, v)
			}
			if r, _ := l.Lookup(n); r.Epoch != 1 {
				t.Fatalf("hibernation changed the epoch to %v", r.Epoch)
			}
		}
	})
}

// TestMemoryBudget opens more facets than the budget allows.
func TestMemoryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.tune = func(o *Options) { o.MemoryBudget = 2 << 20 }
		l := w.start(t)
		defer l.stop(t)
		for i := range 300 {
			l.must(t, name(fmt.Sprintf("f%d", i)), "CREATE TABLE t (v)")
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		s := l.m.Stats()
		if s.Memory > 2<<20 || s.Active == 0 || s.Active == 300 {
			t.Fatalf("%d facets open, %d bytes", s.Active, s.Memory)
		}
	})
}

// TestCrash runs callers, pulls the plug at a random operation of the disk, starts
// again, and looks for every acknowledged write. Each write adds a row and a log
// row in one transaction, so that a half of one would show.
func TestCrash(t *testing.T) {
	lives := 5
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 77))
			w := newWorld()
			acked := make(map[string]bool)
			tried := make(map[string]bool)
			for life := range lives {
				l := w.start(t)
				w.mem.CrashAt(20 + rng.Int64N(400))
				var wg sync.WaitGroup
				var mu sync.Mutex
				for c := range 6 {
					wg.Go(func() {
						for i := range 60 {
							n := name(fmt.Sprintf("f%d", i%4))
							id := fmt.Sprintf("%d-%d-%d", life, c, i)
							mu.Lock()
							tried[n.Facet+id] = true
							mu.Unlock()
							req := request(n,
								stmt("CREATE TABLE IF NOT EXISTS t (id TEXT PRIMARY KEY, v TEXT)"),
								stmt("CREATE TABLE IF NOT EXISTS log (id TEXT)"),
								stmt("INSERT INTO t VALUES (?, hex(randomblob(100)))", id),
								stmt("INSERT INTO log VALUES (?)", id))
							req.Atomic = true
							if _, err := l.run(req); err != nil {
								return
							}
							mu.Lock()
							acked[n.Facet+id] = true
							mu.Unlock()
						}
					})
				}
				wg.Wait()
				l.crash(rng, disk.LossAny)
			}
			l := w.start(t)
			defer l.stop(t)
			found := 0
			for f := range 4 {
				n := name(fmt.Sprintf("f%d", f))
				if _, ok := l.Lookup(n); !ok {
					continue
				}
				got, err := l.run(request(n, stmt("SELECT t.id, log.id FROM t LEFT JOIN log ON log.id = t.id")))
				if err != nil {
					if errors.Is(err, facet.ErrSQL) { // no commit of it survived: no table
						continue
					}
					t.Fatal(err)
				}
				for _, r := range rows(t, got.Response.Result) {
					if r[1].Type == facet.Null {
						t.Fatalf("half of the transaction %s is there", r[0].Bytes)
					}
					k := n.Facet + string(r[0].Bytes)
					if !tried[k] {
						t.Fatalf("a row that nobody wrote: %s", k)
					}
					delete(acked, k)
					found++
				}
				if r := l.must(t, n, "PRAGMA integrity_check"); string(r[0][0].Bytes) != "ok" {
					t.Fatalf("integrity: %s", r[0][0].Bytes)
				}
			}
			if len(acked) > 0 {
				t.Fatalf("%d acknowledged writes are gone, %d rows found: %v", len(acked), found, acked)
			}
		})
	}
}

// TestKeysHoldAcrossCrashes retries the same keyed request in every life until it
// is acknowledged, and once more: it must have taken effect once.
func TestKeysHoldAcrossCrashes(t *testing.T) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 78))
		w := newWorld()
		l := w.start(t)
		n := name("a")
		l.must(t, n, "CREATE TABLE c (v INT)")
		l.must(t, n, "INSERT INTO c VALUES (0)")
		const keys = 20
		for k := uint64(1); k <= keys; k++ {
			for again := 0; again < 2; {
				if rng.IntN(3) == 0 {
					w.mem.CrashAt(1 + rng.Int64N(12))
				}
				req := request(n, stmt("UPDATE c SET v = v + 1"))
				req.Key = facet.Key{Client: [16]byte{9}, N: k}
				if _, err := l.run(req); err == nil {
					again++
					continue
				}
				l.crash(rng, disk.LossAny)
				l = w.start(t)
			}
		}
		// The last crash point may still be ahead, or just be reached by the log's
		// preparations: then the process dies now.
		got, err := l.run(request(n, stmt("SELECT v FROM c")))
		for errors.Is(err, errDied) {
			l.crash(rng, disk.LossAny)
			l = w.start(t)
			got, err = l.run(request(n, stmt("SELECT v FROM c")))
		}
		w.mem.CrashAt(0)
		if err != nil {
			t.Fatal(err)
		}
		if v := rows(t, got.Response.Result)[0][0].Int; v != keys {
			t.Fatalf("seed %d: counter is %d after %d keyed increments", seed, v, keys)
		}
		l.crash(rng, disk.KeepAll)
	}
}

// TestFullDisk fills the disk: writes are refused before they run, reads and
// rollbacks go on, and writes come back with the space (rule R15).
func TestFullDisk(t *testing.T) {
	w := newWorld()
	full := false
	w.tune = func(o *Options) {
		o.Admit = func() error {
			if full {
				return facet.Errorf(facet.CodeDiskFull, "no room")
			}
			return nil
		}
	}
	l := w.start(t)
	defer l.stop(t)
	n := name("a")
	l.must(t, n, "CREATE TABLE t (v)")
	begin := request(n, stmt("BEGIN"), stmt("INSERT INTO t VALUES (1)"))
	begin.KeepTx = true
	c, err := l.run(begin)
	if err != nil {
		t.Fatal(err)
	}
	full = true
	commit := request(n, stmt("COMMIT"))
	commit.Tx = c.Response.Tx
	if _, err := l.run(commit); err != nil {
		t.Fatalf("what was begun must end: %v", err)
	}
	for _, sql := range []string{"INSERT INTO t VALUES (2)", "DELETE FROM t", "CREATE TABLE u (v)"} {
		if _, err := l.run(request(n, stmt(sql))); !errors.Is(err, facet.ErrDiskFull) {
			t.Fatalf("%s: %v", sql, err)
		}
		atomic := request(n, stmt(sql), stmt("SELECT 1"))
		atomic.Atomic = true
		if _, err := l.run(atomic); !errors.Is(err, facet.ErrDiskFull) {
			t.Fatalf("atomic %s: %v", sql, err)
		}
	}
	if got := l.must(t, n, "SELECT count(*) FROM t"); got[0][0].Int != 1 {
		t.Fatal(got)
	}
	full = false
	l.must(t, n, "INSERT INTO t VALUES (2)")
}

// TestReadsOfNothingLeaveNothing asks for many names that do not exist.
func TestReadsOfNothingLeaveNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newWorld().start(t)
		defer l.stop(t)
		for i := range 300 {
			l.must(t, name(fmt.Sprintf("nothing%d", i)), "SELECT 1")
		}
		synctest.Wait()
		l.m.each(func(d *desk) { t.Errorf("%v has a desk", d.name) })
		if len(l.w.rows) != 0 {
			t.Errorf("%d facets were created", len(l.w.rows))
		}
	})
}
