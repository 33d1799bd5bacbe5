package native

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/service"
)

// call is one request under way. It owns the bytes its request points into, and
// is pooled.
//
// References: one for the request until its answer is queued (a long answer
// passes it to the stream), one for each Cancel under way. The last release puts
// the call back.
type call struct {
	service.Call
	sess    *session
	id      uint32
	body    []byte
	scratch wire.Scratch
	stream  wire.ResponseStream
	refs    atomic.Int32
}

var calls sync.Pool

func newCall(s *session, id uint32) *call {
	c, _ := calls.Get().(*call)
	if c == nil {
		c = new(call)
		c.Done = func(*service.Call) { c.sess.answer(c) }
	}
	c.sess, c.id = s, id
	c.refs.Store(1)
	return c
}

// take makes the call own the frame's body.
func (c *call) take(f *wire.Frame) {
	if f.Owned {
		c.body = f.Body
		return
	}
	c.body = append(c.body[:0], f.Body...)
	f.Body = c.body
}

func (c *call) release() {
	if c.refs.Add(-1) != 0 {
		return
	}
	if cap(c.body) > keepBody {
		c.body = nil
		clear(c.Request.Steps[:cap(c.Request.Steps)]) // they point into it
	}
	if cap(c.Response.Result) > keepResult {
		c.Response.Result = nil
	}
	if cap(c.Request.Steps) > keepSteps {
		c.Request.Steps = nil
	}
	c.Reset()
	c.body = c.body[:0]
	c.scratch.Trim()
	c.stream = wire.ResponseStream{}
	c.sess = nil
	calls.Put(c)
}

// Next, Pending and Close make a long answer a wire.Stream.
func (c *call) Next(dst []byte) ([]byte, bool) { return c.stream.Next(dst) }
func (c *call) Pending() int                   { return c.stream.Pending() }
func (c *call) Close()                         { c.release() }

// wireError is err as it travels. What is no facet.Error is a fault of this
// node: its text stays in the log.
func (s *Server) wireError(err error, of facet.Trace) *facet.Error {
	var e *facet.Error
	if errors.As(err, &e) {
		if err == error(e) {
			return e
		}
		wrapped := *e
		wrapped.Message = err.Error()
		return &wrapped
	}
	s.opt.Log.Error("request failed with an unexpected error", "request_id", of.String(), "err", err)
	return facet.Errorf(facet.CodeInternal, "internal error; the log of node %s tells more", s.opt.Node)
}

// rollback ends a transaction nobody can use any more. A node too busy for it
// lets the engine's idle limit do it.
func (s *Server) rollback(name facet.Name, tx facet.TxID, done func()) {
	s.svc.Submit(&service.Call{
		Request: facet.Request{Name: name, Tx: tx, Steps: []facet.Step{{SQL: []byte("ROLLBACK")}}},
		Done:    func(*service.Call) { done() },
	})
}
