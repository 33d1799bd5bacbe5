package native

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
)

// session is one connection of a client. Its handler methods (greet, request,
// cancel) run in the connection's reading goroutine; answer runs wherever the
// Service calls Done.
//
// Invariant: a request is in calls from before it is submitted until its answer
// is queued; both change under mu together, so an id is free again exactly when
// the client may know it.
//
// Lock order: session.mu, then the lock inside wire.Conn.
type session struct {
	srv    *Server
	conn   *wire.Conn // set before serve's first frame and before the session drains
	token  string
	intern wire.Interner

	greeted bool   // reading goroutine only
	bearer  Bearer // set once, by the reading goroutine under mu; nil: everything is allowed
	hello   *time.Timer

	mu       sync.Mutex
	calls    map[uint32]*call
	bytes    int // of the requests in calls
	txs      map[facet.TxID]openTx
	draining bool
	leaving  bool         // drained for long enough: end when idle
	over     *facet.Error // the token is not good any more: nothing new is done
	expiry   *time.Timer  // recheck; nil where the token has no end
	lost     bool         // the connection is over
	aborted  error
	idle     chan struct{}
}

// openTx is an interactive transaction the connection opened.
type openTx struct {
	name facet.Name
	last time.Time
}

func newSession(srv *Server, token string) *session {
	return &session{
		srv: srv, token: token,
		calls: make(map[uint32]*call),
		txs:   make(map[facet.TxID]openTx),
		idle:  make(chan struct{}),
	}
}

// serve runs the connection and then ends what it left behind: requests are
// canceled, transactions rolled back. It returns when all of that is done.
func (s *session) serve(conn *wire.Conn) error {
	s.mu.Lock()
	s.conn = conn
	draining, aborted := s.draining, s.aborted
	s.mu.Unlock()
	if draining {
		s.drain()
	}
	if aborted != nil {
		conn.Close(aborted)
	}
	hello := time.AfterFunc(helloTimeout, func() {
		conn.Close(fmt.Errorf("%w: no hello within %v", wire.ErrProtocol, helloTimeout))
	})
	s.hello = hello
	err := conn.Run(s.frame)
	hello.Stop()

	s.mu.Lock()
	s.lost = true
	if s.expiry != nil {
		s.expiry.Stop()
	}
	running := make([]*call, 0, len(s.calls))
	for _, c := range s.calls {
		c.refs.Add(1)
		running = append(running, c)
	}
	if len(s.calls) == 0 {
		close(s.idle)
	}
	open := s.txs
	s.txs = nil
	s.mu.Unlock()
	for _, c := range running {
		c.Cancel()
		c.release()
	}
	<-s.idle // the Service answers every call, if only with CodeCanceled
	var rollbacks sync.WaitGroup
	for tx, o := range open {
		rollbacks.Add(1)
		s.srv.rollback(o.name, tx, rollbacks.Done)
	}
	rollbacks.Wait()
	return err
}

// frame handles one frame of the client.
func (s *session) frame(f wire.Frame) error {
	if !s.greeted {
		return s.greet(f)
	}
	switch f.Type {
	case wire.TypeRequest:
		return s.request(f)
	case wire.TypeCancel:
		s.cancel(f.ID)
		return nil
	case wire.TypePong:
		return nil
	}
	return s.violation("a client does not send %v frames", f.Type)
}

// violation tells the client why the connection ends.
func (s *session) violation(format string, args ...any) error {
	e := facet.Errorf(facet.CodeBadRequest, format, args...)
	s.conn.End(wire.AppendError(s.conn.Begin(), wire.TypeGoAway, 0, e))
	return fmt.Errorf("%w: %s", wire.ErrProtocol, e.Message)
}

