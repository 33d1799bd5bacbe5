package engine

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	sqlite3 "modernc.org/sqlite"

	"github.com/facetd/facetd/facet"
)

// newRand prints the seed it uses; FACETD_SEED repeats a run.
func newRand(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("FACETD_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("FACETD_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// program makes random SQL that fails now and then, as programs do.
type program struct {
	*rand.Rand
	tx bool
}

func (p *program) table() string { return [...]string{"a", "b", "c", "w"}[p.IntN(4)] }

func (p *program) value() string {
	switch p.IntN(7) {
	case 0:
		return "NULL"
	case 1:
		return strconv.Itoa(p.IntN(50))
	case 2:
		return fmt.Sprintf("%g", p.NormFloat64()*100)
	case 3:
		return fmt.Sprintf("'text %d'", p.IntN(1000))
	case 4:
		return fmt.Sprintf("x'%x'", p.Uint32())
	case 5:
		return fmt.Sprintf("zeroblob(%d)", p.IntN(20000))
	default:
		return fmt.Sprintf("printf('%%.*c',%d,'%c')", p.IntN(9000), 'a'+rune(p.IntN(26)))
	}
}

func (p *program) next() string {
	t := p.table()
	id := p.IntN(60)
	switch p.IntN(34) {
	case 0:
		return fmt.Sprintf("CREATE TABLE %s(id INTEGER PRIMARY KEY, x, y %s)", t, [...]string{"", "UNIQUE", "REFERENCES a ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED", "REFERENCES b(id)"}[p.IntN(4)])
	case 1:
		return fmt.Sprintf("CREATE TABLE %s(id PRIMARY KEY, x, y) WITHOUT ROWID", t)
	case 2:
		return "DROP TABLE " + t
	case 3:
		return fmt.Sprintf("CREATE INDEX i%d ON %s(%s)", p.IntN(4), t, [...]string{"x", "y,x", "length(x)", "x) WHERE (y IS NOT NULL"}[p.IntN(4)])
	case 4:
		return fmt.Sprintf("DROP INDEX i%d", p.IntN(4))
	case 5:
		return fmt.Sprintf("CREATE TRIGGER g%d AFTER %s ON %s BEGIN INSERT INTO l VALUES('%s'); END", p.IntN(3), [...]string{"INSERT", "UPDATE", "DELETE"}[p.IntN(3)], t, t)
	case 6:
		return fmt.Sprintf("DROP TRIGGER g%d", p.IntN(3))
	case 7:
		return [...]string{"VACUUM", "ANALYZE", "REINDEX", "PRAGMA user_version=" + strconv.Itoa(id), "PRAGMA incremental_vacuum"}[p.IntN(5)]
	case 8:
		return fmt.Sprintf("ALTER TABLE %s %s", t, [...]string{"ADD COLUMN z DEFAULT 5", "DROP COLUMN z", "RENAME COLUMN x TO xx", "RENAME COLUMN xx TO x"}[p.IntN(4)])
	case 9, 10:
		if p.tx = !p.tx; p.tx {
			return [...]string{"BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"}[p.IntN(3)]
		}
		return [...]string{"COMMIT", "ROLLBACK", "END"}[p.IntN(3)]
	case 11:
		return fmt.Sprintf("SAVEPOINT s%d", p.IntN(3))
	case 12:
		return fmt.Sprintf("RELEASE s%d", p.IntN(3))
	case 13:
		return fmt.Sprintf("ROLLBACK TO s%d", p.IntN(3))
	case 14:
		return fmt.Sprintf("DELETE FROM %s", t)
	case 15:
		return fmt.Sprintf("DELETE FROM %s WHERE id%%%d=0", t, 2+p.IntN(4))
	case 16:
		return fmt.Sprintf("INSERT INTO %s(id,x,y) SELECT i+%d,%s,i FROM (WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<%d) SELECT i FROM r)", t, id*100, p.value(), 1+p.IntN(120))
	case 17, 18:
		return fmt.Sprintf("UPDATE %s SET x=%s WHERE id%%%d=%d", t, p.value(), 1+p.IntN(5), p.IntN(3))
	case 19:
		return fmt.Sprintf("INSERT OR %s INTO %s(id,x,y) VALUES(%d,%s,1),(%d,2,1),(%d,3,1)", [...]string{"FAIL", "IGNORE", "REPLACE", "ROLLBACK", "ABORT"}[p.IntN(5)], t, id, p.value(), id+1, id)
	case 20:
		return fmt.Sprintf("INSERT INTO ft(ft, rank) VALUES('%s',%d)", [...]string{"merge", "automerge"}[p.IntN(2)], 1+p.IntN(8))
	case 21, 22:
		return fmt.Sprintf("INSERT INTO ft(rowid,q) VALUES(%d,'word%d word%d other')", id, p.IntN(20), p.IntN(20))
	case 23:
		return fmt.Sprintf("DELETE FROM ft WHERE rowid=%d", id)
	case 24:
		return fmt.Sprintf("SELECT rowid,q FROM ft WHERE ft MATCH 'word%d' ORDER BY rowid", p.IntN(20))
	case 25:
		return fmt.Sprintf("INSERT OR REPLACE INTO rt VALUES(%d,%d,%d)", id, id, id+p.IntN(9))
	case 26:
		return fmt.Sprintf("SELECT id,p,q FROM rt WHERE p>%d ORDER BY id", id)
	case 27:
		return fmt.Sprintf("SELECT json_group_array(json_object('i',id,'x',typeof(x))) FROM (SELECT * FROM %s ORDER BY id)", t)
	case 28:
		return fmt.Sprintf("SELECT id,x,y FROM %s ORDER BY id LIMIT 20", t)
	default:
		return fmt.Sprintf("INSERT INTO %s(id,x,y) VALUES(%s,%s,%d)", t, [...]string{strconv.Itoa(id), "NULL"}[p.IntN(2)], p.value(), p.IntN(60))
	}
}

// TestSameAsSQLite runs random programs through the engine and through stock
// SQLite: the same rows and errors come out, at the end the same database, and a
// replica fed only the commits equals the original page for page after each one.
func TestSameAsSQLite(t *testing.T) {
	programs, length := 25, 150
	if testing.Short() {
		programs = 5
	}
	rng := newRand(t)
	for n := range programs {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			f := open(t, Limits{})
			stock, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "stock.db")+"?_pragma=foreign_keys(1)&_pragma=journal_mode(memory)&_pragma=synchronous(off)&_pragma=trusted_schema(0)")
			if err != nil {
				t.Fatal(err)
			}
			defer stock.Close()
			stock.SetMaxOpenConns(1)
			p := &program{Rand: rng}
			both := func(q string) {
				out, err := f.run(&facet.Request{KeepTx: true, Steps: []facet.Step{step(q)}})
				if err != nil {
					t.Fatalf("%s: %v", q, err)
				}
				want, werr := stockRun(stock, q)
				if got := plain(out); got != want {
					t.Fatalf("%s:\ngot  %.2000s\nwant %.2000s (%v)", q, got, want, werr)
				}
				if f.db.InTx() {
					return
				}
				p.tx = false
			}
			for _, q := range []string{"CREATE TABLE l(t)", "CREATE TABLE a(id INTEGER PRIMARY KEY, x, y)", "CREATE TABLE b(id INTEGER PRIMARY KEY, x, y UNIQUE)",
				"CREATE VIRTUAL TABLE ft USING fts5(q)", "CREATE VIRTUAL TABLE rt USING rtree(id,p,q)"} {
				both(q)
			}
			for i := range length {
				both(p.next())
				if i%40 == 39 && !f.db.InTx() && rng.IntN(2) == 0 {
					f.reopen()
				}
			}
			if f.db.InTx() {
				both("ROLLBACK")
			}
			both("PRAGMA integrity_check")
			f.samePages()
			path := f.export()
			if got, want := dumpFile(t, path), dumpDB(t, stock); got != want {
				t.Fatalf("databases differ:\n%.3000s\n---\n%.3000s", got, want)
			}
			if got := queryFile(t, path, "PRAGMA integrity_check"); got != "ok\n" {
				t.Fatal(got)
			}
			if f.commits < 5 {
				t.Errorf("only %d commits", f.commits)
			}
		})
	}
}

