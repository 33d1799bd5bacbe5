package engine

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
)

func keyed(client byte, n uint64, steps ...facet.Step) *facet.Request {
	return &facet.Request{Atomic: true, Key: facet.Key{Client: [16]byte{client}, N: n}, Steps: steps}
}

func TestKeys(t *testing.T) {
	f := open(t, Limits{})
	f.must(step("CREATE TABLE t(id INTEGER PRIMARY KEY, v)"))
	insert := keyed(1, 5, step("INSERT INTO t(v) VALUES(?) RETURNING id", "a"), step("INSERT INTO t(v) VALUES('b')"))
	first, err := f.run(insert)
	if err != nil {
		t.Fatal(err)
	}
	commits := f.commits
	again := func() {
		t.Helper()
		out, err := f.run(insert)
		if err != nil || out != first {
			t.Fatalf("got %s%v, want %s", out, err, first)
		}
		if f.commits != commits {
			t.Fatal("a repeated request committed")
		}
		f.want("SELECT count(*) FROM t", "2")
	}
	again()
	f.reopen()
	again()
	if _, err := f.run(keyed(1, 5, step("INSERT INTO t(v) VALUES(?) RETURNING id", "other"), step("INSERT INTO t(v) VALUES('b')"))); !errors.Is(err, facet.ErrKeyConflict) {
		t.Fatal(err)
	}
	// Another client has keys of its own.
	if _, err := f.run(keyed(2, 5, step("INSERT INTO t(v) VALUES('c')"))); err != nil {
		t.Fatal(err)
	}
	// A request that fails leaves no row: it may be sent again and succeed.
	bad := keyed(1, 6, step("INSERT INTO t VALUES(7,'x')"), step("INSERT INTO u VALUES(1)"))
	if _, err := f.run(bad); !errors.Is(err, facet.ErrSQL) {
		t.Fatal(err)
	}
	f.must(step("CREATE TABLE u(x)"))
	if _, err := f.run(bad); err != nil {
		t.Fatal(err)
	}
	// One that reads writes nothing.
	commits = f.commits
	if out, err := f.run(keyed(1, 7, step("SELECT count(*) FROM t"))); err != nil || !strings.Contains(out, "\n4\n") || f.commits != commits {
		t.Fatal(out, err)
	}
	// A result too long to store is answered with its counts.
	long := keyed(1, 8, step("INSERT INTO t(v) VALUES(zeroblob(100000)) RETURNING v"))
	out, err := f.run(long)
	if err != nil || len(out) < 100_000 {
		t.Fatal(len(out), err)
	}
	if out, err = f.run(long); err != nil || out != "done changes=1 rows=1\n" {
		t.Fatalf("%.100s %v", out, err)
	}
	if _, err := f.run(&facet.Request{Key: facet.Key{N: 1}, Steps: []facet.Step{step("SELECT 1"), step("SELECT 2")}}); !errors.Is(err, facet.ErrBadRequest) {
		t.Fatal(err)
	}
	if _, err := f.run(&facet.Request{Key: facet.Key{N: 1}, KeepTx: true, Atomic: true, Steps: []facet.Step{step("SELECT 1")}}); !errors.Is(err, facet.ErrBadRequest) {
		t.Fatal(err)
	}
}

func TestKeyWindow(t *testing.T) {
	f := open(t, Limits{})
	f.quiet = true
	f.must(step("CREATE TABLE t(id INTEGER PRIMARY KEY, n)"))
	// Out of order within the window.
	for i := range uint64(3000) {
		n := i ^ 3
		if _, err := f.run(keyed(1, n, step("INSERT INTO t(n) VALUES(?)", int(n)))); err != nil {
			t.Fatal(n, err)
		}
	}
	f.want("SELECT count(*), count(DISTINCT n) FROM t", "3000|3000")
	rows, err := f.db.queryInt("SELECT count(*) FROM " + keysTable)
	if err != nil || rows != keyWindow {
		t.Fatal(rows, err)
	}
	if _, err := f.run(keyed(1, 3000-keyWindow-1, step("INSERT INTO t(n) VALUES(0)"))); err == nil || err.(*facet.Error).Code != facet.CodeKeyExpired {
		t.Fatal(err)
	}
	if _, err := f.run(keyed(1, 3000-keyWindow, step("INSERT INTO t(n) VALUES(?)", 3000-keyWindow))); err != nil {
		t.Fatal(err) // the oldest in the window: the stored answer
	}
	f.want("SELECT count(*) FROM t", "3000")
	f.samePages()
}

