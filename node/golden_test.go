package node_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/node"
)

var update = flag.Bool("update", false, "write the golden data directory anew: only before a release whose formats differ, under another name")

// goldenDir is the data directory of a node that was killed, as the first release wrote
// it. It is read by every later one.
const goldenDir = "testdata/data-v1.tar.gz"

// goldenBookmark is one the node gave before it was killed.
const goldenBookmark = "testdata/data-v1.bookmark"

// fileSize is the PAX record of a file that ends in zeros, which the archive leaves out:
// segments of the commit log are zeroed ahead.
const fileSize = "FACETD.size"

// want calls and wants a status.
func want(t *testing.T, n *node.Node, status int, method, path, body string) string {
	t.Helper()
	got, out := call(t, n, method, path, body)
	if got != status {
		t.Fatalf("%s %s %s: status %d, want %d: %s", method, path, body, got, status, out)
	}
	return out
}

// keyed runs a statement under an idempotency key.
func keyed(t *testing.T, n *node.Node, name, key, sql string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+n.Addr().String()+"/v1/db/"+name+"/exec", strings.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Idempotency-Key", key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s %v", sql, res.StatusCode, b, err)
	}
	return string(b)
}

// writeGolden makes a data directory with something of everything in it, and packs it as
// it is while the node runs: what kill -9 would leave.
func writeGolden(t *testing.T) {
	dir := t.TempDir()
	n := open(t, dir, func(c *node.Config) { c.IdleAfter = 300 * time.Millisecond })
	const notes = "acme/notes"
	exec(t, n, notes, "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL, data BLOB, size REAL AS (length(data) * 0.5), UNIQUE (text))")
	exec(t, n, notes, "CREATE TABLE log (what TEXT) STRICT")
	exec(t, n, notes, "CREATE TRIGGER noted AFTER INSERT ON note BEGIN INSERT INTO log VALUES ('note ' || new.id); END")
	exec(t, n, notes, "CREATE VIEW long AS SELECT id FROM note WHERE length(data) > 3000")
	exec(t, n, notes, "CREATE VIRTUAL TABLE words USING fts5(text)")
	exec(t, n, notes, "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1)")
	exec(t, n, notes, "INSERT INTO boxes VALUES (1, 2, 3)")
	exec(t, n, notes, "INSERT INTO words SELECT 'the quick brown fox'")
	exec(t, n, notes, "WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 60) INSERT INTO note (text, data) SELECT 'note ' || n, zeroblob(n * 100) FROM i")
	exec(t, n, "acme/gone", "CREATE TABLE t (v)")
	want(t, n, 204, "DELETE", "/v1/facets/acme/gone", "")
	exec(t, n, "acme/again", "CREATE TABLE old (v)")
	want(t, n, 204, "DELETE", "/v1/facets/acme/again", "")
	exec(t, n, "acme/again", "CREATE TABLE new (v)")
	want(t, n, 201, "POST", "/v1/facets/acme/notes/clone", `{"to":"beta/copy"}`)
	exec(t, n, "cold/f", "CREATE TABLE t AS SELECT 'frozen' AS v")
	want(t, n, 200, "PUT", "/v1/tenants/cold/freeze", `{"reads":true}`)
	want(t, n, 200, "PATCH", "/v1/tenants/beta", `{"facets":1}`)
	// Idle facets go to their files; what comes then is in the log only.
	hibernated(t, n)
	keyed(t, n, notes, "order-17", "INSERT INTO note (id, text) VALUES (1000, 'once')")
	out := want(t, n, 200, "POST", "/v1/db/acme/notes/exec", `{"sql":"UPDATE note SET data = x'0102' WHERE id = 3","bookmark":true}`)
	mark := regexp.MustCompile(`"bookmark":"(fb1\w+)"`).FindStringSubmatch(out)
	if mark == nil {
		t.Fatal(out)
	}
	if err := os.WriteFile(goldenBookmark, []byte(mark[1]+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := pack(dir, goldenDir); err != nil {
		t.Fatal(err)
	}
}

func pack(dir, file string) error {
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	w := tar.NewWriter(zip)
	root := os.DirFS(dir)
	err = fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		if d.IsDir() {
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: path, Mode: 0o700})
		}
		b, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		trimmed := bytes.TrimRight(b, "\x00")
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o600, Size: int64(len(trimmed)),
			PAXRecords: map[string]string{fileSize: strconv.Itoa(len(b))}}); err != nil {
			return err
		}
		_, err = w.Write(trimmed)
		return err
	})
	if err := errors.Join(err, w.Close(), zip.Close()); err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}

