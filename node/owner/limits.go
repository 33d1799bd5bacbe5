package owner

import "time"

// The bounds of an owner, with their reasons.
const (
	// maxQueue bounds the requests waiting for one facet. Beyond it a request is
	// refused with CodeOverloaded: a longer line only makes everybody late.
	maxQueue = 4096

	// checkpointPages is the overlay size at which an active facet is
	// checkpointed: 1,024 pages are 4 MiB of memory.
	checkpointPages = 1024

	// lateCheckpointPages is the same while a member catches up: each checkpoint makes
	// the snapshot on its way to it one that is too old, and under a load of writes
	// none would ever be new enough. 64 MiB are what is written while the largest
	// facet is sent, at some MiB a second.
	lateCheckpointPages = 16 * checkpointPages

	// sweepEvery is how often the sweeper looks for idle facets. It is the
	// resolution of IdleAfter.
	sweepEvery = time.Second

	// forsakenAfter is after how many sweeps without an answer a session on a node
	// without a lease gives up: later than others may own the facet, which is when
	// the lease is over. Sweeps and not a time, so that a process that was stopped
	// for long has time to hear of its members.
	forsakenAfter = 3

	// cutOffAfter is after how many sweeps in a row without a lease and without a known
	// placement leader this node is taken to be cut off. A lease outlasts the election of
	// a new leader, so one that goes as it should is not seen by a single sweep; two to
	// three seconds more are for one that has to be repeated. Sweeps and not a time, as
	// for forsakenAfter.
	cutOffAfter = 3

	// maxHibernating bounds the checkpoints of idle facets under way at a time. It
	// is what lets their syncs be shared without starving the log.
	maxHibernating = 128

	// checkpointBackoff is how long a checkpoint that failed is put off.
	checkpointBackoff = time.Second

	// openTimeout bounds the way from a cold facet to an active one. It is far above
	// what recovery takes, lease included, so that it ends only where a majority is
	// gone (R25). A node that is cut off does not wait for it.
	openTimeout = 10 * time.Second

	// settleTimeout is how long a session that is to be closed waits for its last
	// commits. Its desk does nothing else meanwhile.
	settleTimeout = 5 * time.Second

	// confirmTimeout bounds asking whether a facet exists, and what became of a BIND that
	// was not answered: a few elections.
	confirmTimeout = 5 * time.Second

	// askTimeout bounds one PREPARE or CHECK; the core asks again four times as often.
	askTimeout = time.Second

	// fetchTimeout and maxFetched bound the part of a log that a new owner gets from
	// another member before it adopts it. Beyond them that member becomes the owner.
	fetchTimeout = 10 * time.Second
	maxFetched   = 8 << 20

	// maxSnapshots bounds the snapshots being sent, snapshotTimeout the time of one:
	// the largest facet at a few MiB a second.
	maxSnapshots    = 8
	snapshotTimeout = 15 * time.Minute

	// loadAgain is how soon a copy is tried again that somebody else writes.
	loadAgain = 5 * time.Millisecond

	// spareEntries and spareBytes bound the memory a session keeps for the entries
	// to come: 32 of the usual size.
	spareEntries = 32
	spareBytes   = 4 << 10

	// maxLacking bounds the facets remembered because a member missed something.
	maxLacking = 1 << 16

	// restAnyway is how many times IdleAfter a facet stays open for a member that
	// does not catch up.
	restAnyway = 4

	// awakeTimeout bounds how long requests of a facet that moved are held back until
	// its new owner expects them, and then how long the move waits for it to be open.
	awakeTimeout = 2 * time.Second

	// warmTimeout bounds how long a move waits for its new owner to make ready: as
	// long as it takes to write what a log holds to a file. Nothing waits for it but
	// the move.
	warmTimeout = 2 * time.Second

	// leaveAtOnce bounds the facets handed over at a time by a node that stops: enough
	// to share syncs and entries of the placement log.
	leaveAtOnce = 64

	// fillTimeout bounds how long a new member of a set is filled before the change
	// of the set is given up.
	fillTimeout = 20 * time.Minute

	// surveyTimeout bounds how long members are waited for that do not answer when a
	// facet is to be recovered by force: several times what a dial takes.
	surveyTimeout = 3 * time.Second

	// succeedTimeout bounds the wait for the lease of a facet's last owner then. It is
	// far above a lease: only a node that renews and hears nothing of the placement table
	// keeps one for longer.
	succeedTimeout = 10 * time.Second

	// discardTimeout bounds the removal of a new facet that came to nothing.
	discardTimeout = 10 * time.Second

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
