package quota

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/facet"
)

// Names of the limits, as facet.Error.Limit gives them.
const (
	LimitRequests   = "requests_per_second"
	LimitRows       = "rows_per_second"
	LimitConcurrent = "concurrent_requests"
	LimitTotalBytes = "total_bytes"
)

// Rules are the settings in force, made ready for use. They are never changed.
type Rules struct {
	facet.TenantSettings
	// What an engine is to keep for a facet of the tenant; zero is the node's own.
	FacetBytes    int64
	MemoryBytes   int64
	StatementTime time.Duration

	version    uint64
	eachReq    int64 // see eachOf
	eachRow    int64
	concurrent int64
}

func rulesOf(set facet.TenantSettings, version uint64) *Rules {
	r := &Rules{
		TenantSettings: set, version: version,
		FacetBytes: clamp(set.Limits.FacetBytes), MemoryBytes: clamp(set.Limits.MemoryBytes),
		eachReq: eachOf(set.Limits.RequestsPerSecond), eachRow: eachOf(set.Limits.RowsPerSecond),
		concurrent: maxConcurrent,
	}
	r.StatementTime = time.Duration(min(clamp(set.Limits.StatementMillis), math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
	if n := clamp(set.Limits.ConcurrentRequests); n > 0 {
		r.concurrent = min(n, maxConcurrent)
	}
	return r
}

func clamp(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// Tenant is one tenant in use at this node.
type Tenant struct {
	set  *Tenants
	name facet.Tenant
	refs int   // guarded by its shard
	free int64 // guarded by its shard: when refs became zero, by the clock of set

	rules    atomic.Pointer[Rules]
	requests bucket
	rows     bucket
	underWay atomic.Int64
	room     room

	asked, refused, rowed   atomic.Int64 // since the record was made
	ran, wrote, bytes, took atomic.Int64 // see Worked
	measured                measured     // of the sweep
}

// measured is what became of the counters in a second.
type measured struct {
	lastAsked, lastRefused, lastRows int64 // touched by the sweep only
	last                             Busy  // likewise
	asked, refused, rows             atomic.Int64
}

// Rules are what is in force now. They are nil for a nil Tenant.
func (t *Tenant) Rules() *Rules {
	if t == nil {
		return nil
	}
	r, version := t.rules.Load(), t.set.opts.Table.TenantsVersion()
	if r == nil || r.version != version {
		// Settings may be newer than version: then they are read once more.
		r = rulesOf(t.set.opts.Table.Settings(t.name), version)
		t.rules.Store(r)
	}
	return r
}

// Frozen is the error of everything that is asked of a tenant that is frozen altogether.
func (t *Tenant) Frozen() error {
	if r := t.Rules(); r != nil && r.Freeze == facet.FreezeAll {
		return FrozenError(t.name, r.Freeze)
	}
	return nil
}

// MayWrite is why the tenant may change nothing, nil if it may.
func (t *Tenant) MayWrite() error {
	if r := t.Rules(); r != nil && r.Freeze != facet.NotFrozen {
		return FrozenError(t.name, r.Freeze)
	}
	return nil
}

// FrozenError says that a tenant is frozen.
func FrozenError(name facet.Tenant, f facet.Freeze) *facet.Error {
	what := "nothing is answered"
	if f == facet.FreezeWrites {
		what = "nothing is changed, reads go on"
	}
	return facet.Errorf(facet.CodeFrozen, "tenant %s is frozen by an operator: %s until it is unfrozen", name, what)
}

// Enter admits one request, which Leaves when it has ended, or says why not: then
// nothing of it was done. One that belongs to an open transaction is counted and admitted
// unless the tenant is frozen: refusing it would only keep the facet held for longer.
func (t *Tenant) Enter(inTx bool) error {
	r := t.Rules()
	if r == nil {
		return nil
	}
	if r.Freeze == facet.FreezeAll {
		t.refused.Add(1)
		return FrozenError(t.name, r.Freeze)
	}
	if n := t.underWay.Add(1); n > r.concurrent && !inTx {
		t.underWay.Add(-1)
		t.refused.Add(1)
		return throttled(LimitConcurrent, uint64(r.concurrent), crowdRetry, "tenant %s has more than %d requests under way at this node", t.name, r.concurrent)
	}
	if r.eachReq != 0 || r.eachRow != 0 {
		if err := t.enterRates(r, inTx); err != nil {
			t.underWay.Add(-1)
			t.refused.Add(1)
			return err
		}
	}
	t.asked.Add(1)
	return nil
}

func (t *Tenant) enterRates(r *Rules, inTx bool) error {
	now := t.set.now()
	if inTx {
		if r.eachReq != 0 {
			t.requests.charge(now, 1, r.eachReq)
		}
		return nil
	}
	if r.eachRow != 0 {
		if wait := t.rows.owes(now); wait > 0 {
			n := r.Limits.RowsPerSecond
			return throttled(LimitRows, n, wait, "tenant %s has read and written more than %d rows a second at this node", t.name, n)
		}
	}
	if r.eachReq != 0 {
		if wait := t.requests.take(now, 1, r.eachReq); wait > 0 {
			n := r.Limits.RequestsPerSecond
			return throttled(LimitRequests, n, wait, "tenant %s makes more than %d requests a second at this node", t.name, n)
		}
	}
	return nil
}

func throttled(limit string, value uint64, wait time.Duration, format string, args ...any) *facet.Error {
	wait = wait.Round(time.Millisecond) + time.Millisecond
	return &facet.Error{
		Code: facet.CodeThrottled, Limit: limit, RetryAfter: wait,
		Message: fmt.Sprintf(format+" (limit %s = %d); nothing was done, try again in %v", append(args, limit, value, wait)...),
	}
}

// Leave ends what Enter admitted.
func (t *Tenant) Leave() { t.underWay.Add(-1) }

// Rows counts rows that a request read or wrote. What is more than the rate is paid by
// the requests that follow.
func (t *Tenant) Rows(n int64) {
	if t == nil || n <= 0 {
		return
	}
	t.rowed.Add(n)
	if r := t.Rules(); r.eachRow != 0 {
		t.rows.charge(t.set.now(), n, r.eachRow)
	}
}
