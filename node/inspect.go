package node

import (
	"context"

	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/placement"
)

// What package internal/sim looks at, the state behind the answers, and what only an
// orderly stop does otherwise: a change of the leader. Nothing in the product calls it.

// Copies calls f for every copy of a facet that this node keeps, until f returns
// false.
func (n *Node) Copies(f func(replica.Meta) bool) { n.replicas.Facets(f) }

// Table is this node's copy of the placement table.
func (n *Node) Table() *placement.Table { return n.table }

// Leads reports whether this node leads placement.
func (n *Node) Leads() bool {
	raft := n.consensus()
	if raft == nil {
		return false
	}
	now, _ := raft.Leadership()
	return now.Leading
}

// StepAside has another voter lead placement, if this node does.
func (n *Node) StepAside(ctx context.Context) error {
	return n.consensus().TransferLeadership(ctx, "")
}
