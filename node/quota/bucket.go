package quota

import (
	"sync/atomic"
	"time"
)

// bucket is a token bucket told as a time: until when the rate is used up. It is one
// number, so it needs no lock (the generic cell rate algorithm). Zero is a full bucket.
type bucket struct{ until atomic.Int64 }

// take uses n units that take each their time, or says how long to wait until there is
// room for them. Now is a clock that begins with the process.
func (b *bucket) take(now int64, n, each int64) (wait time.Duration) {
	for {
		old := b.until.Load()
		next := max(old, now) + n*each
		// One unit always fits an empty bucket, however slow the rate.
		if over := next - now - max(int64(burst), each); over > 0 {
			return time.Duration(over)
		}
		if b.until.CompareAndSwap(old, next) {
			return 0
		}
	}
}

// charge uses n units that are used already.
func (b *bucket) charge(now int64, n, each int64) {
	cost := int64(maxDebt)
	if n < cost/each { // else the product may be too large for its type
		cost = n * each
	}
	for {
		old := b.until.Load()
		if b.until.CompareAndSwap(old, min(max(old, now)+cost, now+int64(maxDebt))) {
			return
		}
	}
}

// owes is how long to wait until what was charged is worked off.
func (b *bucket) owes(now int64) time.Duration {
	return time.Duration(max(0, b.until.Load()-now-int64(burst)))
}

// full reports whether the bucket is as one never used.
func (b *bucket) full(now int64) bool { return b.until.Load() <= now }

// eachOf is how long one unit of a rate takes, zero for no rate.
func eachOf(rate uint64) int64 {
	switch {
	case rate == 0:
		return 0
	case rate >= uint64(time.Second):
		return 1 // a nanosecond: faster than anything
	}
	return int64(time.Second) / int64(rate)
}
