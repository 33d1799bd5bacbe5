package bench

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// A series counts operations in buckets of latency: exact below 64 µs, then 32 to
// every doubling, so that a percentile is right to 2 %. That is coarser than the
// histogram of the whole workload, and small enough to keep one for each interval.
const (
	seriesSub     = 32
	seriesBuckets = seriesSub * 22 // up to 2^26 µs, which is over a minute
)

// bucketOf gives the bucket of a latency in microseconds.
func bucketOf(us int64) int {
	if us < 2*seriesSub {
		return int(max(us, 0))
	}
	e := bits.Len64(uint64(us)) - 6
	return min(seriesSub*e+int(us>>e), seriesBuckets-1)
}

// bucketValue gives the middle of a bucket.
func bucketValue(i int) int64 {
	if i < 2*seriesSub {
		return int64(i)
	}
	e := i/seriesSub - 1
	return int64(i%seriesSub+seriesSub)<<e + int64(1)<<e/2
}

// series records how a workload went over time. Callers add to one set of counters
// without a lock; one goroutine takes them out when an interval is over, each count
// once, and keeps a bounded number of points: when there are too many, each two of
// them become one and the interval doubles.
type series struct {
	now    [seriesBuckets]atomic.Uint32
	failed atomic.Uint32

	// What follows belongs to the goroutine that cuts, and to whoever comes when it
	// has ended.
	interval time.Duration
	points   []span
	elapsed  time.Duration // time measured so far
}

// span is one interval.
type span struct {
	took   time.Duration
	ops    int64
	errors int64
	counts [seriesBuckets]uint32
}

func newSeries() *series { return &series{interval: seriesInterval} }

func (s *series) add(us int64, err error) {
	if err != nil {
		s.failed.Add(1)
		return
	}
	s.now[bucketOf(us)].Add(1)
}

// cut ends an interval that took so long. The rest at the end of a round is added to
// the interval before if it is short: a rate over a moment says nothing.
func (s *series) cut(took time.Duration, last bool) {
	if took <= 0 {
		return
	}
	if !last || took >= s.interval/2 || len(s.points) == 0 {
		if len(s.points) == seriesPoints {
			s.halve()
		}
		s.points = append(s.points, span{})
	}
	p := &s.points[len(s.points)-1]
	p.took += took
	s.elapsed += took
	p.errors += int64(s.failed.Swap(0))
	for i := range s.now {
		n := s.now[i].Swap(0)
		p.counts[i] += n
		p.ops += int64(n)
	}
}

func (s *series) halve() {
	for i := range seriesPoints / 2 {
		p := s.points[2*i]
		p.merge(&s.points[2*i+1])
		s.points[i] = p
	}
	s.points = s.points[:seriesPoints/2]
	s.interval *= 2
}

func (p *span) merge(o *span) {
	p.took += o.took
	p.ops += o.ops
	p.errors += o.errors
	for i, n := range o.counts {
		p.counts[i] += n
	}
}

// at gives a percentile, 0 where nothing happened.
func (p *span) at(percent float64) int64 {
	want := max(1, int64(float64(p.ops)*percent/100+0.5))
	for i, n := range p.counts {
		if want -= int64(n); want <= 0 && n > 0 {
			return bucketValue(i)
		}
	}
	return 0
}

// since merges the points from the given one on: how it went lately.
func (s *series) since(first int) (p span) {
	for i := min(first, max(0, len(s.points)-1)); i < len(s.points); i++ {
		p.merge(&s.points[i])
	}
	return p
}

// report is the series as the report has it.
func (s *series) report() []Point {
	out := make([]Point, len(s.points))
	var at time.Duration
	for i := range s.points {
		p := &s.points[i]
		out[i] = Point{At: round(at.Seconds()), Seconds: round(p.took.Seconds()), Ops: p.ops, Errors: p.errors, P50: p.at(50), P99: p.at(99)}
		at += p.took
	}
	return out
}

// watch cuts the series until stop is closed, and tells tell of it now and then. The
// next workload may then use the goroutine's fields.
func (s *series) watch(stop <-chan struct{}, every time.Duration, tell func(at time.Duration, p span)) {
	begin := time.Now()
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	told, tellFrom := begin, len(s.points)
	for {
		select {
		case <-tick.C:
		case <-stop:
			s.cut(time.Since(begin), true)
			return
		}
		was, now := s.interval, time.Now()
		s.cut(now.Sub(begin), false)
		begin = now
		if s.interval != was {
			tick.Reset(s.interval)
			tellFrom /= 2
		}
		if now.Sub(told) >= every {
			tell(s.elapsed, s.since(tellFrom))
			told, tellFrom = now, len(s.points)
		}
	}
}
