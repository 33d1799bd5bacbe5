package gossip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
)

func TestNodeMoves(t *testing.T) {
	for _, leave := range []bool{false, true} {
		t.Run(fmt.Sprintf("leave=%v", leave), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCell(t)
				peers := c.openAll(4)
				old := peers[3]
				if leave {
					if err := old.Leave(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				old.Close()
				self := old.set.Self
				self.Peer, self.API = "10.0.9.4:7401", "10.0.9.4:7400"
				peers[3] = c.open("n4", "10.0.9.4", func(cfg *Config) { cfg.Self = self })
				took := c.until(60*time.Second, func() error {
					for _, p := range peers {
						if m, _ := p.View().Member("n4"); m != withStatus(self, cluster.StatusAlive) {
							return fmt.Errorf("%s has %+v", p.View().Self, m)
						}
					}
					return allSee(peers, 4)
				})
				t.Logf("leave=%v: moved after %v", leave, took)
				if leave && took > 5*time.Second {
					t.Error("a node that left is free to move")
				}
				for _, p := range peers {
					for _, a := range p.alarms() {
						if a.Kind != AlarmAddressConflict || a.Known != self.Store {
							t.Errorf("%s: alarm %+v", p.View().Self, a)
						}
					}
				}
				// It stays.
				time.Sleep(2 * time.Minute)
				if err := allSee(peers, 4); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func withStatus(m cluster.Member, s cluster.Status) cluster.Member {
	m.Status = s
	return m
}

// TestTwoStoresOneName is rule R3: the known one is kept, and all hear of it.
func TestTwoStoresOneName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		peers := c.openAll(3)
		right := peers[2].set.Self
		wrong := c.open("n3", "10.0.0.8")
		for range 120 {
			time.Sleep(time.Second)
			for _, p := range peers {
				if m, _ := p.View().Member("n3"); m != withStatus(right, cluster.StatusAlive) {
					t.Fatalf("%s has %+v", p.View().Self, m)
				}
			}
		}
		for _, p := range append(slices.Clone(peers), wrong) {
			if !p.alarmed(AlarmStoreConflict) {
				t.Errorf("%s of store %s was not alarmed: %v", p.View().Self, p.set.Self.Store, p.alarms())
			}
		}
		a := peers[0].alarms()[0]
		if a.Node != "n3" || a.Known != right.Store || a.Claimed != wrong.set.Self.Store || a.Addr != wrong.Addr() || a.KnownAddr != peers[2].Addr() {
			t.Errorf("alarm %+v", a)
		}
		if n := len(peers[0].alarms()); n > 3 {
			t.Errorf("%d alarms in two minutes", n)
		}

		// Only when the known one has been gone for a while, the other takes over.
		peers[2].Close()
		gone := time.Now()
		c.until(8*time.Second, func() error { return allSeeStatus(peers[:2], "n3", cluster.StatusGone) })
		time.Sleep(25 * time.Second)
		if err := allSeeStatus(peers[:2], "n3", cluster.StatusGone); err != nil {
			t.Error("taken over too soon:", err)
		}
		c.until(60*time.Second, func() error {
			for _, p := range peers[:2] {
				if m, _ := p.View().Member("n3"); m.Store != wrong.set.Self.Store || m.Status != cluster.StatusAlive {
					return fmt.Errorf("%s has %+v", p.View().Self, m)
				}
			}
			return nil
		})
		t.Logf("taken over %v after the known one died", time.Since(gone))
		c.until(time.Second, func() error {
			for _, p := range peers[:2] {
				if !p.alarmed(AlarmReplaced) {
					return errors.New("no alarm")
				}
			}
			return nil
		})
	})
}

// TestDiskReplaced: at the known one's own address nobody else can be.
func TestDiskReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		peers := c.openAll(3)
		peers[2].Close()
		time.Sleep(time.Second)
		peers[2] = c.open("n3", "10.0.0.3")
		c.until(10*time.Second, func() error {
			for _, p := range peers {
				if m, _ := p.View().Member("n3"); m.Store != peers[2].set.Self.Store {
					return fmt.Errorf("%s has %+v", p.View().Self, m)
				}
			}
			return allSee(peers, 3)
		})
		if !peers[0].alarmed(AlarmReplaced) || peers[0].alarmed(AlarmStoreConflict) {
			t.Errorf("alarms %v", peers[0].alarms())
		}
	})
}

func TestForeigners(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Config)
		kind   AlarmKind
	}{
		{"cluster id", func(c *Config) { c.Label, c.Cluster = c.Cluster.String(), cluster.NewID() }, AlarmForeignCluster},
		{"label", func(c *Config) { c.Cluster = cluster.NewID() }, AlarmForeignLabel},
		{"key", func(c *Config) { c.Keys = []Key{NewKey()} }, AlarmWrongKey},
		{"no key", func(c *Config) { c.Keys, c.Insecure = nil, true }, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCell(t)
				peers := c.openAll(3)
				// It has a member's name, too: what it says of that name must not count.
				foreign := c.open("n3", "10.0.0.8", tc.change)
				for range 90 {
					time.Sleep(time.Second)
					if err := allSee(peers, 3); err != nil {
						t.Fatal(err)
					}
				}
				for _, p := range peers {
					if m, _ := p.View().Member("n3"); m != withStatus(peers[2].set.Self, cluster.StatusAlive) {
						t.Errorf("%s has %+v", p.View().Self, m)
					}
				}
				if m := foreign.View().Members; len(m) != 1 {
					t.Errorf("the foreigner sees %v", m)
				}
				if tc.kind != 0 && !slices.ContainsFunc(peers, func(p *peer) bool { return p.alarmed(tc.kind) }) {
					t.Errorf("no alarm of kind %s: %v", tc.kind, peers[0].alarms())
				}
			})
		})
	}
}

// TestStrayDatagrams: what is no gossip of ours is dropped and counted.
func TestStrayDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCell(t)
		peers := c.openAll(2)
		pc, ln, err := c.net.Host("10.0.0.66").Listen(netip.MustParseAddrPort("10.0.0.66:1"))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		defer pc.Close()
		label := string(peers[0].trans.label)
		for _, b := range []string{"", "x", "\xf4", "\xf4\x05other", label, label + "x", label + "\x01" + strings.Repeat("x", 2000)} {
			if _, err := pc.WriteTo([]byte(b), net.UDPAddrFromAddrPort(peers[0].Addr())); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if s := peers[0].Stats(); s.ForeignPackets != 3 || s.Undecrypted != 1 || s.Alive != 2 {
			t.Errorf("stats %+v", s)
		}
		if !peers[0].alarmed(AlarmForeignLabel) {
			t.Errorf("alarms %v", peers[0].alarms())
		}
	})
}
