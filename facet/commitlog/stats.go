package commitlog

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// SyncBuckets are the buckets of Stats.SyncTimes.
const SyncBuckets = 24

// Stats are counters since Open.
type Stats struct {
	Batches uint64
	Records uint64
	Bytes   uint64 // written, block headers and filling included
	Zeroed  uint64 // bytes of zeros written into segments before they are used
	// SyncTimes counts write+fdatasync pairs by duration: bucket i those below
	// 2^i microseconds and not below half of that; the last one all longer.
	SyncTimes [SyncBuckets]uint64
	SyncTotal time.Duration
	// InFlight is how long the write+fdatasync under way has been running, 0
	// when there is none: a stalled disk shows here first (rule R32).
	InFlight time.Duration
}

type stats struct {
	batches, records, bytes atomic.Uint64
	zeroed                  atomic.Uint64
	times                   [SyncBuckets]atomic.Uint64
	total                   atomic.Int64
	opened                  time.Time
	since                   atomic.Int64 // 1 + nanoseconds from opened to the start of the pair under way; 0: none
}

// begin and end are called by the writer alone.
func (s *stats) begin(start time.Time) { s.since.Store(1 + int64(start.Sub(s.opened))) }

func (s *stats) end(start time.Time, b *batch) {
	s.since.Store(0)
	d := time.Since(start)
	s.total.Add(int64(d))
	s.times[min(bits.Len64(uint64(d.Microseconds())), SyncBuckets-1)].Add(1)
	s.batches.Add(1)
	s.records.Add(uint64(len(b.entries)))
	s.bytes.Add(uint64(len(b.buf)))
}

// Stats returns the counters.
func (l *Log) Stats() Stats {
	s := Stats{
		Batches:   l.stats.batches.Load(),
		Records:   l.stats.records.Load(),
		Bytes:     l.stats.bytes.Load(),
		Zeroed:    l.stats.zeroed.Load(),
		SyncTotal: time.Duration(l.stats.total.Load()),
	}
	for i := range s.SyncTimes {
		s.SyncTimes[i] = l.stats.times[i].Load()
	}
	if since := l.stats.since.Load(); since != 0 {
		s.InFlight = max(0, time.Since(l.stats.opened)-time.Duration(since-1))
	}
	return s
}
