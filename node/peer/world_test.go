package peer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testCluster = cluster.ID{1, 2, 3}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testID(n int) facet.Incarnation {
	return facet.Incarnation{byte(n), byte(n >> 8), byte(n >> 16), 15: 1}
}

// entry is the entry at seq of a facet whose whole log is of one epoch.
func entry(id facet.Incarnation, e facet.Epoch, seq facet.Seq, n int) *facet.Commit {
	c := &facet.Commit{Incarnation: id, Kind: facet.KindCommit, Epoch: e, Seq: seq, PrevEpoch: e,
		PreSum: sumAt(seq - 1), PostSum: sumAt(seq), DBPages: 100 + uint32(seq%7), Pages: bytes.Repeat([]byte{byte(seq)}, n)}
	if seq == 1 {
		c.PrevEpoch = 0
	}
	return c
}

func sumAt(seq facet.Seq) facet.Sum {
	return facet.Sum{Hi: uint64(seq) * 0x9e3779b97f4a7c15, Lo: uint64(seq)}
}

// funcs is a Handler, Placement and Installer made of functions; what is nil
// answers plainly.
type funcs struct {
	appendFn  func(from *Caller, a *AppendItem)
	knownFn   func(from *Caller, k *KnownItem)
	prepareFn func(from *Caller, s Session, reply func(replica.Promise, error))
	checkFn   func(from *Caller, s Session) bool
	fetchFn   func(ctx context.Context, from *Caller, r FetchRequest, out *EntryWriter) error
	renewFn   func(from *Caller, r RenewRequest, reply func(Grant, error))
	proposeFn func(from *Caller, cmds [][]byte, reply func(int, []byte, error))
	installFn func(ctx context.Context, from Remote, o SnapshotOffer, src io.Reader) (facet.Position, error)
}

func (f *funcs) Append(from *Caller, a *AppendItem) {
	if f.appendFn != nil {
		f.appendFn(from, a)
		return
	}
	from.Acked(a.Entry.Incarnation, a.Epoch, a.Entry.Seq)
}

func (f *funcs) Known(from *Caller, k *KnownItem) {
	if f.knownFn != nil {
		f.knownFn(from, k)
	}
}

func (f *funcs) Prepare(from *Caller, s Session, reply func(replica.Promise, error)) {
	if f.prepareFn != nil {
		f.prepareFn(from, s, reply)
		return
	}
	reply(replica.Promise{Incarnation: s.Incarnation, Epoch: s.Epoch}, nil)
}

func (f *funcs) Check(from *Caller, s Session) bool { return f.checkFn != nil && f.checkFn(from, s) }

func (f *funcs) Inspect(_ *Caller, s Session) (replica.Promise, error) {
	if s.Incarnation == idA {
		return *samplePromise(), nil
	}
	return replica.Promise{}, replica.ErrUnknown
}

func (f *funcs) Fetch(ctx context.Context, from *Caller, r FetchRequest, out *EntryWriter) error {
	if f.fetchFn != nil {
		return f.fetchFn(ctx, from, r, out)
	}
	return replica.ErrUnknown
}

func (f *funcs) Renew(from *Caller, r RenewRequest, reply func(Grant, error)) {
	if f.renewFn != nil {
		f.renewFn(from, r, reply)
		return
	}
	reply(Grant{Stamp: r.Stamp, TTL: time.Second}, nil)
}

func (f *funcs) Propose(from *Caller, cmds [][]byte, reply func(int, []byte, error)) {
	if f.proposeFn != nil {
		f.proposeFn(from, cmds, reply)
		return
	}
	for i, c := range cmds {
		reply(i, c, nil)
	}
}

func (f *funcs) Install(ctx context.Context, from Remote, o SnapshotOffer, src io.Reader) (facet.Position, error) {
	return f.installFn(ctx, from, o, src)
}

// event is one thing Acks heard.
type event struct {
	kind string // ready, acked, lost
	from Remote
	ack  Ack
	err  error
}

// ears is an Acks that puts everything into a channel.
type ears struct{ heard chan event }

func newEars() *ears { return &ears{heard: make(chan event, 1<<16)} }

func (e *ears) Ready(to Remote) { e.heard <- event{kind: "ready", from: to} }
func (e *ears) Acked(from Remote, acks []Ack) {
	for _, a := range acks {
		e.heard <- event{kind: "acked", from: from, ack: a}
	}
}
func (e *ears) Lost(to Remote, cause error) { e.heard <- event{kind: "lost", from: to, err: cause} }

// next gives the next event, which must be of that kind.
func (e *ears) next(t testing.TB, kind string) event {
	t.Helper()
	select {
	case ev := <-e.heard:
		if ev.kind != kind {
			t.Fatalf("heard %q (%v, %v), want %q", ev.kind, ev.err, ev.ack, kind)
		}
		return ev
	case <-time.After(30 * time.Second):
		t.Fatalf("heard nothing, want %q", kind)
		panic("unreachable")
	}
}

