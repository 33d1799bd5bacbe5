package memnet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Network is a set of hosts that reach each other by name.
type Network struct {
	mu    sync.Mutex
	rng   *rand.Rand          // guarded by mu
	hosts map[string]*Host    // guarded by mu
	links map[[2]string]*link // guarded by mu; directed
	pipes map[*pipe]struct{}  // guarded by mu; open ones
	fixed link                // guarded by mu; of links that were given nothing else
	reset float64             // guarded by mu; see Resets
}

// link is the state of one direction between two hosts.
type link struct {
	cut    bool
	delay  time.Duration
	jitter time.Duration
	loss   float64
}

// resend is how long a lost packet delays the stream: a retransmission timeout.
const resend = 200 * time.Millisecond

// New makes a network without hosts; seed decides what it draws.
func New(seed uint64) *Network {
	return &Network{
		rng:   rand.New(rand.NewPCG(seed, 0x6d656d6e6574)),
		hosts: map[string]*Host{},
		links: map[[2]string]*link{},
		pipes: map[*pipe]struct{}{},
	}
}

// Host is one machine of the network.
type Host struct {
	net  *Network
	name string

	mu  sync.Mutex
	ear *Listener // guarded by mu; nil while nobody listens
}

// Host gives the host of a name, and makes it when it is new.
func (n *Network) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	if h == nil {
		h = &Host{net: n, name: name}
		n.hosts[name] = h
	}
	return h
}

// Latency sets the one-way delay of all links, its random addition and the
// share of packets lost.
func (n *Network) Latency(delay, jitter time.Duration, loss float64) {
	n.change(func() {
		n.fixed.delay, n.fixed.jitter, n.fixed.loss = delay, jitter, loss
		for _, l := range n.links {
			l.delay, l.jitter, l.loss = delay, jitter, loss
		}
	})
}

// Resets has a connection be reset, with that probability, soon after a packet has
// arrived: who sent it does not hear what came of it.
func (n *Network) Resets(part float64) { n.change(func() { n.reset = part }) }

// resets draws whether the connection of a packet is to be reset, and how long after
// the packet has arrived.
func (n *Network) resets() (after time.Duration, yes bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.reset == 0 || n.rng.Float64() >= n.reset {
		return 0, false
	}
	return time.Duration(n.rng.Int64N(int64(resetWithin))), true
}

// resetWithin is how long after the arrival of a packet its connection is reset at the
// latest: an answer may be on its way by then.
const resetWithin = time.Millisecond

// Cut holds everything back that goes from one host to another, in this
// direction only.
func (n *Network) Cut(from, to string) { n.change(func() { n.link(from, to).cut = true }) }

// Heal takes a Cut back.
func (n *Network) Heal(from, to string) { n.change(func() { n.link(from, to).cut = false }) }

// Partition lets hosts reach those of their own group only. A host in no group
// is alone.
func (n *Network) Partition(groups ...[]string) {
	of := map[string]int{}
	for i, g := range groups {
		for _, name := range g {
			of[name] = i + 1
		}
	}
	n.change(func() {
		for a := range n.hosts {
			for b := range n.hosts {
				n.link(a, b).cut = a != b && (of[a] == 0 || of[a] != of[b])
			}
		}
	})
}

// HealAll takes every cut back.
func (n *Network) HealAll() {
	n.change(func() {
		for _, l := range n.links {
			l.cut = false
		}
	})
}

// Kill ends a host's life: its listener is gone and its connections are reset.
// Listen begins the next life.
func (n *Network) Kill(name string) {
	n.mu.Lock()
	h := n.hosts[name]
	n.mu.Unlock()
	if h != nil {
		h.close()
	}
	n.fail(func(p *pipe) bool { return p.from == name || p.to == name })
}

// Reset ends the connections between two hosts; both find out at once.
func (n *Network) Reset(a, b string) {
	n.fail(func(p *pipe) bool { return p.from == a && p.to == b || p.from == b && p.to == a })
}

// fail resets the pipes that which names.
func (n *Network) fail(which func(*pipe) bool) {
	n.mu.Lock()
	var dead []*pipe
	for p := range n.pipes {
		if which(p) {
			dead = append(dead, p)
		}
	}
	n.mu.Unlock()
	for _, p := range dead {
		p.fail(errReset)
	}
}

