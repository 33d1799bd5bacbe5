// Package gossiptest is a network in memory for tests: hosts with IP addresses,
// datagrams, streams, and ways to break them. A Host is a gossip.Network.
//
// It uses channels and timers only, so it works inside a testing/synctest
// bubble. Sleep there for some seconds after the last Gossip is closed, before
// the bubble ends: memberlist's last probes end by themselves, but not without
// time. It refuses to be a model of TCP: a stream over a cut path swallows
// what is written, so the reader waits for its deadline, as it would for real.
// All methods may be called from any goroutine.
package gossiptest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// inbox bounds the datagrams and streams a socket holds; more are dropped,
	// or refused, as a kernel does.
	inbox = 1024

	firstPort = 49152
)

// errRefused is what dialling an address without a listener gives.
var errRefused = errors.New("connection refused")

// Network connects hosts. NewNetwork makes one without faults.
type Network struct {
	mu      sync.Mutex
	rand    *rand.Rand
	sockets map[netip.AddrPort]*socket
	cut     map[[2]netip.Addr]bool // from, to
	down    map[netip.Addr]bool
	loss    float64
	repeat  float64
	delay   time.Duration
	jitter  time.Duration
	port    uint16
	packets uint64
}

// NewNetwork makes a network whose losses follow from seed.
func NewNetwork(seed uint64) *Network {
	return &Network{
		rand:    rand.New(rand.NewPCG(seed, seed)),
		sockets: make(map[netip.AddrPort]*socket),
		cut:     make(map[[2]netip.Addr]bool),
		down:    make(map[netip.Addr]bool),
		port:    firstPort,
	}
}

// Host is a machine on the network.
type Host struct {
	net *Network
	ip  netip.Addr
}

// Host returns the machine at ip, "10.0.0.1" for instance.
func (n *Network) Host(ip string) *Host { return &Host{n, netip.MustParseAddr(ip)} }

// SetLoss drops that part of all datagrams, 0 to 1.
func (n *Network) SetLoss(part float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = part
}

// SetDelay has datagrams take d, and connecting twice that.
func (n *Network) SetDelay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// SetRepeat has that part of all datagrams, 0 to 1, arrive twice.
func (n *Network) SetRepeat(part float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.repeat = part
}

// SetJitter has each datagram take up to d longer, so that they overtake one another.
func (n *Network) SetJitter(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.jitter = d
}

// CutOneWay loses what a sends to b.
func (n *Network) CutOneWay(a, b *Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]netip.Addr{a.ip, b.ip}] = true
}

// Partition cuts every path between hosts of different groups.
func (n *Network) Partition(groups ...[]*Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, g := range groups {
		for j, o := range groups {
			if i == j {
				continue
			}
			for _, a := range g {
				for _, b := range o {
					n.cut[[2]netip.Addr{a.ip, b.ip}] = true
				}
			}
		}
	}
}

// Heal mends all paths; hosts that are down stay down.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

// SetDown takes h off the network without a word, as pulling its cable does,
// or puts it back.
func (h *Host) SetDown(down bool) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.net.down[h.ip] = down
}

// Packets counts the datagrams sent, lost ones included.
func (n *Network) Packets() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.packets
}

// open reports whether what from sends reaches to. n.mu is held.
func (n *Network) open(from, to netip.Addr) bool {
	return !n.down[from] && !n.down[to] && !n.cut[[2]netip.Addr{from, to}]
}

// Listen opens datagrams and streams on one port.
func (h *Host) Listen(addr netip.AddrPort) (net.PacketConn, net.Listener, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if !addr.Addr().IsUnspecified() && addr.Addr() != h.ip {
		return nil, nil, fmt.Errorf("listen %s: host has %s", addr, h.ip)
	}
	port := addr.Port()
	if port == 0 {
		port = n.port
		n.port++
	}
	at := netip.AddrPortFrom(h.ip, port)
	if n.sockets[at] != nil {
		return nil, nil, fmt.Errorf("listen %s: address already in use", at)
	}
	s := &socket{net: n, at: at, packets: make(chan packet, inbox), streams: make(chan net.Conn, inbox),
		closed: [2]chan struct{}{make(chan struct{}), make(chan struct{})}}
	n.sockets[at] = s
	return packetConn{s}, listener{s}, nil
}

