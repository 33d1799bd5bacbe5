package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"

	"github.com/facetd/facetd/client"
	_ "github.com/facetd/facetd/client/sqldriver"
)

// TestGooseAndSQLX migrates a facet up and down with goose and works on it with
// sqlx, both through database/sql.
func TestGooseAndSQLX(t *testing.T) {
	p := start(t, t.TempDir(), freeAddr(t))
	db, err := sql.Open("facetd", "facetd://"+p.addr+"/acme/shop")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	migrations := fstest.MapFS{
		"0001_shop.sql": {Data: []byte(`-- +goose Up
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, price REAL, photo BLOB, added DATETIME);
CREATE TABLE sale (item INTEGER NOT NULL REFERENCES item (id), n INTEGER CHECK (n > 0));
-- +goose StatementBegin
CREATE TRIGGER no_free AFTER INSERT ON item WHEN new.price = 0 BEGIN
  SELECT raise(ABORT, 'nothing is free');
END;
-- +goose StatementEnd
-- +goose Down
DROP TABLE sale;
DROP TABLE item;
`)},
		"0002_index.sql": {Data: []byte("-- +goose Up\nCREATE INDEX sale_item ON sale (item);\n-- +goose Down\nDROP INDEX sale_item;\n")},
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, migrations)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal("goose up:", err)
	}
	if v, err := provider.GetDBVersion(t.Context()); err != nil || v != 2 {
		t.Fatal("goose version:", v, err)
	}

	dbx := sqlx.NewDb(db, "sqlite3")
	type item struct {
		ID    int64           `db:"id"`
		Name  string          `db:"name"`
		Price sql.NullFloat64 `db:"price"`
		Photo []byte          `db:"photo"`
	}
	tx, err := dbx.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range []item{{Name: "tea", Price: sql.NullFloat64{Float64: 2.5, Valid: true}, Photo: []byte{0, 255}}, {Name: "gift"}} {
		if _, err := tx.NamedExec("INSERT INTO item (name, price, photo) VALUES (:name, :price, :photo)", it); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	var got []item
	if err := dbx.Select(&got, "SELECT id, name, price, photo FROM item ORDER BY id"); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Name != "tea" || !bytes.Equal(got[0].Photo, []byte{0, 255}) || got[1].Price.Valid {
		t.Fatalf("%+v", got)
	}
	if _, err := dbx.Exec("INSERT INTO item (name, price) VALUES ('air', 0)"); err == nil || !strings.Contains(err.Error(), "nothing is free") {
		t.Fatal("trigger:", err)
	}
	if _, err := dbx.Exec("INSERT INTO sale VALUES (99, 1)"); err == nil || !strings.Contains(err.Error(), "FOREIGN KEY") {
		t.Fatal("foreign keys are on:", err)
	}
	if _, err := provider.DownTo(t.Context(), 0); err != nil {
		t.Fatal("goose down:", err)
	}
	if err := dbx.Select(&got, "SELECT id, name, price, photo FROM item"); err == nil {
		t.Fatal("the table is still there")
	}
}

// sqlite3 runs the stock shell of SQLite on a file.
func sqlite3(t *testing.T, file, script string) string {
	t.Helper()
	cmd := exec.Command("sqlite3", "-batch", "-bail", file)
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3: %v\n%s", err, out)
	}
	return string(out)
}

// TestRealSQLiteFile brings a file made by stock SQLite in, through the command
// line, and out again; both must hold the same rows. A WAL file with another page
// size is the hard case.
func TestRealSQLiteFile(t *testing.T) {
	if _, err := exec.LookPath("sqlite3"); err != nil {
		t.Skip("the sqlite3 shell is not installed: .ci/run installs it")
	}
	p := start(t, t.TempDir(), freeAddr(t))
	dir := t.TempDir()
	for name, pragmas := range map[string]string{
		"plain":  "",
		"wal":    "PRAGMA page_size=1024; PRAGMA journal_mode=WAL;",
		"vacuum": "PRAGMA page_size=8192; PRAGMA auto_vacuum=FULL;",
	} {
		t.Run(name, func(t *testing.T) {
			in, out := filepath.Join(dir, name+".sqlite"), filepath.Join(dir, name+"-out.sqlite")
			sqlite3(t, in, pragmas+`
CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b BLOB, c REAL);
CREATE INDEX t_a ON t (a);
CREATE VIEW v AS SELECT count(*) AS n FROM t;
CREATE VIRTUAL TABLE f USING fts5(body);
WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<5000)
  INSERT INTO t SELECT i, 'row ' || i, randomblob(i % 300), i / 7.0 FROM n;
INSERT INTO f SELECT a FROM t;
`)
			if text, err := facetd(t, "", "facet", "import", "--server", "http://"+p.addr, "acme/"+name, in); err != nil {
				t.Fatal(text, err)
			}
			if text, err := facetd(t, "", "facet", "export", "--server", "http://"+p.addr, "acme/"+name, out); err != nil {
				t.Fatal(text, err)
			}
			const dump = ".dump t\nSELECT * FROM v; SELECT count(*) FROM f WHERE f MATCH 'row';\nPRAGMA integrity_check;\n"
			want, got := sqlite3(t, in, dump), sqlite3(t, out, dump)
			if want != got {
				t.Fatalf("dumps differ: %d and %d bytes", len(want), len(got))
			}
			if text, err := facetd(t, "", "sql", "--server", "http://"+p.addr, "acme/"+name, "SELECT n FROM v"); err != nil || !strings.Contains(text, "5000") {
				t.Fatal(text, err)
			}
		})
	}
	if text, err := facetd(t, "", "facet", "import", "--server", "http://"+p.addr, "acme/bad", os.Args[0]); err == nil {
		t.Fatal("a program was imported as a database:", text)
	}
}

