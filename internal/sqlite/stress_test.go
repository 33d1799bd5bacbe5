package sqlite

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// randomSQL makes a statement over tables t and u, the same for every database
// it is run on.
func randomSQL(r *rand.Rand) string {
	id := r.IntN(400)
	switch r.IntN(22) {
	case 0, 1, 2, 3, 4:
		return fmt.Sprintf("INSERT OR REPLACE INTO t VALUES(%d,%d,'%s')", id, r.IntN(50), strings.Repeat("v", r.IntN(3000)))
	case 5:
		return fmt.Sprintf("INSERT INTO t VALUES(%d,1,'dup'),(%d,2,'dup')", id, id+1)
	case 6:
		return fmt.Sprintf("UPDATE t SET n=n+1 WHERE n=%d", r.IntN(50))
	case 7:
		return fmt.Sprintf("DELETE FROM t WHERE id BETWEEN %d AND %d", id, id+r.IntN(60))
	case 8, 9:
		return fmt.Sprintf("SELECT id,n,length(v) FROM t WHERE n>%d ORDER BY n,id", r.IntN(50))
	case 10:
		return "SELECT n,count(*),group_concat(id) FROM (SELECT * FROM t ORDER BY id) GROUP BY n ORDER BY 1"
	case 11:
		return "BEGIN"
	case 12:
		return "COMMIT"
	case 13:
		return "ROLLBACK"
	case 14:
		return fmt.Sprintf("SAVEPOINT s%d", r.IntN(2))
	case 15:
		return fmt.Sprintf("RELEASE s%d", r.IntN(2))
	case 16:
		return fmt.Sprintf("ROLLBACK TO s%d", r.IntN(2))
	case 17:
		return fmt.Sprintf("INSERT INTO u SELECT id,v FROM t WHERE n=%d", r.IntN(50))
	case 18:
		return "DELETE FROM u"
	case 19:
		return fmt.Sprintf("INSERT OR ROLLBACK INTO t VALUES(%d,7,'r')", id)
	case 20:
		return []string{"VACUUM", "CREATE INDEX IF NOT EXISTS i ON t(n)", "DROP INDEX IF EXISTS i", "ANALYZE", "ALTER TABLE u ADD COLUMN extra" + fmt.Sprint(id)}[r.IntN(5)]
	default:
		return "SELECT a.id,b.id FROM t a JOIN t b ON a.n=b.n AND a.id<b.id ORDER BY 1,2 LIMIT 20"
	}
}

const stressSchema = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, v TEXT); CREATE TABLE u(a,b); CREATE INDEX ub ON u(b)"

// TestSameAsStock runs random SQL over the bridge, with caches from tiny to
// large, and over stock in-memory databases: every row and error must agree.
func TestSameAsStock(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		v := testVFS()
		name := newName(t)
		opts := Options{VFS: "test", Exclusive: true, CacheSize: []int{1, 5, 20, 2000, -64, 0}[seed], PageSize: []int{4096, 1024}[seed%2]}
		c, err := Open(name, opts)
		if err != nil {
			t.Fatal(err)
		}
		stock, err := Open("", Options{Memory: true, LookasideSize: 1200, LookasideCount: 40})
		if err != nil {
			t.Fatal(err)
		}
		exec(t, c, stressSchema)
		exec(t, stock, stressSchema)
		for i := range 500 {
			sql := randomSQL(r)
			if r.IntN(60) == 0 && c.AutoCommit() {
				// Reopen: what the file holds is what the cache held.
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				if c, err = Open(name, opts); err != nil {
					t.Fatal(err)
				}
			}
			if r.IntN(40) == 0 {
				c.ReleaseMemory()
			}
			if r.IntN(10) == 0 {
				c.Park()
			}
			got, err1 := dump(c, sql)
			want, err2 := dump(stock, sql)
			if got != want || fmt.Sprint(err1) != fmt.Sprint(err2) {
				t.Fatalf("seed %d, step %d: %s:\n%s %v\nstock:\n%s %v", seed, i, sql, got, err1, want, err2)
			}
			if c.AutoCommit() != stock.AutoCommit() {
				t.Fatalf("seed %d, step %d: %s: autocommit differs", seed, i, sql)
			}
		}
		if got := mustDump(t, c, "PRAGMA integrity_check"); got != "3:\"ok\" \n" {
			t.Errorf("seed %d: %s", seed, got)
		}
		if err := errors.Join(c.Close(), stock.Close()); err != nil {
			t.Fatal(err)
		}
		v.mu.Lock()
		delete(v.files, name)
		v.mu.Unlock()
	}
}

