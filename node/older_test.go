package node_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/facetd/facetd/node"
)

// TestOlderCopyIsRefused puts the data directory of a node back as it was before its last
// start. What the node promised and acknowledged since is not in it, so it must not count
// as the member it was (R3). With an empty directory the node is one again.
func TestOlderCopyIsRefused(t *testing.T) {
	f := newFleet(t, 3)
	dir := filepath.Join(f.dir, "n3")
	// restart ends n3, changes something, and starts it.
	restart := func(change func() error) (*node.Node, error) {
		t.Helper()
		if n := f.nodes["n3"]; n != nil {
			stop(t, n)
			delete(f.nodes, "n3")
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		n, err := f.open("n3", 0)
		if err == nil {
			f.nodes["n3"] = n
		}
		return n, err
	}
	older := filepath.Join(t.TempDir(), "n3")
	for range 3 {
		// Starts of the same directory are starts of its latest state.
		if _, err := restart(func() error {
			if err := os.RemoveAll(older); err != nil {
				return err
			}
			return os.CopyFS(older, os.DirFS(dir))
		}); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, f.nodes["n1"], "acme/notes", "CREATE TABLE t (v)")

	// Again and again: that it tried changes nothing.
	for range 2 {
		_, err := restart(func() error {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			return os.CopyFS(dir, os.DirFS(older))
		})
		if err == nil || !strings.Contains(err.Error(), "older copy") || !strings.Contains(err.Error(), "start the node with an empty one") {
			t.Fatalf("an older copy of the directory: %v", err)
		}
		// What the refused start left behind is refused as well.
		older = filepath.Join(t.TempDir(), "n3")
		if err := os.CopyFS(older, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := restart(func() error { return os.RemoveAll(dir) }); err != nil {
		t.Fatalf("with an empty directory: %v", err)
	}
}
