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
	// Identify says whether the certificate of the other end may be node's, at first
	// and when Recheck is called. Nil takes any that was verified.
	Identify func(state tls.ConnectionState, node cluster.NodeID) error

	// Handler, Inspector, Placement, Orders, Comparer, Meter and Snapshots serve other nodes;
	// what is nil is refused.
	Handler   Handler
	Inspector Inspector
	Placement Placement
	Orders    Orders
	Comparer  func() Comparer // called for each comparison; nil while there is none
	Meter     func() Meter    // called for each USE; nil while there is none
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

	sent, received atomic.Int64 // bytes, over all connections

	identified identified

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
