package engine

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/facetd/facetd/facet"
)

// grammar makes SQL at random: mostly valid, over few tables and columns, so that
// statements meet, and with what the sandbox refuses among it.
type grammar struct {
	rng   *rand.Rand
	depth int
}

func (g *grammar) pick(list ...string) string { return list[g.rng.IntN(len(list))] }

func (g *grammar) table() string { return g.pick("a", "b", "c", "w", "v") }

func (g *grammar) column() string { return g.pick("id", "x", "y", "z") }

func (g *grammar) literal() string {
	switch g.rng.IntN(10) {
	case 0:
		return "NULL"
	case 1:
		return g.pick("9223372036854775807", "-9223372036854775808", "0", "-1", "1e300", "0.5", "-0.0")
	case 2:
		return "x'" + strings.Repeat(g.pick("00", "ff", "c3", "28"), g.rng.IntN(6)) + "'"
	case 3:
		return "'" + strings.Repeat(g.pick("a", "é", "%", "_", "''", "{", "[1]"), g.rng.IntN(8)) + "'"
	}
	return fmt.Sprint(g.rng.IntN(20) - 4)
}

func (g *grammar) expr() string {
	if g.depth++; g.depth > 6 {
		g.depth--
		return g.literal()
	}
	defer func() { g.depth-- }()
	switch g.rng.IntN(16) {
	case 0, 1, 2:
		return g.column()
	case 3, 4:
		return g.literal()
	case 5:
		return "(" + g.expr() + g.pick("+", "-", "*", "/", "%", "||", "&", "|", "<<", ">>", "->>", "->") + g.expr() + ")"
	case 6:
		return "(" + g.expr() + g.pick("=", "<", "<=", "<>", " IS ", " IS NOT ", " AND ", " OR ", " LIKE ", " GLOB ") + g.expr() + ")"
	case 7:
		return "CASE WHEN " + g.expr() + " THEN " + g.expr() + " ELSE " + g.expr() + " END"
	case 8:
		return g.pick("abs", "length", "upper", "hex", "typeof", "quote", "trim", "json_quote", "json_type", "unicode", "sign") + "(" + g.expr() + ")"
	case 9:
		return g.pick("coalesce", "ifnull", "min", "max", "nullif", "instr", "json_array", "substr", "round", "printf", "concat") + "(" + g.expr() + "," + g.expr() + ")"
	case 10:
		return "replace(" + g.expr() + "," + g.expr() + "," + g.expr() + ")"
	case 11:
		return "(" + g.expr() + g.pick(" IN ", " NOT IN ") + "(" + g.expr() + "," + g.expr() + "))"
	case 12:
		return "EXISTS(" + g.query() + ")"
	case 13:
		return "(SELECT " + g.pick("count(*)", "sum(x)", "max(y)", "group_concat(z)", "min(id)") + " FROM " + g.table() + ")"
	case 14:
		return "CAST(" + g.expr() + " AS " + g.pick("INTEGER", "TEXT", "REAL", "BLOB", "NUMERIC") + ")"
	}
	return g.pick("-", "~", "NOT ", "+") + g.expr()
}

// query is always ordered by all it gives, so that two runs of it agree.
func (g *grammar) query() string {
	switch g.rng.IntN(7) {
	case 0:
		return "SELECT " + g.expr() + " AS e, " + g.expr() + " AS f FROM " + g.table() + " WHERE " + g.expr() + " ORDER BY 1, 2"
	case 1:
		return "SELECT p.x, q.y FROM " + g.table() + " p " + g.pick("JOIN", "LEFT JOIN", "CROSS JOIN") + " " + g.table() + " q ON p.id=q.id WHERE p.y IS NOT " + g.literal() + " ORDER BY 1, 2 LIMIT 20"
	case 2:
		return "SELECT x, count(*), sum(y) FROM " + g.table() + " GROUP BY x HAVING count(*)>" + fmt.Sprint(g.rng.IntN(3)) + " ORDER BY 1, 2, 3"
	case 3:
		return "SELECT x FROM " + g.table() + g.pick(" UNION ", " EXCEPT ", " INTERSECT ", " UNION ALL ") + "SELECT y FROM " + g.table() + " ORDER BY 1"
	case 4:
		return fmt.Sprintf("WITH RECURSIVE r(i) AS (VALUES(%d) UNION ALL SELECT i+1 FROM r WHERE i<%d) SELECT i, %s FROM r ORDER BY 1, 2", g.rng.IntN(5), g.rng.IntN(30), strings.NewReplacer("id", "i", "x", "i", "y", "i", "z", "i").Replace(g.literal()))
	case 5:
		return "SELECT sum(x) OVER (PARTITION BY y ORDER BY id) AS s, id FROM " + g.pick("a", "b", "c") + " ORDER BY 2, 1"
	}
	return "SELECT count(*), total(x) FROM " + g.table()
}

