package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
)

// Client holds the connections of a program to a cluster.
type Client struct {
	opt       Options
	endpoints []*node
	private   bool                 // all endpoints are https: nothing is sent in the clear
	home      atomic.Pointer[node] // where requests go whose owner is not known
	nodes     nodes
	owners    owners
	keys      keys
	calls     sync.Pool // of *call
	http      *http.Client
	columns   columnCache
	tracer    trace.Tracer // nil for none

	ctx    context.Context // ends with the client
	cancel context.CancelCauseFunc
	group  sync.WaitGroup // dials and connections

	mu     sync.Mutex
	closed bool
}

var errClientClosed = fmt.Errorf("%w: the client is closed", wire.ErrClosed)

// Open makes a client and connects to the first endpoint that answers. Any node
// of the cluster will do as an endpoint: a request for a facet that lives
// elsewhere is redirected, and the way remembered. The other nodes are learned in
// the background, so that the client lives on when its endpoints do not; more
// endpoints than one are for opening it while one of them is down.
func Open(ctx context.Context, endpoints []string, opt Options) (*Client, error) {
	if err := opt.setDefaults(); err != nil {
		return nil, err
	}
	if len(endpoints) == 0 || len(endpoints) > maxNodes {
		return nil, facet.Errorf(facet.CodeBadRequest, "open client: %d endpoints, want 1 to %d", len(endpoints), maxNodes)
	}
	c := &Client{opt: opt, private: true, nodes: nodes{byAt: make(map[endpoint]*node)}}
	if opt.TracerProvider != nil {
		c.tracer = opt.TracerProvider.Tracer(instrumentation)
	}
	for _, s := range endpoints {
		at, err := parseEndpoint(s)
		if err != nil {
			return nil, err
		}
		c.private = c.private && at.tls
		if n := c.nodes.add(c, at); !n.given {
			n.given = true
			c.endpoints = append(c.endpoints, n)
		}
	}
	c.home.Store(c.endpoints[0])
	c.keys.draw()
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.http = newHTTP(&c.opt)
	var errs []error
	for _, n := range c.endpoints {
		_, err := n.connect(ctx)
		if err == nil {
			c.home.Store(n)
			c.survey()
			return c, nil
		}
		errs = append(errs, fmt.Errorf("connect to %v: %w", n.at, err))
	}
	c.Close()
	return nil, openError(errs)
}

// openError keeps the class of what a node answered; a node that was not reached
// is unavailable.
func openError(errs []error) error {
	err := errors.Join(errs...)
	if e := (*facet.Error)(nil); errors.As(err, &e) {
		return fmt.Errorf("open client: %w", err)
	}
	return fmt.Errorf("open client: %w: %w", facet.Errorf(facet.CodeUnavailable, "no endpoint answers"), err)
}

// Close ends every connection and waits for what the client started. Requests
// under way fail.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel(errClientClosed) // ends dials and connections
	c.http.CloseIdleConnections()
	c.group.Wait()
	return nil
}

// start runs f in the client's group; false when the client is closed.
func (c *Client) start(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.group.Go(f)
	return true
}

// Ping checks that a node answers.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.echo(ctx, nil)
	return err
}

// Echo sends a payload of at most 4 KiB to a node, which answers with the same at
// once, and tells how long it took. It goes the way requests go, without any
// work at the node: bench measures the transport with it.
func (c *Client) Echo(ctx context.Context, payload []byte) (time.Duration, error) {
	return c.echo(ctx, payload)
}

func (c *Client) echo(ctx context.Context, payload []byte) (time.Duration, error) {
	if len(payload) > wire.MaxPing {
		return 0, facet.Errorf(facet.CodeBadRequest, "echo %d bytes: limit %d", len(payload), wire.MaxPing)
	}
	k := c.newCall()
	k.eff = effRead
	k.frame = wire.AppendPing(k.frame[:0], wire.TypePing, 0, payload)
	begin := time.Now()
	if err := c.do(ctx, k, true); err != nil {
		return 0, fmt.Errorf("ping: %w", err)
	}
	took := time.Since(begin)
	k.free()
	return took, nil
}

// Bind scopes the client to one tenant.
func (c *Client) Bind(tenant string) (*Binding, error) {
	t, err := facet.ParseTenant(tenant)
	if err != nil {
		return nil, err
	}
	return &Binding{client: c, tenant: t}, nil
}

// Binding is a client scoped to one tenant: what a platform hands to an app.
type Binding struct {
	client *Client
	tenant facet.Tenant
}

// Tenant is the tenant of the binding.
func (b *Binding) Tenant() facet.Tenant { return b.tenant }

// Facet names a facet of the tenant. It does not have to exist: the first write
// creates it.
func (b *Binding) Facet(name string) (*Facet, error) {
	n, err := facet.NewName(string(b.tenant), name)
	if err != nil {
		return nil, err
	}
	return b.client.facet(n), nil
}

// Facet names a facet as "tenant/facet".
func (c *Client) Facet(name string) (*Facet, error) {
	n, err := facet.ParseName(name)
	if err != nil {
		return nil, err
	}
	return c.facet(n), nil
}
