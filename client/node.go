package client

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// node is one node as the client sees it: its address and the connections to it.
type node struct {
	client *Client
	at     endpoint
	next   atomic.Uint32 // round robin over lanes
	lanes  []lane
	used   atomic.Int64 // when it was asked for last, in Unix nanoseconds; only kept for nodes that may be forgotten
}

// lane holds one connection, or none.
type lane struct {
	conn atomic.Pointer[conn] // usable as far as known

	mu       sync.Mutex
	dialing  chan struct{} // closed when the dial under way ends
	err      error         // of the last dial
	failures int           // dials failed in a row
	notUntil time.Time     // do not dial again before
}

func newNode(c *Client, at endpoint) *node {
	return &node{client: c, at: at, lanes: make([]lane, c.opt.ConnsPerNode)}
}

// connect gives a usable connection, dialing if there is none. Callers share a
// dial; after a failed one they fail at once until it is time for the next.
func (n *node) connect(ctx context.Context) (*conn, error) {
	l := &n.lanes[0]
	if len(n.lanes) > 1 {
		l = &n.lanes[int(n.next.Add(1))%len(n.lanes)]
	}
	if c := l.conn.Load(); c != nil {
		return c, nil
	}
	l.mu.Lock()
	if c := l.conn.Load(); c != nil {
		l.mu.Unlock()
		return c, nil
	}
	wait := l.dialing
	if wait == nil {
		if time.Now().Before(l.notUntil) {
			err := l.err
			l.mu.Unlock()
			return nil, err
		}
		wait = make(chan struct{})
		if !n.client.start(func() { n.dialLane(l, wait) }) {
			l.mu.Unlock()
			return nil, errClientClosed
		}
		l.dialing = wait
	}
	l.mu.Unlock()
	select {
	case <-wait:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c := l.conn.Load(); c != nil {
		return c, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		return nil, errGoingAway // it was connected and is gone again
	}
	return nil, l.err
}

func (n *node) dialLane(l *lane, ended chan struct{}) {
	ctx, cancel := context.WithTimeout(n.client.ctx, n.client.opt.DialTimeout)
	defer cancel()
	c, err := dial(ctx, n)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dialing, l.err = nil, err
	if err != nil {
		pause := min(redialMax, redialMin<<min(l.failures, 10))
		l.notUntil = time.Now().Add(pause/2 + rand.N(pause/2))
		l.failures++
	} else {
		l.failures, l.notUntil = 0, time.Time{}
		l.conn.Store(c)
		if !c.usable() {
			l.conn.CompareAndSwap(c, nil) // over() may have come before Store
		}
	}
	close(ended)
}

// leave stops giving c to new requests.
func (n *node) leave(c *conn) {
	for i := range n.lanes {
		n.lanes[i].conn.CompareAndSwap(c, nil)
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
			c.mu.Lock()
			using := c.using
			c.mu.Unlock()
			if using > 0 {
				return false
			}
		}
	}
	return true
}
