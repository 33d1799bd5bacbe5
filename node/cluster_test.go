package node_test

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/node"
)

// fleet is a cluster of real nodes on loopback.
type fleet struct {
	t     *testing.T
	dir   string
	ports map[cluster.NodeID][3]string
	nodes map[cluster.NodeID]*node.Node
	join  []string

	change   func(*node.Config) // of every node that is opened
	patience time.Duration      // with one that is opened; a minute when zero
}

// freePorts gives addresses that were free a moment ago.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	return newFleetWith(t, n, func(*node.Config) {})
}

func newFleetWith(t *testing.T, n int, change func(*node.Config)) *fleet {
	t.Helper()
	f := &fleet{t: t, change: change, dir: t.TempDir(), ports: map[cluster.NodeID][3]string{}, nodes: map[cluster.NodeID]*node.Node{}}
	p := freePorts(t, 3*n)
	for i := range n {
		id := cluster.NodeID(fmt.Sprintf("n%d", i+1))
		f.ports[id] = [3]string(p[3*i : 3*i+3])
		f.join = append(f.join, f.ports[id][2])
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for id := range f.ports {
		wg.Go(func() {
			nd, err := f.open(id, n)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			f.nodes[id] = nd
		})
	}
	wg.Wait()
	t.Cleanup(f.stop)
	if t.Failed() {
		t.FailNow()
	}
	return f
}

func (f *fleet) open(id cluster.NodeID, expect int) (*node.Node, error) {
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("NODE_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", id)
	}
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(f.patience, time.Minute))
	defer cancel()
	p, join := f.ports[id], f.join
	if len(f.ports) == 1 {
		join = nil // a cluster of its own
	}
	cfg := node.Config{
		ID: id, Dir: filepath.Join(f.dir, string(id)), Listen: p[0], PeerListen: p[1], GossipListen: p[2],
		Join: join, BootstrapExpect: expect, Insecure: true, Logger: log,
	}
	f.change(&cfg)
	return node.Open(ctx, cfg)
}

func (f *fleet) stop() {
	var wg sync.WaitGroup
	for _, n := range f.nodes {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
			defer cancel()
			if err := n.Close(ctx); err != nil {
				f.t.Error(err)
			}
		})
	}
	wg.Wait()
}

// eventually asks until ok, for what the nodes do by themselves.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// TestThreeNodes writes at every node and reads at every other: a node that is not
// the owner sends the client there, and a facet one node has just made is no empty
// database at the others.
func TestThreeNodes(t *testing.T) {
	f := newFleet(t, 3)
	for i := range 6 {
		name := fmt.Sprintf("acme/f%d", i)
		for id, nd := range f.nodes {
			exec(t, nd, name, "CREATE TABLE IF NOT EXISTS t (v)")
			exec(t, nd, name, "INSERT INTO t VALUES (?)", string(id))
			for other, nd := range f.nodes {
				if out := exec(t, nd, name, "SELECT v FROM t"); !strings.Contains(out, `"`+string(id)+`"`) {
					t.Errorf("%s does not see the write at %s: %s", other, id, out)
				}
			}
		}
	}
	for id, nd := range f.nodes {
		status, out := call(t, nd, "GET", "/v1/facets/acme/f0", "")
		if status != 200 || !strings.Contains(out, `"replicas":["n1","n2","n3"]`) {
			t.Errorf("%s: %d %s", id, status, out)
		}
		if status, out := call(t, nd, "GET", "/v1/facets/acme/nothing", ""); status != 404 {
			t.Errorf("%s: %d %s", id, status, out)
		}
	}
}

// TestMove hands a facet round, with a write after each step.
func TestMove(t *testing.T) {
	f := newFleet(t, 3)
	n1 := f.nodes["n1"]
	exec(t, n1, "acme/a", "CREATE TABLE t (v)")
	for i := range 6 {
		to := fmt.Sprintf("n%d", i%3+1)
		status, out := call(t, n1, "POST", "/v1/facets/acme/a/move", `{"to":"`+to+`"}`)
		if status != 200 || !strings.Contains(out, `"owner":"`+to+`"`) {
			t.Fatalf("move to %s: %d %s", to, status, out)
		}
		exec(t, f.nodes[cluster.NodeID(to)], "acme/a", "INSERT INTO t VALUES (?)", i)
	}
	if out := exec(t, n1, "acme/a", "SELECT count(*) AS n FROM t"); !strings.Contains(out, `"n":6`) {
		t.Fatal(out)
	}
}

