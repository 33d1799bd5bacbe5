package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/gossip/gossiptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cell is a cluster in a bubble.
type cell struct {
	t     *testing.T
	net   *gossiptest.Network
	id    cluster.ID
	key   Key
	seeds []string
}

func newCell(t *testing.T) *cell {
	// Runs after all members are closed: the library's last probes end, for
	// which virtual time must go on.
	t.Cleanup(func() { time.Sleep(10 * time.Second) })
	return &cell{t: t, net: gossiptest.NewNetwork(1), id: cluster.NewID(), key: NewKey(),
		seeds: []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}}
}

// peer is a member under test with the alarms it raised.
type peer struct {
	*Gossip
	host *gossiptest.Host
	mu   sync.Mutex
	got  []Alarm // guarded by mu
}

func (p *peer) alarms() []Alarm {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

func (p *peer) alarmed(kind AlarmKind) bool {
	return slices.ContainsFunc(p.alarms(), func(a Alarm) bool { return a.Kind == kind })
}

// open starts a member called name on the host with address ip.
func (c *cell) open(name, ip string, change ...func(*Config)) *peer {
	c.t.Helper()
	p := &peer{host: c.net.Host(ip)}
	cfg := Config{
		Self: cluster.Member{ID: cluster.NodeID(name), Store: cluster.NewStoreID(),
			API: ip + ":7400", Peer: ip + ":7401", Zone: "z1", Version: "v0.1.0"},
		Cluster: c.id,
		Listen:  ip,
		Keys:    []Key{c.key},
		Join:    c.seeds,
		Network: p.host,
		Alarm: func(a Alarm) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.got = append(p.got, a)
		},
	}
	if os.Getenv("GOSSIP_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("self", name)
	}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if p.Gossip, err = Open(cfg); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { p.Close() })
	return p
}

// openAll starts n members, n1 at 10.0.0.1 and so on, and waits until all see all.
func (c *cell) openAll(n int) (peers []*peer) {
	c.t.Helper()
	for i := range n {
		peers = append(peers, c.open(fmt.Sprintf("n%d", i+1), fmt.Sprintf("10.0.0.%d", i+1)))
	}
	c.until(45*time.Second, func() error { return allSee(peers, n) })
	return peers
}

// until waits for check and returns how long it took.
func (c *cell) until(limit time.Duration, check func() error) time.Duration {
	c.t.Helper()
	start := time.Now()
	for {
		synctest.Wait()
		err := check()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			c.t.Fatalf("after %v: %v", limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func allSee(peers []*peer, n int) error {
	for _, p := range peers {
		if got := p.Stats().Alive; got != n {
			return fmt.Errorf("%s sees %d members alive, want %d: %v", p.View().Self, got, n, p.View().Members)
		}
	}
	return nil
}

func allSeeStatus(peers []*peer, id cluster.NodeID, want cluster.Status) error {
	for _, p := range peers {
		if m, _ := p.View().Member(id); m.Status != want {
			return fmt.Errorf("%s sees %s %s, want %s", p.View().Self, id, m.Status, want)
		}
	}
	return nil
}

func TestJoinAndLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		peers := c.openAll(3)
		v := peers[2].View()
		if v.Cluster != c.id || v.Self != "n3" || len(v.Members) != 3 {
			t.Fatalf("view %+v", v)
		}
		m, ok := v.Member("n1")
		want := cluster.Member{ID: "n1", Store: peers[0].set.Self.Store, API: "10.0.0.1:7400", Peer: "10.0.0.1:7401",
			Zone: "z1", Version: "v0.1.0", Status: cluster.StatusAlive}
		if !ok || m != want {
			t.Fatalf("n1 is %+v, want %+v", m, want)
		}

		news := peers[0].Changed()
		if err := peers[2].Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		took := c.until(2*time.Second, func() error { return allSeeStatus(peers, "n3", cluster.StatusGone) })
		t.Logf("leave known after %v", took)
		select {
		case <-news:
		default:
			t.Error("a change was not told")
		}
		if err := peers[2].Leave(t.Context()); err != nil {
			t.Errorf("second leave: %v", err)
		}
		if err := peers[2].Update(peers[2].set.Self); !errors.Is(err, ErrClosed) {
			t.Errorf("update after leave: %v", err)
		}
		peers[2].Close()
		if err := peers[2].Leave(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("leave after close: %v", err)
		}
		// A member that left is not looked for, but its seed name is.
		for _, p := range peers {
			if a := p.alarms(); len(a) > 0 {
				t.Errorf("%s: alarms %v", p.View().Self, a)
			}
		}

		// It comes back where it was, with its store.
		self := peers[2].set.Self
		back := c.open("n3", "10.0.0.3", func(cfg *Config) { cfg.Self = self })
		took = c.until(5*time.Second, func() error { return allSee([]*peer{peers[0], peers[1], back}, 3) })
		t.Logf("back after %v", took)
	})
}