func (s *session) greet(f wire.Frame) error {
	if f.Type != wire.TypeHello {
		return s.violation("the first frame is a hello, not %v", f.Type)
	}
	h, err := wire.DecodeHello(f.Body)
	if err != nil {
		return s.violation("%v", err)
	}
	if h.VersionMin > wire.VersionMax || h.VersionMax < wire.VersionMin {
		e := facet.Errorf(facet.CodeVersion, "client speaks protocol versions %d to %d, this node %d to %d; upgrade the older one",
			h.VersionMin, h.VersionMax, wire.VersionMin, wire.VersionMax)
		s.conn.End(wire.AppendError(s.conn.Begin(), wire.TypeGoAway, 0, e))
		return e
	}
	if h.Token != "" {
		s.token = h.Token
	}
	if err := s.authenticate(); err != nil {
		s.conn.End(wire.AppendError(s.conn.Begin(), wire.TypeGoAway, 0, s.srv.wireError(err, facet.Trace{})))
		return fmt.Errorf("%w: %w", wire.ErrProtocol, err)
	}
	s.greeted = true
	s.hello.Stop()
	s.conn.SetMaxFrame(wire.MaxFrame)
	return s.conn.End(wire.AppendHelloOK(s.conn.Begin(), wire.HelloOK{
		Version:     min(h.VersionMax, wire.VersionMax),
		MaxFrame:    wire.MaxFrame,
		MaxInFlight: uint64(s.srv.opt.MaxInFlight),
		Node:        s.srv.opt.Node,
		Cluster:     s.srv.opt.Cluster,
		Software:    s.srv.opt.Software,
		Features:    wire.FeatureTrace,
	}))
}

// authenticate finds out who shows the token.
func (s *session) authenticate() error {
	if s.srv.opt.Authenticate == nil {
		return nil
	}
	b, err := s.srv.opt.Authenticate(s.token)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.bearer = b
	s.mu.Unlock()
	s.recheck() // the keys may have changed meanwhile, and nobody looked here
	return nil
}

// request takes one request in: refused, or submitted.
func (s *session) request(f wire.Frame) error {
	if s.conn.Pending() > highWater {
		if err := s.conn.WaitPending(context.Background(), lowWater); err != nil {
			return err
		}
	}
	c := newCall(s, f.ID)
	c.take(&f)
	err := wire.DecodeRequest(f, &c.Request, &c.scratch, &s.intern)
	if err == nil {
		err = s.authorize(&c.Request)
	}
	s.mu.Lock()
	if _, taken := s.calls[f.ID]; taken {
		s.mu.Unlock()
		c.release()
		return s.violation("request id %d is under way already", f.ID)
	}
	if err == nil {
		err = s.admissible(c)
	}
	if err != nil {
		s.mu.Unlock()
		trace := c.Request.Trace
		c.release()
		return s.conn.End(wire.AppendError(s.conn.Begin(), wire.TypeError, f.ID, s.srv.wireError(err, trace)))
	}
	s.calls[f.ID] = c
	s.bytes += len(c.body)
	s.mu.Unlock()
	s.srv.svc.Submit(&c.Call)
	return nil
}

// authorize lets a request through that the bearer may make; one who may only read
// gets a read-only request.
func (s *session) authorize(r *facet.Request) error {
	if s.bearer == nil {
		return nil
	}
	readOnly, err := s.bearer.Facet(r.Name)
	if readOnly {
		r.ReadOnly = true
	}
	return err
}

// admissible applies the limits of the connection. s.mu is held.
func (s *session) admissible(c *call) error {
	switch {
	case s.over != nil:
		return s.over
	case s.draining && c.Request.Tx.IsZero():
		return retryLater(facet.CodeUnavailable, "the node is shutting down; use another one")
	case len(s.calls) >= s.srv.opt.MaxInFlight:
		return retryLater(facet.CodeOverloaded, "the connection has its limit of %d requests in flight", s.srv.opt.MaxInFlight)
	case s.bytes+len(c.body) > maxInFlightBytes:
		return retryLater(facet.CodeOverloaded, "the connection has its limit of %d request bytes in flight", maxInFlightBytes)
	case c.Request.KeepTx && c.Request.Tx.IsZero() && len(s.txs) >= maxTxs:
		now := time.Now()
		for tx, o := range s.txs {
			if now.Sub(o.last) > txForget {
				delete(s.txs, tx)
			}
		}
		if len(s.txs) >= maxTxs {
			e := facet.Errorf(facet.CodeLimit, "open_transactions: the connection has its limit of %d", maxTxs)
			e.Limit = "open_transactions"
			return e
		}
	}
	return nil
}

func retryLater(code facet.Code, format string, args ...any) error {
	e := facet.Errorf(code, format, args...)
	e.RetryAfter = refuseAfter
	return e
}

func (s *session) cancel(id uint32) {
	s.mu.Lock()
	c := s.calls[id]
	if c != nil {
		c.refs.Add(1)
	}
	s.mu.Unlock()
	if c != nil { // else it was answered in the meantime
		c.Cancel()
		c.release()
	}
}