// Dial opens a stream from h.
func (h *Host) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: err}
	}
	n := h.net
	n.mu.Lock()
	open, delay := n.open(h.ip, addr.Addr()) && n.open(addr.Addr(), h.ip), 2*n.delay
	n.mu.Unlock()
	if !open {
		<-ctx.Done()
		return fail(ctx.Err())
	}
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return fail(ctx.Err())
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	to := n.sockets[addr]
	if to == nil {
		return fail(errRefused)
	}
	port := n.port
	if n.port++; n.port < firstPort {
		n.port = firstPort
	}
	from := netip.AddrPortFrom(h.ip, port)
	near, far := net.Pipe()
	select {
	case to.streams <- conn{far, n, addr, from}:
		return conn{near, n, from, addr}, nil
	default:
		return fail(errRefused)
	}
}

// socket is a port of a host.
type socket struct {
	net     *Network
	at      netip.AddrPort
	packets chan packet
	streams chan net.Conn
	once    [2]sync.Once
	closed  [2]chan struct{} // datagrams, streams
}

type packet struct {
	data []byte
	from netip.AddrPort
}

func (s *socket) close(side int) {
	s.once[side].Do(func() {
		close(s.closed[side])
		s.net.mu.Lock()
		delete(s.net.sockets, s.at) // one side without the other is of no use
		s.net.mu.Unlock()
	})
	if side == 0 {
		return
	}
	for {
		select {
		case c := <-s.streams:
			c.Close()
		default:
			return
		}
	}
}

type packetConn struct{ *socket }

func (c packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-c.packets:
		return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
	case <-c.closed[0]:
		return 0, nil, net.ErrClosed
	}
}

func (c packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	select {
	case <-c.closed[0]:
		return 0, net.ErrClosed
	default:
	}
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("write to %v: not a UDP address", addr)
	}
	to := udp.AddrPort()
	n := c.net
	n.mu.Lock()
	defer n.mu.Unlock()
	n.packets++
	if !n.open(c.at.Addr(), to.Addr()) || n.loss > 0 && n.rand.Float64() < n.loss {
		return len(b), nil
	}
	p := packet{append([]byte(nil), b...), c.at}
	n.send(p, to)
	if n.repeat > 0 && n.rand.Float64() < n.repeat {
		n.send(p, to)
	}
	return len(b), nil
}

// send delivers p in time. n.mu is held.
func (n *Network) send(p packet, to netip.AddrPort) {
	delay := n.delay
	if n.jitter > 0 {
		delay += time.Duration(n.rand.Int64N(int64(n.jitter)))
	}
	if delay == 0 {
		n.deliver(p, to)
		return
	}
	time.AfterFunc(delay, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.deliver(p, to)
	})
}

// deliver drops p if nobody takes it. n.mu is held.
func (n *Network) deliver(p packet, to netip.AddrPort) {
	s := n.sockets[to]
	if s == nil {
		return
	}
	select {
	case s.packets <- p:
	default:
	}
}

func (c packetConn) Close() error                     { c.close(0); return nil }
func (c packetConn) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(c.at) }
func (c packetConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (c packetConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (c packetConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

type listener struct{ *socket }

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.streams:
		return c, nil
	case <-l.closed[1]:
		return nil, net.ErrClosed
	}
}

func (l listener) Close() error   { l.close(1); return nil }
func (l listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

// conn is one end of a stream. Writing blocks until the other end has read.
type conn struct {
	net.Conn
	net        *Network
	near, past netip.AddrPort
}

func (c conn) Write(b []byte) (int, error) {
	c.net.mu.Lock()
	open := c.net.open(c.near.Addr(), c.past.Addr())
	c.net.mu.Unlock()
	if !open {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.near) }
func (c conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.past) }
