package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
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
}

// ports gives addresses that were free a moment ago.
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
	f := &fleet{t: t, dir: t.TempDir(), ports: map[cluster.NodeID][3]string{}, nodes: map[cluster.NodeID]*node.Node{}}
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
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	p := f.ports[id]
	return node.Open(ctx, node.Config{
		ID: id, Dir: filepath.Join(f.dir, string(id)), Listen: p[0], PeerListen: p[1], GossipListen: p[2],
		Join: f.join, BootstrapExpect: expect, Insecure: true, Logger: log,
	})
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

func TestThreeNodes(t *testing.T) {
	began := time.Now()
	f := newFleet(t, 3)
	t.Logf("formed after %v", time.Since(began))
	for i := range 5 {
		name := fmt.Sprintf("acme/f%d", i)
		for id, nd := range f.nodes {
			for _, sql := range []string{"CREATE TABLE IF NOT EXISTS t (v)", "INSERT INTO t VALUES (1)", "SELECT count(*) FROM t"} {
				began := time.Now()
				status, out := call(t, nd, "POST", "/v1/db/"+name+"/exec", `{"sql":"`+sql+`"}`)
				t.Logf("%s at %s: %d %s after %v", name, id, status, out, time.Since(began))
			}
		}
	}
	status, out := call(t, f.nodes["n1"], "GET", "/v1/cluster", "")
	t.Log(status, out)
}
