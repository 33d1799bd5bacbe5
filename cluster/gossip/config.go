package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/facetd/facetd/cluster"
)

// DefaultPort is where nodes gossip.
const DefaultPort = 7402

// Config says how to gossip. The zero value of a field is its default where one
// is named.
type Config struct {
	// Self is what this node tells about itself: id and store never change,
	// the rest does with Update. Status defaults to alive.
	Self cluster.Member

	// Cluster is the cluster this node belongs to. Members that name another
	// one are refused. Zero means that the node belongs to none yet; it sees
	// every member under its label, and needs Label.
	Cluster cluster.ID

	// Label stands before every datagram and stream; what carries another is
	// dropped. Default: the 32 digits of Cluster. Name one (the same on every
	// node) if nodes shall find each other before the cluster has an id.
	Label string

	// Listen is the address to gossip on, UDP and TCP: an IP address or a name
	// of this machine, with or without port. Port 0 takes any; no host means
	// every address of the machine. Default: ":7402".
	Listen string

	// Advertise is the address the others reach Listen at, a name or IP address,
	// with or without port. Default: Listen, or if that is unspecified
	// (0.0.0.0), the host of Self.Peer. A name is resolved once, in Open:
	// gossip speaks of IP addresses.
	Advertise string

	// Keys encrypt gossip; the first one encrypts, all decrypt. 1 to 8.
	Keys []Key

	// Insecure must be set to open without Keys. Then anybody who reaches the
	// port can forge members and crash the node: loopback and tests only.
	Insecure bool

	// Join names some members to find the cluster by, "host" or "host:port".
	// Names are resolved anew at each try. All may be down now, and this node
	// itself may be among them. At most 64.
	Join []string

	// Known are addresses where members were when this node ran last. They are tried
	// like seeds until somebody is in sight, who knows better. At most 64, others are
	// left out.
	Known []netip.AddrPort

	// Timings default to LAN().
	Timings Timings

	// Alarm is told of what an operator should know. It is called from one
	// goroutine, may block (further alarms are dropped then, and counted) and
	// must not call Close. Default: alarms are only logged.
	Alarm func(Alarm)

	// Logger gets few lines: members that come and go at Info, alarms at Warn,
	// what the library says at Debug. Default: no log.
	Logger *slog.Logger

	// Network carries datagrams and streams. Default: the machine's network.
	Network Network

	// Resolve finds the addresses of a host name. Default: the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Network opens the gossip port and connects to that of others. Tests put their
// own below; it speaks standard types, so that they need nothing of this package.
type Network interface {
	// Listen opens datagrams and streams on one port; port 0 means any. Their
	// addresses are *net.UDPAddr and *net.TCPAddr. Closing them ends a blocked
	// ReadFrom and Accept.
	Listen(addr netip.AddrPort) (net.PacketConn, net.Listener, error)

	// Dial opens a stream, or returns when ctx ends.
	Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
}

// Timings are the pace of gossip. A field that is zero takes the value of LAN.
type Timings struct {
	// Probe is how often one other member is probed, in turn. Shorter finds a
	// dead member sooner and costs more: one small datagram each way a probe.
	Probe time.Duration

	// ProbeTimeout is how long a probe waits before other members and a stream
	// are tried. More than a round trip, less than Probe.
	ProbeTimeout time.Duration

	// Suspicion is for how many probes a silent member is under suspicion
	// before it is gone (times log10 of the members above ten). Lower finds
	// dead members sooner, and calls slow ones dead.
	Suspicion int

	// Spread is how often news are passed on to three others; nothing is sent
	// when there are none.
	Spread time.Duration

	// Sync is how often the whole state is swapped with one other member.
	Sync time.Duration

	// Stream bounds connecting, and all reading and writing of one stream.
	Stream time.Duration

	// Reclaim is how long a member must be gone before its id is taken over by
	// another address or store.
	Reclaim time.Duration

	// Forget is how long a gone member stays in the view and is looked for.
	Forget time.Duration

	// Seeds are tried every RetryMin to RetryMax while nobody else is in sight,
	// lost members and missing seeds every RejoinMin to RejoinMax otherwise.
	RetryMin, RetryMax   time.Duration
	RejoinMin, RejoinMax time.Duration
}

// LAN finds a dead member in 3 to 5 seconds.
func LAN() Timings {
	return Timings{
		Probe:        500 * time.Millisecond,
		ProbeTimeout: 250 * time.Millisecond,
		Suspicion:    4,
		Spread:       100 * time.Millisecond,
		Sync:         30 * time.Second,
		Stream:       3 * time.Second,
		Reclaim:      30 * time.Second,
		Forget:       24 * time.Hour,
		RetryMin:     250 * time.Millisecond,
		RetryMax:     10 * time.Second,
		RejoinMin:    5 * time.Second,
		RejoinMax:    30 * time.Second,
	}
}

// WAN is for round trips of up to half a second and links that stall: it finds
// a dead member in 12 to 20 seconds.
func WAN() Timings {
	t := LAN()
	t.Probe = 2 * time.Second
	t.ProbeTimeout = time.Second
	t.Suspicion = 4
	t.Spread = 300 * time.Millisecond
	t.Sync = time.Minute
	t.Stream = 10 * time.Second
	t.Reclaim = time.Minute
	t.RetryMin = time.Second
	t.RetryMax = 30 * time.Second
	t.RejoinMin = 15 * time.Second
	t.RejoinMax = time.Minute
	return t
}

func (t *Timings) setDefaults() {
	d := LAN()
	for _, f := range [...]struct{ v, def *time.Duration }{
		{&t.Probe, &d.Probe}, {&t.ProbeTimeout, &d.ProbeTimeout}, {&t.Spread, &d.Spread},
		{&t.Sync, &d.Sync}, {&t.Stream, &d.Stream}, {&t.Reclaim, &d.Reclaim}, {&t.Forget, &d.Forget},
		{&t.RetryMin, &d.RetryMin}, {&t.RetryMax, &d.RetryMax},
		{&t.RejoinMin, &d.RejoinMin}, {&t.RejoinMax, &d.RejoinMax},
	} {
		if *f.v == 0 {
			*f.v = *f.def
		}
	}
	if t.Suspicion == 0 {
		t.Suspicion = d.Suspicion
	}
}

func (t *Timings) validate() error {
	const least, most = 10 * time.Millisecond, 100 * 24 * time.Hour
	for _, f := range [...]struct {
		name string
		v    time.Duration
	}{
		{"Probe", t.Probe}, {"ProbeTimeout", t.ProbeTimeout}, {"Spread", t.Spread}, {"Sync", t.Sync},
		{"Stream", t.Stream}, {"Reclaim", t.Reclaim}, {"Forget", t.Forget},
		{"RetryMin", t.RetryMin}, {"RetryMax", t.RetryMax}, {"RejoinMin", t.RejoinMin}, {"RejoinMax", t.RejoinMax},
	} {
		if f.v < least || f.v > most {
			return fmt.Errorf("timing %s is %v, want %v to %v", f.name, f.v, least, most)
		}
	}
	if t.ProbeTimeout >= t.Probe {
		return fmt.Errorf("timing ProbeTimeout is %v, want less than Probe, %v", t.ProbeTimeout, t.Probe)
	}
	if t.Suspicion < 1 || t.Suspicion > 100 {
		return fmt.Errorf("timing Suspicion is %d, want 1 to 100", t.Suspicion)
	}
	if t.RetryMin > t.RetryMax || t.RejoinMin > t.RejoinMax {
		return errors.New("a timing's Min is above its Max")
	}
	return nil
}

// seed is an entry of Config.Join.
type seed struct {
	host string
	port uint16
}

// settings is a Config that was checked, with its defaults filled in.
type settings struct {
	Config
	seeds []seed
}

func (c Config) validate() (settings, error) {
	s := settings{Config: c}
	if s.Self.Status == cluster.StatusUnknown {
		s.Self.Status = cluster.StatusAlive
	}
	s.Timings.setDefaults()
	if err := s.Timings.validate(); err != nil {
		return s, err
	}
	if s.Label == "" {
		if s.Cluster.IsZero() {
			return s, errors.New("a node without a cluster id needs a label")
		}
		s.Label = s.Cluster.String()
	}
	if len(s.Label) > maxLabel {
		return s, fmt.Errorf("label has %d bytes, limit %d", len(s.Label), maxLabel)
	}
	if len(s.Keys) > maxKeys {
		return s, fmt.Errorf("%d keys, limit %d", len(s.Keys), maxKeys)
	}
	if len(s.Keys) == 0 && !s.Insecure {
		return s, fmt.Errorf("no keys, and Insecure is not set: %w", ErrKey)
	}
	if len(s.Join) > maxSeeds {
		return s, fmt.Errorf("%d seeds, limit %d", len(s.Join), maxSeeds)
	}
	s.Known = s.Known[:min(len(s.Known), maxSeeds)]
	for _, j := range s.Join {
		host, port, err := splitAddress(j, DefaultPort)
		if err != nil {
			return s, fmt.Errorf("seed: %w", err)
		}
		if host == "" || port == 0 {
			return s, fmt.Errorf("seed %q: want host:port", j)
		}
		s.seeds = append(s.seeds, seed{host, port})
	}
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	if s.Network == nil {
		s.Network = machine{}
	}
	if s.Resolve == nil {
		s.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return s, nil
}

// splitAddress reads "host", "host:port", "[v6]" or "[v6]:port".
func splitAddress(s string, defaultPort uint16) (host string, port uint16, err error) {
	if len(s) > cluster.MaxAddressLen {
		return "", 0, fmt.Errorf("address has %d bytes, limit %d", len(s), cluster.MaxAddressLen)
	}
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.String(), defaultPort, nil
	}
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		// Without a port it fails too; if it still does with one, it is wrong.
		if host, _, again := net.SplitHostPort(s + ":0"); again == nil {
			return host, defaultPort, nil
		}
		return "", 0, fmt.Errorf("address %q: %w", s, err)
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("address %q: port %q is no number up to 65535", s, digits)
	}
	return host, uint16(n), nil
}

