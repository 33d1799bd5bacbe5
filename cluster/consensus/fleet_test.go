package consensus

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus/memnet"
)

// port is the peer port of a node in these tests: one listener for Raft,
// Exchange and Forward, told apart by the first byte, as the node's will be.
type port struct {
	base Stream
	raft chan net.Conn
	done chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	node  *Node                 // guarded by mu; nil until it is open
	conns map[net.Conn]struct{} // guarded by mu
	shut  bool                  // guarded by mu
}

func newPort(base Stream) *port {
	p := &port{base: base, raft: make(chan net.Conn), done: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	p.wg.Go(func() {
		for {
			c, err := base.Accept()
			if err != nil {
				return
			}
			if p.keep(c) {
				p.wg.Go(func() { p.serve(c) })
			}
		}
	})
	return p
}

func (p *port) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shut {
		c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *port) drop(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	c.Close()
}

func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.raft:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *port) Addr() net.Addr { return p.base.Addr() }

func (p *port) Close() error {
	p.mu.Lock()
	if p.shut {
		p.mu.Unlock()
		return nil
	}
	p.shut = true
	close(p.done)
	conns := slices.Collect(maps.Keys(p.conns))
	p.mu.Unlock()
	err := p.base.Close()
	for _, c := range conns {
		c.Close()
	}
	p.wg.Wait()
	return err
}

func (p *port) Dial(address string, timeout time.Duration) (net.Conn, error) {
	return p.dial('R', address, timeout)
}

func (p *port) dial(kind byte, address string, timeout time.Duration) (net.Conn, error) {
	c, err := p.base.Dial(address, timeout)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte{kind}); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (p *port) serve(c net.Conn) {
	var kind [1]byte
	if _, err := io.ReadFull(c, kind[:]); err != nil {
		p.drop(c)
		return
	}
	if kind[0] == 'R' {
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
		select {
		case p.raft <- c:
		case <-p.done:
			c.Close()
		}
		return
	}
	defer p.drop(c)
	p.mu.Lock()
	n := p.node
	p.mu.Unlock()
	if n == nil {
		return
	}
	r := bufio.NewReader(c)
	in, err := readAll(r)
	if err != nil {
		return
	}
	var out [][]byte
	switch kind[0] {
	case 'X':
		b, err := n.Answer(in[0])
		if err != nil {
			return
		}
		out = [][]byte{b}
	case 'F':
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
		results, err := n.Accept(ctx, cluster.NodeID(in[0]), in[1:])
		cancel()
		text := ""
		if err != nil {
			text = err.Error()
		}
		out = append([][]byte{{byte(CodeOf(err))}, []byte(text)}, results...)
	}
	c.Write(frame(out))
}

func frame(parts [][]byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(parts)))
	for _, p := range parts {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
	}
	return b
}