// answer queues the outcome of c. It runs in whatever goroutine called Done.
func (s *session) answer(c *call) {
	s.mu.Lock()
	delete(s.calls, c.id)
	s.bytes -= len(c.body)
	orphan := s.track(c)
	long := false
	switch {
	case s.lost:
	case c.Err != nil:
		s.conn.End(wire.AppendError(s.conn.Begin(), wire.TypeError, c.id, s.srv.wireError(c.Err, c.Request.Trace)))
	case len(c.Response.Result) <= wire.ChunkLen:
		s.conn.End(wire.AppendResponse(s.conn.Begin(), c.id, &c.Response))
	default:
		long = true
		c.stream = wire.ResponseStream{ID: c.id, Response: &c.Response}
		s.conn.Stream(c) // c.Close releases c
	}
	if orphan {
		s.srv.running.Add(1) // before idle can close: the server waits for it too
	}
	if len(s.calls) == 0 {
		if s.lost {
			close(s.idle)
		} else if s.leaving {
			s.finish()
		}
	}
	s.mu.Unlock()
	if orphan {
		// The connection went while the request opened a transaction: nobody will
		// ever use it.
		s.srv.rollback(c.Request.Name, c.Response.Tx, s.srv.running.Done)
	}
	if !long {
		c.release()
	}
}

// track keeps the list of open transactions. It tells whether c left one open on
// a connection that is gone. s.mu is held.
func (s *session) track(c *call) (orphan bool) {
	tx := c.Response.Tx
	switch {
	case c.Err != nil:
		if !c.Request.Tx.IsZero() && endsTx(c.Err) {
			delete(s.txs, c.Request.Tx)
		}
	case !tx.IsZero():
		if s.lost {
			return true
		}
		s.txs[tx] = openTx{name: c.Request.Name, last: time.Now()}
	case !c.Request.Tx.IsZero():
		delete(s.txs, c.Request.Tx)
	}
	return false
}

// endsTx reports whether err means that the transaction is no more. In doubt it
// is not: a rollback too many does no harm.
func endsTx(err error) bool {
	return errors.Is(err, facet.ErrTxClosed) || errors.Is(err, facet.ErrNotOwner) || errors.Is(err, facet.ErrUnknownOutcome)
}

// drain tells the client to go away and, after a grace, ends the connection as
// soon as nothing is under way.
func (s *session) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	s.sendAway(facet.Errorf(facet.CodeUnavailable, "the node is shutting down; use another one"))
}

// sendAway is the part of drain that needs a connection. s.mu is held.
func (s *session) sendAway(e *facet.Error) {
	if s.conn == nil {
		return // serve comes back here
	}
	s.conn.End(wire.AppendError(s.conn.Begin(), wire.TypeGoAway, 0, e))
	time.AfterFunc(drainGrace, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.leaving = true
		if len(s.calls) == 0 {
			s.finish()
		}
	})
}

// finish ends a connection that is leaving and has nothing under way. Open
// transactions keep one of a node that shuts down; a bearer who is not let in any
// more can do nothing with his, and they end with it. s.mu is held.
func (s *session) finish() {
	switch {
	case s.over != nil:
		s.conn.Finish(errTokenOver)
	case len(s.txs) == 0:
		s.conn.Finish(errShutdown)
	}
}

// recheck judges the token again: when it should have ended, and when other keys are
// in force. If it is good still, the next time is set.
func (s *session) recheck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bearer == nil || s.lost || s.over != nil {
		return
	}
	if err := s.bearer.Check(); err != nil {
		// What is under way was begun with a good token and is answered.
		s.over = s.srv.wireError(err, facet.Trace{})
		s.sendAway(s.over)
		return
	}
	until := s.bearer.Until()
	switch {
	case until.IsZero():
	case s.expiry == nil:
		s.expiry = time.AfterFunc(time.Until(until), s.recheck)
	default:
		s.expiry.Reset(time.Until(until))
	}
}

// abort ends the connection at once.
func (s *session) abort(cause error) {
	s.mu.Lock()
	conn := s.conn
	s.aborted = cause // serve looks at it when there is no connection yet
	s.mu.Unlock()
	if conn != nil {
		conn.Close(cause)
	}
}
