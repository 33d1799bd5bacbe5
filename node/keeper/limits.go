package keeper

import "time"

// Every bound of the package, with its reason.
const (
	// PrepareWait is how long a PREPARE waits for the table to learn of its epoch
	// (R6). A follower is milliseconds behind; one that is further behind is no
	// help to a failover.
	PrepareWait = time.Second

	// maxParked bounds the PREPAREs that wait: those of the facets of a lost node
	// that one new owner asks for at once, several times over. About 150 bytes each.
	maxParked = 16 << 10

	// settleAfter is how long an idle copy waits for its checkpoint: longer than
	// the fsync of its last entry takes, and time for the owner to write again.
	settleAfter = 250 * time.Millisecond

	// settleTries is how often a checkpoint is put off because the disk is slow.
	settleTries = 4

	// maxIdle bounds the copies that wait for a checkpoint. A wave of hibernations
	// is some thousand facets a second.
	maxIdle = 32 << 10

	// idleWorkers write at once. The store syncs files together from 16 on.
	idleWorkers = 32

	// DefaultGrace is how long a copy the table no longer wants is kept. A new
	// member that is still being filled shows signs of life more often; one that is
	// full has LearnerGrace.
	DefaultGrace = time.Minute

	// LearnerGrace is how long a copy is kept that has entries of the epoch the facet is
	// in, though its store is in no set: a new member that is full, and waits for a
	// slower one of the same change. It is longer than an owner fills members for (20
	// min), and a copy that was left behind by a change has no such entries.
	LearnerGrace = 30 * time.Minute

	// maxUnwanted bounds the copies Sweep watches for their grace period, and so
	// what one Sweep drops. The others wait for the next one.
	maxUnwanted = 64 << 10

	// maxTombs bounds what one Sweep deletes.
	maxTombs = 64 << 10

	// sweepWorkers delete at once, so that they share the syncs.
	sweepWorkers = 32

	// alarmEvery is the least time between two log lines of one kind about what
	// others do wrong: they may do it a thousand times a second.
	alarmEvery = 10 * time.Second
)
