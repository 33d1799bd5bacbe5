package peer

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/internal/wire"
)

// Config says how to open a Transport.
type Config struct {
	// Node, Boot and Store are this process; Boot is new in every process life.
	Node  cluster.NodeID
	Boot  cluster.BootID
	Store cluster.StoreID

	// Cluster tells which cluster the node belongs to, zero while it belongs to
	// none: then it only answers who it is. Asked at each connection.
	Cluster func() cluster.ID

	// Listener accepts connections; the Transport closes it. When nil, Listen
	// listens on Address (port 7401 by custom).
	Listener net.Listener
	Address  string

	// AddressOf gives the peer address of a node as it is now; it is asked at each
	// dial, and names in it are resolved then.
	AddressOf func(cluster.NodeID) (string, bool)
	// Dial makes a connection; nil is TCP with keepalive.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// ServerTLS and ClientTLS are for connections accepted and dialled; both or
	// neither. ServerTLS must ask for and verify a certificate. Without them the
	// port is for a private network.
	ServerTLS, ClientTLS *tls.Config
	// Identify says whether the certificate of the other end may be node's. Nil
	// takes any that was verified.
	Identify func(state tls.ConnectionState, node cluster.NodeID) error

	// Handler, Placement and Snapshots serve other nodes; what is nil is refused.
	Handler   Handler
	Placement Placement
	Snapshots Installer
	// Acks hears what becomes of appends; nil when none are sent.
	Acks Acks
	// Answer answers the questions of Exchange, from nodes of any cluster or none;
	// from is who they say they are. It is called from many goroutines, must not
	// take longer than a second, and answers with at most MaxExchange bytes.
	Answer func(from Remote, question []byte) ([]byte, error)

	// QueueItems and QueueBytes bound the appends waiting for each peer. Defaults
	// DefaultQueueItems and DefaultQueueBytes.
	QueueItems, QueueBytes int

	// Log hears of connections made, lost and refused. Default slog.Default().
	Log *slog.Logger

	versionMin, versionMax uint8 // tests speak other versions
}

func (c *Config) validate() error {
	if _, err := cluster.ParseNodeID(string(c.Node)); err != nil {
		return err
	}
	switch {
	case c.Boot.IsZero() || c.Store.IsZero():
		return errors.New("no boot or store id")
	case c.Cluster == nil || c.AddressOf == nil:
		return errors.New("no Cluster or AddressOf")
	case (c.ServerTLS == nil) != (c.ClientTLS == nil):
		return errors.New("TLS on one side only")
	case c.ServerTLS != nil && c.ServerTLS.ClientAuth != tls.RequireAndVerifyClientCert:
		return errors.New("TLS without a verified certificate of the client lets anyone in")
	}
	if c.Dial == nil {
		d := net.Dialer{Timeout: dialTimeout, KeepAliveConfig: keepalive}
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
	}
	if c.Acks == nil {
		c.Acks = nobody{}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.QueueItems = cmp.Or(max(c.QueueItems, 0), DefaultQueueItems)
	c.QueueBytes = cmp.Or(max(c.QueueBytes, 0), DefaultQueueBytes)
	c.versionMin = cmp.Or(c.versionMin, VersionMin)
	c.versionMax = cmp.Or(c.versionMax, VersionMax)
	return nil
}

// keepalive notices that the other end of an idle connection has vanished.
var keepalive = net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepInterval, Count: keepCount}

// nobody hears what becomes of appends.
type nobody struct{}

func (nobody) Ready(Remote)        {}
func (nobody) Acked(Remote, []Ack) {}
func (nobody) Lost(Remote, error)  {}

// Transport is one node's end of everything between nodes: the listener on the
// peer port and the peers dialled from here.
type Transport struct {
	cfg    Config
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine
	raft   *RaftStream
	places transfers

	conns    atomic.Int32 // accepted
	greeting atomic.Int32 // of them not greeted yet
	refused  atomic.Int64 // unix nanoseconds of the last line about a refusal

	mu     sync.Mutex
	peers  map[cluster.NodeID]*Peer
	closed bool
}

// Listen opens the peer port.
func Listen(cfg Config) (*Transport, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open peer transport: %w", err)
	}
	if cfg.Listener == nil {
		lc := net.ListenConfig{KeepAliveConfig: keepalive}
		l, err := lc.Listen(context.Background(), "tcp", cfg.Address)
		if err != nil {
			return nil, fmt.Errorf("open peer transport: %w", err)
		}
		cfg.Listener = l
	}
	t := &Transport{cfg: cfg, log: cfg.Log, peers: make(map[cluster.NodeID]*Peer)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.places.init()
	t.wg.Go(t.accept)
	return t, nil
}

