package sqlite

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// calls runs sql and returns the calls that reached the file, reads and sizes
// left out; err is what the script gave.
func calls(c *Conn, f *memFile, sql string) (log []string, err error) {
	f.log, f.record = nil, true
	err = c.ExecScript([]byte(sql))
	f.record = false
	for _, l := range f.log {
		if !strings.HasPrefix(l, "read") && l != "size" {
			log = append(log, l)
		}
	}
	return log, err
}

func commits(log []string) int {
	n := 0
	for _, l := range log {
		if l == "commit" {
			n++
		}
	}
	return n
}

// TestCommitPhaseTwo: once per transaction that changed the file, last, and
// never otherwise.
func TestCommitPhaseTwo(t *testing.T) {
	c, f := open(t, Options{VFS: "test", Exclusive: true, CacheSize: 20})
	exec(t, c, `CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v); CREATE TABLE big(v);
		CREATE TABLE child(p REFERENCES t(id) DEFERRABLE INITIALLY DEFERRED);
		INSERT INTO t VALUES(1,1,'one'),(2,2,'two'); PRAGMA foreign_keys=on`)
	const fill = `INSERT INTO big WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) SELECT randomblob(2000) FROM n`
	for _, tc := range []struct {
		name    string
		sql     string
		commits int
		fails   bool
		writes  bool // pages may reach the file although nothing commits
	}{
		{"autocommit insert", "INSERT INTO t VALUES(3,3,'x')", 1, false, false},
		{"two autocommits", "INSERT INTO t VALUES(4,4,'x'); DELETE FROM t WHERE id=4", 2, false, false},
		{"read", "SELECT count(*) FROM t", 0, false, false},
		{"begin commit", "BEGIN; INSERT INTO t VALUES(5,5,'x'); UPDATE t SET v='y' WHERE id=5; COMMIT", 1, false, false},
		{"begin read commit", "BEGIN; SELECT * FROM t; COMMIT", 0, false, false},
		// A write transaction that changed nothing still commits, without a write.
		{"begin immediate, nothing", "BEGIN IMMEDIATE; COMMIT", 1, false, false},
		{"update of no row", "UPDATE t SET v=1 WHERE id=1000", 1, false, false},
		{"update to the same value", "UPDATE t SET v=v WHERE id=1", 1, false, false},
		{"rollback", "BEGIN; INSERT INTO t VALUES(6,6,'x'); ROLLBACK", 0, false, false},
		{"savepoint release", "SAVEPOINT a; INSERT INTO t VALUES(7,7,'x'); SAVEPOINT b; INSERT INTO t VALUES(8,8,'x'); RELEASE b; RELEASE a", 1, false, false},
		{"savepoint rollback to", "SAVEPOINT a; INSERT INTO t VALUES(9,9,'x'); ROLLBACK TO a; RELEASE a", 1, false, false},
		{"inner rollback, outer commit", "BEGIN; INSERT INTO t VALUES(10,10,'x'); SAVEPOINT b; DELETE FROM t; ROLLBACK TO b; RELEASE b; COMMIT", 1, false, false},
		{"constraint abort", "INSERT INTO t VALUES(11,11,'x'),(12,1,'dup')", 0, true, false},
		{"constraint rollback", "BEGIN; INSERT INTO t VALUES(11,11,'x'); INSERT OR ROLLBACK INTO t VALUES(12,1,'dup')", 0, true, false},
		{"constraint ignore", "INSERT OR IGNORE INTO t VALUES(12,1,'dup')", 1, false, false},
		{"constraint fail keeps earlier rows", "INSERT OR FAIL INTO t VALUES(20,20,'x'),(21,1,'dup')", 1, true, false},
		{"failed statement inside a transaction", "BEGIN; INSERT INTO t VALUES(22,22,'x'); INSERT OR IGNORE INTO t VALUES(23,1,'dup'); COMMIT", 1, false, false},
		{"deferred foreign key fails at commit", "BEGIN; INSERT INTO child VALUES(999); COMMIT", 0, true, false},
		{"rollback of that", "ROLLBACK", 0, false, false},
		{"spill then rollback", "BEGIN; " + fill + "; ROLLBACK", 0, false, true},
		{"spill then commit", "BEGIN; " + fill + "; COMMIT", 1, false, true},
		{"spill of old pages then rollback", "BEGIN; UPDATE big SET v=randomblob(2000); ROLLBACK", 0, false, true},
		{"temporary table", "CREATE TEMP TABLE tt(a); INSERT INTO tt VALUES(1)", 0, false, false},
		{"user_version", "PRAGMA user_version=7", 1, false, false},
		{"create index", "CREATE INDEX i ON t(v)", 1, false, false},
		{"vacuum", "VACUUM", 1, false, false},
		{"analyze", "ANALYZE", 1, false, false},
		{"truncate optimisation", "DELETE FROM big", 1, false, false},
	} {
		before := mustDump(t, c, "SELECT count(*),total(id) FROM t")
		log, err := calls(c, f, tc.sql)
		if (err != nil) != tc.fails {
			t.Errorf("%s: error %v", tc.name, err)
		}
		n := commits(log)
		if n != tc.commits {
			t.Errorf("%s: %d commits, want %d: %v", tc.name, n, tc.commits, log)
		}
		if n > 0 {
			if log[len(log)-1] != "commit" {
				t.Errorf("%s: calls after the commit: %v", tc.name, log)
			}
		} else if !tc.writes && len(log) != 0 {
			t.Errorf("%s: calls without a commit: %v", tc.name, log)
		}
		if tc.writes && n == 0 && !slices.ContainsFunc(log, func(s string) bool { return strings.HasPrefix(s, "write") }) {
			t.Errorf("%s: did not spill", tc.name)
		}
		if tc.name == "rollback" || tc.name == "constraint abort" {
			if after := mustDump(t, c, "SELECT count(*),total(id) FROM t"); after != before {
				t.Errorf("%s: %s became %s", tc.name, before, after)
			}
		}
		if slices.Contains(log, "sync") {
			t.Errorf("%s: sync with synchronous=off", tc.name)
		}
	}
	if got := mustDump(t, c, "PRAGMA integrity_check"); got != "3:\"ok\" \n" {
		t.Error(got)
	}
}

