package nativetest

import (
	"context"
	"sync"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/service"
)

// Cluster is several toy nodes that share their facets. Each facet has one owner
// at a time; a node serves what it owns and names the owner of the rest, as far as
// it has heard. Which nodes run, and who reaches them, is the test's matter.
type Cluster struct {
	// Service keeps the facets of all nodes. Its hooks see what the owner runs.
	Service

	nodes []*Node

	mu     sync.Mutex
	owners map[facet.Name]place
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
	addr    string

	// Guarded by cluster.mu.
	view   map[facet.Name]place
	frozen bool
	asked  int
}

// NewCluster makes nodes with these API addresses. Facets belong to the first of
// them, since epoch 1, until they are moved.
func NewCluster(addrs ...string) *Cluster {
	c := &Cluster{owners: make(map[facet.Name]place)}
	c.Service.epoch = func(name facet.Name) facet.Epoch {
		c.mu.Lock()
		defer c.mu.Unlock()
		return look(c.owners, name).epoch
	}
	for i, a := range addrs {
		c.nodes = append(c.nodes, &Node{Service: &c.Service, cluster: c, index: i, addr: a, view: make(map[facet.Name]place)})
	}
	return c
}

func look(m map[facet.Name]place, name facet.Name) place {
	if p, ok := m[name]; ok {
		return p
	}
	return place{node: 0, epoch: 1}
}

// Node is the node of an index.
func (c *Cluster) Node(i int) *Node { return c.nodes[i] }

// Move makes a node the owner since an epoch, aborts the facet's transaction, and
// tells every node that is not frozen.
func (c *Cluster) Move(name facet.Name, to int, epoch facet.Epoch) {
	c.mu.Lock()
	c.owners[name] = place{to, epoch}
	for _, n := range c.nodes {
		if !n.frozen {
			n.view[name] = c.owners[name]
		}
	}
	c.mu.Unlock()
	c.Abort(name)
}

// Freeze keeps the node's view as it is until Thaw.
func (n *Node) Freeze() {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.frozen = true
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

// Believe freezes the node with a view of its own.
func (n *Node) Believe(name facet.Name, owner int, epoch facet.Epoch) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.frozen = true
	n.view[name] = place{owner, epoch}
}

// Asked is how many requests the node got since it was last asked that.
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
	p := look(n.view, name)
	return n.cluster.nodes[p.node].addr, p.node == n.index, p.epoch
}

// Submit is service.Service's.
func (n *Node) Submit(call *service.Call) {
	name := call.Request.Name
	at, local, epoch := n.Owner(name)
	n.cluster.mu.Lock()
	n.asked++
	mine := look(n.cluster.owners, name).node == n.index
	n.cluster.mu.Unlock()
	switch {
	case !local:
		e := facet.Errorf(facet.CodeNotOwner, "another node owns %v", name)
		e.Owner, e.Epoch = at, epoch
		call.Err = e
		call.Done(call)
	case !mine:
		call.Err = facet.Errorf(facet.CodeUnavailable, "the lease is over")
		call.Done(call)
	default:
		n.Service.Submit(call)
	}
}

// Cluster is service.Service's.
func (n *Node) Cluster(context.Context) service.Cluster {
	var c service.Cluster
	for i, m := range n.cluster.nodes {
		c.Nodes = append(c.Nodes, service.Node{ID: cluster.NodeID(rune('a' + i)), API: m.addr, State: "alive"})
	}
	return c
}
