package service

import (
	"context"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// Operator is what a node does about facets and nodes at an operator's word.
// Every method may be called on any node and from any goroutine, and may be
// repeated: what is done already, or runs already, is no error.
//
// All errors are *facet.Error or wrap one. CodeNotOwner with an Owner sends the
// caller to the node that leads placement (or, for Move, that owns the facet);
// without one nobody leads now. CodeBadRequest is a request that makes no sense
// in this cluster, CodeNotFound a node, facet or operation that is not there.
type Operator interface {
	// Start begins what was asked for and returns at once. An operation of that
	// kind on that node that runs already is returned as it is, with its own rate.
	// What needs no work (an undrain, a drain of a node that is empty) may come
	// back done.
	Start(ctx context.Context, req OperationRequest) (Operation, error)
	// Operations lists the operations that run and the last ones that ended,
	// newest first, at most MaxOperations.
	Operations(ctx context.Context) ([]Operation, error)
	// Cancel stops an operation where it is: what was done stays done, and a
	// facet under way is finished. A node whose drain or decommission is canceled
	// is active again. An operation that has ended is left alone.
	Cancel(ctx context.Context, id string) error
	// Move makes the node to the facet's owner, pins or unpins it, and returns
	// when both are so. An empty to leaves the facet where it is. A node that
	// keeps no copy gets one first.
	Move(ctx context.Context, name facet.Name, to cluster.NodeID, pin Pin) (Info, error)
	// Recover goes on from one surviving copy of a facet that lost most of them for
	// good, by making a new facet of it and leading the name there; what only the
	// others had is lost. It refuses (CodeBadRequest) while nothing need be lost.
	// CodeNotOwner with an Owner sends the caller to the node with the copy.
	Recover(ctx context.Context, name facet.Name, req RecoverRequest) (Recovery, error)
}

// RecoverRequest says what a facet goes on from.
type RecoverRequest struct {
	From cluster.NodeID // the node with the copy
	// Incarnation is the facet that lost its copies: where the name leads elsewhere
	// meanwhile nothing is done, and a request may be repeated. Zero: whatever the name
	// leads to.
	Incarnation facet.Incarnation
	DryRun      bool // only tell; Recovery.Refused says whether it would be done
}

// Recovery is what there is of a facet that is to go on from one copy.
type Recovery struct {
	Name        facet.Name
	Incarnation facet.Incarnation // that lost its copies
	From        cluster.NodeID
	Position    facet.Position // where the copy ends; the new facet begins with it
	Committed   facet.Seq      // up to here the copy knows what is committed
	SizeBytes   int64
	LastOwner   cluster.NodeID // that served it last; empty when that one gave it back
	Copies      []RecoveryCopy // of all members, From among them
	Replicas    int            // nodes that will keep the new facet
	Refused     string         // why it cannot be done; empty when it can
	// Recovered is the new facet, once there is one; its Lineage says of what it was made.
	Recovered *Info
}

// RecoveryCopy is what one member keeps.
type RecoveryCopy struct {
	Node      cluster.NodeID
	Problem   string // why nothing is known of it; empty when it answered
	Position  facet.Position
	Committed facet.Seq
	Health    string // ok, uncertain, holed, diverged
}

// MaxOperations bounds a list of operations: what runs is one a node, what ended
// is there to be read by a person.
const MaxOperations = 256

// Pin says what a move does about the pin of a facet. Rebalancing leaves the
// owner of a pinned facet alone; draining and failover do not.
type Pin uint8

const (
	KeepPin  Pin = iota // as it is
	SetPin              // pinned
	ClearPin            // not pinned
)

// OperationKind is what an operation does.
type OperationKind string

const (
	// OpDrain hands every facet the node owns to another keeper of it. The node
	// goes on keeping copies, and owns nothing until it is undrained: for a
	// restart or an upgrade.
	OpDrain OperationKind = "drain"
	// OpUndrain lets the node own and keep facets again. It ends a drain or
	// decommission of the node that runs. No facet moves because of it.
	OpUndrain OperationKind = "undrain"
	// OpDecommission is OpDrain, and then moves every copy the node keeps to
	// other nodes: afterwards it can be removed. The node may be dead.
	OpDecommission OperationKind = "decommission"
	// OpRemove takes a decommissioned node, which keeps nothing, out of the
	// cluster.
	OpRemove OperationKind = "remove"
	// OpRebalance spreads owners and copies over the nodes, moving only what it
	// must. It names no node.
	OpRebalance OperationKind = "rebalance"
	// OpRepair makes copies of facets that have fewer than the replication
	// factor. It names no node.
	OpRepair OperationKind = "repair"
)

// OperationKinds lists all kinds.
var OperationKinds = []OperationKind{OpDrain, OpUndrain, OpDecommission, OpRemove, OpRebalance, OpRepair}

// NeedsNode reports whether an operation of this kind is about one node.
func (k OperationKind) NeedsNode() bool { return k != OpRebalance && k != OpRepair }

// MaxRate bounds OperationRequest.Rate: more than any cluster can move.
const MaxRate = 100_000

// OperationRequest says what to do.
type OperationRequest struct {
	Kind OperationKind
	Node cluster.NodeID // empty for rebalance and repair
	// Rate is how many facets to move a second, at most MaxRate. 0 is the
	// default of the cluster.
	Rate int
	// Force removes a node that still answers, and decommissions one whose facets
	// will have fewer copies than the replication factor without it. It never
	// loses a copy that is the last one.
	Force bool
}

// OperationState is how far an operation is. All but StateRunning are final.
type OperationState string

const (
	StateRunning  OperationState = "running"
	StateDone     OperationState = "done"
	StateFailed   OperationState = "failed"
	StateCanceled OperationState = "canceled"
)

// Operation is one operation as it is now.
type Operation struct {
	// ID is unique over all leaders of the cluster: letters, digits and dashes,
	// at most 63.
	ID    string
	Kind  OperationKind
	Node  cluster.NodeID
	Rate  int // facets a second in effect
	State OperationState

	// Done of Total facets are where they should be; Total may grow while facets
	// are created. Failed ones will be tried again while the operation runs.
	Done, Total, Failed int

	// Message says in one line what is being done or waited for, or why it ended
	// as it did. It may be empty.
	Message string

	Started time.Time
	Ended   time.Time // zero while it runs
}

// NodeState is one word for what a node is to the cluster. Where several are
// true, the last one of this list is told.
type NodeState string

const (
	NodeAlive           NodeState = "alive"           // owns and keeps facets
	NodeDraining        NodeState = "draining"        // owns none, or hands them over
	NodeDecommissioning NodeState = "decommissioning" // keeps none, or hands them over
	NodeSuspect         NodeState = "suspect"         // misses probes
	NodeGone            NodeState = "gone"            // left, or given up
)