func (g *grammar) statement() string {
	t := g.pick("a", "b", "c", "w")
	switch g.rng.IntN(24) {
	case 0, 1, 2, 3:
		return g.pick("INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE", "REPLACE") + " INTO " + t + "(id,x,y,z) VALUES(" + fmt.Sprint(g.rng.IntN(40)) + "," + g.literal() + "," + g.literal() + "," + g.literal() + ")"
	case 4:
		return "INSERT INTO " + t + "(x,y,z) SELECT x,y,z FROM " + g.table() + " ORDER BY 1,2,3 LIMIT " + fmt.Sprint(g.rng.IntN(30))
	case 5:
		return "INSERT INTO " + t + "(id,x) VALUES(" + fmt.Sprint(g.rng.IntN(9)) + ",1) ON CONFLICT DO UPDATE SET x=x+1, y=" + g.literal()
	case 6, 7:
		return "UPDATE " + g.pick("", "OR IGNORE ", "OR REPLACE ") + t + " SET " + g.pick("x", "y", "z") + "=" + g.expr() + " WHERE " + g.expr()
	case 8:
		return "DELETE FROM " + t + " WHERE " + g.expr()
	case 9:
		return g.pick("CREATE INDEX IF NOT EXISTS", "CREATE UNIQUE INDEX") + " i" + fmt.Sprint(g.rng.IntN(6)) + " ON " + t + "(" + g.column() + g.pick("", ", y DESC", " COLLATE NOCASE") + ")" + g.pick("", " WHERE x>1")
	case 10:
		return "DROP " + g.pick("INDEX IF EXISTS i"+fmt.Sprint(g.rng.IntN(6)), "VIEW IF EXISTS v2", "TRIGGER IF EXISTS t"+fmt.Sprint(g.rng.IntN(3)))
	case 11:
		return "CREATE TRIGGER IF NOT EXISTS t" + fmt.Sprint(g.rng.IntN(3)) + g.pick(" AFTER INSERT", " BEFORE DELETE", " AFTER UPDATE") + " ON " + t + " BEGIN UPDATE b SET y=y+1 WHERE id=" + g.pick("1", "2") + "; END"
	case 12:
		return "CREATE VIEW IF NOT EXISTS v2 AS " + g.query()
	case 13:
		return g.pick("ALTER TABLE c ADD COLUMN k"+fmt.Sprint(g.rng.IntN(4))+" DEFAULT 7", "ALTER TABLE c DROP COLUMN k"+fmt.Sprint(g.rng.IntN(4)), "REINDEX", "ANALYZE", "VACUUM", "PRAGMA optimize", "PRAGMA foreign_key_check", "PRAGMA user_version="+fmt.Sprint(g.rng.IntN(9)))
	case 14:
		return g.pick("SAVEPOINT s", "RELEASE s", "ROLLBACK TO s", "BEGIN", "COMMIT", "ROLLBACK")
	case 15: // what the sandbox refuses
		return g.pick("ATTACH 'x' AS y", "PRAGMA journal_mode=WAL", "SELECT * FROM _facetd_keys", "DELETE FROM _facetd_keys", "PRAGMA writable_schema=1",
			"DELETE FROM sqlite_schema", "SELECT load_extension('x')", "VACUUM INTO '/tmp/x'", "CREATE TABLE _facetd_x(y)", "SELECT * FROM sqlite_dbpage")
	case 16: // and what is cut off
		s := g.query()
		return s[:1+g.rng.IntN(len(s)-1)]
	}
	return g.query()
}

const fuzzSchema = `CREATE TABLE a(id INTEGER PRIMARY KEY, x, y, z);
CREATE TABLE b(id INTEGER PRIMARY KEY, x INT UNIQUE, y INT CHECK(y IS NULL OR y<1000000), z TEXT COLLATE NOCASE);
CREATE TABLE c(id INTEGER PRIMARY KEY AUTOINCREMENT, x REFERENCES b(id) ON DELETE CASCADE, y, z, g AS (x+y));
CREATE TABLE w(id, x, y, z, PRIMARY KEY(id, x)) WITHOUT ROWID;
CREATE VIEW v AS SELECT id, x, y, z FROM a WHERE id>3;
INSERT INTO b VALUES(1,1,1,'one'),(2,2,2,'two'),(3,3,3,NULL); INSERT INTO a SELECT * FROM b; INSERT INTO w SELECT * FROM b`

