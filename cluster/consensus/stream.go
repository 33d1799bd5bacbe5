package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/facetd/facetd/cluster"
)

// Raft's connections begin with a preface by which the two ends make sure that
// they speak of the same cluster, that the node at that address is the one that
// is meant, and that its log is the one that was made a member. Numbers are
// big-endian:
//
//	offset size
//	 0      4   magic "fcrp"
//	 4      1   version, 1
//	 5      1   length of the caller's node id
//	 6      1   length of the called node's id
//	 7      1   zero
//	 8      4   generation of the cluster
//	12     16   cluster id
//	28     16   log id of the called node, zero when any will do
//	44      …   the caller's node id, the called node's id
//
// It goes out with the first request. The answer is one byte in front of the
// first response, so that it costs no round trip.
const (
	prefaceMagic   = "fcrp"
	prefaceVersion = 1
	prefaceLen     = 44
)

// verdict is the answer to a preface. The list is append-only.
type verdict byte

const (
	welcome      verdict = 0
	otherCluster verdict = 1 // the called node is of another cluster
	otherNode    verdict = 2 // the called node has another id
	otherLog     verdict = 3 // the called node has another log
	leftBehind   verdict = 4 // the caller missed a forced recovery
	aheadOfMe    verdict = 5 // the called node missed one
	noMember     verdict = 6 // the called node belongs to no cluster yet
	badPreface   verdict = 7 // unreadable, or of another version
)

var verdictNames = [...]string{
	"welcome", "it belongs to another cluster", "it is another node", "it has another log (its disk was replaced)",
	"this node was left behind by a forced recovery of its cluster", "it was left behind by a forced recovery of the cluster",
	"it belongs to no cluster yet", "it does not understand the preface",
}

func (v verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict %d", byte(v))
}

// refusedError says why a peer refused a connection, or this node a peer.
type refusedError struct{ verdict verdict }

func (e *refusedError) Error() string { return "connection refused: " + e.verdict.String() }

// streams is the Stream under Raft's transport: it speaks the preface and knows
// every open connection, so that Close leaves none.
type streams struct {
	Stream
	self    *identity
	address string       // this node's place
	outcast func(string) // hears that this node was left behind, with the one who said so

	mu     sync.Mutex
	open   map[net.Conn]struct{} // guarded by mu
	closed bool                  // guarded by mu
}

var _ raft.StreamLayer = (*streams)(nil)

// route is where Dial is to go, in the one string Raft's transport hands on.
func route(to cluster.NodeID, at place) raft.ServerAddress {
	return raft.ServerAddress(string(to) + "\x00" + at.String())
}

// Dial connects to a member.
func (s *streams) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	node, where, ok := strings.Cut(string(to), "\x00")
	if !ok {
		return nil, fmt.Errorf("dial %q: no node is named", to)
	}
	at := parsePlace(raft.ServerAddress(where))
	mine, generation := s.self.get()
	if mine.IsZero() {
		return nil, fmt.Errorf("dial node %s: this node belongs to no cluster yet", node)
	}
	c, err := s.Stream.Dial(at.address, timeout)
	if err != nil {
		return nil, fmt.Errorf("dial node %s: %w", node, err)
	}
	return s.track(&outbound{Conn: c, streams: s, preface: preface(mine, generation, s.self.node, node, at.log), to: node})
}

func preface(of cluster.ID, generation uint32, from cluster.NodeID, to string, log LogID) []byte {
	b := make([]byte, 0, prefaceLen+len(from)+len(to))
	b = append(b, prefaceMagic...)
	b = append(b, prefaceVersion, byte(len(from)), byte(len(to)), 0)
	b = binary.BigEndian.AppendUint32(b, generation)
	b = append(append(b, of[:]...), log[:]...)
	return append(append(b, from...), to...)
}

// Accept takes the next connection.
func (s *streams) Accept() (net.Conn, error) {
	c, err := s.Stream.Accept()
	if err != nil {
		return nil, err
	}
	return s.track(&inbound{Conn: c, streams: s})
}

// Addr is the place others know this node by: Raft tells it to them as the
// leader's.
func (s *streams) Addr() net.Addr { return advertised(s.address) }

type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