// unpack makes a data directory of an archive of pack.
func unpack(t *testing.T, file string) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if err == io.EOF {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o700)
		} else if b, failed := io.ReadAll(r); failed != nil {
			err = failed
		} else if err = os.WriteFile(path, b, 0o600); err == nil {
			var size int64
			if size, err = strconv.ParseInt(h.PAXRecords[fileSize], 10, 64); err == nil {
				err = os.Truncate(path, size)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestGoldenData opens what the first release left behind and wants all of it: schemas,
// values, keys, bookmarks, deletions, lineage, settings of tenants. Then it goes on
// writing, and starts once more from what it wrote.
func TestGoldenData(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	dir := unpack(t, goldenDir)
	mark, err := os.ReadFile(goldenBookmark)
	if err != nil {
		t.Fatal(err)
	}
	for life := range 2 {
		n := open(t, dir, nil)
		for _, c := range []struct{ facet, sql, want string }{
			{"acme/notes", "PRAGMA integrity_check", `"ok"`},
			{"acme/notes", "SELECT format('%d %d %g', count(*), sum(length(data)), sum(size)) FROM note", fmt.Sprintf(`"%d 182702 91351"`, 61+life)},
			{"acme/notes", "SELECT group_concat(text || ' ' || hex(data), ', ') FROM note WHERE id IN (3, 60)", `"note 3 0102, note 60 ` + strings.Repeat("00", 6000) + `"`},
			{"acme/notes", "SELECT text FROM note WHERE id = 1000", `"once"`},
			{"acme/notes", "SELECT count(*) FROM long", `:30}`},
			{"acme/notes", "SELECT count(*) FROM log", fmt.Sprintf(":%d}", 61+life)},
			{"acme/notes", "SELECT text FROM words WHERE words MATCH 'fox'", `"the quick brown fox"`},
			{"acme/notes", "SELECT x1 FROM boxes WHERE x0 < 3", `:3.0}`},
			{"acme/again", "SELECT group_concat(name) FROM sqlite_schema", `:"new"}`},
			{"beta/copy", "SELECT count(*) FROM note", `:60}`},
			{"beta/copy", "PRAGMA integrity_check", `"ok"`},
		} {
			if out := exec(t, n, c.facet, c.sql); !strings.Contains(out, c.want) {
				t.Errorf("life %d: %s: %s: %s, want %s", life, c.facet, c.sql, out, c.want)
			}
		}
		want(t, n, 404, "GET", "/v1/facets/acme/gone", "")
		if out := want(t, n, 200, "GET", "/v1/facets/beta/copy", ""); !strings.Contains(out, `"lineage"`) {
			t.Error("the clone has no lineage:", out)
		}
		if status, out := call(t, n, "POST", "/v1/db/cold/f/exec", `{"sql":"INSERT INTO t VALUES (1)"}`); !strings.Contains(out, "tenant_frozen") {
			t.Error("the frozen tenant writes:", status, out)
		}
		if status, out := call(t, n, "POST", "/v1/db/beta/second/exec", `{"sql":"CREATE TABLE t (v)"}`); !strings.Contains(out, "limit facets = 1") {
			t.Error("the tenant makes more facets than it may:", status, out)
		}
		// The key is of a write before the kill: it takes no effect again.
		keyed(t, n, "acme/notes", "order-17", "INSERT INTO note (id, text) VALUES (1000, 'once')")
		want(t, n, 200, "POST", "/v1/db/acme/notes/exec", fmt.Sprintf(`{"sql":"SELECT 1","bookmark":%q}`, strings.TrimSpace(string(mark))))
		exec(t, n, "acme/notes", "INSERT INTO note (id, text) VALUES (?, ?)", 2000+life, fmt.Sprint("life ", life))
		stop(t, n)
	}
}
