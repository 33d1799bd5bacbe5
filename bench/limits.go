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

	// MaxRate bounds the rate of an open loop, and MaxQueue the calls that wait in it:
	// 8 MiB of numbers.
	MaxRate  = 10_000_000
	MaxQueue = 1 << 20

	// lateAfter is when a call of an open loop counts as late: above what a timer
	// misses by on an idle machine.
	lateAfter = time.Millisecond

	// drainWait bounds how long calls that were due in time are still begun after
	// the end.
	drainWait = 10 * time.Second

	// seriesInterval is the first interval of a series, and seriesPoints the most
	// points it has, an even number. progressShare is how many lines of progress a
	// workload prints, at most one in progressEvery.
	seriesInterval = 100 * time.Millisecond
	seriesPoints   = 200
	progressShare  = 10
	progressEvery  = time.Second

	// batchRows is how many rows workload batch writes at once, scanRows how many
	// scan reads, and mixedReads the part of reads in workload mixed, in hundredths.
	batchRows  = 10
	scanRows   = 1000
	mixedReads = 90

	// scanFacets and largeFacets bound the facets of scan and large, scanValue the
	// size of scan's values, and largeRows the rows of a facet that large writes over
	// and over: a run must not fill the disk with what it only measures.
	scanFacets  = 16
	scanValue   = 1024
	largeFacets = 64
	largeRows   = 16
	largeValue  = 64 << 10

	// fillBytes bounds the values that one transaction writes when facets are filled.
	fillBytes = 4 << 20

	// MaxPoints bounds the values of a sweep.
	MaxPoints = 32

	// keepAlive is that of the SDK's own dialler, which is replaced to count.
	keepAlive = 30 * time.Second

	// maxMetrics bounds a node's metrics.
	maxMetrics = 1 << 20

	// MaxReport bounds a report that is read, MaxReports how many are compared, and
	// maxResults what one holds.
	MaxReport  = 64 << 20
	MaxReports = 8
	maxResults = 1000

	// listPage is how many facets are asked for in one request, listTimeout bounds
	// that, and maxListBody its answer.
	listPage    = 1000
	listTimeout = 10 * time.Second
	maxListBody = 16 << 20

	// deleters is how many callers clean up after a run.
	deleters = 16
)
