package gossip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/gossip/gossiptest"
)

// resolverOf knows the names whose switch is on, all at ip.
func resolverOf(names map[string]*atomic.Bool, ip string) func(context.Context, string) ([]netip.Addr, error) {
	return func(_ context.Context, host string) ([]netip.Addr, error) {
		if on := names[host]; on == nil || !on.Load() {
			return nil, fmt.Errorf("no such host %s", host)
		}
		return []netip.Addr{netip.MustParseAddr(ip)}, nil
	}
}

func validConfig() Config {
	return Config{
		Self:    cluster.Member{ID: "n1", Store: cluster.NewStoreID(), API: "a:1", Peer: "p:2"},
		Cluster: cluster.NewID(),
		Keys:    []Key{NewKey()},
		Listen:  "10.0.0.1:7402",
		Network: gossiptest.NewNetwork(1).Host("10.0.0.1"),
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   error // nil: any
	}{
		{"no keys", func(c *Config) { c.Keys = nil }, ErrKey},
		{"short key", func(c *Config) { c.Keys = []Key{{"abc"}} }, ErrKey},
		{"many keys", func(c *Config) { c.Keys = make([]Key, maxKeys+1) }, nil},
		{"no label", func(c *Config) { c.Cluster = cluster.ID{} }, nil},
		{"long label", func(c *Config) { c.Label = strings.Repeat("l", maxLabel+1) }, nil},
		{"no store", func(c *Config) { c.Self.Store = cluster.StoreID{} }, nil},
		{"bad id", func(c *Config) { c.Self.ID = "N" }, nil},
		{"gone", func(c *Config) { c.Self.Status = cluster.StatusGone }, nil},
		{"meta too long", func(c *Config) {
			c.Self.API, c.Self.Peer = strings.Repeat("a", 240), strings.Repeat("p", 240)
		}, ErrMetaTooLong},
		{"unprintable", func(c *Config) { c.Self.Zone = "z\n1" }, nil},
		{"bad seed", func(c *Config) { c.Join = []string{"host:port"} }, nil},
		{"empty seed", func(c *Config) { c.Join = []string{":7402"} }, nil},
		{"many seeds", func(c *Config) { c.Join = make([]string, maxSeeds+1) }, nil},
		{"timings", func(c *Config) { c.Timings.Probe, c.Timings.ProbeTimeout = time.Second, time.Second }, nil},
		{"negative timing", func(c *Config) { c.Timings.Sync = -1 }, nil},
		{"bad listen", func(c *Config) { c.Listen = "10.0.0.1:x" }, nil},
		{"foreign listen", func(c *Config) { c.Listen = "10.0.0.2" }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := validConfig()
			tc.change(&c)
			g, err := Open(c)
			if err == nil {
				g.Close()
				t.Fatal("opened")
			}
			if tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestAdvertise(t *testing.T) {
	var on atomic.Bool
	on.Store(true)
	for _, tc := range []struct{ listen, advertise, peer, want string }{
		{"10.0.0.1:7402", "", "p:2", "10.0.0.1:7402"},
		{"10.0.0.1:7402", "1.2.3.4", "p:2", "1.2.3.4:7402"},
		{"10.0.0.1:7402", "1.2.3.4:9", "p:2", "1.2.3.4:9"},
		{"10.0.0.1:7402", "node.example:9", "p:2", "10.9.9.9:9"},
		{"10.0.0.1:7402", "[fd00::1]:9", "p:2", "[fd00::1]:9"},
		{":7402", "", "node.example:7401", "10.9.9.9:7402"},
		{"0.0.0.0:7402", "", "10.0.0.1:7401", "10.0.0.1:7402"},
		{"[::]", "", "10.0.0.1:7401", "10.0.0.1:7402"},
		{":7402", "", "", ""},
		{":7402", "", "0.0.0.0:7401", ""},
		{":7402", "", "unknown.example:7401", ""},
	} {
		c := validConfig()
		c.Listen, c.Advertise, c.Self.Peer = tc.listen, tc.advertise, tc.peer
		c.Resolve = resolverOf(map[string]*atomic.Bool{"node.example": &on}, "10.9.9.9")
		s, err := c.validate()
		if err != nil {
			t.Fatal(err)
		}
		bound, err := s.listenAddr(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.advertiseAddr(t.Context(), bound)
		if tc.want == "" {
			if err == nil {
				t.Errorf("%+v: advertises %s", tc, got)
			}
			continue
		}
		if err != nil || got.String() != tc.want {
			t.Errorf("%+v: %s, %v", tc, got, err)
		}
	}
}

func TestSplitAddress(t *testing.T) {
	for _, tc := range []struct {
		in, host string
		port     uint16
		ok       bool
	}{
		{"a", "a", 7402, true}, {"a:1", "a", 1, true}, {"10.0.0.1", "10.0.0.1", 7402, true},
		{"::1", "::1", 7402, true}, {"[::1]", "::1", 7402, true}, {"[::1]:5", "::1", 5, true},
		{":7", "", 7, true}, {"", "", 7402, true},
		{"a:b", "", 0, false}, {"a:70000", "", 0, false}, {"a:1:2", "", 0, false},
		{strings.Repeat("a", cluster.MaxAddressLen+1), "", 0, false},
	} {
		host, port, err := splitAddress(tc.in, DefaultPort)
		if (err == nil) != tc.ok || err == nil && (host != tc.host || port != tc.port) {
			t.Errorf("%q: %q %d %v", tc.in, host, port, err)
		}
	}
}

func TestTimings(t *testing.T) {
	for _, tm := range []Timings{{}, LAN(), WAN(), {Probe: 5 * time.Second}} {
		tm.setDefaults()
		if err := tm.validate(); err != nil {
			t.Error(err)
		}
	}
}

// TestPacer: quick while alone, slow while a few are missing, quick again for a
// few rounds after an answer.
func TestPacer(t *testing.T) {
	tm := LAN()
	p := pacer{t: &tm}
	var got []time.Duration
	for range 8 {
		got = append(got, p.next(true, 2, false))
	}
	want := []time.Duration{250e6, 500e6, 1e9, 2e9, 4e9, 8e9, 10e9, 10e9}
	got = append(got, p.next(false, 1, false), p.next(false, 1, false), p.next(false, 1, false), p.next(false, 1, false))
	want = append(want, 5e9, 10e9, 20e9, 30e9)
	for range 4 {
		got = append(got, p.next(false, 1, true))
	}
	want = append(want, 250e6, 250e6, 250e6, 30e9)
	got = append(got, p.next(false, 0, true), p.next(true, 0, false))
	want = append(want, 30e9, 10e9)
	for range 100 {
		p.next(true, 1, false)
	}
	got, want = append(got, p.next(true, 1, false)), append(want, 10e9)
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("pause %d is %v, want %v (%v)", i, got[i], want[i], got)
		}
	}
}
