package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
)

// Options of a Client. The zero value is usable.
type Options struct {
	// Token is the bearer token; TokenSource, when set, is asked for one before
	// every connection and management call instead. A connection is exchanged before
	// its token ends, if that is a JWT, and when a node does not take it any more: so a
	// source that gives a good token whenever it is asked is all that renewing takes.
	// It is called from several goroutines.
	Token       string
	TokenSource func(ctx context.Context) (string, error)

	// Idempotent gives every write outside transactions an idempotency key made by
	// the SDK, so that it is retried when its connection is lost and takes effect
	// once. The package comment tells what it costs.
	Idempotent bool

	// QuorumReads has every facet read as by Facet.QuorumReads.
	QuorumReads bool

	// RetryFor bounds how long one call is retried, if its context does not end it
	// earlier. Default: until the deadline of the context, 30 s where it has none.
	// Negative means no retries.
	RetryFor time.Duration

	// DialTimeout bounds connecting to a node, handshake included. Default 1 s.
	DialTimeout time.Duration

	// ConnsPerNode is how many connections to keep to each node at most. Default 2:
	// while one side of a connection works through what arrived together, the other
	// connection keeps the other side busy. One more is used for every 24 requests
	// under way. More than 64 is refused.
	ConnsPerNode int

	// MaxResult bounds the bytes of one answer. Default 128 MiB.
	MaxResult int

	// PingInterval is how long a node may be silent before it is asked for a sign
	// of life; after three of them its connection is given up. Default 600 ms, so
	// that a machine that vanished is noticed when its facets have moved.
	PingInterval time.Duration

	// TLS configures https endpoints: RootCAs for a CA of your own, Certificates for
	// nodes that want one; LoadTLS makes it from files. nil uses the system's roots.
	TLS *tls.Config

	// Dial replaces the way sockets are made. nil dials TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// TracerProvider makes a span of every request (OpenTelemetry). nil makes none; the
	// span of a caller's context is handed on to the nodes in any case.
	TracerProvider trace.TracerProvider

	// Software names the program in the node's log.
	Software string
}

func (o *Options) setDefaults() error {
	if o.DialTimeout <= 0 {
		o.DialTimeout = defaultDialTimeout
	}
	if o.PingInterval <= 0 {
		o.PingInterval = defaultPingInterval
	}
	if o.ConnsPerNode <= 0 {
		o.ConnsPerNode = defaultConns
	}
	if o.ConnsPerNode > 64 {
		return facet.Errorf(facet.CodeBadRequest, "open client: ConnsPerNode is %d, limit 64", o.ConnsPerNode)
	}
	if o.MaxResult <= 0 {
		o.MaxResult = defaultMaxResult
	}
	if o.TLS = o.TLS.Clone(); o.TLS == nil {
		o.TLS = new(tls.Config)
	}
	o.TLS.MinVersion = max(o.TLS.MinVersion, tls.VersionTLS12)
	// HTTP/2 has no way to change to the native protocol.
	o.TLS.NextProtos = []string{"http/1.1"}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	if o.Software == "" {
		o.Software = "facetd-go"
	}
	if len(o.Token) > wire.MaxToken {
		return facet.Errorf(facet.CodeBadRequest, "open client: the token has %d bytes, limit %d", len(o.Token), wire.MaxToken)
	}
	return nil
}

func (o *Options) token(ctx context.Context) (string, error) {
	if o.TokenSource == nil {
		return o.Token, nil
	}
	tok, err := o.TokenSource(ctx)
	if err != nil {
		return "", fmt.Errorf("get token: %w", err)
	}
	if len(tok) > wire.MaxToken {
		return "", facet.Errorf(facet.CodeUnauthorized, "the token has %d bytes, limit %d", len(tok), wire.MaxToken)
	}
	return tok, nil
}

// endpoint is the address of a node's API port.
type endpoint struct {
	host string // host:port
	tls  bool
}

// parseEndpoint reads "host:port", "http://host:port" or "https://host:port".
func parseEndpoint(s string) (endpoint, error) {
	bad := func(why string) (endpoint, error) {
		return endpoint{}, facet.Errorf(facet.CodeBadRequest, "endpoint %.100q: %s; write it as host:port, http://host:port or https://host:port", s, why)
	}
	var e endpoint
	host := s
	if strings.Contains(s, "://") {
		u, err := url.Parse(s)
		switch {
		case err != nil:
			return bad("not a URL")
		case u.Scheme != "http" && u.Scheme != "https":
			return bad("scheme " + u.Scheme + " is not known")
		case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil:
			return bad("only a host and a port are used")
		}
		host, e.tls = u.Host, u.Scheme == "https"
		if u.Port() == "" {
			host = net.JoinHostPort(u.Hostname(), map[bool]string{false: "80", true: "443"}[e.tls])
		}
	}
	h, p, err := net.SplitHostPort(host)
	if err != nil || h == "" || p == "" {
		return bad("a host and a port are needed")
	}
	e.host = net.JoinHostPort(h, p)
	return e, nil
}

func (e endpoint) String() string {
	if e.tls {
		return "https://" + e.host
	}
	return "http://" + e.host
}