// fuzzed is a facet that random SQL is run in, with a row of idempotency keys to hide.
func fuzzed(t testing.TB) *fixture {
	f := open(t, Limits{StatementTime: 200 * time.Millisecond, MemoryBytes: 16 << 20, FacetBytes: 4 << 20, ResultBytes: 1 << 20})
	f.quiet = true
	f.must(script(fuzzSchema))
	if _, err := f.run(keyed(1, 1, step("UPDATE a SET y=y WHERE id=1"))); err != nil {
		t.Fatal(err)
	}
	return f
}

// sound is what holds after any SQL: nothing is broken, the file is whole, a replica fed
// the commits has the same pages, and the keys are where they were, out of sight.
func (f *fixture) sound(what string) {
	f.t.Helper()
	if err := f.db.Broken(); err != nil {
		f.t.Fatalf("%s\nbroke the facet: %v", what, err)
	}
	if f.db.InTx() {
		f.t.Fatalf("%s\nleft a transaction open", what)
	}
	if got := f.rows("PRAGMA integrity_check"); got != `"ok"` {
		f.t.Fatalf("%s\nintegrity_check: %s", what, got)
	}
	if used := f.db.MemoryUsed(); used > f.limits.MemoryBytes {
		f.t.Fatalf("%s\nSQLite holds %d bytes", what, used)
	}
	f.samePages()
	pos := f.store.Position()
	if _, err := f.run(keyed(1, 1, step("UPDATE a SET y=y WHERE id=1"))); err != nil || f.store.Position() != pos {
		f.t.Fatalf("%s\nthe key is not known any more: %v, %v after %v", what, err, f.store.Position(), pos)
	}
}

// TestGrammar runs the same random statements in the sandbox and in stock SQLite of the
// same library. What both run gives the same, and leaves the same; a rollback leaves
// nothing.
func TestGrammar(t *testing.T) {
	const rounds, statements = 12, 60
	compared, refused, failed := 0, 0, 0
	for round := range rounds {
		rng := newRand(t)
		g := &grammar{rng: rng}
		f := fuzzed(t)
		stock, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "stock.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer stock.Close()
		stock.SetMaxOpenConns(1)
		for _, s := range []string{"PRAGMA foreign_keys=1", fuzzSchema} {
			if _, err := stock.Exec(s); err != nil {
				t.Fatal(err)
			}
		}
		var trail []string
		for range statements {
			s := g.statement()
			trail = append(trail, s)
			word := verbOf([]byte(s))
			before := f.store.Position()
			if rng.IntN(8) == 0 && word != verbTransaction && word != verbSavepoint && word != verbVacuum {
				// In a transaction that is rolled back: nothing may be left.
				if _, err := f.run(&facet.Request{Steps: []facet.Step{step("BEGIN"), step(s), step("ROLLBACK")}}); err != nil {
					t.Logf("round %d: %s: %v", round, s, err)
				}
				if f.store.Position() != before || f.store.Staged() {
					t.Fatalf("round %d: %s\nrolled back, and left %v after %v", round, s, f.store.Position(), before)
				}
			}
			out, err := f.run(&facet.Request{Steps: []facet.Step{step(s)}})
			if err == nil && strings.Contains(out, "error ") {
				err = fmt.Errorf("%s", out)
			}
			if word == verbTransaction || word == verbSavepoint {
				continue // of a connection; a request is none
			}
			if stockOnly(s) {
				if err == nil {
					t.Fatalf("round %d: the sandbox ran %s: %s", round, s, out)
				}
				refused++
				continue
			}
			theirs, serr := queryText(stock, s)
			switch {
			case err != nil && serr != nil:
				failed++
			case (err == nil) != (serr == nil):
				t.Fatalf("round %d: %s\nsandbox: %v\nstock: %v\nafter\n%s", round, s, err, serr, strings.Join(trail, ";\n"))
			default:
				compared++
				if ours := rowCount(out); ours != strings.Count(theirs, "\n") && !strings.Contains(theirs, "\\") {
					t.Fatalf("round %d: %s\n%d rows in the sandbox, %d in stock SQLite\nafter\n%s", round, s, ours, strings.Count(theirs, "\n"), strings.Join(trail, ";\n"))
				}
			}
		}
		f.sound(strings.Join(trail, ";\n"))
		path := f.export()
		if ours, theirs := dumpFile(t, path), dumpDB(t, stock); ours != theirs {
			t.Fatalf("round %d: the sandbox has\n%s\nstock SQLite has\n%s\nafter\n%s", round, ours, theirs, strings.Join(trail, ";\n"))
		}
	}
	t.Logf("%d statements agreed, %d failed in both, %d refused by the sandbox", compared, failed, refused)
	if compared < rounds*statements/2 {
		t.Errorf("only %d of %d statements were compared", compared, rounds*statements)
	}
}

