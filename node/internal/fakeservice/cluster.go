package fakeservice

import (
	"context"
	"io"
	"sync"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/service"
)

// Cluster is several fake nodes that share one set of databases. Each facet has one
// owner at a time, and each node an idea of who that is.
type Cluster struct {
	shared *Service

	mu     sync.Mutex
	nodes  []*Node
	owners map[facet.Name]place
	choose int // who owns what is made from now on; -1 the node that makes it
}

// place is where a facet is: a node's index and an epoch.
type place struct {
	node  int
	epoch facet.Epoch
}

// Node is one of them, a service.Service.
type Node struct {
	*Service
	cluster *Cluster
	index   int

	// Guarded by cluster.mu.
	addr   string
	view   map[facet.Name]place
	frozen bool
	asked  int
}

// NewCluster makes nodes whose files live in dir. Their addresses are set later.
func NewCluster(dir string, nodes int) *Cluster {
	c := &Cluster{shared: New(dir), owners: map[facet.Name]place{}, choose: -1}
	for i := range nodes {
		c.nodes = append(c.nodes, &Node{Service: c.shared, cluster: c, index: i, view: map[facet.Name]place{}})
	}
	return c
}

// Node is the node of an index.
func (c *Cluster) Node(i int) *Node { return c.nodes[i] }

// Close ends what the nodes share.
func (c *Cluster) Close() error { return c.shared.Close() }

// SetAddr says where the node's API port is.
func (n *Node) SetAddr(addr string) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.addr = addr
}

// Choose makes a node the owner of every facet made from now on.
func (c *Cluster) Choose(node int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.choose = node
}

// Move makes a node the owner, aborts the facet's transaction and tells every node
// that is not frozen.
func (c *Cluster) Move(name facet.Name, to int) {
	c.mu.Lock()
	c.place(name, place{to, c.owners[name].epoch + 1})
	c.mu.Unlock()
	c.shared.ExpireTx(name)
}

func (c *Cluster) place(name facet.Name, p place) {
	c.owners[name] = p
	for _, n := range c.nodes {
		if !n.frozen {
			n.view[name] = p
		}
	}
}

// Believe freezes the node's view, with this in it, until Thaw.
func (n *Node) Believe(name facet.Name, owner int) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.frozen = true
	n.view[name] = place{owner, n.cluster.owners[name].epoch}
}

// Thaw brings the node up to date.
func (n *Node) Thaw() {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.frozen = false
	for name, p := range n.cluster.owners {
		n.view[name] = p
	}
}

// Asked is how many requests the node ran or refused since it was last asked that.
func (n *Node) Asked() int {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	a := n.asked
	n.asked = 0
	return a
}

// Owner tells where a facet is, as far as the node has heard.
func (n *Node) Owner(name facet.Name) (at string, local bool, epoch facet.Epoch) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	p, ok := n.view[name]
	if !ok {
		return "", false, 0
	}
	return n.cluster.nodes[p.node].addr, p.node == n.index, p.epoch
}

// mine makes a place for a facet that has none, and refuses what is not the node's.
func (n *Node) mine(name facet.Name) error {
	c := n.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	n.asked++
	if _, ok := c.owners[name]; !ok {
		to := c.choose
		if to < 0 {
			to = n.index
		}
		c.place(name, place{to, 1})
	}
	// What a node believes of itself is checked by its lease: the truth decides.
	p, ok := n.view[name]
	if truth := c.owners[name]; !ok || p.node == n.index || truth.node == n.index {
		p = truth
	}
	if p.node == n.index {
		return nil
	}
	return &facet.Error{Code: facet.CodeNotOwner, Message: "another node owns " + name.String(), Owner: c.nodes[p.node].addr, Epoch: p.epoch}
}

func (n *Node) Submit(call *service.Call) {
	if err := n.mine(call.Request.Name); err != nil {
		call.Err = err
		call.Done(call)
		return
	}
	n.Service.Submit(call)
}

func (n *Node) Create(ctx context.Context, name facet.Name) (service.Info, bool, error) {
	if err := n.mine(name); err != nil {
		return service.Info{}, false, err
	}
	return n.Service.Create(ctx, name)
}

func (n *Node) Delete(ctx context.Context, name facet.Name) error {
	if err := n.mine(name); err != nil {
		return err
	}
	return n.Service.Delete(ctx, name)
}

func (n *Node) Export(ctx context.Context, name facet.Name) (service.Export, error) {
	if err := n.mine(name); err != nil {
		return nil, err
	}
	return n.Service.Export(ctx, name)
}

func (n *Node) Clone(ctx context.Context, name, to facet.Name) (service.Info, error) {
	if err := n.mine(name); err != nil {
		return service.Info{}, err
	}
	return n.Service.Clone(ctx, name, to)
}

func (n *Node) Import(ctx context.Context, name facet.Name, file io.Reader, replace bool) (service.Info, error) {
	if err := n.mine(name); err != nil {
		return service.Info{}, err
	}
	return n.Service.Import(ctx, name, file, replace)
}

// Move makes another node the owner, at the owner's word.
func (n *Node) Move(ctx context.Context, name facet.Name, to cluster.NodeID) (service.Info, error) {
	if err := n.mine(name); err != nil {
		return service.Info{}, err
	}
	return n.Service.Stat(ctx, name)
}