// Addr is the address of the listener.
func (t *Transport) Addr() net.Addr { return t.cfg.Listener.Addr() }

// Peer gives the peer of that id; it is dialled when first used. A transport that
// is closed, or that has had too many peers, gives one that is closed.
func (t *Transport) Peer(node cluster.NodeID) *Peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[node]
	if p == nil {
		p = newPeer(t, node)
		if t.closed || len(t.peers) >= maxPeers {
			p.cancel()
			return p
		}
		t.peers[node] = p
		t.wg.Go(p.run)
	}
	return p
}

// Forget closes the connection to a node that has left for good. The Peer must
// not be used any more.
func (t *Transport) Forget(node cluster.NodeID) {
	t.mu.Lock()
	p := t.peers[node]
	delete(t.peers, node)
	t.mu.Unlock()
	if p != nil {
		p.cancel()
	}
}

// Close closes the port and every connection and waits until no handler or
// callback runs. It must not be called from one. It may be called twice.
func (t *Transport) Close() error {
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	raft := t.raft
	t.mu.Unlock()
	var err error
	if first {
		t.cancel()
		err = t.cfg.Listener.Close()
		if raft != nil {
			raft.Close()
		}
	}
	t.wg.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close peer port: %w", err)
	}
	return nil
}

// accept takes connections until the transport is closed.
func (t *Transport) accept() {
	wait := time.Duration(0)
	for {
		nc, err := t.cfg.Listener.Accept()
		switch {
		case t.ctx.Err() != nil:
			if err == nil {
				nc.Close()
			}
			return
		case err != nil:
			// Out of file handles, or of memory: it passes, or the operator acts.
			wait = min(max(2*wait, backoffFirst), backoffLast)
			t.log.Error("peer port does not accept connections", "error", err)
			if !sleep(t.ctx, wait) {
				return
			}
			continue
		}
		wait = 0
		if t.conns.Add(1) > maxConns || t.greeting.Add(1) > maxGreeting {
			t.greeting.Add(-1)
			t.conns.Add(-1)
			nc.Close()
			t.refusal(nc, "too many connections")
			continue
		}
		t.wg.Go(func() {
			defer t.conns.Add(-1)
			t.serve(nc)
		})
	}
}

// refusal logs that a connection was refused, now and then.
func (t *Transport) refusal(nc net.Conn, why any) {
	now, last := time.Now().UnixNano(), t.refused.Load()
	if now-last >= int64(refusalLog) && t.refused.CompareAndSwap(last, now) {
		t.log.Warn("connection to the peer port refused", "remote", nc.RemoteAddr().String(), "reason", why)
	}
}

// serve greets one connection and runs it to its end, unless Raft takes it over.
func (t *Transport) serve(raw net.Conn) {
	stop := context.AfterFunc(t.ctx, func() { raw.Close() })
	err := raw.SetDeadline(time.Now().Add(greetTimeout))
	var nc net.Conn
	var g greeting
	if err == nil {
		nc, g, err = t.greet(raw)
	}
	t.greeting.Add(-1)
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		stop()
		raw.Close()
		if t.ctx.Err() == nil {
			t.refusal(raw, err)
		}
		return
	}
	switch g.kind {
	case kindRaft:
		stop()
		t.raft.take(nc)
		return
	case kindPeer:
		t.servePeer(t.conn(nc), g.remote())
	case kindSnapshot:
		t.serveSnapshot(t.conn(nc), g.remote())
	}
	stop()
	raw.Close()
}

// greet reads the greeting of a connection and answers it.
func (t *Transport) greet(nc net.Conn) (net.Conn, greeting, error) {
	var state *tls.ConnectionState
	if t.cfg.ServerTLS != nil {
		tc := tls.Server(nc, t.cfg.ServerTLS)
		nc = tc
		if err := tc.HandshakeContext(t.ctx); err != nil {
			return nc, greeting{}, fmt.Errorf("TLS handshake: %w", err)
		}
		s := tc.ConnectionState()
		state = &s
	}
	g, err := readGreeting(nc)
	if err != nil {
		return nc, g, err
	}
	question, err := readExtra(nc, g.extraLen)
	if err != nil {
		return nc, g, err
	}
	a := t.hello(g.kind)
	var reason error
	var extra []byte
	a.verdict, reason = t.judge(&g, state)
	switch {
	case a.verdict != welcome:
	case g.kind != kindAsk:
		a.version = agree(g.versionMin, g.versionMax, t.cfg.versionMin, t.cfg.versionMax)
	case len(question) > 0:
		if extra, reason = t.answer(g.remote(), question); reason != nil {
			a.verdict, extra = noAnswer, []byte(reason.Error())
			extra = extra[:min(len(extra), maxText)]
		}
		a.extraLen = len(extra)
	}
	buf := appendExtra(a.append(nil), extra)
	if _, err := nc.Write(buf); err != nil {
		return nc, g, fmt.Errorf("answer greeting: %w", err)
	}
	if a.verdict != welcome {
		return nc, g, fmt.Errorf("%v connection from %v: %w", g.kind, g.node, reason)
	}
	return nc, g, nil
}

