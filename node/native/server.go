package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/internal/bearer"
	"github.com/facetd/facetd/node/service"
)

// Options of a Server. The zero value is usable.
type Options struct {
	// Node, Cluster and Software are told to clients in the handshake.
	Node, Cluster, Software string

	// Authenticate tells who shows a token, empty where a client shows none. Its error
	// ends the connection before it has begun. nil lets everybody do everything.
	Authenticate func(tok string) (Bearer, error)

	// MaxInFlight is how many unanswered requests a connection may have. Default
	// wire.DefaultMaxInFlight; what exceeds it is refused with CodeOverloaded.
	MaxInFlight int

	// MaxConns bounds the connections. Default DefaultMaxConns.
	MaxConns int

	// Conn bounds each connection: keepalive, write timeout, queue.
	Conn wire.ConnConfig

	// Log gets one line per connection that ends badly. Default slog.Default().
	Log *slog.Logger
}

// Bearer is who showed the token of a connection. It may be asked from any goroutine.
// Errors are *facet.Error or wrap one.
type Bearer interface {
	// Facet tells whether the facet is within reach now, and whether only to read: a
	// request goes on as read-only then. It is asked for every request, so it must be
	// quick.
	Facet(name facet.Name) (readOnly bool, err error)
	// Check tells whether the token is good now.
	Check() error
	// Until is from when on the token will not be; zero is never.
	Until() time.Time
}

// Server serves the native protocol on top of a Service.
type Server struct {
	svc service.Service
	opt Options

	mu       sync.Mutex
	sessions map[*session]struct{}
	draining bool
	running  sync.WaitGroup // sessions, until their last call is done
}

// New makes a server of svc.
func New(svc service.Service, opt Options) *Server {
	if opt.MaxInFlight <= 0 {
		opt.MaxInFlight = wire.DefaultMaxInFlight
	}
	if opt.MaxConns <= 0 {
		opt.MaxConns = DefaultMaxConns
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	return &Server{svc: svc, opt: opt, sessions: make(map[*session]struct{})}
}

// ServeHTTP upgrades the request to the native protocol and serves the
// connection until it is over and every request of it is answered.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !asksFor(r) {
		w.Header().Set("Upgrade", wire.Protocol)
		w.Header().Set("Connection", "Upgrade")
		refuse(w, http.StatusUpgradeRequired, facet.Errorf(facet.CodeBadRequest,
			"this is the native protocol: send GET %s over HTTP/1.1 with Connection: Upgrade and Upgrade: %s", wire.Path, wire.Protocol))
		return
	}
	hj, ok := w.(http.Hijacker)
	if !ok {
		refuse(w, http.StatusInternalServerError, facet.Errorf(facet.CodeInternal, "this server cannot hand over the connection"))
		return
	}
	tok, err := bearer.Token(r)
	if err != nil && s.opt.Authenticate != nil {
		var e *facet.Error
		errors.As(err, &e) // it is one
		w.Header().Set("WWW-Authenticate", `Bearer realm="facetd"`)
		refuse(w, http.StatusUnauthorized, e)
		return
	}
	sess := newSession(s, tok)
	if err := s.admit(sess); err != nil {
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	defer s.forget(sess)
	nc, rw, err := hj.Hijack()
	if err != nil {
		refuse(w, http.StatusInternalServerError, facet.Errorf(facet.CodeInternal, "hand over connection: %v", err))
		return
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered()) // never fails: it is buffered
	nc.SetWriteDeadline(time.Now().Add(upgradeTimeout))
	_, err = fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", wire.Protocol)
	if err != nil {
		nc.Close()
		return
	}
	cfg := s.opt.Conn
	cfg.Farewell = farewell
	err = sess.serve(wire.NewConn(nc, early, cfg))
	if !errors.Is(err, wire.ErrClosed) && !errors.Is(err, context.Canceled) {
		s.opt.Log.Info("native connection ended", "remote", nc.RemoteAddr().String(), "cause", err)
	}
}

// farewell tells a client that sent something that is no frame why its connection ends.
func farewell(cause error) []byte {
	return wire.AppendError(nil, wire.TypeGoAway, 0, facet.Errorf(facet.CodeBadRequest, "the connection ends: %v", cause))
}

func asksFor(r *http.Request) bool {
	if r.Method != http.MethodGet || r.ProtoMajor != 1 || !strings.EqualFold(r.Header.Get("Upgrade"), wire.Protocol) {
		return false
	}
	for _, v := range r.Header.Values("Connection") {
		for tok := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(tok), "upgrade") {
				return true
			}
		}
	}
	return false
}

func refuse(w http.ResponseWriter, status int, e *facet.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	body := map[string]string{"code": e.Code.String(), "message": e.Message, "error": e.Error()}
	json.NewEncoder(w).Encode(body) // the connection ends after it; a failure has nobody to be told
}

func (s *Server) admit(sess *session) *facet.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return facet.Errorf(facet.CodeUnavailable, "the node is shutting down; use another one")
	case len(s.sessions) >= s.opt.MaxConns:
		return facet.Errorf(facet.CodeOverloaded, "the node has its limit of %d native connections", s.opt.MaxConns)
	}
	s.sessions[sess] = struct{}{}
	s.running.Add(1)
	return nil
}

func (s *Server) forget(sess *session) {
	s.mu.Lock()
	delete(s.sessions, sess)
	s.mu.Unlock()
	s.running.Done()
}

// Recheck judges the token of every connection again: it is called when other keys are
// in force. Who is not let in any more is told so and has to go.
func (s *Server) Recheck() {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.sessions))
	s.mu.Unlock()
	for _, sess := range all {
		sess.recheck()
	}
}

// Close drains the server: clients are told to go away, requests under way and
// open transactions may finish until ctx ends, then connections are closed. It
// returns when every request was answered by the Service. New connections and
// new requests are refused from the beginning. It may be called more than once.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	all := slices.Collect(maps.Keys(s.sessions))
	s.mu.Unlock()
	for _, sess := range all {
		sess.drain()
	}
	gone := make(chan struct{})
	go func() { // ends with the last session, which the lines below see to
		s.running.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	for _, sess := range all {
		sess.abort(errShutdown)
	}
	<-gone
	return nil
}

var (
	errShutdown  = fmt.Errorf("%w: node shuts down", wire.ErrClosed)
	errTokenOver = fmt.Errorf("%w: the token is not good any more", wire.ErrClosed)
)