// TestFaults makes every kind of VFS call fail or panic at random: the cause
// must come back, nothing may crash, and with the faults gone the file must be
// usable again if the failed pages are dropped.
func TestFaults(t *testing.T) {
	boom := errors.New("boom")
	for _, op := range []string{"open", "read", "write", "truncate", "size", "commit", "close"} {
		for _, mode := range []string{"error", "full", "panic"} {
			c, f := open(t, Options{VFS: "test", Exclusive: true, CacheSize: 5})
			exec(t, c, stressSchema)
			exec(t, c, "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<60) SELECT i,i%7,hex(randomblob(900)) FROM n")
			r := rand.New(rand.NewPCG(7, 7))
			fired, surfaced := 0, 0
			f.fail = func(o string) error {
				if o != op || r.IntN(3) != 0 {
					return nil
				}
				fired++
				switch mode {
				case "full":
					return WithCode(FULL, boom)
				case "panic":
					panic(boom)
				}
				return boom
			}
			name := ""
			for n, g := range testVFS().files {
				if g == f {
					name = n
				}
			}
			for i := range 150 {
				sql := randomSQL(r)
				if op == "truncate" && i%10 == 0 {
					_ = c.ExecScript([]byte("ROLLBACK"))
					sql = "VACUUM"
				}
				_, err := dump(c, sql)
				if err == nil {
					err = func() error {
						d, err := Open(name, Options{VFS: "test", NoCreate: true})
						if err != nil {
							return err
						}
						if _, err = dump(d, "SELECT count(*) FROM sqlite_schema"); err != nil {
							_ = d.Close()
							return err
						}
						return d.Close()
					}()
				}
				p, isPanic := errors.AsType[*PanicError](err)
				if errors.Is(err, boom) || isPanic && p.Value == boom {
					surfaced++
				}
			}
			if fired == 0 || surfaced == 0 {
				// Opening is the only call a healthy run makes no more of.
				t.Errorf("%s %s: fired %d, surfaced %d", op, mode, fired, surfaced)
			}
			f.fail = nil
			_ = c.ExecScript([]byte("ROLLBACK"))
			if err := c.Close(); err != nil {
				t.Errorf("%s %s: close: %v", op, mode, err)
			}
		}
	}
}

// TestOpenRefusals: what cannot be opened says why and leaves nothing behind.
func TestOpenRefusals(t *testing.T) {
	testVFS()
	before := MemoryUsedGlobal()
	threadsBefore := idleThreads()
	_, err := Open(newName(t), Options{VFS: "test", NoCreate: true})
	if CodeOf(err) != CANTOPEN || !strings.Contains(err.Error(), "does not exist") {
		t.Error(err)
	}
	if _, err := Open("x", Options{VFS: "no such"}); CodeOf(err) != CANTOPEN {
		t.Error(err)
	}
	if _, err := Open("a\x00b", bridged); CodeOf(err) != CANTOPEN {
		t.Error(err)
	}
	if _, err := Open(strings.Repeat("n", maxPathname+10), bridged); CodeOf(err) != CANTOPEN {
		t.Error(err)
	}
	if err := RegisterVFS("test", testVFS(), 0); err == nil {
		t.Error("name registered twice")
	}
	if after := MemoryUsedGlobal(); after.Connections != before.Connections {
		t.Errorf("connections held %d, now %d", before.Connections, after.Connections)
	}
	if n := idleThreads(); n < threadsBefore {
		t.Errorf("threads %d, were %d", n, threadsBefore)
	}
	// Without the exclusive settings SQLite wants a journal file.
	c, _ := open(t, Options{VFS: "test"})
	err = c.ExecScript([]byte("CREATE TABLE t(a)"))
	if CodeOf(err) != CANTOPEN || !errors.Is(err, errNotMain) {
		t.Error(err)
	}
	d, _ := open(t, bridged)
	exec(t, d, "CREATE TABLE t(a)")
	for _, pragma := range []string{"journal_mode=wal", "journal_mode=OFF", "main.journal_mode=delete", "locking_mode=normal", "temp_store=file", "temp_store=1", "temp_store_directory='/tmp'"} {
		wantCode(t, d.ExecScript([]byte("PRAGMA "+pragma)), ERROR)
	}
	exec(t, d, "PRAGMA journal_mode=MEMORY; PRAGMA temp_store=2; PRAGMA locking_mode=exclusive; PRAGMA cache_size=7")
	if got := mustDump(t, d, "PRAGMA journal_mode"); got != "3:\"memory\" \n" {
		t.Error(got)
	}
}

func idleThreads() int {
	threads.Lock()
	defer threads.Unlock()
	return len(threads.idle)
}

// TestParallel runs many connections at once, for the race detector.
func TestParallel(t *testing.T) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 3))
			for range 3 {
				c, err := Open(newName(t), Options{VFS: "test", Exclusive: true, CacheSize: 10})
				if err != nil {
					t.Error(err)
					return
				}
				if err := c.ExecScript([]byte(stressSchema)); err != nil {
					t.Error(err)
				}
				for range 60 {
					_, _ = dump(c, randomSQL(r)) // errors such as COMMIT without BEGIN are part of it
				}
				if err := c.ExecScript([]byte("ROLLBACK")); err != nil && CodeOf(err) != ERROR {
					t.Error(err)
				}
				if got, err := dump(c, "PRAGMA integrity_check"); err != nil || got != "3:\"ok\" \n" {
					t.Error(got, err)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
