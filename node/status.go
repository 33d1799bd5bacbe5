package node

import (
	"context"
	"sync"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/placement"
)

// counts keeps how many facets each node owns and holds: it takes a walk over the
// whole table, so it is as old as countsFor.
type counts struct {
	mu    sync.Mutex
	at    time.Time
	nodes map[cluster.NodeID]placement.NodeCount
}

const countsFor = time.Second

func (c *counts) get(table *placement.Table) map[cluster.NodeID]placement.NodeCount {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes == nil || time.Since(c.at) > countsFor {
		c.nodes = table.NodeCounts()
		c.at = time.Now()
	}
	return c.nodes
}

// Cluster implements service.Service.
func (s svc) Cluster(context.Context) service.Cluster {
	n := s.n
	id, _ := n.table.Cluster()
	raft := n.consensus()
	leader, _, _ := raft.Leader()
	stats := raft.Stats()
	c := service.Cluster{
		ID: id.String(), Self: n.dir.Node, Leader: leader, Term: stats.Term, Applied: stats.Applied,
		Facets: n.table.Counts().Facets, Replicas: n.cfg.Replicas,
	}
	voters := map[cluster.NodeID]bool{}
	for _, m := range raft.Members() {
		voters[m.ID] = m.Votes
	}
	nodes := n.counts.get(n.table)
	for _, node := range n.table.Nodes() {
		count := nodes[node.ID]
		out := service.Node{
			ID: node.ID, API: node.API, Peer: node.Peer, Zone: node.Zone, Version: node.Version,
			Boot: node.Boot.String(), Store: node.Store.String(), State: n.stateOf(node), Voter: voters[node.ID],
			Owned: count.Owned, Held: count.Held,
		}
		if age, ok := n.grants.LeaseAge(node.ID); ok {
			out.LeaseAge = age
		}
		c.Nodes = append(c.Nodes, out)
	}
	return c
}

// stateOf is one word for what a node is to the cluster.
func (n *Node) stateOf(node placement.Node) service.NodeState {
	switch n.seen(node.ID) {
	case cluster.StatusSuspect:
		return service.NodeSuspect
	case cluster.StatusGone:
		return service.NodeGone
	case cluster.StatusUnknown:
		if n.gossip != nil {
			return service.NodeGone
		}
	}
	switch node.State {
	case placement.NodeDraining:
		return service.NodeDraining
	case placement.NodeDecommissioning:
		return service.NodeDecommissioning
	}
	return service.NodeAlive
}
