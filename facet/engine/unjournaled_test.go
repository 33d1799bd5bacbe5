package engine

import (
	"strings"
	"testing"

	"github.com/facetd/facetd/facet"
)

// TestFailedStatementLeavesNothing: a statement that runs without SQLite's journal
// and fails in its midst, in memory or after pages were spilled to the stage, is
// undone; the connection stays, what it had prepared too, and the next one works.
func TestFailedStatementLeavesNothing(t *testing.T) {
	f := open(t, Limits{CacheBytes: 64 << 10})
	f.must(
		step("CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v)"),
		step("CREATE TABLE child(p REFERENCES t(id) DEFERRABLE INITIALLY DEFERRED, v)"),
		step("CREATE TABLE log(v)"),
		step("CREATE TRIGGER tr AFTER INSERT ON log BEGIN INSERT INTO t(u,v) VALUES(new.v,'from log'); END"),
		step("CREATE VIRTUAL TABLE ft USING fts5(q)"),
		step("INSERT INTO t WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<200) SELECT i,i,zeroblob(1000) FROM n"),
	)
	const sum = "SELECT count(*)||' '||sum(u)||' '||total(length(v)) FROM t"
	const untouched = `"200 20100 200000.0"`
	conn := f.db.conn
	for _, sql := range []string{
		"INSERT INTO t(u) VALUES(1000),(1001),(5)",
		"INSERT INTO t(u,v) SELECT 1000+i, randomblob(2000) FROM (WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<300) SELECT i FROM n) UNION ALL SELECT 7, 7",
		"UPDATE t SET u = CASE WHEN id=150 THEN 151 ELSE u+5000 END",
		"UPDATE t SET v = randomblob(1500), u = CASE WHEN id=199 THEN 200 ELSE -u END",
		"INSERT OR ROLLBACK INTO t(u) VALUES(1000),(1)",
		"INSERT INTO child VALUES(1,1),(99999,2)",
		"INSERT INTO log VALUES(2000),(2001),(9)",
		"DELETE FROM t WHERE abs(CASE WHEN id=199 THEN -9223372036854775807-1 ELSE id END) > 0",
		"INSERT INTO ft(rowid,q) VALUES(1,'a'),(2,'b'),(1,'c')",
	} {
		before := f.commits
		for _, atomic := range []bool{false, true, false} {
			out, err := f.run(&facet.Request{Atomic: atomic, Steps: []facet.Step{step(sql)}})
			if atomic != (err != nil) || !atomic && !strings.HasPrefix(out, "error ") {
				t.Fatalf("%s: %s %v", sql, out, err)
			}
			f.want(sum, untouched)
			f.want("SELECT (SELECT count(*) FROM child)+(SELECT count(*) FROM log)+(SELECT count(*) FROM ft)", "0")
		}
		if f.commits != before || f.db.conn != conn {
			t.Fatalf("%s: %d commits more, or another connection", sql, f.commits-before)
		}
		f.want("PRAGMA integrity_check", `"ok"`)
		f.must(step("INSERT INTO t VALUES(500,500,'x')"), step("DELETE FROM t WHERE id=500"))
		f.samePages()
	}
	f.reopen()
	f.want(sum, untouched)
}

// TestOrFailKeepsWithoutJournal: what OR FAIL keeps is committed, not dropped with
// the stage.
func TestOrFailKeepsWithoutJournal(t *testing.T) {
	f := open(t, Limits{})
	f.must(step("CREATE TABLE t(id INTEGER PRIMARY KEY ON CONFLICT FAIL)"), step("INSERT INTO t VALUES(3)"))
	out, err := f.run(&facet.Request{Steps: []facet.Step{step("INSERT INTO t VALUES(1),(2),(3),(4)")}})
	if err != nil || !strings.HasPrefix(out, "error ") {
		t.Fatal(out, err)
	}
	f.want("SELECT group_concat(id) FROM t", `"1,2,3"`)
	f.samePages()
}

// TestNeedsJournal: statements that write to virtual tables keep the journal.
func TestNeedsJournal(t *testing.T) {
	f := open(t, Limits{})
	f.must(step("CREATE TABLE t(id INTEGER PRIMARY KEY, v)"), step("CREATE TABLE u(v)"), step("CREATE VIRTUAL TABLE ft USING fts5(q)"),
		step("CREATE TRIGGER tr AFTER INSERT ON u BEGIN INSERT INTO ft(q) VALUES(new.v); END"))
	for sql, want := range map[string]bool{
		"INSERT INTO t(v) VALUES(1)":    false,
		"UPDATE t SET v=2 WHERE id=?":   false,
		"DELETE FROM t":                 false,
		"INSERT INTO ft(q) VALUES('x')": true,
		"INSERT INTO u(v) VALUES('x')":  true,
		"CREATE TABLE w(x)":             true,
	} {
		p, err := f.db.prepare([]byte(sql))
		if err != nil {
			t.Fatal(err)
		}
		if p.journal != want {
			t.Errorf("%s: needs a journal: %v, want %v", sql, p.journal, want)
		}
		f.db.finish(p)
	}
}
