package engine

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
)

// makeFile makes a database file with the stock driver.
func makeFile(t *testing.T, stmts ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "up.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	for _, s := range stmts {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImport(t *testing.T) {
	for _, pragma := range []string{"PRAGMA page_size=4096", "PRAGMA page_size=512", "PRAGMA page_size=65536", "PRAGMA journal_mode=WAL", "PRAGMA auto_vacuum=FULL"} {
		t.Run(pragma, func(t *testing.T) {
			src := makeFile(t, pragma, "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE, b BLOB)",
				"WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<500) INSERT INTO t SELECT i,'v'||i,randomblob(i*3) FROM r",
				"DELETE FROM t WHERE id%3=0", "CREATE VIRTUAL TABLE ft USING fts5(x)", "INSERT INTO ft SELECT v FROM t",
				"CREATE VIRTUAL TABLE rt USING rtree(id,a,b)", "CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM ft; END",
				"CREATE VIEW w AS SELECT count(*) n FROM t", "PRAGMA user_version=42")
			want := dumpFile(t, src)
			dst := filepath.Join(t.TempDir(), "new.db")
			im, err := ConvertImport(context.Background(), src, dst, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if got := dumpFile(t, dst); got != want {
				t.Fatalf("got\n%s\nwant\n%s", got, want)
			}
			// The file is the base of a facet: its sum fits, and it works.
			data, err := os.ReadFile(dst)
			if err != nil {
				t.Fatal(err)
			}
			if len(data) != int(im.Pages)*pages.Size {
				t.Fatalf("%d bytes, %d pages", len(data), im.Pages)
			}
			file := &memFile{data: data}
			store := pages.New(pages.Base{Position: facet.Position{Epoch: 1, Seq: 1, Sum: im.Sum}, Pages: im.Pages}, func() (pages.File, error) { return file, nil })
			db, err := Open(Options{ID: facet.NewIncarnation(), Epoch: 1, Store: store, Commits: func(*facet.Commit) error { return nil }})
			if err != nil {
				t.Fatal(err)
			}
			var resp facet.Response
			if err := db.Run(&facet.Request{Atomic: true, Steps: []facet.Step{step("INSERT INTO t VALUES(10000,'x',x'00')"), step("SELECT n FROM w"), step("SELECT count(*) FROM ft"), step("PRAGMA user_version")}}, &resp); err != nil {
				t.Fatal(err)
			}
			if out := render(t, resp.Result); !strings.Contains(out, "\n335\n") || !strings.Contains(out, "\n0\n") || !strings.Contains(out, "\n42\n") {
				t.Fatal(out)
			}
			if c := store.Checkpoint(); c.Write() != nil {
				t.Fatal("the sum of the import does not fit its pages")
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestImportRefuses(t *testing.T) {
	patch := func(path string, off int64, b ...byte) string {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := func(more ...string) string {
		return makeFile(t, append([]string{"CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "CREATE INDEX i ON t(v)",
			"WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<2000) INSERT INTO t SELECT i,randomblob(50) FROM r"}, more...)...)
	}
	schema := func(typ, name, tbl, text string) string {
		return good("PRAGMA writable_schema=1", fmt.Sprintf("INSERT INTO sqlite_schema VALUES('%s','%s','%s',0,'%s')", typ, name, tbl, text))
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, bytes.Repeat([]byte("hello "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cut := good()
	if err := os.Truncate(cut, 5000); err != nil {
		t.Fatal(err)
	}
	short := good()
	if err := os.Truncate(short, 3*4096); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want string }{
		{"no database", text, "not an SQLite database"},
		{"empty", empty, "shorter than the header"},
		{"cut", cut, "whole pages"},
		{"too few pages", short, "cannot be imported"},
		{"page size", patch(good(), 16, 0x12, 0x34), "page size"},
		{"format", patch(good(), 18, 9), "format versions"},
		{"schema format", patch(good(), 44, 0, 0, 0, 99), "cannot be imported"},
		{"UTF-16", makeFile(t, "PRAGMA encoding='UTF-16'", "CREATE TABLE t(x)"), "UTF-16"},
		{"garbage page", patch(good(), 4096*2, bytes.Repeat([]byte{0xab}, 4096)...), "cannot be imported"},
		{"garbage cells", patch(good(), 4096*3+3, 0xff, 0xff, 0xff, 0xff), "integrity_check"},
		{"freelist", patch(good(), 32, 0, 0, 0, 2, 0, 0, 0, 9), "integrity_check"},
		{"reserved table", good("CREATE TABLE _FACETD_x(y)"), "belongs to facetd"},
		{"reserved index", good("CREATE INDEX _facetd_i ON t(v)"), "belongs to facetd"},
		{"reserved module", schema("table", "_facetd_keys", "_facetd_keys", "CREATE VIRTUAL TABLE _facetd_keys USING sqlite_dbpage"), "module sqlite_dbpage"},
		{"module", schema("table", `x "using fts5`, `x "using fts5`, `CREATE VIRTUAL TABLE "x ""using fts5" USING/**/"csv"(a)`), "module csv"},
		{"dbstat", schema("table", "x", "x", `CREATE VIRTUAL TABLE x USING dbstat`), "module dbstat"},
		{"schema text", schema("table", "x", "x", `CREATE TABLE x(`), "cannot be imported"},
		{"schema root", good("PRAGMA writable_schema=1", "UPDATE sqlite_schema SET rootpage=999999 WHERE name='t'"), "cannot be imported"},
		{"same root", good("CREATE TABLE u(x)", "PRAGMA writable_schema=1", "UPDATE sqlite_schema SET rootpage=2 WHERE name='u'"), "cannot be imported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dst := filepath.Join(t.TempDir(), "new.db")
			_, err := ConvertImport(context.Background(), c.path, dst, Limits{})
			var fe *facet.Error
			if !errors.As(err, &fe) || fe.Code != facet.CodeNotAcceptable || !strings.Contains(fe.Message, c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if cerr := CheckImport(context.Background(), c.path, Limits{}); cerr == nil {
				t.Error("CheckImport accepts it")
			}
			if _, serr := os.Stat(dst); serr == nil {
				t.Error("a file was left behind")
			}
		})
	}
	if err := CheckImport(context.Background(), good(), Limits{FacetBytes: 8192}); !errors.Is(err, facet.ErrLimit) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := CheckImport(ctx, good(), Limits{}); !errors.Is(err, facet.ErrCanceled) {
		t.Error(err)
	}
}

// TestImportRandomDamage flips bytes of a sound file: it is refused, or what comes
// out is sound.
func TestImportRandomDamage(t *testing.T) {
	src := makeFile(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "CREATE INDEX i ON t(v)", "CREATE VIRTUAL TABLE ft USING fts5(x)",
		"WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<200) INSERT INTO t SELECT i,randomblob(50) FROM r",
		"INSERT INTO ft SELECT hex(v) FROM t")
	data, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	rng := newRand(t)
	accepted := 0
	for n := range 150 {
		bad := bytes.Clone(data)
		for range 1 + rng.IntN(4) {
			at := rng.IntN(len(bad))
			if rng.IntN(2) == 0 {
				at = at/pages.Size*pages.Size + rng.IntN(120) // where the structure is
			}
			if rng.IntN(4) == 0 && at+4 < len(bad) {
				binary.BigEndian.PutUint32(bad[at:], rng.Uint32())
			} else {
				bad[at] ^= 1 << rng.IntN(8)
			}
		}
		dir := t.TempDir()
		path, dst := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ConvertImport(context.Background(), path, dst, Limits{})
		if err != nil {
			var fe *facet.Error
			if !errors.As(err, &fe) || fe.Code != facet.CodeNotAcceptable && fe.Code != facet.CodeLimit {
				t.Fatalf("try %d: %v", n, err)
			}
			continue
		}
		accepted++
		if got := queryFile(t, dst, "PRAGMA integrity_check"); got != "ok\n" {
			t.Fatalf("try %d: %s", n, got)
		}
	}
	t.Logf("%d of 150 damaged files were still sound", accepted)
}

// TestExportImport: an exported facet with keys is importable, without its keys.
func TestExportImport(t *testing.T) {
	f := open(t, Limits{})
	f.must(script("CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE VIRTUAL TABLE ft USING fts5(x); INSERT INTO ft VALUES('some text')"))
	if _, err := f.run(keyed(1, 1, step("INSERT INTO t(v) VALUES('secret of the client')"))); err != nil {
		t.Fatal(err)
	}
	path := f.export()
	dst := filepath.Join(t.TempDir(), "new.db")
	if _, err := ConvertImport(context.Background(), path, dst, Limits{}); err != nil {
		t.Fatal(err)
	}
	if got := queryFile(t, dst, "SELECT name FROM sqlite_schema WHERE name LIKE '%facetd%'"); got != "" {
		t.Fatal(got)
	}
	if got := queryFile(t, dst, "SELECT v,x FROM t,ft"); got != "secret of the client|some text\n" {
		t.Fatal(got)
	}
}

// export writes a snapshot of the facet to a file.
func (f *fixture) export() string {
	f.t.Helper()
	sn, err := f.store.Snapshot()
	if err != nil {
		f.t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := sn.WriteTo(&b); err != nil {
		f.t.Fatal(err)
	}
	if err := sn.Close(); err != nil {
		f.t.Fatal(err)
	}
	path := filepath.Join(f.t.(*testing.T).TempDir(), "export.db")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// queryFile runs one query on a file with the stock driver.
func queryFile(t *testing.T, path, query string) string {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	out, err := queryText(db, query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return out
}

func queryText(db interface {
	Query(string, ...any) (*sql.Rows, error)
}, query string) (string, error) {
	rows, err := db.Query(query)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		return "", err
	}
	vals, ptrs := make([]any, len(cols)), make([]any, len(cols))
	for i := range vals {
		ptrs[i] = &vals[i]
	}
	var b strings.Builder
	for rows.Next() {
		if err := rows.Scan(ptrs...); err != nil {
			return "", err
		}
		for i, v := range vals {
			if i > 0 {
				b.WriteByte('|')
			}
			switch v := v.(type) {
			case []byte:
				fmt.Fprintf(&b, "x'%x'", v)
			default:
				fmt.Fprint(&b, v)
			}
		}
		b.WriteByte('\n')
	}
	return b.String(), rows.Err()
}

// dumpFile renders schema and content of every table that is not a shadow table.
func dumpFile(t *testing.T, path string) string {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	return dumpDB(t, db)
}

func dumpDB(t *testing.T, db *sql.DB) string {
	t.Helper()
	var b strings.Builder
	get := func(q string) string {
		out, err := queryText(db, q)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		return out
	}
	b.WriteString(get("SELECT type,name,tbl_name,sql FROM sqlite_schema WHERE substr(name,1,7)!='_facetd' ORDER BY type,name"))
	for _, name := range strings.Fields(get("SELECT name FROM pragma_table_list WHERE schema='main' AND type IN('table','virtual') AND name NOT LIKE 'sqlite_s%' AND substr(name,1,7)!='_facetd' ORDER BY 1")) {
		lines := strings.SplitAfter(get("SELECT * FROM \""+name+"\""), "\n")
		slices.Sort(lines)
		fmt.Fprintf(&b, "-- %s\n%s", name, strings.Join(lines, ""))
	}
	return b.String()
}