// answer answers a question of Exchange.
func (t *Transport) answer(from Remote, question []byte) ([]byte, error) {
	if t.cfg.Answer == nil {
		return nil, ErrNoService
	}
	b, err := t.cfg.Answer(from, question)
	if err == nil && len(b) > MaxExchange {
		err = fmt.Errorf("%w: answer of %d bytes, limit %d", ErrTooLong, len(b), MaxExchange)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// hello is what this node says of itself.
func (t *Transport) hello(k kind) greeting {
	return greeting{kind: k, versionMin: t.cfg.versionMin, versionMax: t.cfg.versionMax,
		cluster: t.cfg.Cluster(), boot: t.cfg.Boot, store: t.cfg.Store, node: t.cfg.Node}
}

// judge decides whether a connection is welcome.
func (t *Transport) judge(g *greeting, state *tls.ConnectionState) (verdict, error) {
	if state != nil && t.cfg.Identify != nil {
		if err := t.cfg.Identify(*state, g.node); err != nil {
			return badIdentity, fmt.Errorf("%w: %w", ErrIdentity, err)
		}
	}
	mine := t.cfg.Cluster()
	switch {
	case t.ctx.Err() != nil:
		return shutdown, ErrShutdown
	case g.kind == kindAsk:
		return welcome, nil
	case agree(g.versionMin, g.versionMax, t.cfg.versionMin, t.cfg.versionMax) == 0:
		return badVersion, fmt.Errorf("%w: it speaks %d to %d, this node %d to %d",
			ErrVersion, g.versionMin, g.versionMax, t.cfg.versionMin, t.cfg.versionMax)
	case mine.IsZero() || g.cluster != mine:
		return wrongCluster, fmt.Errorf("%w: %v, this node to %v", ErrWrongCluster, g.cluster, mine)
	case !g.wanted.IsZero() && g.wanted != t.cfg.Node:
		return wrongNode, fmt.Errorf("%w: it looks for %v", ErrWrongNode, g.wanted)
	case g.node == t.cfg.Node:
		return wrongNode, fmt.Errorf("%w: it says that it is %v, as this node does", ErrWrongNode, g.node)
	}
	switch g.kind {
	case kindPeer:
		if t.cfg.Handler != nil {
			return welcome, nil
		}
	case kindSnapshot:
		if t.cfg.Snapshots != nil {
			return welcome, nil
		}
	case kindRaft:
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.raft != nil && !t.raft.over() {
			return welcome, nil
		}
	}
	return noService, fmt.Errorf("%w: %v", ErrNoService, g.kind)
}

// openNode connects to a node at the address it has now.
func (t *Transport) openNode(ctx context.Context, k kind, node cluster.NodeID) (net.Conn, greeting, error) {
	address, ok := t.cfg.AddressOf(node)
	if !ok {
		return nil, greeting{}, fmt.Errorf("connect to peer %v: no address is known", node)
	}
	nc, g, _, err := t.open(ctx, k, node, address, nil)
	return nc, g, err
}

// open connects to an address and greets, with a question if there is one. node
// is who must answer, empty for anyone of the cluster.
func (t *Transport) open(ctx context.Context, k kind, node cluster.NodeID, address string, question []byte) (net.Conn, greeting, []byte, error) {
	if t.ctx.Err() != nil {
		return nil, greeting{}, nil, ErrClosed
	}
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	nc, err := t.cfg.Dial(dctx, address)
	cancel()
	if err != nil {
		return nil, greeting{}, nil, fmt.Errorf("connect to peer at %s: %w", address, err)
	}
	raw := nc
	if err := raw.SetDeadline(time.Now().Add(greetTimeout)); err != nil {
		raw.Close()
		return nil, greeting{}, nil, fmt.Errorf("connect to peer at %s: %w", address, err)
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	stopped := context.AfterFunc(t.ctx, func() { raw.Close() })
	nc, g, answer, err := t.meet(ctx, raw, k, node, address, question)
	stopped()
	if !stop() {
		err = cmp.Or(err, context.Cause(ctx))
	}
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		raw.Close()
		if _, ok := errors.AsType[*RefusedError](err); !ok {
			err = fmt.Errorf("connect to peer at %s: %w", address, err)
		}
		return nil, greeting{}, nil, err
	}
	return nc, g, answer, nil
}

// meet does the dialling side of the greeting.
func (t *Transport) meet(ctx context.Context, nc net.Conn, k kind, node cluster.NodeID, address string, question []byte) (net.Conn, greeting, []byte, error) {
	var state *tls.ConnectionState
	if t.cfg.ClientTLS != nil {
		cfg := t.cfg.ClientTLS
		if host, _, err := net.SplitHostPort(address); err == nil && cfg.ServerName == "" {
			cfg = cfg.Clone()
			cfg.ServerName = host
		}
		tc := tls.Client(nc, cfg)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, greeting{}, nil, fmt.Errorf("TLS handshake: %w", err)
		}
		s := tc.ConnectionState()
		nc, state = tc, &s
	}
	mine := t.hello(k)
	mine.wanted, mine.extraLen = node, len(question)
	if _, err := nc.Write(appendExtra(mine.append(nil), question)); err != nil {
		return nil, greeting{}, nil, fmt.Errorf("greet: %w", err)
	}
	g, err := readGreeting(nc)
	if err != nil {
		return nil, greeting{}, nil, err
	}
	extra, err := readExtra(nc, g.extraLen)
	if err != nil {
		return nil, greeting{}, nil, err
	}
	refused := func(reason error, format string, args ...any) (net.Conn, greeting, []byte, error) {
		return nil, greeting{}, nil, &RefusedError{Reason: reason, Address: address, Detail: fmt.Sprintf(format, args...)}
	}
	if g.verdict == noAnswer {
		return refused(ErrNoAnswer, "%v says %q", g.node, extra)
	}
	if g.verdict != welcome {
		return refused(g.verdict.err(), "%v of cluster %v with versions %d to %d answers; this is %v of cluster %v with versions %d to %d",
			g.node, g.cluster, g.versionMin, g.versionMax, mine.node, mine.cluster, mine.versionMin, mine.versionMax)
	}
	// What the other end accepts must be right from here, too.
	switch {
	case k != kindAsk && (g.cluster != mine.cluster || mine.cluster.IsZero()):
		return refused(ErrWrongCluster, "%v of cluster %v answers; this is cluster %v", g.node, g.cluster, mine.cluster)
	case !node.IsZero() && g.node != node:
		return refused(ErrWrongNode, "%v answers, %v was meant", g.node, node)
	case k != kindAsk && (g.version < mine.versionMin || g.version > mine.versionMax):
		return refused(ErrVersion, "%v chose version %d; this node speaks %d to %d", g.node, g.version, mine.versionMin, mine.versionMax)
	case g.kind != k:
		return refused(ErrGreeting, "%v answers with a connection of kind %v, not %v", g.node, g.kind, k)
	}
	if state != nil && t.cfg.Identify != nil {
		if err := t.cfg.Identify(*state, g.node); err != nil {
			return refused(ErrIdentity, "%v: %v", g.node, err)
		}
	}
	return nc, g, extra, nil
}

// Who asks a node who it is, whatever cluster and version it belongs to: before
// anything is agreed on. With TLS its certificate is checked.
func (t *Transport) Who(ctx context.Context, address string) (Who, error) {
	nc, g, _, err := t.open(ctx, kindAsk, "", address, nil)
	if err != nil {
		return Who{}, err
	}
	nc.Close()
	return Who{Remote: g.remote(), Cluster: g.cluster, VersionMin: g.versionMin, VersionMax: g.versionMax}, nil
}

// Exchange asks whoever is at an address one question, which its Config.Answer
// answers: for founding and joining a cluster. It costs a connection.
func (t *Transport) Exchange(ctx context.Context, address string, question []byte) ([]byte, error) {
	if len(question) == 0 || len(question) > MaxExchange {
		return nil, fmt.Errorf("ask the node at %s: %w: question of %d bytes, limit %d", address, ErrTooLong, len(question), MaxExchange)
	}
	nc, _, answer, err := t.open(ctx, kindAsk, "", address, question)
	if err != nil {
		return nil, err
	}
	nc.Close()
	return answer, nil
}

// conn makes the batching connection of a socket.
func (t *Transport) conn(nc net.Conn) *wire.Conn {
	s := &signs{Conn: nc}
	s.conn = wire.NewConn(s, nil, connConfig())
	return s.conn
}

// signs gives the other end a sign of life while it sends something long: its own
// question waits behind that, and so would the answer.
type signs struct {
	net.Conn
	conn *wire.Conn
	n    int
	last time.Time
}

// Read is called by the connection's reader alone.
func (s *signs) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if s.n += n; s.n >= signBytes {
		s.n = 0
		if now := time.Now(); now.Sub(s.last) >= signInterval {
			s.last = now
			if serr := s.conn.Send(sign); err == nil {
				err = serr
			}
		}
	}
	return n, err
}

var sign = wire.AppendPing(nil, wire.TypePing, 0, nil)
