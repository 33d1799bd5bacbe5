package engine

import (
	"errors"
	"strings"
	"testing"

	"github.com/facetd/facetd/facet"
)

func TestRun(t *testing.T) {
	f := open(t, Limits{})
	out := f.must(
		step("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, x)"),
		step("INSERT INTO t VALUES(?,?,?)", 1, "one", []byte{1, 2}),
		step("INSERT INTO t VALUES(?,?,?)", 2, nil, 2.5),
		step("SELECT * FROM t"),
		step("UPDATE t SET v='x' WHERE id>5"),
		step("SELECT v FROM t WHERE id=?", 1),
	)
	want := `done changes=0 rows=0
done changes=1 rows=0
done changes=1 rows=0
[id:INTEGER][v:TEXT][x:]
1|"one"|x'0102'
2|NULL|2.5
done changes=0 rows=2
done changes=0 rows=0
[v:TEXT]
"one"
done changes=0 rows=1
`
	if out != want {
		t.Fatalf("got\n%swant\n%s", out, want)
	}
	if f.commits != 3 {
		t.Fatalf("%d commits, want 3", f.commits)
	}
	f.reopen()
	f.want("SELECT count(*) FROM t", "2")
}

func TestNonAtomicGoesOn(t *testing.T) {
	f := open(t, Limits{})
	f.must(step("CREATE TABLE t(id INTEGER PRIMARY KEY)"))
	first := step("INSERT INTO t VALUES(1)")
	second := step("INSERT INTO t VALUES(1)")
	third := step("INSERT INTO t VALUES(3)")
	third.Condition = &facet.Condition{Op: facet.CondOK, Step: 1}
	fourth := step("INSERT INTO t VALUES(4)")
	fourth.Condition = &facet.Condition{Op: facet.CondAnd, Conds: []facet.Condition{
		{Op: facet.CondError, Step: 1}, {Op: facet.CondNot, Conds: []facet.Condition{{Op: facet.CondOK, Step: 2}}}, {Op: facet.CondAutocommit},
	}}
	out, err := f.run(&facet.Request{Steps: []facet.Step{first, second, third, fourth}})
	if err != nil {
		t.Fatal(err)
	}
	want := `done changes=1 rows=0
error sql_error: UNIQUE constraint failed: t.id
skipped
done changes=1 rows=0
`
	if out != want {
		t.Fatalf("got\n%swant\n%s", out, want)
	}
	f.want("SELECT group_concat(id) FROM t", `"1,4"`)
	bad := step("SELECT 1")
	bad.Condition = &facet.Condition{Op: facet.CondOK, Step: 0}
	if _, err := f.run(&facet.Request{Steps: []facet.Step{bad}}); !errors.Is(err, facet.ErrBadRequest) {
		t.Fatal(err)
	}
}

func TestAtomic(t *testing.T) {
	f := open(t, Limits{})
	f.must(step("CREATE TABLE t(id INTEGER PRIMARY KEY)"))
	commits := f.commits
	e := f.mustFail(step("INSERT INTO t VALUES(1)"), step("INSERT INTO t VALUES(2)"), step("INSERT INTO t VALUES(1)"))
	if e.Code != facet.CodeSQL || e.SQLite != 1555 || !strings.HasPrefix(e.Message, "step 3 of 3: UNIQUE") {
		t.Fatalf("%+v", e)
	}
	f.want("SELECT count(*) FROM t", "0")
	if _, err := f.run(&facet.Request{Atomic: true, Steps: []facet.Step{step("INSERT INTO t VALUES(1)"), step("INSERT INTO t VALUES(2)")}}); err != nil {
		t.Fatal(err)
	}
	if f.commits != commits+1 {
		t.Fatalf("%d commits for one transaction", f.commits-commits)
	}
	for _, sql := range []string{"COMMIT", "BEGIN", "ROLLBACK", "END"} {
		if e := f.mustFail(step("INSERT INTO t VALUES(9)"), step(sql)); e.Code != facet.CodeDenied {
			t.Fatalf("%s: %v", sql, e)
		}
	}
	// A statement that keeps what it did before it failed is undone whole.
	f.mustFail(step("INSERT OR FAIL INTO t VALUES(7),(8),(1)"))
	f.must(step("CREATE TRIGGER g BEFORE INSERT ON t WHEN new.id=99 BEGIN SELECT RAISE(FAIL,'no'); END"))
	f.mustFail(step("INSERT INTO t VALUES(97),(98),(99)"))
	f.mustFail(step("INSERT OR ROLLBACK INTO t VALUES(97),(1)"), step("INSERT INTO t VALUES(100)"))
	f.want("SELECT group_concat(id) FROM t", `"1,2"`)
	// Reading only makes no commit, not even on an empty facet.
	g := open(t, Limits{})
	if _, err := g.run(&facet.Request{Atomic: true, Steps: []facet.Step{step("SELECT 1"), step("SELECT 2")}}); err != nil || g.commits != 0 || g.store.Pages() != 0 {
		t.Fatal(err, g.commits)
	}
}