// TestPageOne: the first commit of a connection writes page 1 (change counter),
// later ones only if they change it.
func TestPageOne(t *testing.T) {
	c, f := open(t, bridged)
	exec(t, c, "CREATE TABLE t(a)")
	var log []string
	for range 3 {
		l, err := calls(c, f, "INSERT INTO t VALUES(1)")
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, l...)
	}
	if want := []string{"write 2", "commit", "write 2", "commit", "write 2", "commit"}; !slices.Equal(log, want) {
		t.Errorf("calls %v, want %v", log, want)
	}
	// A new connection does write it once.
	name := newName(t)
	for i := range 2 {
		d, err := Open(name, bridged)
		if err != nil {
			t.Fatal(err)
		}
		g := testVFS().file(name)
		if i == 0 {
			exec(t, d, "CREATE TABLE t(a)")
		}
		l1, err1 := calls(d, g, "INSERT INTO t VALUES(1)")
		l2, err2 := calls(d, g, "INSERT INTO t VALUES(1)")
		if err := errors.Join(err1, err2, d.Close()); err != nil {
			t.Fatal(err)
		}
		t.Logf("open %d: first %v, second %v", i, l1, l2)
		if slices.Contains(l1, "write 1") != (i == 1) || slices.Contains(l2, "write 1") {
			t.Errorf("open %d: first %v, second %v", i, l1, l2)
		}
	}
}

