// Package node is one running facetd node: it puts the data directory, the
// placement table on its Raft log, the replica store, the owners and the faces
// together, and keeps them in step with the table.
//
// It owns what no part owns alone: identity and boot of the node, the API
// listener, the reconcile loop, and what happens when a disk fails. It refuses to
// know protocols (node/httpapi, node/hrana, node/native) and ownership rules
// (node/owner). A program makes one Node per data directory; its methods may be
// called from any goroutine.
package node