func TestArguments(t *testing.T) {
	f := open(t, Limits{})
	named := func(sql string, names []string, args ...any) facet.Step {
		st := step(sql, args...)
		st.Names = names
		return st
	}
	for _, c := range []struct {
		st   facet.Step
		want string
	}{
		{step("SELECT ?,?", 1, "a"), `1|"a"`},
		{step("SELECT ?2,?1", 1, "a"), `"a"|1`},
		{step("SELECT :x,@y", 1, "a"), `1|"a"`},
		{named("SELECT :x,@y,$z,:x", []string{"z", ":x", "@y"}, 1, 2, 3), `2|3|1|2`},
		{named("SELECT ?,:n", []string{"", "n"}, 1, 2), `1|2`},
		{named("SELECT ?1", []string{"1"}, 5), `5`},
		{step("SELECT ?", 1, 2), "bad_request"},
		{step("SELECT ?,?", 1), "bad_request"},
		{step("SELECT 1", 1), "bad_request"},
		{named("SELECT :x", []string{"y"}, 1), "bad_request"},
		{named("SELECT :x,:y", []string{"x"}, 1), "bad_request"},
		{named("SELECT :x", []string{"x", "x"}, 1, 2), "bad_request"},
		{named("SELECT :x", []string{"x"}), "bad_request"},
		{facet.Step{SQL: []byte("SELECT ?"), NArgs: 1, Args: facet.Values{9}}, "bad_request"},
		{facet.Step{SQL: []byte("SELECT ?"), NArgs: 1, Args: facet.Values{0, 0}}, "bad_request"},
		{step("SELECT 1; SELECT 2"), "bad_request"},
		{step("  -- nothing\n;"), "bad_request"},
		{step("SELECT 1 ; -- one\n /* x */ ;"), "1"},
		{step("SELECT 1\x00"), "NUL"},
	} {
		out, err := f.run(&facet.Request{Steps: []facet.Step{c.st}})
		if err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: got %s%v, want %s", c.st.SQL, out, err, c.want)
		}
	}
	var names []string
	var sql strings.Builder
	var args []any
	sql.WriteString("SELECT sum(column1) FROM (VALUES (0)")
	for i := range 900 {
		names = append(names, "p"+strings.Repeat("x", i%7)+string(rune('a'+i%26))+strings.Repeat("z", i/26))
		sql.WriteString(",(:" + names[i] + ")")
		args = append(args, i)
	}
	sql.WriteString(")")
	out := f.must(named(sql.String(), names, args...))
	if !strings.Contains(out, "\n404550\n") {
		t.Fatal(out)
	}
}

func TestScript(t *testing.T) {
	f := open(t, Limits{})
	var b strings.Builder
	b.WriteString("CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE n(c); INSERT INTO n VALUES(0);\n")
	b.WriteString("CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE n SET c=c+1; SELECT 'a;b'; END;\n")
	for range 3000 {
		b.WriteString("INSERT INTO t(v) VALUES('some ; text'); -- comment ;\n")
	}
	f.quiet = true
	out := f.must(script("BEGIN;" + b.String() + "COMMIT"))
	if out != "done changes=1 rows=0\n" {
		t.Fatal(out)
	}
	f.want("SELECT count(*),c FROM t,n", "3000|3000")
	out, err := f.run(&facet.Request{Steps: []facet.Step{script("INSERT INTO t VALUES(9001,1);\nINSERT INTO t VALUES(9002,nope);")}})
	if err != nil || !strings.Contains(out, "no such column") {
		t.Fatal(out, err)
	}
	f.want("SELECT count(*) FROM t WHERE id>9000", "1")
	e := f.mustFail(script("INSERT INTO t VALUES(9003,1); INSERT INTO t VALUES(9004,nope)"))
	if e.Offset != 56 {
		t.Fatalf("offset %d", e.Offset)
	}
	f.want("SELECT count(*) FROM t WHERE id>9000", "1")
}

