package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/node"
)

// open starts a node on dir and closes it when the test ends.
func open(t *testing.T, dir string, change func(*node.Config)) *node.Node {
	t.Helper()
	cfg := node.Config{Dir: dir, Listen: "127.0.0.1:0", Insecure: true, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n, err := node.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, n) })
	return n
}

func stop(t *testing.T, n *node.Node) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := n.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// call sends a request and returns status and body.
func call(t *testing.T, n *node.Node, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// exec runs one statement and returns the body of a success.
func exec(t *testing.T, n *node.Node, name, sql string, args ...any) string {
	t.Helper()
	body, err := json.Marshal(map[string]any{"sql": sql, "args": append([]any{}, args...)})
	if err != nil {
		t.Fatal(err)
	}
	status, out := call(t, n, "POST", "/v1/db/"+name+"/exec", string(body))
	if status != 200 {
		t.Fatalf("%s: status %d: %s", sql, status, out)
	}
	return out
}

// TestFirstWriteCreates covers creation by first write, and that nothing else
// creates.
func TestFirstWriteCreates(t *testing.T) {
	n := open(t, t.TempDir(), nil)
	if status, body := call(t, n, "GET", "/v1/facets/acme/notes", ""); status != 404 {
		t.Fatalf("stat: %d %s", status, body)
	}
	exec(t, n, "acme/notes", "SELECT 1")
	if status, body := call(t, n, "GET", "/v1/facets/acme/notes", ""); status != 404 {
		t.Fatalf("a read created the facet: %d %s", status, body)
	}
	exec(t, n, "acme/notes", "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
	exec(t, n, "acme/notes", "INSERT INTO t (v) VALUES (?)", "hello")
	if out := exec(t, n, "acme/notes", "SELECT v FROM t"); !strings.Contains(out, "hello") {
		t.Fatal(out)
	}
	status, body := call(t, n, "GET", "/v1/facets/acme/notes", "")
	if status != 200 || !strings.Contains(body, `"active"`) || !strings.Contains(body, `"node-1"`) {
		t.Fatalf("stat: %d %s", status, body)
	}
}

// TestRestart covers a graceful stop and start: new epoch, same data.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	n := open(t, dir, nil)
	for i := range 20 {
		name := fmt.Sprintf("acme/f%d", i)
		exec(t, n, name, "CREATE TABLE t (v)")
		exec(t, n, name, "INSERT INTO t VALUES (?)", i)
	}
	stop(t, n)
	n = open(t, dir, nil)
	for i := range 20 {
		name := fmt.Sprintf("acme/f%d", i)
		if out := exec(t, n, name, "SELECT v FROM t"); !strings.Contains(out, fmt.Sprint(i)) {
			t.Fatal(out)
		}
		exec(t, n, name, "INSERT INTO t VALUES (?)", i+100)
	}
}

// TestSecondProcessIsKeptOut covers the lock of the data directory.
func TestSecondProcessIsKeptOut(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, nil)
	_, err := node.Open(t.Context(), node.Config{Dir: dir, Listen: "127.0.0.1:0", Insecure: true})
	if err == nil || !strings.Contains(err.Error(), "in use by another facetd process") {
		t.Fatal(err)
	}
}

// hibernated waits until no facet is open.
func hibernated(t *testing.T, n *node.Node) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, body := call(t, n, "GET", "/metrics", "")
		if strings.Contains(body, "\nfacetd_facets_active 0\n") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("facets did not hibernate")
		}
	}
}

// TestHibernate lets facets go idle and wakes them up.
func TestHibernate(t *testing.T) {
	n := open(t, t.TempDir(), func(c *node.Config) { c.IdleAfter = time.Millisecond })
	exec(t, n, "acme/notes", "CREATE TABLE t (v)")
	for i := range 3 {
		exec(t, n, "acme/notes", "INSERT INTO t VALUES (?)", i)
		hibernated(t, n)
	}
	if out := exec(t, n, "acme/notes", "SELECT count(*) AS c FROM t"); !strings.Contains(out, "3") {
		t.Fatal(out)
	}
}

// TestDeleteAndRecreate makes sure that a name never meets its old data.
func TestDeleteAndRecreate(t *testing.T) {
	n := open(t, t.TempDir(), nil)
	for i := range 5 {
		exec(t, n, "acme/notes", "CREATE TABLE t (v)")
		exec(t, n, "acme/notes", "INSERT INTO t VALUES (?)", i)
		if out := exec(t, n, "acme/notes", "SELECT count(*) AS c, max(v) AS m FROM t"); !strings.Contains(out, `"m":`+fmt.Sprint(i)) {
			t.Fatal(out)
		}
		if status, body := call(t, n, "DELETE", "/v1/facets/acme/notes", ""); status/100 != 2 {
			t.Fatalf("delete: %d %s", status, body)
		}
		if status, _ := call(t, n, "GET", "/v1/facets/acme/notes", ""); status != 404 {
			t.Fatal("still there")
		}
	}
	if status, _ := call(t, n, "DELETE", "/v1/facets/acme/notes", ""); status != 404 {
		t.Fatal("deleted what is not there")
	}
}