// addresses is what everybody believes of where nodes are.
type addresses struct {
	mu sync.Mutex
	of map[cluster.NodeID]string
}

func (a *addresses) get(id cluster.NodeID) (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, ok := a.of[id]
	return s, ok
}

func (a *addresses) set(id cluster.NodeID, s string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of[id] = s
}

func newAddresses() *addresses { return &addresses{of: make(map[cluster.NodeID]string)} }

func bootOf(n byte) cluster.BootID { return cluster.BootID{n, 15: 0xb} }

// start opens a transport on loopback; adjust may change its configuration.
func start(t testing.TB, id cluster.NodeID, where *addresses, adjust func(*Config)) *Transport {
	t.Helper()
	cfg := Config{
		Node: id, Boot: bootOf(id[1]), Store: cluster.StoreID{id[1], 15: 0x5}, Address: "127.0.0.1:0", Log: quiet(),
		Cluster: func() cluster.ID { return testCluster }, AddressOf: where.get, Handler: new(funcs),
	}
	if adjust != nil {
		adjust(&cfg)
	}
	tr, err := Listen(cfg)
	check(t, err)
	t.Cleanup(func() { check(t, tr.Close()) })
	where.set(id, tr.Addr().String())
	return tr
}

// connect makes sure that there is a connection.
func connect(t testing.TB, p *Peer) {
	t.Helper()
	_, err := p.Ping(t.Context())
	check(t, err)
}

// memNet is a network in memory whose wires can be cut, held or swallowed.
type memNet struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	wires     map[*memWire]struct{}
}

func newMemNet() *memNet {
	return &memNet{listeners: make(map[string]*memListener), wires: make(map[*memWire]struct{})}
}

type memAddr string

func (memAddr) Network() string  { return "mem" }
func (a memAddr) String() string { return string(a) }

type memListener struct {
	n     *memNet
	addr  memAddr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (n *memNet) listen(addr string) *memListener {
	l := &memListener{n: n, addr: memAddr(addr), conns: make(chan net.Conn), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[addr] = l
	return l
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *memListener) Addr() net.Addr { return l.addr }

// memWire is one connection: two pipes with a pump for each direction between.
type memWire struct {
	a, b net.Conn // the inner ends

	mu      sync.Mutex
	mode    wireMode
	changed chan struct{}
	limit   int // bytes from a to b until it is cut, when above zero
}

type wireMode int

const (
	flowing    wireMode = iota
	held                // bytes wait
	swallowing          // bytes vanish, and nobody is told anything
)

func (n *memNet) dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: no such address", addr)
	}
	ours, a := net.Pipe()
	theirs, b := net.Pipe()
	w := &memWire{a: a, b: b, changed: make(chan struct{})}
	select {
	case l.conns <- theirs:
	case <-l.done:
		return nil, fmt.Errorf("dial %s: connection refused", addr)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	n.wires[w] = struct{}{}
	n.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { w.pump(b, a, true) })
	wg.Go(func() { w.pump(a, b, false) })
	go func() {
		wg.Wait()
		n.mu.Lock()
		delete(n.wires, w)
		n.mu.Unlock()
	}()
	return ours, nil
}

func (w *memWire) pump(dst, src net.Conn, forth bool) {
	defer func() {
		w.mu.Lock()
		vanished := w.mode == swallowing
		w.mu.Unlock()
		if vanished { // nor does anybody hear that the other end closed
			src.Close()
		} else {
			w.cut()
		}
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		for {
			w.mu.Lock()
			mode, changed := w.mode, w.changed
			if forth && w.limit > 0 {
				if w.limit -= n; w.limit <= 0 {
					w.mu.Unlock()
					return
				}
			}
			w.mu.Unlock()
			if mode != held {
				if mode == flowing {
					if _, err := dst.Write(buf[:n]); err != nil {
						return
					}
				}
				break
			}
			<-changed
		}
	}
}

func (w *memWire) set(m wireMode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mode = m
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *memWire) cut() {
	w.a.Close()
	w.b.Close()
	w.set(flowing)
}

// each calls f for every wire there is.
func (n *memNet) each(f func(*memWire)) {
	n.mu.Lock()
	var all []*memWire
	for w := range n.wires {
		all = append(all, w)
	}
	n.mu.Unlock()
	for _, w := range all {
		f(w)
	}
}

// on puts a transport on the network.
func (n *memNet) on(addr string) func(*Config) {
	return func(cfg *Config) {
		cfg.Listener = n.listen(addr)
		cfg.Dial = n.dial
	}
}
