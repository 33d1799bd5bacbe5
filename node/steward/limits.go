package steward

import (
	"time"

	"github.com/facetd/facetd/placement"
)

// Every bound of the package, with its reason.
const (
	// batch is the most commands of one proposal: ten thousand facets of a dead node
	// cost twenty entries.
	batch = placement.MaxBatch

	// MaxOperations is how many operations are remembered. The oldest that ended is
	// forgotten for a new one.
	MaxOperations = 100

	// MaxRunning bounds the operations that run at a time: each may have its
	// workers wait for slow nodes, and an operator cannot follow more.
	MaxRunning = 16

	// MaxRate bounds Request.Rate: more than any cluster can move.
	MaxRate = 100_000

	// maxMessage bounds the text an operation carries.
	maxMessage = 256

	// maxPasses bounds how often one stage of an operation walks the table before
	// it gives up: work that comes back that often is made by somebody else.
	maxPasses = 32

	// maxAttempts is how often a facet is tried in a stage. With the pauses between
	// passes that is some eight seconds, several times a failover.
	maxAttempts = 5

	// maxSteps bounds the steps of one attempt: an owner, an end to the change
	// under way, the move, the activation that completes it, and as much again for
	// what happens meanwhile.
	maxSteps = 8

	// maxRemembered bounds the takeovers remembered for their hold. What is
	// forgotten may be taken over again sooner, which harms comfort only.
	maxRemembered = 1 << 17

	// maxFinishing bounds the deletions remembered and finishWorkers those being
	// finished at a time; the next scan finds the others.
	maxFinishing  = 4096
	finishWorkers = 8
)

// Times that are not configured, with their reasons.
const (
	// passPause is the pause before the first pass that only repeats what failed.
	// It doubles up to maxPause.
	passPause = 500 * time.Millisecond
	maxPause  = 5 * time.Second

	// proposeTimeout bounds a proposal. A leader commits in milliseconds; one that
	// cannot is about to be deposed.
	proposeTimeout = 10 * time.Second

	// dyingFor is how long the removal of a node that lives waits for its death: longer
	// than the lease of one that was stopped a moment ago, and short enough for a
	// person who forgot to stop it.
	dyingFor = 4 * time.Second

	// viewAge is how old a view may be to look at rows that changed: the table tells
	// of rows far more often than of nodes.
	viewAge = 100 * time.Millisecond

	// retryAfter is the pause after a failover some of whose proposals failed or
	// met nodes that changed meanwhile. It doubles up to maxPause.
	retryAfter = 100 * time.Millisecond

	// moveTimeout bounds a handover within the set, which takes milliseconds, and
	// fillTimeout one that fills new members first, which takes as long as the
	// largest database does. The connection notices a dead owner much sooner.
	moveTimeout = 20 * time.Second
	fillTimeout = time.Hour

	// finishTimeout bounds one attempt to finish a deletion; after a failure the
	// next waits maxFinishPause at most.
	finishTimeout  = 30 * time.Second
	maxFinishPause = 2 * time.Minute

	// finishAfter is how long a row stays deleted or retired before the steward
	// finishes it: whoever deleted it is given the time to do so.
	finishAfter = 5 * time.Second

	// abandonedAfter is how long a facet may be without a name before the steward takes it
	// for the rest of an import whose node never came back. An import takes minutes.
	abandonedAfter = 30 * time.Minute

	// hold is how long a facet stays where a takeover put it, unless the node it
	// went to is dead too: a node that comes and goes shall not drag its facets
	// along each time.
	hold = 10 * time.Second

	// scanPause is how soon after the nodes changed the whole table is looked at:
	// several changes close to each other cost one scan.
	scanPause = time.Second

	// resumeAfter is how long an operation that ended with failures, or whose work
	// came back, rests before the steward takes it up again by itself.
	resumeAfter = time.Minute
)

// Defaults of Config.
const (
	DefaultReplicas      = 3
	DefaultRepairAfter   = 10 * time.Minute
	DefaultReplacedAfter = 30 * time.Second
	DefaultScanEvery     = 30 * time.Second
	DefaultConcurrency   = 16
	DefaultRate          = 500
	DefaultRepairRate    = 20
)
