package node

import (
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/placement"
)

// What the checkers of package internal/sim look at: the state behind the answers.
// Nothing here changes anything, and nothing in the product calls it.

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