func readAll(r io.Reader) ([][]byte, error) {
	var n uint32
	if err := binary.Read(r, binary.BigEndian, &n); err != nil {
		return nil, err
	}
	out := make([][]byte, n)
	for i := range out {
		if err := binary.Read(r, binary.BigEndian, &n); err != nil {
			return nil, err
		}
		out[i] = make([]byte, n)
		if _, err := io.ReadFull(r, out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// call makes one call over a connection of its own.
func (p *port) call(ctx context.Context, kind byte, address string, parts [][]byte) ([][]byte, error) {
	timeout := 5 * time.Second
	if d, ok := ctx.Deadline(); ok {
		timeout = time.Until(d)
	}
	c, err := p.dial(kind, address, timeout)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	if !p.keep(c) {
		return nil, fmt.Errorf("%w: closed", ErrNotSent)
	}
	defer p.drop(c)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if _, err := c.Write(frame(parts)); err != nil {
		return nil, err
	}
	return readAll(c)
}

func (p *port) exchange(ctx context.Context, address string, message []byte) ([]byte, error) {
	out, err := p.call(ctx, 'X', address, [][]byte{message})
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

func (p *port) forward(self cluster.NodeID) func(context.Context, cluster.NodeID, string, [][]byte) ([][]byte, error) {
	return func(ctx context.Context, _ cluster.NodeID, address string, commands [][]byte) ([][]byte, error) {
		out, err := p.call(ctx, 'F', address, append([][]byte{[]byte(self)}, commands...))
		if err != nil {
			return nil, err
		}
		if err := Code(out[0][0]).Err(string(out[1])); err != nil {
			return nil, err
		}
		return out[2:], nil
	}
}

// fleet is a cluster under test.
type fleet struct {
	t     *testing.T
	net   *memnet.Network // nil for real TCP
	tweak func(*Config)
	boxes map[cluster.NodeID]*box
	zones map[cluster.NodeID]string

	machines sync.Mutex // guards boxes and what is in them

	mu      sync.Mutex
	acked   []string // guarded by mu
	maybe   map[string]bool
	refused []string
}

// box is a machine: it may be up or down.
type box struct {
	id      cluster.NodeID
	mem     *Memory
	dir     string
	address string
	node    *Node // nil while it is down
	port    *port
	ledger  *ledger
	dead    *atomic.Bool // of the process now running
	fatal   chan error
}

func newFleet(t *testing.T, tweak func(*Config)) *fleet {
	f := &fleet{t: t, net: memnet.New(1), tweak: tweak, boxes: map[cluster.NodeID]*box{}, zones: map[cluster.NodeID]string{}, maybe: map[string]bool{}}
	f.net.Latency(200*time.Microsecond, 100*time.Microsecond, 0)
	return f
}

func names(n int) (out []cluster.NodeID) {
	for i := range n {
		out = append(out, cluster.NodeID(fmt.Sprintf("n%d", i+1)))
	}
	return out
}

func (f *fleet) box(id cluster.NodeID) *box {
	f.machines.Lock()
	defer f.machines.Unlock()
	b := f.boxes[id]
	if b == nil {
		b = &box{id: id, mem: NewMemory(), address: string(id)}
		f.boxes[id] = b
	}
	return b
}

// start boots a node. Its listener may be given, for real TCP.
func (f *fleet) start(id cluster.NodeID, more ...func(*Config)) *box {
	f.t.Helper()
	b := f.box(id)
	var base Stream
	if f.net != nil {
		base = f.net.Host(string(id)).Listen()
	} else {
		address := b.address
		if b.port == nil {
			address = "127.0.0.1:0"
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			f.t.Fatal(err)
		}
		base = tcp{l}
		b.address = l.Addr().String()
	}
	f.machines.Lock()
	b.port, b.ledger, b.dead, b.fatal = newPort(base), &ledger{}, new(atomic.Bool), make(chan error, 100)
	f.machines.Unlock()
	fatal, dead := b.fatal, b.dead
	cfg := Config{
		ID: id, StateMachine: b.ledger, Stream: b.port, Exchange: b.port.exchange, Forward: b.port.forward(id),
		Fatal: func(err error) {
			if !dead.Load() {
				f.t.Logf("%s: %v", id, err)
			}
			fatal <- err
		},
	}
	if os.Getenv("CONSENSUS_TEST_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", id)
	}
	if b.dir != "" {
		cfg.Dir = b.dir
	} else {
		cfg.Memory = b.mem
	}
	if f.tweak != nil {
		f.tweak(&cfg)
	}
	for _, m := range more {
		m(&cfg)
	}
	n, err := Open(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	b.port.mu.Lock()
	b.port.node = n
	b.port.mu.Unlock()
	f.machines.Lock()
	b.node = n
	f.machines.Unlock()
	return b
}

type tcp struct{ net.Listener }

func (s tcp) Dial(address string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", address, timeout)
}

// see tells every node that is up of the nodes named, or of all.
func (f *fleet) see(ids ...cluster.NodeID) {
	f.t.Helper()
	if len(ids) == 0 {
		ids = slices.Sorted(maps.Keys(f.boxes))
	}
	for _, b := range f.up() {
		b.node.SetView(f.view(b.id, ids...))
	}
}

func (f *fleet) view(self cluster.NodeID, ids ...cluster.NodeID) cluster.View {
	var ms []cluster.Member
	for _, id := range ids {
		status := cluster.StatusAlive
		if f.box(id).node == nil {
			status = cluster.StatusSuspect
		}
		ms = append(ms, cluster.Member{ID: id, Peer: f.box(id).address, Zone: f.zones[id], Status: status})
	}
	v, err := cluster.NewView(cluster.ID{}, self, ms)
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

// up gives copies of the machines that run, by name.
func (f *fleet) up() (out []*box) {
	f.machines.Lock()
	defer f.machines.Unlock()
	for _, id := range slices.Sorted(maps.Keys(f.boxes)) {
		if b := *f.boxes[id]; b.node != nil {
			out = append(out, &b)
		}
	}
	return out
}

// crash ends a node's process and machine: what was written stays.
func (f *fleet) crash(id cluster.NodeID) {
	f.t.Helper()
	b := f.boxes[id]
	if f.net != nil {
		f.net.Kill(string(id))
	}
	b.dead.Store(true)
	if b.dir == "" {
		b.mem = b.mem.Crash()
	}
	f.stop(id)
}

func (f *fleet) stop(id cluster.NodeID) {
	f.t.Helper()
	b := f.boxes[id]
	f.machines.Lock()
	n := b.node
	b.node = nil
	f.machines.Unlock()
	if err := n.Close(); err != nil {
		f.t.Errorf("close %s: %v", id, err)
	}
	b.port.Close()
}

func (f *fleet) stopAll() {
	for _, b := range f.up() {
		f.stop(b.id)
	}
}

// until waits for a condition that no channel tells of. In a bubble its time is
// virtual; with real TCP it is bounded and short.
func (f *fleet) until(within time.Duration, what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(within); !ok(); {
		if time.Now().After(deadline) {
			for _, b := range f.up() {
				f.t.Logf("%s: %+v members %+v", b.id, b.node.Stats(), b.node.Members())
			}
			f.t.Fatalf("%s: not within %v", what, within)
		}
		t := time.NewTimer(5 * time.Millisecond)
		<-t.C
	}
}

// leader waits for a node that leads and that a majority of all follows.
func (f *fleet) leader(within time.Duration, but ...cluster.NodeID) *box {
	f.t.Helper()
	var found *box
	f.until(within, "a leader", func() bool {
		found = nil
		var term uint64
		for _, b := range f.up() {
			if now, _ := b.node.Leadership(); now.Leading && now.Term > term && !slices.Contains(but, b.id) {
				found, term = b, now.Term
			}
		}
		return found != nil
	})
	return found
}

func (f *fleet) follower() *box {
	f.t.Helper()
	l := f.leader(10 * time.Second)
	for _, b := range f.up() {
		if b.id != l.id {
			return b
		}
	}
	f.t.Fatal("no follower")
	return nil
}

// propose proposes at a node and notes what came of it.
func (f *fleet) propose(b *box, c string, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	n, dead := b.node, b.dead
	r, err := n.Propose(ctx, []byte(c))
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case dead.Load() && !errors.Is(err, ErrClosed):
		f.maybe[c] = true
	case err == nil:
		if _, cmd, _ := strings.Cut(string(r), ":"); cmd != c {
			f.t.Errorf("result of %s is %q", c, r)
		}
		f.acked = append(f.acked, c)
	case errors.Is(err, ErrUnknownOutcome), errors.Is(err, ErrFailed):
		f.maybe[c] = true
	default:
		f.refused = append(f.refused, c)
	}
	return err
}

// check waits until all nodes that are up have applied the same, and compares
// that with what callers were told.
func (f *fleet) check() {
	f.t.Helper()
	f.leader(10 * time.Second)
	up := f.up()
	last := fmt.Sprintf("last-%d", len(f.acked))
	if err := f.propose(up[0], last, 10*time.Second); err != nil {
		f.t.Fatal(err)
	}
	var want []string
	f.until(10*time.Second, "equal ledgers", func() bool {
		want = up[0].ledger.all()
		for _, b := range up[1:] {
			if !slices.Equal(b.ledger.all(), want) {
				return false
			}
		}
		// A command whose caller has given up may come behind the last one.
		return slices.Contains(want, last)
	})
	times := map[string]int{}
	for _, c := range want {
		times[c]++
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.acked {
		if times[c] != 1 {
			f.t.Errorf("%s was acknowledged and is there %d times", c, times[c])
		}
		delete(times, c)
	}
	for c := range f.maybe {
		if times[c] > 1 {
			f.t.Errorf("%s is there %d times", c, times[c])
		}
		delete(times, c)
	}
	for c, k := range times {
		f.t.Errorf("%s is there %d times, and nobody was told so", c, k)
	}
}

// load proposes at all nodes that are up, until stop is called. Each caller
// waits so long between two.
func (f *fleet) load(callers int, pace time.Duration) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-done:
					return
				default:
				}
				up := f.up()
				if len(up) == 0 {
					return
				}
				b := up[(i+k)%len(up)]
				f.propose(b, fmt.Sprintf("%s-%d-%d", b.id, i, k), 5*time.Second)
				t := time.NewTimer(pace)
				<-t.C
			}
		})
	}
	return func() { close(done); wg.Wait() }
}

// form starts n nodes that expect n and waits until they have a leader.
func (f *fleet) form(n int) *box {
	f.t.Helper()
	for _, id := range names(n) {
		f.start(id, func(c *Config) { c.Expect = n })
	}
	f.see()
	return f.leader(10 * time.Second)
}
