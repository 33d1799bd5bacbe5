package owner

import "time"

// The bounds of an owner, with their reasons.
const (
	// maxQueue bounds the requests waiting for one facet. Beyond it a request is
	// refused with CodeOverloaded: a longer line only makes everybody late.
	maxQueue = 4096

	// maxWindow and maxWindowBytes bound what a facet may have shipped and not yet
	// committed (rule R32); beyond them requests wait before they run.
	maxWindow      = 1024
	maxWindowBytes = 16 << 20

	// checkpointPages is the overlay size at which an active facet is
	// checkpointed: 1,024 pages are 4 MiB of memory.
	checkpointPages = 1024

	// sweepEvery is how often the sweeper looks for idle facets. It is the
	// resolution of IdleAfter.
	sweepEvery = time.Second

	// maxHibernating bounds the checkpoints of idle facets under way at a time. It
	// is what lets their syncs be shared without starving the log.
	maxHibernating = 128

	// checkpointBackoff is how long a checkpoint that failed is put off.
	checkpointBackoff = time.Second

	// openTimeout bounds the way from a cold facet to an active one.
	openTimeout = 30 * time.Second

	// recentTx is how many ended transactions a desk remembers, to tell a late
	// request why its transaction is over.
	recentTx = 8

	shards = 64
)

// Defaults of Options.
const (
	DefaultIdleAfter    = 30 * time.Second
	DefaultMemoryBudget = 1 << 30
	DefaultTxIdle       = 5 * time.Second
	DefaultTxTotal      = 30 * time.Second
)