// resolve returns the addresses of host, which may be a literal.
func (s *settings) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap().WithZone("")}, nil
	}
	ips, err := s.Resolve(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	if len(ips) == 0 {
		return nil, fmt.Errorf("resolve %s: no address", host)
	}
	ips = ips[:min(len(ips), maxJoinAddrs)]
	out := make([]netip.Addr, len(ips))
	for i, ip := range ips {
		out[i] = ip.Unmap().WithZone("")
	}
	return out, nil
}

// listenAddr is the address to bind.
func (s *settings) listenAddr(ctx context.Context) (netip.AddrPort, error) {
	host, port, err := splitAddress(s.Listen, DefaultPort)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), port), nil
	}
	ips, err := s.resolve(ctx, host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(ips[0], port), nil
}

// advertiseAddr is the address the others are told; bound is what was bound.
func (s *settings) advertiseAddr(ctx context.Context, bound netip.AddrPort) (netip.AddrPort, error) {
	host, port := "", bound.Port()
	switch {
	case s.Advertise != "":
		var err error
		if host, port, err = splitAddress(s.Advertise, bound.Port()); err != nil {
			return netip.AddrPort{}, err
		}
		if port == 0 {
			port = bound.Port()
		}
	case !bound.Addr().IsUnspecified():
		return bound, nil
	default:
		host, _, _ = splitAddress(s.Self.Peer, 0)
	}
	if host == "" {
		return netip.AddrPort{}, fmt.Errorf("listening on %s, which is every address of this machine: say which one to advertise", bound)
	}
	ips, err := s.resolve(ctx, host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if ips[0].IsUnspecified() {
		return netip.AddrPort{}, fmt.Errorf("advertise address %s reaches nobody", host)
	}
	return netip.AddrPortFrom(ips[0], port), nil
}