func TestCrashIsDetected(t *testing.T) {
	for _, n := range []int{2, 3, 5, 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCell(t)
				peers := c.openAll(n)
				time.Sleep(10 * time.Second)
				crashed := peers[n-1]
				crashed.host.SetDown(true)
				took := c.until(8*time.Second, func() error { return allSeeStatus(peers[:n-1], crashed.View().Self, cluster.StatusGone) })
				t.Logf("%d members: gone after %v", n, took)
				if took < 2*time.Second {
					t.Errorf("gone after %v: too hasty", took)
				}
				// The others were never in doubt about each other.
				if err := allSee(peers[:n-1], n-1); err != nil {
					t.Error(err)
				}
				if n > 2 {
					crashed.Close()
					crashed.host.SetDown(false)
					back := c.open(string(crashed.View().Self), fmt.Sprintf("10.0.0.%d", n), func(cfg *Config) { cfg.Self = crashed.set.Self })
					took := c.until(10*time.Second, func() error { return allSee(append(slices.Clone(peers[:n-1]), back), n) })
					t.Logf("%d members: back after %v", n, took)
				}
			})
		})
	}
}

// TestFastRestart: a node that is back before it was missed keeps its place.
func TestFastRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		peers := c.openAll(3)
		self := peers[2].set.Self
		peers[2].Close()
		time.Sleep(300 * time.Millisecond)
		self.Version = "v0.2.0"
		peers[2] = c.open("n3", "10.0.0.3", func(cfg *Config) { cfg.Self = self })
		c.until(5*time.Second, func() error {
			if m, _ := peers[0].View().Member("n3"); m.Version != "v0.2.0" {
				return fmt.Errorf("n3 has version %s", m.Version)
			}
			return allSee(peers, 3)
		})
	})
}

// TestKnown: a node without seeds that was away for a moment is lost to nobody, and
// finds the others where they were.
func TestKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		peers := c.openAll(3)
		time.Sleep(time.Minute) // they have settled
		self, known := peers[0].set.Self, peers[0].Others()
		if len(known) != 2 {
			t.Fatalf("others: %v", known)
		}
		peers[0].Close()
		time.Sleep(300 * time.Millisecond)
		peers[0].host.SetDown(true)
		c.seeds = nil
		// One of the addresses is of nobody any more.
		known = append(known, netip.MustParseAddrPort("10.0.0.77:7402"), known[0])
		peers[0] = c.open("n1", "10.0.0.1", func(cfg *Config) { cfg.Self, cfg.Known = self, known })
		time.Sleep(500 * time.Millisecond) // it cannot reach anybody yet
		peers[0].host.SetDown(false)
		took := c.until(6*time.Second, func() error { return allSee(peers, 3) })
		t.Logf("all seen after %v", took)
		tried := peers[0].Stats().Joins
		time.Sleep(5 * time.Minute)
		if n := peers[0].Stats().Joins; n > tried+settleRounds {
			t.Errorf("%d more attempts at addresses that are of no use any more", n-tried)
		}
	})
}

func TestSeedsDownAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		c.seeds = []string{"seed.example:7402", "10.0.0.9"}
		var found atomic.Bool
		first := c.open("n1", "10.0.0.1", func(cfg *Config) {
			cfg.Resolve = resolverOf(map[string]*atomic.Bool{"seed.example": &found}, "10.0.0.2")
		})
		time.Sleep(3 * time.Minute)
		s := first.Stats()
		if s.Alive != 1 || s.Joins == 0 || s.Joins != s.JoinsFailed || s.Joins > 40 {
			t.Fatalf("alone for 3 minutes: %+v", s)
		}
		c.seeds = nil // it waits to be found
		second := c.open("n2", "10.0.0.2")
		time.Sleep(30 * time.Second)
		if second.Stats().Alive != 1 {
			t.Fatal("found without a way to")
		}
		found.Store(true) // the name resolves at last
		took := c.until(15*time.Second, func() error { return allSee([]*peer{first, second}, 2) })
		t.Logf("found after %v", took)
	})
}