// TestExportImport brings a facet out, in under another name, and over itself.
// TestClone: a clone holds what its source held, goes its own way, knows where it came
// from, and not what keys were used there (R48).
func TestClone(t *testing.T) {
	dir := t.TempDir()
	n := open(t, dir, nil)
	exec(t, n, "acme/notes", "CREATE TABLE t (v); PRAGMA user_version = 7")
	keyed := `{"sql":"INSERT INTO t VALUES ('once')","key":{"client":"00000000000000000000000000000001","n":1}}`
	for range 2 { // the second one takes no effect
		if status, body := call(t, n, "POST", "/v1/db/acme/notes/exec", keyed); status != 200 {
			t.Fatalf("a write with a key: %d %s", status, body)
		}
	}
	_, source := call(t, n, "GET", "/v1/facets/acme/notes", "")
	var from, made struct {
		Incarnation string
		Lineage     *struct {
			Source, Position string
			Lossy            bool
		}
	}
	status, body := call(t, n, "POST", "/v1/facets/acme/notes/clone", `{"to":"bolt/copy"}`)
	if err := errors.Join(json.Unmarshal([]byte(source), &from), json.Unmarshal([]byte(body), &made)); err != nil || status != 201 {
		t.Fatalf("clone: %d %s, %v", status, body, err)
	}
	if l := made.Lineage; l == nil || l.Source != from.Incarnation || l.Lossy || l.Position == "" || made.Incarnation == from.Incarnation || from.Lineage != nil {
		t.Errorf("lineage: %s of %s", body, source)
	}
	if status, body := call(t, n, "POST", "/v1/facets/acme/notes/clone", `{"to":"bolt/copy"}`); status != 409 || !strings.Contains(body, "clone to another name") {
		t.Errorf("over a facet: %d %s", status, body)
	}
	if status, body := call(t, n, "POST", "/v1/facets/acme/none/clone", `{"to":"bolt/none"}`); status != 404 {
		t.Errorf("of nothing: %d %s", status, body)
	}
	exec(t, n, "acme/notes", "INSERT INTO t VALUES ('at the source')")
	count := func(name, want string) {
		t.Helper()
		if out := exec(t, n, name, "SELECT group_concat(v) AS all_v FROM t"); !strings.Contains(out, `"all_v":"`+want+`"`) {
			t.Errorf("%s holds %s, want %s", name, out, want)
		}
	}
	count("bolt/copy", "once")
	if out := exec(t, n, "bolt/copy", "SELECT user_version AS u FROM pragma_user_version"); !strings.Contains(out, `"u":7`) {
		t.Error(out)
	}
	// The same key at the clone is another request.
	if status, body := call(t, n, "POST", "/v1/db/bolt/copy/exec", keyed); status != 200 {
		t.Fatalf("a write with a key: %d %s", status, body)
	}
	count("bolt/copy", "once,once")
	count("acme/notes", "once,at the source")

	// One that was made and never written to.
	if status, body := call(t, n, "PUT", "/v1/facets/acme/empty", ""); status != 201 {
		t.Fatalf("create: %d %s", status, body)
	}
	if status, body := call(t, n, "POST", "/v1/facets/acme/empty/clone", `{"to":"acme/empty-too"}`); status != 201 {
		t.Fatalf("clone of an empty facet: %d %s", status, body)
	}
	exec(t, n, "acme/empty-too", "CREATE TABLE t (v)")

	stop(t, n)
	n = open(t, dir, nil)
	count("bolt/copy", "once,once")
	if _, after := call(t, n, "GET", "/v1/facets/bolt/copy", ""); !strings.Contains(after, `"lineage":{"source":"`+from.Incarnation) {
		t.Errorf("the lineage is forgotten: %s", after)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "import")); err == nil && len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
}

func TestExportImport(t *testing.T) {
	dir := t.TempDir()
	n := open(t, dir, nil)
	exec(t, n, "acme/notes", "CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
	for i := range 50 {
		exec(t, n, "acme/notes", "INSERT INTO t (v) VALUES (?)", strings.Repeat("x", i*50))
	}
	status, file := call(t, n, "GET", "/v1/facets/acme/notes/export", "")
	if status != 200 || !bytes.HasPrefix([]byte(file), []byte("SQLite format 3\x00")) {
		t.Fatalf("export: %d %.100q", status, file)
	}
	if status, body := call(t, n, "PUT", "/v1/facets/acme/copy/import", file); status/100 != 2 {
		t.Fatalf("import: %d %s", status, body)
	}
	exec(t, n, "acme/copy", "INSERT INTO t (v) VALUES ('new')")
	if out := exec(t, n, "acme/copy", "SELECT count(*) AS c FROM t"); !strings.Contains(out, "51") {
		t.Fatal(out)
	}
	if status, body := call(t, n, "PUT", "/v1/facets/acme/copy/import", file); status != 409 {
		t.Fatalf("import over a facet: %d %s", status, body)
	}
	if status, body := call(t, n, "PUT", "/v1/facets/acme/copy/import?replace=true", file); status/100 != 2 {
		t.Fatalf("replace: %d %s", status, body)
	}
	if out := exec(t, n, "acme/copy", "SELECT count(*) AS c FROM t"); !strings.Contains(out, "50") {
		t.Fatal(out)
	}
	if status, body := call(t, n, "PUT", "/v1/facets/acme/bad/import", "SQLite format 3\x00 and then rubbish"); status/100 != 4 {
		t.Fatalf("import of rubbish: %d %s", status, body)
	}
	if status, _ := call(t, n, "GET", "/v1/facets/acme/bad", ""); status != 404 {
		t.Fatal("a refused import left a facet")
	}
	stop(t, n)
	n = open(t, dir, nil)
	if out := exec(t, n, "acme/copy", "SELECT count(*) AS c FROM t"); !strings.Contains(out, "50") {
		t.Fatal(out)
	}
}
