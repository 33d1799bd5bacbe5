package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
)

// Client holds the connections of a program to a cluster.
type Client struct {
	opt       Options
	endpoints []*node
	preferred atomic.Uint32 // index of the endpoint that answered last
	keys      struct {
		client [16]byte
		n      atomic.Uint64
	}
	http    *http.Client
	columns columnCache

	ctx    context.Context // ends with the client
	cancel context.CancelCauseFunc
	group  sync.WaitGroup // dials and connections

	mu     sync.Mutex
	closed bool
	nodes  map[endpoint]*node // endpoints, and owners learned from redirects
	owners owners
}

var errClientClosed = fmt.Errorf("%w: the client is closed", wire.ErrClosed)

// Open makes a client and connects to the first endpoint that answers. Any node
// of the cluster will do as an endpoint: a request for a facet that lives
// elsewhere is redirected, and the way remembered.
func Open(ctx context.Context, endpoints []string, opt Options) (*Client, error) {
	if err := opt.setDefaults(); err != nil {
		return nil, err
	}
	if len(endpoints) == 0 || len(endpoints) > maxNodes {
		return nil, facet.Errorf(facet.CodeBadRequest, "open client: %d endpoints, want 1 to %d", len(endpoints), maxNodes)
	}
	c := &Client{opt: opt, nodes: make(map[endpoint]*node)}
	for _, s := range endpoints {
		at, err := parseEndpoint(s)
		if err != nil {
			return nil, err
		}
		if c.nodes[at] == nil {
			c.nodes[at] = newNode(c, at)
			c.endpoints = append(c.endpoints, c.nodes[at])
		}
	}
	rand.Read(c.keys.client[:]) // never fails
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.http = newHTTP(&c.opt)
	var errs []error
	for i, n := range c.endpoints {
		_, err := n.connect(ctx)
		if err == nil {
			c.preferred.Store(uint32(i))
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
	k := newCall()
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
	return &Facet{client: b.client, name: n, idempotent: b.client.opt.Idempotent}, nil
}

// Facet names a facet as "tenant/facet".
func (c *Client) Facet(name string) (*Facet, error) {
	n, err := facet.ParseName(name)
	if err != nil {
		return nil, err
	}
	return &Facet{client: c, name: n, idempotent: c.opt.Idempotent}, nil
}

// nextKey makes an idempotency key.
func (c *Client) nextKey() facet.Key {
	return facet.Key{Client: c.keys.client, N: c.keys.n.Add(1)}
}

// nodeAt finds or makes the node at an address a redirect named.
func (c *Client) nodeAt(addr string) (*node, error) {
	at, err := parseEndpoint(addr)
	if err != nil {
		return nil, err
	}
	// An owner without a scheme is reached the way the endpoints are.
	if len(addr) > 0 && addr == at.host {
		at.tls = c.endpoints[0].at.tls
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[at]
	if n == nil {
		if len(c.nodes) >= maxNodes {
			c.forgetNode()
		}
		n = newNode(c, at)
		c.nodes[at] = n
	}
	n.used.Store(time.Now().UnixNano())
	return n, nil
}

// forgetNode drops the learned node that was named longest ago and is idle.
func (c *Client) forgetNode() {
	var oldest *node
	for _, n := range c.nodes {
		if n.used.Load() != 0 && n.idle() && (oldest == nil || n.used.Load() < oldest.used.Load()) {
			oldest = n
		}
	}
	if oldest != nil {
		delete(c.nodes, oldest.at)
		oldest.close()
	}
}

// owners is the placement cache: which node answered for a facet last. It is
// kept in two generations: when the young one is half the bound it becomes the
// old one, and what is still used moves back. Only facets that were redirected
// are in it.
type owners struct {
	count      atomic.Int64 // of entries: nobody locks while there are none
	mu         sync.Mutex
	young, old map[facet.Name]ownerEntry
}

type ownerEntry struct {
	node  *node
	epoch facet.Epoch
}

func (o *owners) get(name facet.Name) *node {
	if o.count.Load() == 0 {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if e, ok := o.young[name]; ok {
		return e.node
	}
	e, ok := o.old[name]
	if ok {
		o.put(name, e)
	}
	return e.node
}

// learn remembers the owner, unless a later epoch is known.
func (o *owners) learn(name facet.Name, n *node, epoch facet.Epoch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known, ok := o.young[name]
	if !ok {
		known, ok = o.old[name]
	}
	if ok && known.epoch > epoch && epoch != 0 {
		return
	}
	o.put(name, ownerEntry{node: n, epoch: epoch})
}

func (o *owners) put(name facet.Name, e ownerEntry) {
	if len(o.young) >= maxOwners/2 {
		o.old, o.young = o.young, nil
	}
	if o.young == nil {
		o.young = make(map[facet.Name]ownerEntry)
	}
	delete(o.old, name)
	o.young[name] = e
	o.count.Store(int64(len(o.young) + len(o.old)))
}

// forget drops the entry if it still points at n, because n could not be reached.
func (o *owners) forget(name facet.Name, n *node) {
	if o.count.Load() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range []map[facet.Name]ownerEntry{o.young, o.old} {
		if m[name].node == n {
			delete(m, name)
		}
	}
	o.count.Store(int64(len(o.young) + len(o.old)))
}