// TestDump brings a database over as the SQL text that the shell of SQLite prints, as the
// guides for people who come from elsewhere tell.
func TestDump(t *testing.T) {
	if _, err := exec.LookPath("sqlite3"); err != nil {
		t.Skip("the sqlite3 shell is not installed: .ci/run installs it")
	}
	p := start(t, t.TempDir(), freeAddr(t))
	in, out := filepath.Join(t.TempDir(), "in.sqlite"), filepath.Join(t.TempDir(), "out.sqlite")
	sqlite3(t, in, `
CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT, pic BLOB, price REAL);
INSERT INTO note VALUES (1, 'it''s
two lines; and a semicolon', x'00ff', 2.0), (9007199254740993, NULL, NULL, 1e300);
CREATE INDEX note_body ON note (body);
CREATE TRIGGER late AFTER INSERT ON note BEGIN UPDATE note SET price = 0; SELECT 1; END;
`)
	want := sqlite3(t, in, ".dump\n")
	res, err := http.Post("http://"+p.addr+"/v1/db/acme/dumped/exec", "application/sql", strings.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatal("exec of a dump:", res.Status)
	}
	if text, err := facetd(t, "", "facet", "export", "--server", "http://"+p.addr, "acme/dumped", out); err != nil {
		t.Fatal(text, err)
	}
	if got := sqlite3(t, out, ".dump\n"); got != want {
		t.Fatalf("it was\n%s\nand is\n%s", want, got)
	}
}

// TestLibSQLClient runs the stock JavaScript client of libSQL against a real node.
func TestLibSQLClient(t *testing.T) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil || testing.Short() {
			t.Skipf("%s is not installed, or tests are to be short", tool)
		}
	}
	p := start(t, t.TempDir(), freeAddr(t))
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../node/hrana/testdata/libsql-js")); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		} else {
			t.Logf("%s", out)
		}
	}
	run("npm", "ci", "--no-audit", "--no-fund")
	run("node", "test.mjs", "http://"+p.addr+"/v1/db/acme/js/")
}

// TestExample runs the program of the README.
func TestExample(t *testing.T) {
	p := start(t, t.TempDir(), freeAddr(t))
	for i, note := range []string{"buy tea", "drink it"} {
		cmd := exec.CommandContext(t.Context(), "go", "run", "../../examples/notes", note)
		cmd.Env = append(os.Environ(), "FACETD_SERVER="+p.addr)
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Count(string(out), "\n") != i+1 || !strings.Contains(string(out), note) {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}

// TestGracefulStop makes sure that a stopped node leaves everything to the next.
func TestGracefulStop(t *testing.T) {
	dir, addr := t.TempDir(), freeAddr(t)
	p := start(t, dir, addr)
	f, err := dial(t, addr, client.Options{}).Facet("acme/notes")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Script(t.Context(), "CREATE TABLE t (v); INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	if err := p.interrupt(); err != nil {
		t.Fatalf("exit: %v\n%s", err, p.out.String())
	}
	// The file is a plain SQLite database: everything was checkpointed.
	files, err := filepath.Glob(filepath.Join(dir, "data", "facets", "*", "*.db"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if _, err := exec.LookPath("sqlite3"); err == nil {
		if out := sqlite3(t, files[0], "SELECT v FROM t;"); strings.TrimSpace(out) != "1" {
			t.Fatal(out)
		}
	}
	start(t, dir, addr)
	f, err = dial(t, addr, client.Options{}).Facet("acme/notes")
	if err != nil {
		t.Fatal(err)
	}
	var v int
	if err := f.QueryRow(t.Context(), "SELECT v FROM t").Scan(&v); err != nil || v != 1 {
		t.Fatal(v, err)
	}
}
