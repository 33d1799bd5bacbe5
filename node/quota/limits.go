package quota

import "time"

const (
	// keepFor is how long the record of a tenant nobody uses is kept: until its buckets
	// are as they were at first, but for what it owes, which is worked off by then as
	// well unless it is a lot.
	keepFor = 5 * time.Second

	// maxTenants bounds the records kept of tenants nobody uses just now. Beyond it any of
	// them is dropped early, and is treated as one that was idle.
	maxTenants = 1 << 16

	// burst is how much of a rate may be used at once after a pause.
	burst = time.Second

	// maxDebt bounds how long a tenant waits for what it used in advance: rows are
	// counted when they are there, and the statements of an open transaction are counted
	// and not refused.
	maxDebt = time.Minute

	// maxConcurrent bounds the requests of one tenant under way at a node, whatever its
	// settings say: each holds memory.
	maxConcurrent = 1 << 16

	// crowdRetry is when a request may be tried again that met too many others.
	crowdRetry = 50 * time.Millisecond

	shards = 64
)