func TestPartitionHeals(t *testing.T) {
	for _, cut := range []time.Duration{2 * time.Second, 20 * time.Second, 10 * time.Minute} {
		t.Run(cut.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCell(t)
				peers := c.openAll(5)
				a := []*gossiptest.Host{peers[0].host, peers[1].host, peers[2].host}
				b := []*gossiptest.Host{peers[3].host, peers[4].host}
				c.net.Partition(a, b)
				time.Sleep(cut)
				if cut > 10*time.Second {
					if err := errors.Join(allSee(peers[:3], 3), allSee(peers[3:], 2)); err != nil {
						t.Fatal(err)
					}
				}
				c.net.Heal()
				took := c.until(45*time.Second, func() error { return allSee(peers, 5) })
				t.Logf("cut for %v, whole again after %v", cut, took)
				for _, p := range peers {
					if len(p.alarms()) > 0 {
						t.Errorf("%s: alarms %v", p.View().Self, p.alarms())
					}
				}
			})
		})
	}
}

// TestHalvesThatNeverMet: two pairs that were started apart find each other by
// a seed that only one of them names.
func TestHalvesThatNeverMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		hosts := []*gossiptest.Host{c.net.Host("10.0.0.1"), c.net.Host("10.0.0.2"), c.net.Host("10.0.0.3"), c.net.Host("10.0.0.4")}
		c.net.Partition(hosts[:2], hosts[2:])
		seeds := [][]string{{"10.0.0.2"}, {"10.0.0.1", "10.0.0.3"}, {"10.0.0.4"}, {"10.0.0.3"}}
		var peers []*peer
		for i, s := range seeds {
			c.seeds = s
			peers = append(peers, c.open(fmt.Sprintf("n%d", i+1), fmt.Sprintf("10.0.0.%d", i+1)))
		}
		time.Sleep(2 * time.Minute)
		if err := allSee(peers, 2); err != nil {
			t.Fatal(err)
		}
		c.net.Heal()
		c.until(45*time.Second, func() error { return allSee(peers, 4) })
	})
}

func TestOneWayCutIsNoDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		peers := c.openAll(4)
		c.net.CutOneWay(peers[0].host, peers[1].host)
		for range 60 {
			time.Sleep(time.Second)
			if err := allSee(peers, 4); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		peers := c.openAll(3)
		next := NewKey()
		steady := func() {
			t.Helper()
			for range 20 {
				time.Sleep(time.Second)
				if err := allSee(peers, 3); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, step := range [][]Key{{c.key, next}, {next, c.key}, {next}} {
			for _, p := range peers {
				if err := p.SetKeys(step); err != nil {
					t.Fatal(err)
				}
				steady()
			}
		}
		for _, p := range peers {
			if k := p.Keys(); len(k) != 1 || k[0] != next {
				t.Errorf("keys %v", k)
			}
			if s := p.Stats(); s.Undecrypted > 0 {
				t.Errorf("%d messages nobody could read", s.Undecrypted)
			}
			for _, bad := range [][]Key{nil, {next, {}}, slices.Repeat([]Key{next}, maxKeys+1)} {
				if err := p.SetKeys(bad); !errors.Is(err, ErrKey) {
					t.Errorf("set %v: %v", bad, err)
				}
			}
		}
		// The old key opens nothing any more; the new one does.
		old := c.open("n4", "10.0.0.4")
		time.Sleep(20 * time.Second)
		if old.Stats().Alive != 1 || peers[0].Stats().Undecrypted == 0 {
			t.Errorf("joined with the old key: %v", old.View().Members)
		}
		old.Close()
		c.key = next
		peers = append(peers, c.open("n5", "10.0.0.5"))
		c.until(5*time.Second, func() error { return allSee(peers, 4) })
	})
}

func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		peers := c.openAll(3)
		m := peers[0].set.Self
		m.API, m.Zone, m.Status = "api.example:7400", "z2", cluster.StatusLeaving
		if err := peers[0].Update(m); err != nil {
			t.Fatal(err)
		}
		if got, _ := peers[0].View().Member("n1"); got != m {
			t.Errorf("own view has %+v", got)
		}
		took := c.until(2*time.Second, func() error {
			for _, p := range peers {
				if got, _ := p.View().Member("n1"); got != m {
					return fmt.Errorf("%s has %+v", p.View().Self, got)
				}
			}
			return nil
		})
		t.Logf("update known after %v", took)

		bad := m
		bad.Peer, bad.API = strings.Repeat("p", cluster.MaxAddressLen), strings.Repeat("a", cluster.MaxAddressLen)
		if err := peers[0].Update(bad); !errors.Is(err, ErrMetaTooLong) {
			t.Errorf("too long: %v", err)
		}
		bad = m
		bad.Store = cluster.NewStoreID()
		if err := peers[0].Update(bad); err == nil {
			t.Error("took another store")
		}
		if got, _ := peers[0].View().Member("n1"); got != m {
			t.Errorf("a refused update left %+v", got)
		}
	})
}

