package peer

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/facetd/facetd/cluster"
)

// identified remembers the connections at whose other end a node has proved who it is,
// and with what, for as long as they are open.
type identified struct {
	mu sync.Mutex // alone
	of map[*countedConn]proof
}

type proof struct {
	node  cluster.NodeID
	state tls.ConnectionState
}

// add is called before the proof is looked at, so that no change is missed.
func (i *identified) add(nc net.Conn, p proof) {
	c := nc.(*countedConn)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.of == nil {
		i.of = make(map[*countedConn]proof)
	}
	if !c.closed {
		i.of[c] = p
	}
}

func (i *identified) remove(c *countedConn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	c.closed = true
	delete(i.of, c)
}

// identify asks whether the other end of raw is the node it says it is. Without TLS
// nobody can tell.
func (t *Transport) identify(raw net.Conn, state *tls.ConnectionState, node cluster.NodeID) error {
	if state == nil || t.cfg.Identify == nil {
		return nil
	}
	t.identified.add(raw, proof{node, *state})
	return t.cfg.Identify(*state, node)
}

// Recheck asks Identify about every connection again, and ends those that are not good
// any more: what it goes by has changed. Raft's connections are among them.
func (t *Transport) Recheck() {
	t.identified.mu.Lock()
	open := make(map[*countedConn]proof, len(t.identified.of))
	for c, p := range t.identified.of {
		open[c] = p
	}
	t.identified.mu.Unlock()
	for c, p := range open {
		if err := t.cfg.Identify(p.state, p.node); err != nil {
			t.log.Warn("connection to a node ended: its certificate is not good any more", "node", string(p.node), "remote", c.RemoteAddr().String(), "reason", err)
			c.Close()
		}
	}
}

// withoutTLS adds to the error of a greeting what it looks like when one end speaks TLS
// and the other does not. first is what came instead of a greeting.
func withoutTLS(err error, first []byte) error {
	if len(first) > 1 && first[0] == 0x16 && first[1] == 3 {
		return fmt.Errorf("%w: the other node speaks TLS, and this one has no certificate for its peers", err)
	}
	return err
}

// hungUp adds to the error of a dialler without TLS why it may have been left.
func hungUp(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("%w; does the other node want TLS? this one has no certificate for its peers", err)
	}
	return err
}