// plain reduces what the engine answered to rows, or the code of the error.
func plain(out string) string {
	var b strings.Builder
	for line := range strings.Lines(out) {
		switch {
		case strings.HasPrefix(line, "error "):
			return "error " + line[strings.Index(line, ": ")+2:]
		case !strings.HasPrefix(line, "[") && !strings.HasPrefix(line, "done "):
			b.WriteString(line)
		}
	}
	return b.String()
}

func stockRun(db *sql.DB, q string) (string, error) {
	rows, err := db.Query(q)
	if err == nil {
		defer rows.Close()
		var cols []string
		if cols, err = rows.Columns(); err == nil {
			vals, ptrs := make([]any, len(cols)), make([]any, len(cols))
			for i := range vals {
				ptrs[i] = &vals[i]
			}
			var b strings.Builder
			for rows.Next() && len(cols) > 0 {
				if err = rows.Scan(ptrs...); err != nil {
					break
				}
				for i, v := range vals {
					if i > 0 {
						b.WriteByte('|')
					}
					switch v := v.(type) {
					case nil:
						b.WriteString("NULL")
					case int64:
						fmt.Fprint(&b, v)
					case float64:
						fmt.Fprintf(&b, "%g", v)
					case string:
						fmt.Fprintf(&b, "%q", v)
					case []byte:
						fmt.Fprintf(&b, "x'%x'", v)
					}
				}
				b.WriteByte('\n')
			}
			if err == nil {
				err = rows.Err()
			}
			if err == nil {
				return b.String(), nil
			}
		}
	}
	if se, ok := errors.AsType[*sqlite3.Error](err); ok {
		msg := se.Error()
		// "SQL logic error: no such table: x (1)" is what the driver makes of it.
		if i := strings.LastIndex(msg, " ("); i > 0 {
			msg = msg[:i]
		}
		if _, m, ok := strings.Cut(msg, ": "); ok {
			msg = m
		}
		return "error " + msg + "\n", err
	}
	return "error " + err.Error() + "\n", err
}
