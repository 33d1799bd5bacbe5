package httpapi

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// conns bounds the connections of a server. When there are too many, the one goes that
// has waited longest without a request under way: one whose sender is slow to begin, or a
// connection kept for later, which its client opens again when he needs it. So whoever
// opens connections without end keeps nobody else out, and those with a request under way
// are not touched. The node's files and its log need descriptors too, and a log that
// cannot be opened ends the process.
type conns struct {
	max int

	mu      sync.Mutex
	open    map[net.Conn]*list.Element // guarded by mu; nil where a request is under way
	waiting *list.List                 // guarded by mu: of net.Conn, longest first
}

func newConns(max int) *conns {
	return &conns{max: max, open: make(map[net.Conn]*list.Element), waiting: list.New()}
}

// changed is http.Server.ConnState.
func (c *conns) changed(nc net.Conn, s http.ConnState) {
	c.mu.Lock()
	if e := c.open[nc]; e != nil {
		c.waiting.Remove(e)
		c.open[nc] = nil
	}
	var victim net.Conn
	switch s {
	case http.StateNew:
		c.open[nc] = c.waiting.PushBack(nc)
		if len(c.open) > c.max {
			// It is counted until the server has seen that it is closed.
			e := c.waiting.Front()
			victim = e.Value.(net.Conn)
			c.waiting.Remove(e)
			c.open[victim] = nil
		}
	case http.StateIdle:
		c.open[nc] = c.waiting.PushBack(nc)
	case http.StateClosed, http.StateHijacked: // a native connection is counted by its server
		delete(c.open, nc)
	}
	c.mu.Unlock()
	if t, ok := victim.(*tls.Conn); ok {
		victim = t.NetConn() // without a farewell, which may block
	}
	if victim != nil {
		victim.Close()
	}
}