// stockOnly tells what only stock SQLite runs, where it would reach out of its database.
func stockOnly(s string) bool {
	for _, w := range []string{"ATTACH", "journal_mode", "_facetd", "writable_schema", "sqlite_schema", "load_extension", "VACUUM INTO", "sqlite_dbpage"} {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

func rowCount(out string) (n int) {
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "[") && !strings.HasPrefix(line, "done ") {
			n++
		}
	}
	return n
}

// FuzzSQL runs any text as a script, as one atomic statement, and described. Whatever it
// is, it ends in time with a result or an error of facetd's own, and the facet is sound.
func FuzzSQL(f *testing.F) {
	g := &grammar{rng: rand.New(rand.NewPCG(1, 2))}
	for range 60 {
		var b strings.Builder
		for range 1 + g.rng.IntN(4) {
			b.WriteString(g.statement() + ";")
		}
		f.Add(b.String())
	}
	for _, s := range []string{
		"", ";", "\x00", "SELECT 1\x00;DROP TABLE a", "\xff\xfe", "SELECT '\xc3", "/*", "--", "'", "[", "`", "\"",
		"CREATE VIRTUAL TABLE f USING fts5(x);INSERT INTO f VALUES('a b');SELECT highlight(f,0,'<','>') FROM f('a')",
		"CREATE VIRTUAL TABLE r USING rtree(id,a,b);INSERT INTO r VALUES(1,2,3);SELECT * FROM r",
		"CREATE VIRTUAL TABLE g USING geopoly;INSERT INTO g(_shape) VALUES('[[0,0],[1,0],[0,1],[0,0]]')",
		"CREATE TEMP TABLE q AS SELECT * FROM a;INSERT INTO q SELECT * FROM q;DROP TABLE q",
		"CREATE TRIGGER tt AFTER INSERT ON a BEGIN INSERT INTO a(x) VALUES(new.x); END;PRAGMA recursive_triggers=1;INSERT INTO a(x) VALUES(1)",
		"PRAGMA foreign_keys=0;BEGIN;SAVEPOINT s;DELETE FROM b;ROLLBACK TO s;RELEASE s;COMMIT",
		"SELECT json_set('{}','$.a',json('[1,2]')), jsonb('{\"a\":1}') ->> '$.a'",
		"WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r) SELECT sum(i) FROM r",
		"INSERT INTO a(x) SELECT zeroblob(100000) FROM a,b,w", "ALTER TABLE a RENAME TO _facetd_keys", "ALTER TABLE a RENAME COLUMN x TO xx",
		"EXPLAIN QUERY PLAN SELECT * FROM a JOIN b USING(id)", "VACUUM", "REINDEX", "ANALYZE;SELECT * FROM sqlite_stat1", "PRAGMA integrity_check(1)",
		"SELECT strftime('%Y-%m-%d %f','now','+1 month'), printf('%.*c',1000,'x'), unistr('\\u0041')",
	} {
		f.Add(s)
	}
	files := func() string { // what reaches a file by a relative path is seen
		list, err := os.ReadDir(".")
		return fmt.Sprint(list, err)
	}
	there := files()
	f.Fuzz(func(t *testing.T, text string) {
		x := fuzzed(t)
		start := time.Now()
		for _, req := range []facet.Request{
			{Steps: []facet.Step{{SQL: []byte(text), Kind: facet.StepDescribe}}},
			{Steps: []facet.Step{script(text)}},
			{Atomic: true, Steps: []facet.Step{step(text)}},
			{ReadOnly: true, Steps: []facet.Step{script(text)}},
		} {
			req.Timeout = 300 * time.Millisecond
			before := x.store.Position()
			_, err := x.run(&req)
			if (err != nil && req.Atomic || req.ReadOnly) && x.store.Position() != before {
				t.Fatalf("%q: %v, and it left %v after %v", text, err, x.store.Position(), before)
			}
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Fatalf("%q took %v", text, took)
		}
		x.db.SetLimits(0, time.Minute, 0) // what follows is ours
		x.keysHidden(text)
		x.sound(text)
		if now := files(); now != there {
			t.Fatalf("%q left files: %s, there were %s", text, now, there)
		}
	})
}

// keysHidden fails where the schema shows anything but the one table of facetd.
func (f *fixture) keysHidden(what string) {
	f.t.Helper()
	if got := f.rows("SELECT group_concat(name) FROM sqlite_schema WHERE lower(name) GLOB '_facetd*'"); got != `"_facetd_keys"` {
		f.t.Fatalf("%s\nobjects of facetd: %s", what, got)
	}
	if e := f.mustFail(step("SELECT * FROM _facetd_keys")); e.Code != facet.CodeDenied {
		f.t.Fatalf("%s\nthe keys: %v", what, e)
	}
}
