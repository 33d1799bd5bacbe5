package steward

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// Config says what a Steward works with.
type Config struct {
	// Table is this node's table. While the node leads it holds everything that
	// was decided.
	Table *placement.Table
	// Propose brings commands (at most 512) into the log as one entry, if this node
	// leads in that term, and returns their results once its own table has applied
	// them. A refused command is a result, not an error.
	Propose func(ctx context.Context, term uint64, cmds ...placement.Command) ([]placement.Result, error)
	Lives   Lives
	Orders  Orders

	// Finish completes the deletion of a row that is Deleting or Retired, or deletes one
	// that never got its name: the fence of rule R47, in the row's epoch, then Tomb. It may be called again for the same row, also while
	// somebody else does the same. Nil leaves such rows alone.
	Finish func(ctx context.Context, row placement.Facet) error
	// RemoveMember lets a node go that no row names any more: out of the log's
	// members and out of the table. It is safe to repeat. Nil refuses Remove.
	RemoveMember func(ctx context.Context, node cluster.NodeID) error
	// Hints tells what gossip says of the nodes. It weighs candidates for new
	// members and decides nothing. Nil: all are alike.
	Hints func() map[cluster.NodeID]Hint

	// Replicas is the replication factor wanted: 1, 3 or 5; 3 when zero. Sets that
	// are smaller grow to it once there are nodes, larger ones stay.
	Replicas int
	// RepairAfter is how long a member must have been gone, as far as this leader
	// knows, before its facets get another one by themselves. 10 min when zero: a
	// reboot or an upgrade must not copy a node's data around. Negative: never.
	RepairAfter time.Duration
	// ReplacedAfter is the same for a member whose node came back with another
	// store. Its copy is lost, so waiting is only for the node to settle: 30 s when
	// zero.
	ReplacedAfter time.Duration
	// ScanEvery is how often the whole table is looked at when nothing happened.
	// 30 s when zero.
	ScanEvery time.Duration
	// Concurrency is how many facets one operation moves at a time, 16 when zero;
	// Rate how many it begins to move in a second, 500 when zero; RepairRate the
	// same for repairs nobody asked for, 20 when zero.
	Concurrency int
	Rate        int
	RepairRate  int

	// Logger may be nil.
	Logger *slog.Logger
}

// Lives tells which nodes are dead or gone, as this node knows while it leads. Both
// lists are in any order and only read; the channels are closed when one of the two
// changes. It is cheap, and called under no lock.
type Lives interface {
	// Gone lists the registered nodes that most likely do not run any more: the dead
	// ones, and others that stopped to answer. The facets of these are taken over; an
	// owner's successor is not active before its lease is over (rules R21, R40), so a
	// node that was only slow loses its facets and nothing else.
	Gone() (gone []cluster.NodeID, changed <-chan struct{})
	// Dead lists the registered nodes whose leases are over by this leader's own
	// clock (rules R38 and R39).
	Dead() (dead []cluster.NodeID, changed <-chan struct{})
}

// Orders reaches the owners of facets.
type Orders interface {
	// Order asks a node to do something about a facet it owns, and returns when
	// that is done or will not be. An order whose outcome is lost may be given
	// again: the epoch in it makes a second one harmless. Safe for concurrent use.
	Order(ctx context.Context, to cluster.NodeID, o Order) error
}

// OrderKind is what an owner is asked to do.
type OrderKind uint8

const (
	// Move hands the facet to Owner, after filling the new members of Set. An empty
	// set is the one there is.
	Move OrderKind = 1
	// Wake opens the facet, which recovers it and activates its set.
	Wake OrderKind = 2
)

// Order is what a node is asked to do about a facet.
type Order struct {
	Kind        OrderKind
	Incarnation facet.Incarnation
	// Epoch is that of the row the order was decided by. In another one the owner
	// refuses, unless it just took that row itself in a new process life.
	Epoch facet.Epoch
	Owner cluster.NodeID
	Set   placement.Set
}

// Hint is what gossip says of a node.
type Hint struct {
	Load      float64 // 0 to 1
	FreeBytes uint64  // zero: not known
}

func (c *Config) validate() error {
	switch {
	case c.Table == nil || c.Propose == nil || c.Lives == nil || c.Orders == nil:
		return fmt.Errorf("make steward: table, Propose, Lives and Orders are needed")
	case c.Replicas != 0 && c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5:
		return fmt.Errorf("make steward: %d replicas, want 1, 3 or 5", c.Replicas)
	case c.ScanEvery < 0 || c.ReplacedAfter < 0 || c.Concurrency < 0 || c.Rate < 0 || c.RepairRate < 0:
		return fmt.Errorf("make steward: a bound is negative")
	}
	return nil
}

func (c Config) withDefaults() Config {
	orDefault(&c.Replicas, DefaultReplicas)
	orDefault(&c.RepairAfter, DefaultRepairAfter)
	orDefault(&c.ReplacedAfter, DefaultReplacedAfter)
	orDefault(&c.ScanEvery, DefaultScanEvery)
	orDefault(&c.Concurrency, DefaultConcurrency)
	orDefault(&c.Rate, DefaultRate)
	orDefault(&c.RepairRate, DefaultRepairRate)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func orDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}