func TestSilentClientsAreForgotten(t *testing.T) {
	f := open(t, Limits{})
	f.quiet = true
	f.must(step("CREATE TABLE t(n)"))
	count := func() int64 {
		n, err := f.db.queryInt("SELECT count(DISTINCT client) FROM " + keysTable)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for c := range 200 {
		if _, err := f.run(keyed(byte(c), 1, step("INSERT INTO t VALUES(1)"))); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(); n != 200 {
		t.Fatalf("%d clients", n)
	}
	f.now = f.now.Add(keyAge + time.Minute)
	for i := range 10 * pruneEvery {
		if _, err := f.run(keyed(250, uint64(i), step("INSERT INTO t VALUES(2)"))); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(); n != 1 {
		t.Fatalf("%d clients, want the one in use", n)
	}
}

func TestKeyedOnFullFacet(t *testing.T) {
	f := open(t, Limits{FacetBytes: 256 << 10})
	f.quiet = true
	f.must(step("CREATE TABLE t(id INTEGER PRIMARY KEY, v)"))
	n := uint64(0)
	for {
		n++
		if _, err := f.run(keyed(1, n, step("INSERT INTO t(v) VALUES(zeroblob(2000))"))); err != nil {
			if !errors.Is(err, facet.ErrLimit) {
				t.Fatal(err)
			}
			break
		}
	}
	if _, err := f.run(keyed(1, n+1, step("DELETE FROM t"))); err != nil {
		t.Fatal(err)
	}
	f.want("SELECT count(*) FROM t", "0")
}

// TestKeysHidden: what is reserved shows neither content nor effects.
func TestKeysHidden(t *testing.T) {
	f := open(t, Limits{})
	f.must(step("CREATE TABLE t(n)"))
	if _, err := f.run(keyed(1, 1, step("INSERT INTO t VALUES(1)"))); err != nil {
		t.Fatal(err)
	}
	f.must(step("VACUUM"), step("ANALYZE"), step("PRAGMA integrity_check"), step("REINDEX"))
	if _, err := f.run(keyed(1, 1, step("INSERT INTO t VALUES(1)"))); err != nil {
		t.Fatal(err)
	}
	f.want("SELECT count(*) FROM t", "1")
	for _, sql := range []string{"CREATE TRIGGER x AFTER INSERT ON _facetd_keys BEGIN SELECT 1; END",
		"CREATE TABLE c(x REFERENCES _facetd_keys(n))"} {
		out, err := f.run(&facet.Request{Steps: []facet.Step{step(sql)}})
		if err == nil && !strings.Contains(out, "belong") && !strings.HasPrefix(sql, "CREATE TABLE") {
			t.Errorf("%s: %s %v", sql, out, err)
		}
	}
	// A foreign key to it can be declared, as to any table that may not exist, but
	// not used.
	out, err := f.run(&facet.Request{Steps: []facet.Step{step("INSERT INTO c VALUES(1)")}})
	if err != nil || !strings.Contains(out, "error") {
		t.Error(out, err)
	}
}

func TestScratch(t *testing.T) {
	s := NewScratch(Limits{StatementTime: 200 * time.Millisecond})
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	try := func(req *facet.Request) (string, bool, error) {
		t.Helper()
		var resp facet.Response
		writes, err := s.Try(req, &resp, RunOptions{})
		if !resp.Position.IsZero() {
			t.Error(resp.Position)
		}
		return render(t, resp.Result), writes, err
	}
	for _, c := range []struct {
		req    facet.Request
		writes bool
		want   string
	}{
		{facet.Request{Steps: []facet.Step{step("SELECT 1+1")}}, false, "[1+1:]\n2\ndone changes=0 rows=1\n"},
		{facet.Request{Steps: []facet.Step{step("SELECT * FROM t")}}, false, "error sql_error: no such table: t\n"},
		{facet.Request{Atomic: true, Steps: []facet.Step{step("SELECT * FROM t")}}, false, "no such table"},
		{facet.Request{Steps: []facet.Step{step("CREATE TABLE t(x)"), step("INSERT INTO t VALUES(1)")}}, true, ""},
		{facet.Request{Atomic: true, Steps: []facet.Step{step("SELECT 1"), step("CREATE TABLE t(x)")}}, true, ""},
		{facet.Request{Steps: []facet.Step{script("-- nothing\n; PRAGMA user_version=4;")}}, true, ""},
		{facet.Request{Steps: []facet.Step{step("PRAGMA optimize")}}, true, ""},
		{facet.Request{Steps: []facet.Step{step("CREATE TEMP TABLE x(y)")}}, true, ""},
		{facet.Request{KeepTx: true, Steps: []facet.Step{step("BEGIN")}}, true, ""},
		{facet.Request{Steps: []facet.Step{step("BEGIN"), step("SELECT 1"), step("COMMIT")}}, false, "done changes=0 rows=0 tx\n[1:]\n1\ndone changes=0 rows=1 tx\ndone changes=0 rows=0\n"},
		{facet.Request{ReadOnly: true, Atomic: true, Steps: []facet.Step{step("CREATE TABLE t(x)")}}, false, "read_only"},
		{facet.Request{Steps: []facet.Step{step("SELECT count(*) FROM sqlite_schema")}}, false, "\n0\n"},
		{facet.Request{Key: facet.Key{N: 5}, Steps: []facet.Step{step("SELECT 3")}}, false, "\n3\n"},
		{facet.Request{Key: facet.Key{N: 5}, Steps: []facet.Step{step("CREATE TABLE t(x)")}}, true, ""},
		{facet.Request{Atomic: true, Steps: []facet.Step{step("WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r) SELECT count(*) FROM r")}}, false, "timeout"},
	} {
		out, writes, err := try(&c.req)
		if err != nil {
			out += err.Error()
		}
		if writes != c.writes || writes && err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: writes %v, %s", c.req.Steps[0].SQL, writes, out)
		}
	}
	done := make(chan error)
	for range 3 * maxScratch {
		go func() {
			var resp facet.Response
			writes, err := s.Try(&facet.Request{Steps: []facet.Step{step("SELECT 1")}}, &resp, RunOptions{})
			if writes {
				err = errors.New("a read was taken for a write")
			}
			done <- err
		}()
	}
	for range 3 * maxScratch {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if len(s.idle) > maxIdleScratch {
		t.Errorf("%d idle databases", len(s.idle))
	}
}