// TestMoveWarm moves a facet with a long log while callers wait for it: none of them
// sees an error, and the new owner has brought its copy to its file before it took
// the facet over.
func TestMoveWarm(t *testing.T) {
	f := newFleet(t, 3)
	n1 := f.nodes["n1"]
	exec(t, n1, "acme/a", "CREATE TABLE t (v)")
	if status, out := call(t, n1, "POST", "/v1/facets/acme/a/move", `{"to":"n1"}`); status != 200 {
		t.Fatalf("%d %s", status, out)
	}
	const writes = 300
	for i := range writes {
		exec(t, n1, "acme/a", "INSERT INTO t VALUES (?)", i)
	}
	var wg sync.WaitGroup
	for _, nd := range f.nodes {
		wg.Go(func() {
			for i := range 50 {
				exec(t, nd, "acme/a", "INSERT INTO t VALUES (?)", i)
			}
		})
	}
	if status, out := call(t, n1, "POST", "/v1/facets/acme/a/move", `{"to":"n2"}`); status != 200 || !strings.Contains(out, `"owner":"n2"`) {
		t.Errorf("%d %s", status, out)
	}
	wg.Wait()
	if out := exec(t, n1, "acme/a", "SELECT count(*) AS n FROM t"); !strings.Contains(out, fmt.Sprintf(`"n":%d`, writes+150)) {
		t.Error(out)
	}
	if files := database(t, filepath.Join(f.dir, "n2")); len(files) != 1 {
		t.Errorf("n2 has the files %v, want one: the copy was not brought to its file", files)
	}
}

// database lists the facets' files of a node that hold something.
func database(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "data", "facets"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if info, err := e.Info(); err == nil && info.Size() > 0 {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestStop stops one node in an orderly way: its facets are served by the others at
// once, and by itself again when it is back.
func TestStop(t *testing.T) {
	f := newFleet(t, 3)
	const facets = 12
	for i := range facets {
		exec(t, f.nodes["n1"], fmt.Sprintf("acme/f%d", i), "CREATE TABLE t (v)")
	}
	stop(t, f.nodes["n2"])
	delete(f.nodes, "n2")
	for i := range facets {
		eventually(t, "a write without n2", func() bool {
			status, _ := call(t, f.nodes["n3"], "POST", fmt.Sprintf("/v1/db/acme/f%d/exec", i), `{"sql":"INSERT INTO t VALUES (1)"}`)
			return status == 200
		})
	}
	nd, err := f.open("n2", 0)
	if err != nil {
		t.Fatal(err)
	}
	f.nodes["n2"] = nd
	for i := range facets {
		if out := exec(t, nd, fmt.Sprintf("acme/f%d", i), "SELECT count(*) AS n FROM t"); !strings.Contains(out, `"n":1`) {
			t.Fatal(out)
		}
	}
}

// TestGrow begins with one node and goes on with three: every facet gets two more
// replicas by itself.
func TestGrow(t *testing.T) {
	f := newFleet(t, 1)
	const facets = 20
	for i := range facets {
		exec(t, f.nodes["n1"], fmt.Sprintf("acme/f%d", i), "CREATE TABLE t (v)")
		exec(t, f.nodes["n1"], fmt.Sprintf("acme/f%d", i), "INSERT INTO t VALUES (?)", i)
	}
	p := freePorts(t, 6)
	for k, id := range []cluster.NodeID{"n2", "n3"} {
		f.ports[id] = [3]string(p[3*k : 3*k+3])
		nd, err := f.open(id, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.nodes[id] = nd
	}
	if status, out := call(t, f.nodes["n2"], "POST", "/v1/operations", `{"kind":"repair"}`); status/100 != 2 {
		t.Fatalf("repair: %d %s", status, out)
	}
	for i := range facets {
		eventually(t, "three replicas", func() bool {
			_, out := call(t, f.nodes["n3"], "GET", fmt.Sprintf("/v1/facets/acme/f%d", i), "")
			return strings.Contains(out, `"replicas":["n1","n2","n3"]`) && strings.Contains(out, `"state":"active"`)
		})
		if out := exec(t, f.nodes["n3"], fmt.Sprintf("acme/f%d", i), "SELECT v FROM t"); !strings.Contains(out, fmt.Sprintf(`"v":%d`, i)) {
			t.Fatal(out)
		}
	}
}