func TestDescribe(t *testing.T) {
	f := open(t, Limits{})
	f.must(step("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)"))
	for sql, want := range map[string]string{
		"SELECT id, v AS w, 1+? FROM t WHERE v=:x": "describe {Explain:false ReadOnly:true Params:[ :x] Columns:[{Name:id DeclType:INTEGER} {Name:w DeclType:TEXT} {Name:1+? DeclType:}]}\n",
		"INSERT INTO t VALUES(1,2)":                "describe {Explain:false ReadOnly:false Params:[] Columns:[]}\n",
		"EXPLAIN QUERY PLAN DELETE FROM t":         "describe {Explain:true ReadOnly:true Params:[] Columns:[{Name:id DeclType:} {Name:parent DeclType:} {Name:notused DeclType:} {Name:detail DeclType:}]}\n",
	} {
		st := step(sql)
		st.Kind = facet.StepDescribe
		if got := f.must(st); got != want {
			t.Errorf("%s: got %swant %s", sql, got, want)
		}
	}
	f.want("SELECT count(*) FROM t", "0")
}

func TestInteractive(t *testing.T) {
	f := open(t, Limits{})
	f.must(step("CREATE TABLE t(id INTEGER PRIMARY KEY)"))
	commits := f.commits
	keep := func(steps ...facet.Step) string {
		t.Helper()
		out, err := f.run(&facet.Request{KeepTx: true, Steps: steps})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	keep(step("BEGIN"), step("INSERT INTO t VALUES(1)"))
	if !f.db.InTx() || f.commits != commits {
		t.Fatal("no open transaction, or a commit")
	}
	if out := keep(step("INSERT INTO t VALUES(1)")); !strings.Contains(out, "UNIQUE") || !f.db.InTx() {
		t.Fatal(out)
	}
	// An atomic request inside is a savepoint.
	if _, err := f.run(&facet.Request{KeepTx: true, Atomic: true, Steps: []facet.Step{step("INSERT INTO t VALUES(2)"), step("INSERT INTO t VALUES(1)")}}); err == nil || !f.db.InTx() {
		t.Fatal(err)
	}
	if out := keep(step("SELECT count(*) FROM t")); !strings.Contains(out, "\n1\ndone changes=0 rows=1 tx") {
		t.Fatal(out)
	}
	keep(step("COMMIT"))
	if f.db.InTx() || f.commits != commits+1 {
		t.Fatal("not committed once")
	}
	keep(step("BEGIN"), step("DELETE FROM t"))
	if err := f.db.Rollback(); err != nil || f.db.InTx() {
		t.Fatal(err)
	}
	f.want("SELECT count(*) FROM t", "1")
	// Without KeepTx nothing stays open.
	if _, err := f.run(&facet.Request{Steps: []facet.Step{step("BEGIN"), step("DELETE FROM t")}}); !errors.Is(err, facet.ErrBadRequest) {
		t.Fatal(err)
	}
	if _, err := f.run(&facet.Request{Steps: []facet.Step{step("SAVEPOINT x"), step("DELETE FROM t")}}); !errors.Is(err, facet.ErrBadRequest) {
		t.Fatal(err)
	}
	f.want("SELECT count(*) FROM t", "1")
}

func TestReadOnly(t *testing.T) {
	f := open(t, Limits{})
	f.must(step("CREATE TABLE t(id INTEGER PRIMARY KEY)"))
	for _, sql := range []string{
		"INSERT INTO t VALUES(1)", "CREATE TABLE u(x)", "PRAGMA user_version=3", "VACUUM", "ANALYZE", "PRAGMA optimize",
		"WITH x AS (SELECT 1) DELETE FROM t", "SELECT * FROM pragma_optimize", "BEGIN IMMEDIATE",
	} {
		_, err := f.run(&facet.Request{Atomic: sql != "BEGIN IMMEDIATE", ReadOnly: true, KeepTx: true, Steps: []facet.Step{step(sql)}})
		if sql == "BEGIN IMMEDIATE" {
			if rerr := f.db.Rollback(); rerr != nil {
				t.Fatal(rerr)
			}
			continue
		}
		if !errors.Is(err, facet.ErrReadOnly) {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if out, err := f.run(&facet.Request{ReadOnly: true, Steps: []facet.Step{step("SELECT count(*) FROM t"), step("EXPLAIN DELETE FROM t")}}); err != nil || strings.Contains(out, "error") {
		t.Fatal(out, err)
	}
	if f.commits != 1 {
		t.Fatalf("%d commits", f.commits)
	}
}

func TestHandOffFails(t *testing.T) {
	f := open(t, Limits{})
	f.must(step("CREATE TABLE t(id INTEGER PRIMARY KEY)"))
	f.fail = errors.New("log is gone")
	_, err := f.run(&facet.Request{Steps: []facet.Step{step("INSERT INTO t VALUES(1)"), step("INSERT INTO t VALUES(2)")}})
	if !errors.Is(err, facet.ErrUnknownOutcome) || f.db.Broken() == nil {
		t.Fatal(err)
	}
	f.fail = nil
	if _, err := f.run(&facet.Request{Steps: []facet.Step{step("SELECT 1")}}); !errors.Is(err, facet.ErrUnavailable) {
		t.Fatal(err)
	}
}

func TestSessionStateEnds(t *testing.T) {
	f := open(t, Limits{})
	f.must(script("CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(p REFERENCES p); INSERT INTO p VALUES(1); INSERT INTO c VALUES(1)"))
	f.must(step("PRAGMA foreign_keys=OFF"), step("PRAGMA case_sensitive_like=1"), step("PRAGMA recursive_triggers=1"),
		step("DELETE FROM p"), step("INSERT INTO p VALUES(1)"))
	f.want("PRAGMA foreign_keys", "1")
	f.want("PRAGMA recursive_triggers", "0")
	f.want("SELECT 'a' LIKE 'A'", "1")
	if e := f.mustFail(step("DELETE FROM p")); e.SQLite != 787 {
		t.Fatal(e)
	}
	f.must(step("CREATE TEMP TABLE tt AS SELECT 1 x"), step("SELECT * FROM tt"))
	if e := f.mustFail(step("SELECT * FROM tt")); e.Code != facet.CodeSQL {
		t.Fatal(e)
	}
	if _, err := f.run(&facet.Request{KeepTx: true, Steps: []facet.Step{step("BEGIN"), step("CREATE TEMP TABLE tt(x)")}}); err != nil {
		t.Fatal(err)
	}
	if out, err := f.run(&facet.Request{KeepTx: true, Steps: []facet.Step{step("INSERT INTO tt VALUES(1)"), step("COMMIT")}}); err != nil || strings.Contains(out, "error") {
		t.Fatal(out, err)
	}
	if e := f.mustFail(step("SELECT * FROM tt")); e.Code != facet.CodeSQL {
		t.Fatal(e)
	}
}

func TestCachedStatements(t *testing.T) {
	f := open(t, Limits{})
	f.must(step("CREATE TABLE t(a)"), step("INSERT INTO t VALUES(1)"), step("SELECT * FROM t"))
	f.must(step("ALTER TABLE t ADD COLUMN b DEFAULT 5"))
	if out := f.must(step("SELECT * FROM t")); !strings.HasPrefix(out, "[a:][b:]\n1|5\n") {
		t.Fatal(out)
	}
	for i := range 3 * maxCached {
		f.must(step("SELECT " + strings.Repeat("1+", i) + "1"))
	}
	if n := len(f.db.cache.byText); n > maxCached || f.db.cache.bytes > maxCachedBytes {
		t.Fatalf("%d statements of %d bytes in the cache", n, f.db.cache.bytes)
	}
	f.must(step("DROP TABLE t"))
	if e := f.mustFail(step("SELECT * FROM t")); e.Code != facet.CodeSQL {
		t.Fatal(e)
	}
}
