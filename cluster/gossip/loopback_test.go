package gossip

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
)

// TestLoopback is the real network: UDP and TCP on 127.0.0.1, a crash, a leave.
func TestLoopback(t *testing.T) {
	id, key := cluster.NewID(), NewKey()
	timings := LAN()
	timings.Probe, timings.ProbeTimeout, timings.Spread = 100*time.Millisecond, 50*time.Millisecond, 20*time.Millisecond
	var seeds []string
	open := func(name string) *Gossip {
		g, err := Open(Config{
			Self:    cluster.Member{ID: cluster.NodeID(name), Store: cluster.NewStoreID(), API: "127.0.0.1:1", Peer: "127.0.0.1:2"},
			Cluster: id, Keys: []Key{key}, Listen: "127.0.0.1:0", Join: seeds, Timings: timings,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.Close() })
		return g
	}
	// until waits for changes, not for time.
	until := func(g *Gossip, what string, ok func(cluster.View) bool) {
		t.Helper()
		limit := time.After(20 * time.Second)
		for {
			news := g.Changed()
			v := g.View()
			if ok(v) {
				return
			}
			select {
			case <-news:
			case <-limit:
				t.Fatalf("%s does not see %s: %+v", v.Self, what, v.Members)
			}
		}
	}
	status := func(name cluster.NodeID, want cluster.Status) func(cluster.View) bool {
		return func(v cluster.View) bool { m, _ := v.Member(name); return m.Status == want }
	}

	first := open("n0")
	seeds = []string{first.Addr().String(), fmt.Sprintf("localhost:%d", first.Addr().Port())}
	all := []*Gossip{first, open("n1"), open("n2"), open("n3")}
	for _, g := range all {
		until(g, "everybody", func(v cluster.View) bool {
			for i := range all {
				if !status(cluster.NodeID(fmt.Sprintf("n%d", i)), cluster.StatusAlive)(v) {
					return false
				}
			}
			return true
		})
	}
	// The port is taken, for datagrams and streams.
	if g, err := Open(Config{Self: first.set.Self, Cluster: id, Keys: []Key{key}, Listen: first.Addr().String()}); err == nil {
		g.Close()
		t.Error("opened a port twice")
	}

	start := time.Now()
	if err := all[3].Close(); err != nil {
		t.Error(err)
	}
	until(first, "n3 gone", status("n3", cluster.StatusGone))
	t.Logf("crash seen after %v", time.Since(start).Round(time.Millisecond))
	start = time.Now()
	if err := all[2].Leave(t.Context()); err != nil {
		t.Error(err)
	}
	until(first, "n2 gone", status("n2", cluster.StatusGone))
	t.Logf("leave seen after %v", time.Since(start).Round(time.Millisecond))

	// A stranger who connects and says nothing does not hold up Close.
	conn, err := net.Dial("tcp", first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start = time.Now()
	for _, g := range all {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("closing took %v", took)
	}
	if again, err := net.Listen("tcp", first.Addr().String()); err != nil {
		t.Errorf("port is still taken: %v", err)
	} else {
		again.Close()
	}
}
