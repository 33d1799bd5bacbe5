package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/facetd/facetd/cluster"
)

// RaftStream carries the connections of the consensus library over the peer port.
// It is a net.Listener and a dialler: what cluster/consensus calls a Stream.
type RaftStream struct {
	t     *Transport
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// Raft gives the stream for consensus. Until it is called, and after the stream
// was closed, connections for Raft are refused.
func (t *Transport) Raft() *RaftStream {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.raft == nil {
		t.raft = &RaftStream{t: t, conns: make(chan net.Conn), done: make(chan struct{})}
		if t.closed {
			t.raft.Close()
		}
	}
	return t.raft
}

// NodeAddress is an address at which nobody but that node may answer, for Dial.
// Raft counts a vote by the address it dialled: two addresses that lead to one
// node would give it two votes.
func NodeAddress(node cluster.NodeID, address string) string { return string(node) + "@" + address }

// Accept waits for a connection of another voter. It has been greeted.
func (s *RaftStream) Accept() (net.Conn, error) {
	select {
	case nc := <-s.conns:
		return nc, nil
	case <-s.done:
		return nil, fmt.Errorf("accept raft connection: %w", net.ErrClosed)
	}
}

// take hands over a connection, or closes it when nobody wants it.
func (s *RaftStream) take(nc net.Conn) {
	rc := s.own(nc)
	select {
	case s.conns <- rc:
	case <-s.done:
		rc.Close()
	}
}

// own ends the connection with the transport.
func (s *RaftStream) own(nc net.Conn) net.Conn {
	rc := &raftConn{Conn: nc}
	rc.stop = context.AfterFunc(s.t.ctx, func() { nc.Close() })
	return rc
}

// raftConn is a connection the consensus library reads, writes and closes.
type raftConn struct {
	net.Conn
	stop func() bool
}

func (c *raftConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// Close stops accepting; the transport goes on.
func (s *RaftStream) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

func (s *RaftStream) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Addr is the address of the peer port.
func (s *RaftStream) Addr() net.Addr { return s.t.Addr() }

// Dial connects to another voter. The address may be one of NodeAddress; then
// only that node may answer.
func (s *RaftStream) Dial(address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := s.t.ctx, context.CancelFunc(func() {})
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	var node cluster.NodeID
	if id, rest, ok := strings.Cut(address, "@"); ok {
		var err error
		if node, err = cluster.ParseNodeID(id); err != nil {
			return nil, fmt.Errorf("dial raft at %q: %w", address, err)
		}
		address = rest
	}
	if s.over() {
		return nil, fmt.Errorf("dial raft at %s: %w", address, errors.Join(ErrClosed, net.ErrClosed))
	}
	nc, _, _, err := s.t.open(ctx, kindRaft, node, address, nil)
	if err != nil {
		return nil, err
	}
	return s.own(nc), nil
}