// change runs f under the lock and tells every waiting pipe.
func (n *Network) change(f func()) {
	n.mu.Lock()
	f()
	pipes := make([]*pipe, 0, len(n.pipes))
	for p := range n.pipes {
		pipes = append(pipes, p)
	}
	n.mu.Unlock()
	for _, p := range pipes {
		p.poke()
	}
}

// link is called with mu held.
func (n *Network) link(from, to string) *link {
	k := [2]string{from, to}
	l := n.links[k]
	if l == nil {
		f := n.fixed
		l = &f
		n.links[k] = l
	}
	return l
}

func (n *Network) isCut(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.link(from, to).cut
}

// latency draws the delay of one packet.
func (n *Network) latency(from, to string) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.link(from, to)
	d := l.delay
	if l.jitter > 0 {
		d += time.Duration(n.rng.Int64N(int64(l.jitter)))
	}
	for l.loss > 0 && n.rng.Float64() < l.loss {
		d += resend
	}
	return d
}

var (
	errReset   = errors.New("connection reset by peer")
	errRefused = errors.New("connection refused")
)

// backlog bounds the connections a listener has not accepted.
const backlog = 64

// Listener is a host's ear. A host has one at a time.
type Listener struct {
	host   *Host
	queue  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

var _ net.Listener = (*Listener)(nil)

// Listen begins to accept connections to the host; what listened before is
// closed.
func (h *Host) Listen() *Listener {
	h.close()
	l := &Listener{host: h, queue: make(chan net.Conn, backlog), closed: make(chan struct{})}
	h.mu.Lock()
	h.ear = l
	h.mu.Unlock()
	return l
}

func (h *Host) listener() *Listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ear
}

func (h *Host) close() {
	if l := h.listener(); l != nil {
		l.Close()
	}
}

// Accept waits for a connection.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, fmt.Errorf("accept at %s: %w", l.host.name, net.ErrClosed)
	}
}

// Close ends the listener; its connections live on.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.host.mu.Lock()
		if l.host.ear == l {
			l.host.ear = nil
		}
		l.host.mu.Unlock()
		close(l.closed)
		for {
			select {
			case c := <-l.queue:
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// Addr is the host's name.
func (l *Listener) Addr() net.Addr { return address(l.host.name) }

// Dial connects the listener's host to another.
func (l *Listener) Dial(to string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	select {
	case <-l.closed:
		return nil, fmt.Errorf("dial %s: %w", to, net.ErrClosed)
	default:
	}
	return l.host.Dial(ctx, to)
}

type address string

func (address) Network() string  { return "mem" }
func (a address) String() string { return string(a) }

// Dial connects to another host. It waits while a link between the two is cut.
func (h *Host) Dial(ctx context.Context, to string) (net.Conn, error) {
	n := h.net
	n.mu.Lock()
	other := n.hosts[to]
	n.mu.Unlock()
	if other == nil {
		return nil, fmt.Errorf("dial %s: no such host", to)
	}
	// A handshake is a packet each way.
	for _, way := range [][2]string{{h.name, to}, {to, h.name}} {
		if err := n.pass(ctx, way[0], way[1]); err != nil {
			return nil, fmt.Errorf("dial %s: %w", to, err)
		}
	}
	l := other.listener()
	if l == nil {
		return nil, fmt.Errorf("dial %s: %w", to, errRefused)
	}
	out, in := newPipe(n, h.name, to), newPipe(n, to, h.name)
	out.back, in.back = in, out
	near := &conn{out: out, in: in}
	far := &conn{out: in, in: out}
	select {
	case l.queue <- far:
		return near, nil
	case <-l.closed:
	default:
	}
	near.Close()
	far.Close()
	return nil, fmt.Errorf("dial %s: %w", to, errRefused)
}

// pass waits as long as one packet takes.
func (n *Network) pass(ctx context.Context, from, to string) error {
	for wait := n.latency(from, to); ; wait = resend {
		if wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			}
		}
		if !n.isCut(from, to) {
			return nil
		}
	}
}
