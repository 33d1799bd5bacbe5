package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/facetd/facetd/facet"
)

// view opens the store that only gets the commits.
func (f *fixture) view() *DB {
	f.t.Helper()
	v, err := Open(Options{ID: f.id, Store: f.replica, Limits: f.limits, View: true})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { v.Close() })
	return v
}

func (f *fixture) read(v *DB, steps ...facet.Step) (string, bool, error) {
	f.t.Helper()
	var resp facet.Response
	writes, err := v.TryRead(&facet.Request{Steps: steps, Atomic: len(steps) > 1}, &resp, RunOptions{})
	if resp.Position != f.replica.Position() {
		f.t.Errorf("answered at %v, the view is at %v", resp.Position, f.replica.Position())
	}
	return render(f.t, resp.Result), writes, err
}

// TestViewFollows: after each commit a view answers like the original, whatever the
// commit did to tables, to the schema or to the size of the file.
func TestViewFollows(t *testing.T) {
	f := open(t, Limits{})
	f.quiet = true
	v := f.view()
	rng := rand.New(rand.NewPCG(1, 2))
	one := func(sql string, args ...any) {
		t.Helper()
		if out, err := f.run(&facet.Request{Steps: []facet.Step{step(sql, args...)}}); err != nil || strings.Contains(out, "error") {
			t.Fatalf("%s: %s, %v", sql, out, err)
		}
	}
	queries := []string{
		"SELECT name, sql FROM sqlite_schema ORDER BY name", "SELECT count(*), sum(length(v)), min(k) FROM t",
		"SELECT * FROM t WHERE k = 3", "SELECT k FROM t ORDER BY v LIMIT 5", "PRAGMA page_count", "PRAGMA user_version",
		"SELECT * FROM t LIMIT 1",
	}
	same := func(after string) {
		t.Helper()
		if err := v.Refresh(); err != nil {
			t.Fatal(err)
		}
		for _, q := range queries {
			want, _ := f.run(&facet.Request{Steps: []facet.Step{step(q)}})
			got, writes, err := f.read(v, step(q))
			if got != want || writes || err != nil {
				t.Fatalf("after %s: %s\nview: %s (%v, %v)\nwant: %s", after, q, got, writes, err, want)
			}
		}
	}
	same("nothing")
	one("CREATE TABLE t (k INTEGER PRIMARY KEY, v)")
	same("create")
	columns := 0
	for i := range 300 {
		var sql string
		switch rng.IntN(12) {
		case 0:
			columns++
			sql = fmt.Sprintf("ALTER TABLE t ADD COLUMN c%d DEFAULT %d", columns, i)
		case 1:
			sql = "DELETE FROM t WHERE k % 3 = 0"
		case 2:
			sql = "VACUUM"
		case 3:
			sql = fmt.Sprintf("CREATE INDEX IF NOT EXISTS i%d ON t (v, %d)", i%5, i)
		case 4:
			sql = fmt.Sprintf("DROP INDEX IF EXISTS i%d", i%5)
		case 5:
			sql = fmt.Sprintf("PRAGMA user_version=%d", i)
		default:
			sql = fmt.Sprintf("INSERT INTO t (k, v) VALUES (%d, randomblob(%d))", i, 1+rng.IntN(9000))
		}
		one(sql)
		if rng.IntN(3) > 0 {
			same(sql)
		}
	}
	same("all")
}

// TestViewWritesNothing: what writes, or would stay open, is told and leaves nothing.
func TestViewWritesNothing(t *testing.T) {
	f := open(t, Limits{})
	if _, err := f.run(&facet.Request{Steps: []facet.Step{step("CREATE TABLE t (v)"), step("INSERT INTO t VALUES (1)")}}); err != nil {
		t.Fatal(err)
	}
	v := f.view()
	at := f.replica.Position()
	for _, sql := range []string{
		"INSERT INTO t VALUES (2)", "DELETE FROM t", "DROP TABLE t", "CREATE TEMP TABLE u (v)", "VACUUM", "PRAGMA user_version=3",
		"INSERT INTO t VALUES (2) RETURNING v",
	} {
		if out, writes, err := f.read(v, step(sql)); !writes || err != nil || out != "" {
			t.Errorf("%s: %q, %v, %v", sql, out, writes, err)
		}
		if out, writes, err := f.read(v, step("SELECT 1"), step(sql)); !writes || err != nil || out != "" {
			t.Errorf("behind a read: %s: %q, %v, %v", sql, out, writes, err)
		}
		var resp facet.Response
		if writes, err := v.TryRead(&facet.Request{ReadOnly: true, Atomic: true, Steps: []facet.Step{step(sql)}}, &resp, RunOptions{}); writes || !errors.Is(err, facet.ErrReadOnly) {
			t.Errorf("%s, read-only: %v, %v", sql, writes, err)
		}
	}
	if out, writes, err := f.read(v, step("SELECT * FROM missing")); writes || err != nil || !strings.Contains(out, "no such table") {
		t.Errorf("%q, %v, %v", out, writes, err)
	}
	if out, writes, err := f.read(v, step("SELECT count(*) FROM t")); writes || err != nil || !strings.Contains(out, "1\n") {
		t.Errorf("%q, %v, %v", out, writes, err)
	}
	if f.replica.Position() != at || f.replica.Staged() {
		t.Errorf("the pages moved to %v", f.replica.Position())
	}
}