// TestCommitError: what an error from CommitPhaseTwo does. SQLite enters its
// error state, forgets its cache and schema, and reads the file again. So if the
// VFS dropped the pages of the transaction, the connection goes on from the state
// before it; the transaction simply failed.
func TestCommitError(t *testing.T) {
	boom := errors.New("boom")
	for _, code := range []Code{FULL, IOERR_WRITE} {
		for _, sql := range []string{
			"INSERT INTO t VALUES(2)",
			"BEGIN; INSERT INTO t VALUES(2); COMMIT",
			"SAVEPOINT a; DELETE FROM t; RELEASE a",
			"CREATE TABLE u(b); INSERT INTO u VALUES(1)",
			"ALTER TABLE t ADD COLUMN c DEFAULT 7",
			"DROP TABLE t",
			"VACUUM",
			"PRAGMA user_version=9",
		} {
			c, f := open(t, bridged)
			exec(t, c, "CREATE TABLE t(a); INSERT INTO t VALUES(1)")
			const state = "SELECT *,(SELECT count(*) FROM sqlite_schema) FROM t"
			before := mustDump(t, c, state)
			cached := prep(t, c, "SELECT * FROM t")
			committed := slices.Clone(f.data)
			f.fail = func(op string) error {
				if op == "commit" {
					f.data = slices.Clone(committed) // the VFS drops its stage
					return WithCode(code, boom)
				}
				return nil
			}
			err := c.ExecScript([]byte(sql))
			f.fail = nil
			if !errors.Is(err, boom) || CodeOf(err) != code {
				t.Errorf("%s: error %v, want boom with code %d", sql, err, code)
			}
			if c.TxnState() != TxnNone {
				t.Errorf("%s: transaction %d", sql, c.TxnState())
			}
			// A failed RELEASE leaves its savepoint open, though the pages are gone.
			if open := strings.HasPrefix(sql, "SAVEPOINT"); c.AutoCommit() == open {
				t.Errorf("%s: autocommit %v", sql, c.AutoCommit())
			} else if open {
				exec(t, c, "ROLLBACK")
			}
			if got, err := dump(c, state); got != before || err != nil {
				t.Errorf("%s: rows %q %v, want %q", sql, got, err, before)
			}
			if more, err := cached.Step(); !more || err != nil || cached.ColumnCount() != 1 {
				t.Errorf("%s: cached statement: %v %v, %d columns", sql, more, err, cached.ColumnCount())
			}
			cached.Reset()
			exec(t, c, "INSERT INTO t VALUES(3)")
			if got := mustDump(t, c, "SELECT a FROM t; "); got != "1:\"1\" \n1:\"3\" \n" {
				t.Errorf("%s: later rows %q", sql, got)
			}
			if got := mustDump(t, c, "PRAGMA integrity_check"); got != "3:\"ok\" \n" {
				t.Errorf("%s: integrity %q", sql, got)
			}
		}
	}
}

// TestShrinking: which size and truncate calls come when a database shrinks.
func TestShrinking(t *testing.T) {
	for _, auto := range []string{"none", "full", "incremental"} {
		c, f := open(t, bridged)
		exec(t, c, "PRAGMA auto_vacuum="+auto+"; CREATE TABLE t(v); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<30) INSERT INTO t SELECT randomblob(4000) FROM n")
		for _, sql := range []string{"DELETE FROM t WHERE rowid>3", "PRAGMA incremental_vacuum", "VACUUM", "DELETE FROM t", "VACUUM"} {
			f.log, f.record = nil, true
			exec(t, c, sql)
			f.record = false
			pages := mustDump(t, c, "PRAGMA page_count")
			t.Logf("%s: %s: %v (file %d pages, page_count %q)", auto, sql, compress(f.log), len(f.data)/4096, pages)
			if want := fmt.Sprintf("1:%q \n", fmt.Sprint(len(f.data)/4096)); pages != want {
				t.Errorf("%s: %s: file has %d pages, SQLite thinks %s", auto, sql, len(f.data)/4096, pages)
			}
		}
	}
}

func compress(log []string) []string {
	var out []string
	for _, l := range log {
		op, _, _ := strings.Cut(l, " ")
		if op == "truncate" {
			op = l
		}
		if n := len(out); n > 0 && strings.HasPrefix(out[n-1], op) {
			if !strings.HasSuffix(out[n-1], "+") {
				out[n-1] += "+"
			}
			continue
		}
		out = append(out, op)
	}
	return out
}
