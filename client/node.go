package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/facet"
)

// node is one node as the client sees it: its address and the connections to it.
type node struct {
	client *Client
	at     endpoint
	given  bool          // an endpoint of Open; never forgotten
	next   atomic.Uint32 // round robin over lanes
	lanes  []lane
	used   atomic.Int64 // when it was named last, in Unix nanoseconds

	// down: it was not reached at last. Others are asked before it, and nobody
	// waits for its dials, until one of them succeeds.
	down atomic.Bool

	mu       sync.Mutex
	err      error     // guarded by mu; of the last dial of any lane
	failures int       // guarded by mu; dials failed in a row
	notUntil time.Time // guarded by mu; do not dial again before
}

// lane holds one connection, or none.
type lane struct {
	conn    atomic.Pointer[conn] // usable as far as known
	dialing chan struct{}        // guarded by node.mu; closed when the dial under way ends
}

func newNode(c *Client, at endpoint) *node {
	return &node{client: c, at: at, lanes: make([]lane, c.opt.ConnsPerNode)}
}

// connect gives a usable connection, dialing if there is none. Callers share a
// dial. A node that was not reached is dialed in the background, at its own pace:
// callers fail at once and may ask another node meanwhile.
func (n *node) connect(ctx context.Context) (*conn, error) {
	l := n.lane()
	if c := l.conn.Load(); c != nil {
		return c, nil
	}
	n.mu.Lock()
	if c := l.conn.Load(); c != nil {
		n.mu.Unlock()
		return c, nil
	}
	wait, err := n.dialing(l)
	n.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case <-wait:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c := l.conn.Load(); c != nil {
		return c, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		return nil, errGoingAway // it was connected and is gone again
	}
	return nil, n.err
}

// lane chooses the lane for one more request: the lanes take turns, as many of them
// as the requests under way fill. Few requests over many connections would each
// cost both sides a system call and a wakeup, which those that travel together share.
func (n *node) lane() *lane {
	if len(n.lanes) == 1 {
		return &n.lanes[0]
	}
	using := 0
	for i := range n.lanes {
		if c := n.lanes[i].conn.Load(); c != nil {
			using += int(c.using.Load())
		}
	}
	full := min(1+using/laneFull, len(n.lanes))
	return &n.lanes[int(n.next.Add(1))%full]
}

// dialing is the dial of a lane under way, started if it is time for one, or the
// error to return instead of waiting for it. n.mu is held.
func (n *node) dialing(l *lane) (<-chan struct{}, error) {
	if l.dialing == nil {
		if time.Now().Before(n.notUntil) {
			return nil, n.err
		}
		ended := make(chan struct{})
		if !n.client.start(func() { n.dialLane(l, ended) }) {
			return nil, errClientClosed
		}
		l.dialing = ended
	}
	if n.down.Load() {
		return nil, n.err
	}
	return l.dialing, nil
}

func (n *node) dialLane(l *lane, ended chan struct{}) {
	ctx, cancel := context.WithTimeout(n.client.ctx, n.client.opt.DialTimeout)
	defer cancel()
	c, err := dial(ctx, n)
	n.mu.Lock()
	defer n.mu.Unlock()
	l.dialing = nil
	if err != nil {
		n.failed(err)
	} else {
		n.err, n.failures, n.notUntil = nil, 0, time.Time{}
		n.down.Store(false)
		l.conn.Store(c)
		if !c.usable() {
			l.conn.CompareAndSwap(c, nil) // over() may have come before Store
		}
	}
	close(ended)
}

// failed notes a dial that failed. A node that refused was reached. n.mu is held.
func (n *node) failed(err error) {
	n.err = err
	pause := min(redialMax, redialMin<<min(n.failures, 10))
	n.notUntil = time.Now().Add(pause/2 + rand.N(pause/2))
	n.failures++
	var refusal *facet.Error
	n.down.Store(!errors.As(err, &refusal))
}

// suspect notes that the node fell silent: it is dialed again before anybody waits
// for it.
func (n *node) suspect(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.err = err
		n.down.Store(true)
	}
}

// probe dials a node that was not reached, if it is time.
func (n *node) probe() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := &n.lanes[0]; n.down.Load() && l.conn.Load() == nil {
		n.dialing(l) // nobody waits for it
	}
}

// leave stops giving c to new requests.
func (n *node) leave(c *conn) {
	for i := range n.lanes {
		n.lanes[i].conn.CompareAndSwap(c, nil)
	}
}

// retire leaves all connections to the node for new ones.
func (n *node) retire() {
	for i := range n.lanes {
		if c := n.lanes[i].conn.Load(); c != nil {
			c.retire()
		}
	}
}

// close ends the node's connections.
func (n *node) close() {
	for i := range n.lanes {
		if c := n.lanes[i].conn.Load(); c != nil {
			c.wire.Close(errClientClosed)
		}
	}
}

// idle reports whether nothing is under way.
func (n *node) idle() bool {
	for i := range n.lanes {
		if c := n.lanes[i].conn.Load(); c != nil {
			if c.using.Load() > 0 {
				return false
			}
		}
	}
	return true
}
