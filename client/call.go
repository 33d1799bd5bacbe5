package client

import (
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/facetd/facetd/facet"
)

// call is one request and what came back for it. It is pooled by its client.
//
// The goroutine of the caller owns it, but for the fields below the line: from
// the moment the call has a slot in a connection until it left it, those belong
// to the connection's mutex.
type call struct {
	req   facet.Request
	steps [1]facet.Step // most requests have one
	args  facet.Values
	sql   []byte
	names []string
	frame []byte // the encoded request
	eff   effect

	renewed bool // it was tried again with another token

	ownKey bool // the key was made by the SDK, so another does as well

	bookmark *Bookmark // moved on by the answer; nil for none

	tracer trace.Tracer // nil for none
	span   trace.Span   // of the request; nil where there is no tracer

	home *sync.Pool // where free puts it
	node *node      // where it was sent last
	conn *conn
	slot uint32

	// wake holds a token when something below changed.
	wake chan struct{}
	// ----
	first  []byte   // items of the first frame of the answer
	more   [][]byte // items of later frames, taken from the front
	parts  int      // frames that came
	bytes  int
	final  bool // nothing more will come
	err    error
	isLost bool // err is about the connection
	tx     facet.TxID
	pos    facet.Position
	seen   facet.Bookmark
}

// newCall takes a call of the client's pool. There is one pool a client and not
// one for all, so that a client whose time is a test's shares nothing with others.
func (c *Client) newCall() *call {
	if k, _ := c.calls.Get().(*call); k != nil {
		return k
	}
	return &call{home: &c.calls, tracer: c.tracer, wake: make(chan struct{}, 1)}
}

// free puts the call back. It must not have a slot.
func (c *call) free() {
	c.endSpan(nil)
	if cap(c.frame) > keepBuffer {
		c.frame = nil
	}
	if cap(c.args) > keepBuffer {
		c.args = nil
	}
	if cap(c.sql) > keepBuffer {
		c.sql = nil
	}
	c.req, c.steps = facet.Request{}, [1]facet.Step{}
	c.args, c.sql, c.frame = c.args[:0], c.sql[:0], c.frame[:0]
	clear(c.names)
	c.names = c.names[:0]
	c.resetAnswer()
	c.node, c.conn, c.ownKey, c.renewed, c.bookmark = nil, nil, false, false, nil
	c.home.Put(c)
}

// resetAnswer makes the call ready to be sent (again).
func (c *call) resetAnswer() {
	if cap(c.first) > keepBuffer {
		c.first = nil
	}
	c.first, c.more = c.first[:0], nil
	c.parts, c.bytes, c.final, c.err, c.isLost = 0, 0, false, nil, false
	c.tx, c.pos, c.seen = facet.TxID{}, facet.Position{}, facet.Bookmark{}
	select {
	case <-c.wake:
	default:
	}
}

func (c *call) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