// TestBeforeTheClusterHasAnID is bootstrap: nodes find each other by label, one
// draws the id, all take it, and then another cluster is refused.
func TestBeforeTheClusterHasAnID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		id := c.id
		c.id = cluster.ID{}
		var peers []*peer
		labelled := func(cfg *Config) { cfg.Label = "prod" }
		for i := range 3 {
			peers = append(peers, c.open(fmt.Sprintf("n%d", i+1), fmt.Sprintf("10.0.0.%d", i+1), labelled))
		}
		c.until(5*time.Second, func() error { return allSee(peers, 3) })
		if got := peers[1].Clusters(); len(got) != 0 {
			t.Fatalf("clusters %v", got)
		}
		if err := peers[0].SetCluster(id); err != nil {
			t.Fatal(err)
		}
		c.until(2*time.Second, func() error {
			if got := peers[1].Clusters(); !slices.Equal(got, []cluster.ID{id}) {
				return fmt.Errorf("clusters %v", got)
			}
			return allSee(peers, 3)
		})
		for _, p := range peers {
			if err := p.SetCluster(id); err != nil {
				t.Fatal(err)
			}
		}
		if err := peers[0].SetCluster(cluster.NewID()); !errors.Is(err, ErrForeign) {
			t.Errorf("changed cluster: %v", err)
		}
		c.id = cluster.NewID()
		c.open("n4", "10.0.0.4", labelled)
		time.Sleep(time.Minute)
		if err := allSee(peers, 3); err != nil {
			t.Error(err)
		}
		if !peers[0].alarmed(AlarmForeignCluster) && !peers[1].alarmed(AlarmForeignCluster) && !peers[2].alarmed(AlarmForeignCluster) {
			t.Error("nobody was alarmed")
		}
	})
}

func TestTwentyConvergeWithLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		c.net.SetLoss(0.1)
		c.net.SetDelay(5 * time.Millisecond)
		start := time.Now()
		peers := c.openAll(20)
		t.Logf("20 members converge in %v", time.Since(start))
		for _, p := range peers {
			if a := p.alarms(); len(a) > 0 {
				t.Errorf("%s: %v", p.View().Self, a)
			}
		}
	})
}

// TestIdleCost holds what the package comment says.
func TestIdleCost(t *testing.T) {
	for _, tc := range []struct{ n, most int }{{1, 0}, {3, 450}, {20, 800}} {
		t.Run(fmt.Sprint(tc.n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCell(t)
				if tc.n == 1 {
					c.seeds = c.seeds[:1]
				}
				peers := c.openAll(tc.n)
				time.Sleep(time.Minute)
				before := peers[0].Stats()
				const span = 10 * time.Minute
				time.Sleep(span)
				s := peers[0].Stats()
				secs := int(span / time.Second)
				sent, streams := int(s.SentBytes-before.SentBytes)/secs, int(s.StreamBytes-before.StreamBytes)/secs
				t.Logf("%d members: %d B/s sent in %.1f datagrams/s, %d B/s in streams (both ways)", tc.n, sent,
					float64(s.SentPackets-before.SentPackets)/float64(secs), streams)
				if sent+streams/2 > tc.most {
					t.Errorf("%d B/s, want at most %d", sent+streams/2, tc.most)
				}
				if s.Joins != before.Joins {
					t.Errorf("%d joins while nobody is missing", s.Joins-before.Joins)
				}
			})
		})
	}
}

func TestChangedIsNotMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		p := c.open("n1", "10.0.0.1")
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		seen := make([]int, 4)
		for i := range seen {
			wg.Go(func() {
				for {
					news := p.Changed()
					seen[i] = len(p.View().Members)
					select {
					case <-news:
					case <-ctx.Done():
						return
					}
				}
			})
		}
		for i := range 9 {
			c.open(fmt.Sprintf("m%d", i), fmt.Sprintf("10.0.1.%d", i))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if want := []int{10, 10, 10, 10}; !slices.Equal(seen, want) {
			t.Errorf("listeners saw %v members", seen)
		}
		stop()
		wg.Wait()
	})
}
