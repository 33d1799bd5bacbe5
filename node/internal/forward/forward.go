package forward

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of Send. Nothing was answered then.
var (
	// ErrUnsent: no byte of the request left, so it may be sent again anywhere.
	ErrUnsent = errors.New("the node was not reached")
	// ErrLost: the request may have been executed, or not.
	ErrLost = errors.New("the connection to the node was lost")
	// ErrHops: the request was carried on too often.
	ErrHops = errors.New("the nodes do not agree on who answers this request")
	// ErrBusy: too many requests are being carried.
	ErrBusy = errors.New("too many forwarded requests")
)

// HeaderHops counts how often a request was carried on.
const HeaderHops = "Facet-Hops"

// Options of a Forwarder. The zero value is usable.
type Options struct {
	// TLS is for owners reached by https. It is asked for each connection, which gets
	// what it gives. Default: the system's roots.
	TLS func() *tls.Config
	// Dial makes connections. Default: TCP, with keepalive.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Log gets what goes wrong after an answer has begun. Default: slog.Default().
	Log *slog.Logger
}

// Forwarder carries requests to other nodes, over one HTTP/2 connection to each
// as long as that is enough.
type Forwarder struct {
	transport *http.Transport
	proxy     *httputil.ReverseProxy
	underWay  atomic.Int64
}

// New makes a forwarder.
func New(opts Options) *Forwarder {
	log := opts.Log
	if log == nil {
		log = slog.Default()
	}
	dial := opts.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: pingAfter}).DialContext
	}
	secret := opts.TLS
	if secret == nil {
		secret = func() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS12} }
	}
	connect := func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		return dial(ctx, network, addr)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	f := &Forwarder{transport: &http.Transport{
		Protocols:   protocols,
		HTTP2:       &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		DialContext: connect,
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := connect(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return handshake(ctx, nc, addr, secret())
		},
		IdleConnTimeout:    idleTimeout,
		DisableCompression: true,
	}}
	f.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      f.transport,
		FlushInterval:  -1, // a cursor's rows leave as they come
		BufferPool:     &buffers{},
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ModifyResponse: modify,
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			trip(r).err = err
		},
	}
	return f
}

// handshake has nc speak TLS to the node at addr.
func handshake(ctx context.Context, nc net.Conn, addr string, cfg *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	cfg.NextProtos = []string{"h2"}
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(addr) // made by net/http
	}
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return tc, nil
}

// Close ends idle connections; those in use end with their requests.
func (f *Forwarder) Close() { f.transport.CloseIdleConnections() }

// UnderWay is the number of requests being carried, for metrics.
func (f *Forwarder) UnderWay() int { return int(f.underWay.Load()) }

// Hops is how often the request was carried on before it came here.
func Hops(r *http.Request) int {
	n, err := strconv.Atoi(r.Header.Get(HeaderHops))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// URL is the base URL, without a slash at its end, of a node's API port that is
// told as an address: reached the way the client reached this node.
func URL(r *http.Request, at string) string {
	if strings.Contains(at, "://") {
		return strings.TrimSuffix(at, "/")
	}
	if r.TLS != nil {
		return "https://" + at
	}
	return "http://" + at
}

// roundTrip is one Send.
type roundTrip struct {
	to   *url.URL
	sent bool // a connection was there, so a byte may have left
	err  error
}

type tripKey struct{}

func trip(r *http.Request) *roundTrip { return r.Context().Value(tripKey{}).(*roundTrip) }

// Send carries r, whose body was read, to the node at base, an URL without a path,
// and answers with what that answers. On an error nothing was answered. Like any
// handler it panics with http.ErrAbortHandler when an answer breaks off.
func (f *Forwarder) Send(w http.ResponseWriter, r *http.Request, body []byte, base string) error {
	hops := Hops(r)
	if hops >= MaxHops {
		return ErrHops
	}
	to, err := url.Parse(base)
	if err != nil || to.Host == "" {
		return fmt.Errorf("%w: %q is no address", ErrUnsent, base)
	}
	if f.underWay.Add(1) > maxUnderWay {
		f.underWay.Add(-1)
		return ErrBusy
	}
	defer f.underWay.Add(-1)

	rt := &roundTrip{to: to}
	ctx := httptrace.WithClientTrace(context.WithValue(r.Context(), tripKey{}, rt), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { rt.sent = true },
	})
	out := r.WithContext(ctx)
	out.Header = r.Header.Clone()
	out.Header.Set(HeaderHops, strconv.Itoa(hops+1))
	if id := w.Header().Get("X-Request-Id"); id != "" {
		out.Header.Set("X-Request-Id", id)
	}
	lent := &loan{}
	defer lent.end()
	out.Body = lent.reader(body)
	out.GetBody = func() (io.ReadCloser, error) { return lent.reader(body), nil }
	out.ContentLength, out.TransferEncoding = int64(len(body)), nil
	f.proxy.ServeHTTP(&stalling{ResponseWriter: w, rc: http.NewResponseController(w)}, out)
	switch {
	case rt.err == nil:
		return nil
	case rt.sent:
		return fmt.Errorf("%w: %w", ErrLost, rt.err)
	}
	return fmt.Errorf("%w: %w", ErrUnsent, rt.err)
}

// loan lends the caller's bytes to the transport, which may still read when it has
// answered. After end nobody does.
type loan struct {
	mu    sync.Mutex
	ended bool
}

func (l *loan) end() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
}

func (l *loan) reader(body []byte) io.ReadCloser { return &lentBody{l, bytes.NewReader(body)} }

type lentBody struct {
	loan *loan
	r    *bytes.Reader
}

func (b *lentBody) Read(p []byte) (int, error) {
	b.loan.mu.Lock()
	defer b.loan.mu.Unlock()
	if b.loan.ended {
		return 0, io.ErrClosedPipe
	}
	return b.r.Read(p)
}

func (b *lentBody) Close() error { return nil }

// rewrite makes the request to the other node. Authorization goes along; what a
// browser says about where it is was judged here, and is not true there.
func rewrite(p *httputil.ProxyRequest) {
	to := trip(p.In).to
	p.Out.URL.Scheme, p.Out.URL.Host = to.Scheme, to.Host
	p.Out.Host = to.Host
	p.Out.Header.Del("Expect") // the body is here already
	p.Out.Header.Del("Origin")
	for name := range p.Out.Header {
		if strings.HasPrefix(name, "Sec-") {
			p.Out.Header.Del(name)
		}
	}
}

// modify takes from an answer what this node has set already.
func modify(resp *http.Response) error {
	resp.Header.Del("X-Request-Id")
	resp.Header.Del("X-Content-Type-Options")
	return nil
}

// stalling gives every write to the client its own deadline, and takes it back, for
// an HTTP/2 stream ends at a deadline even when nothing is being written.
type stalling struct {
	http.ResponseWriter
	rc *http.ResponseController
}

func (s *stalling) Write(p []byte) (int, error) {
	defer s.watch()()
	return s.ResponseWriter.Write(p)
}

func (s *stalling) FlushError() error {
	defer s.watch()()
	return s.rc.Flush()
}

func (s *stalling) watch() (done func()) {
	_ = s.rc.SetWriteDeadline(time.Now().Add(stallTimeout)) // a recorder in a test has none
	return func() { _ = s.rc.SetWriteDeadline(time.Time{}) }
}

func (s *stalling) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// buffers are what answers are copied with.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, _ := b.pool.Get().(*[]byte); p != nil {
		return *p
	}
	return make([]byte, copyLen)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
