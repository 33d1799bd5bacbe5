package consensus_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// The placement table is what this package is for: these tests run the two
// together, as a node does.

var _ consensus.StateMachine = (*placement.Table)(nil)

func openTable(t *testing.T, dir string, boot cluster.BootID) (*consensus.Node, *placement.Table, placement.Proposer) {
	t.Helper()
	table := placement.NewTable()
	n, err := consensus.Open(consensus.Config{ID: "n1", Dir: dir, StateMachine: table, Bootstrap: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := n.WaitLeader(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := placement.Proposer{Propose: n.Propose}
	if _, err := p.Do(t.Context(), placement.RegisterNode{Node: "n1", Store: store, Boot: boot, Machine: cluster.MachineID{1}}); err != nil {
		t.Fatal(err)
	}
	return n, table, p
}

var store = cluster.NewStoreID()

// TestTableLives measures the life of a single node's table: 100,000 facets
// created by 64 callers, a restart, and the acquisition of every facet by the
// new process.
func TestTableLives(t *testing.T) {
	facets := 100_000
	if testing.Short() {
		facets = 10_000
	}
	dir := t.TempDir()
	boot := cluster.NewBootID()
	start := time.Now()
	n, _, p := openTable(t, dir, boot)
	t.Logf("open, leader and registered: %v", time.Since(start).Round(100*time.Microsecond))
	set, err := placement.NewSet(placement.Member{Node: "n1", Store: store})
	if err != nil {
		t.Fatal(err)
	}
	me := placement.Owner{Node: "n1", Boot: boot}
	name := func(i int) facet.Name {
		return facet.Name{Tenant: facet.Tenant(fmt.Sprintf("customer-%04d", i%1000)), Facet: fmt.Sprintf("user-%08d", i)}
	}
	took := each(t, facets, func(i int) error {
		_, err := p.Do(t.Context(), placement.Create{Name: name(i), Incarnation: facet.NewIncarnation(), Owner: me, Set: set})
		return err
	})
	s := n.Stats()
	t.Logf("created %d facets in %v: %.0f commands/s, %.1f commands an entry, %d snapshots", facets, took.Round(time.Millisecond),
		float64(facets)/took.Seconds(), float64(s.Commands)/float64(s.Batches), s.Snapshots)
	logSizes(t, dir)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}

	start = time.Now()
	boot2 := cluster.NewBootID()
	_, table, p := openTable(t, dir, boot2)
	t.Logf("opened with %d facets in %v", facets, time.Since(start).Round(time.Millisecond))
	if c := table.Counts(); c.Facets != facets {
		t.Fatalf("%d facets after the restart, want %d", c.Facets, facets)
	}
	// The old process's epochs are worth nothing now (rule R2).
	_, err = p.Do(t.Context(), placement.Create{Name: facet.Name{Tenant: "a", Facet: "b"}, Incarnation: facet.NewIncarnation(), Owner: me, Set: set})
	if !errors.Is(err, placement.RefusedBoot) {
		t.Errorf("the old boot creates: %v", err)
	}
	var mine []placement.Facet
	for f := range table.OwnedBy("n1") {
		if f.Owner.Boot != boot2 {
			mine = append(mine, f)
		}
	}
	took = each(t, len(mine), func(i int) error {
		r, err := p.Do(t.Context(), placement.Acquire{Incarnation: mine[i].Incarnation, Owner: placement.Owner{Node: "n1", Boot: boot2}, Expected: mine[i].Epoch})
		if err == nil && r.Facet.Epoch != mine[i].Epoch+1 {
			err = fmt.Errorf("epoch %v after %v", r.Facet.Epoch, mine[i].Epoch)
		}
		return err
	})
	t.Logf("acquired %d facets in %v: %.0f commands/s", len(mine), took.Round(time.Millisecond), float64(len(mine))/took.Seconds())
	logSizes(t, dir)
	if len(mine) != facets {
		t.Errorf("%d facets to acquire, want %d", len(mine), facets)
	}
}

// each runs work(0 … n-1) from 64 callers.
func each(t *testing.T, n int, work func(i int) error) time.Duration {
	t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range 64 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := work(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// logSizes tells what the directory and the process take.
func logSizes(t *testing.T, dir string) {
	t.Helper()
	var bolt, snaps int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.Name() == "raft.bolt" {
			bolt += info.Size()
		} else {
			snaps += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	rss := "?"
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.Lines(string(status)) {
			if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				if kb, err := strconv.Atoi(strings.Fields(v)[0]); err == nil {
					rss = fmt.Sprintf("%.1f MiB", float64(kb)/1024)
				}
			}
		}
	}
	t.Logf("  log file %.1f MiB, snapshots %.1f MiB, process %s resident", float64(bolt)/(1<<20), float64(snaps)/(1<<20), rss)
	if bolt > 64<<20 {
		t.Errorf("the log file has %d bytes; snapshots do not bound it", bolt)
	}
}

type stream struct{ net.Listener }

func (s stream) Dial(address string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", address, timeout)
}

// TestStream opens a single voter with a real peer stream and a logger, as a
// node that expects others does.
func TestStream(t *testing.T) {
	for boot := range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var said lines
		n, err := consensus.Open(consensus.Config{ID: "n1", Dir: t.TempDir(), StateMachine: placement.NewTable(), Bootstrap: true,
			Stream: stream{l}, Address: "n1.example:7401", AddressOf: func(cluster.NodeID) (string, bool) { return "", false },
			Logger: slog.New(slog.NewTextHandler(&said, nil))})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.WaitLeader(t.Context()); err != nil {
			t.Fatal(err)
		}
		if id, address, ok := n.Leader(); !ok || id != "n1" || address != "n1.example:7401" {
			t.Errorf("boot %d: leader %q at %q, %v", boot, id, address, ok)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if out := said.String(); strings.Contains(out, "level=WARN") || strings.Contains(out, "level=ERROR") || strings.Count(out, "\n") > 3 {
			t.Errorf("a quiet start and stop said:\n%s", out)
		}
	}
}

type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
