package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/facetd/facetd/node"
)

// TestRecover recovers a node by force: what was there is there, in a new
// generation of the cluster, as often as it is done.
func TestRecover(t *testing.T) {
	dir := t.TempDir()
	n := open(t, dir, nil)
	exec(t, n, "acme/notes", "CREATE TABLE t (v)")
	exec(t, n, "acme/notes", "INSERT INTO t VALUES (17)")
	if _, err := node.Recover(dir, true); err == nil || !strings.Contains(err.Error(), "in use by another facetd process") {
		t.Fatalf("a node that runs: %v", err)
	}
	if _, err := node.Rejoin(dir); err == nil || !strings.Contains(err.Error(), "in use by another facetd process") {
		t.Fatalf("a node that runs: %v", err)
	}
	stop(t, n)
	for range 2 {
		r, err := node.Recover(dir, true)
		if err != nil || r.Log.Node != "node-1" || r.Log.Generation != 1 || r.Facets != -1 || !strings.Contains(r.String(), "would become the only voter") || strings.Contains(r.String(), "table holds") {
			t.Fatalf("dry run: %v, %v", r.String(), err)
		}
	}
	for i := range uint32(2) {
		r, err := node.Recover(dir, false)
		if err != nil || r.Log.Generation != i+1 || r.Facets != 1 || r.Held != 1 || !strings.Contains(r.String(), "holds 1 facets; this node keeps a copy of 1") {
			t.Fatalf("%v, %v", r.String(), err)
		}
	}
	n = open(t, dir, nil)
	if out := exec(t, n, "acme/notes", "SELECT v FROM t"); !strings.Contains(out, "17") {
		t.Fatal(out)
	}
	exec(t, n, "acme/notes", "INSERT INTO t VALUES (18)")
}

// TestRejoin sets a placement log aside, which leaves everything else.
func TestRejoin(t *testing.T) {
	dir := t.TempDir()
	n := open(t, dir, nil)
	exec(t, n, "acme/notes", "CREATE TABLE t (v)")
	stop(t, n)
	aside, err := node.Rejoin(dir)
	if err != nil || filepath.Dir(aside) != dir {
		t.Fatalf("%q, %v", aside, err)
	}
	for _, there := range []string{filepath.Join(dir, "REJOIN"), filepath.Join(dir, "data"), aside} {
		if _, err := os.Stat(there); err != nil {
			t.Error(err)
		}
	}
	if _, err := node.Rejoin(dir); err == nil || !strings.Contains(err.Error(), "set aside already") {
		t.Errorf("twice: %v", err)
	}
	if _, err := node.Recover(dir, false); err == nil || !strings.Contains(err.Error(), "recovered elsewhere") {
		t.Errorf("recovered after it was set aside: %v", err)
	}
}

func TestRecoverRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []func(string, bool) error{
		func(d string, dry bool) error { _, err := node.Recover(d, dry); return err },
		func(d string, _ bool) error { _, err := node.Rejoin(d); return err },
	} {
		if err := f(filepath.Join(dir, "none"), true); err == nil || !strings.Contains(err.Error(), "is not the data directory of a node") {
			t.Errorf("no directory: %v", err)
		}
		if err := f(dir, false); err == nil || strings.Contains(err.Error(), "there is one in") {
			t.Errorf("an empty directory: %v", err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("they left %v, %v", left, err)
	}
	one := filepath.Join(dir, "node-1")
	n := open(t, one, nil)
	stop(t, n)
	if _, err := node.Recover(dir, true); err == nil || !strings.Contains(err.Error(), "there is one in "+one) {
		t.Errorf("the directory above: %v", err)
	}
}