func (s *streams) track(c net.Conn) (net.Conn, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		c.Close()
		return nil, net.ErrClosed
	}
	s.open[c] = struct{}{}
	s.mu.Unlock()
	return c, nil
}

func (s *streams) forget(c net.Conn) {
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
}

// Close ends the stream and every connection.
func (s *streams) Close() error {
	s.mu.Lock()
	s.closed = true
	open := make([]net.Conn, 0, len(s.open))
	for c := range s.open {
		open = append(open, c)
	}
	s.mu.Unlock()
	err := s.Stream.Close()
	for _, c := range open {
		c.Close()
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// outbound is a connection this node made. Raft's transport uses it from one
// goroutine at a time.
type outbound struct {
	net.Conn
	streams *streams
	to      string
	preface []byte // not sent yet
	answer  bool   // the verdict was read
}

func (c *outbound) Write(b []byte) (int, error) {
	if c.preface != nil {
		// One write, one packet: the preface goes with the request.
		first := append(c.preface, b...)
		skip := len(c.preface)
		c.preface = nil
		n, err := c.Conn.Write(first)
		return max(n-skip, 0), err
	}
	return c.Conn.Write(b)
}

func (c *outbound) Read(b []byte) (int, error) {
	if !c.answer {
		var v [1]byte
		if _, err := io.ReadFull(c.Conn, v[:]); err != nil {
			return 0, err
		}
		c.answer = true
		if v := verdict(v[0]); v != welcome {
			if v == leftBehind {
				c.streams.outcast(c.to)
			}
			return 0, fmt.Errorf("node %s: %w", c.to, &refusedError{v})
		}
	}
	return c.Conn.Read(b)
}

func (c *outbound) Close() error {
	c.streams.forget(c)
	return c.Conn.Close()
}

// inbound is a connection another node made. One goroutine uses it.
type inbound struct {
	net.Conn
	streams *streams
	checked bool // the preface was read
	greeted bool // the verdict was sent
}

func (c *inbound) Read(b []byte) (int, error) {
	if !c.checked {
		v, from, err := c.check()
		if err != nil {
			return 0, err
		}
		if v != welcome {
			c.Conn.Write([]byte{byte(v)}) // the connection ends either way
			return 0, fmt.Errorf("raft connection from node %q refused: %v", from, v)
		}
		c.checked = true
	}
	return c.Conn.Read(b)
}

// check reads the preface.
func (c *inbound) check() (verdict, string, error) {
	if err := c.SetReadDeadline(time.Now().Add(peerTimeout)); err != nil {
		return 0, "", err
	}
	head := make([]byte, prefaceLen, prefaceLen+2*cluster.MaxNodeIDLen)
	if _, err := io.ReadFull(c.Conn, head); err != nil {
		return 0, "", err
	}
	if string(head[:4]) != prefaceMagic || head[4] != prefaceVersion || head[7] != 0 ||
		head[5] > cluster.MaxNodeIDLen || head[6] > cluster.MaxNodeIDLen {
		return badPreface, "", nil
	}
	names := head[prefaceLen : prefaceLen+int(head[5])+int(head[6])]
	if _, err := io.ReadFull(c.Conn, names); err != nil {
		return 0, "", err
	}
	from, to := string(names[:head[5]]), string(names[head[5]:])
	generation := binary.BigEndian.Uint32(head[8:])
	self := c.streams.self
	mine, mineGeneration := self.get()
	switch {
	case mine.IsZero():
		return noMember, from, nil
	case mine != cluster.ID(head[12:28]):
		return otherCluster, from, nil
	case generation < mineGeneration:
		return leftBehind, from, nil
	case generation > mineGeneration:
		c.streams.outcast(from)
		return aheadOfMe, from, nil
	case to != string(self.node):
		return otherNode, from, nil
	}
	if log := LogID(head[28:44]); !log.IsZero() && log != self.log {
		return otherLog, from, nil
	}
	return welcome, from, c.SetReadDeadline(time.Time{})
}

func (c *inbound) Write(b []byte) (int, error) {
	if !c.greeted {
		c.greeted = true
		n, err := c.Conn.Write(append([]byte{byte(welcome)}, b...))
		return max(n-1, 0), err
	}
	return c.Conn.Write(b)
}

func (c *inbound) Close() error {
	c.streams.forget(c)
	return c.Conn.Close()
}
