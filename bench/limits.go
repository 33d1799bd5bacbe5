package bench

import "time"

// Bounds of a run, with their reasons.
const (
	// MaxCallers and MaxFacets keep the generator's own memory small: a caller has
	// a histogram of about 200 KiB.
	MaxCallers = 4096
	MaxFacets  = 1_000_000

	// MaxValueSize is the largest value written, in bytes.
	MaxValueSize = 1 << 20

	// MaxDuration bounds one workload.
	MaxDuration = time.Hour

	// maxErrors ends a workload that only fails.
	maxErrors = 10_000

	// hibernateWait bounds the wait for facets to hibernate, and hibernatePoll is
	// how often they are looked at.
	hibernateWait = 2 * time.Minute
	hibernatePoll = 50 * time.Millisecond

	// warmShare is the part of a workload's duration that is run before it is
	// measured, maxWarm at most.
	warmShare = 10
	maxWarm   = time.Second

	// oneRounds is how often workload write_one changes to its yardstick and back:
	// the load of a shared machine drifts, and both must see the same of it.
	oneRounds = 20

	// listPage is how many facets are asked for in one request, listTimeout bounds
	// that, and maxListBody its answer.
	listPage    = 1000
	listTimeout = 10 * time.Second
	maxListBody = 16 << 20

	// deleters is how many callers clean up after a run.
	deleters = 16
)
