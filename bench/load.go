package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Histograms are in microseconds, from 1 µs to 1 minute, to three digits.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, 60_000_000, 3) }

// pacer says when calls are due. Latency counts from the time a call was due, so
// that an open loop, where calls are due whether or not the last one returned,
// shows the queueing a closed loop hides. next is called by many goroutines.
type pacer interface {
	// next gives the number of the next call and when it is due; ok is false when
	// there is none any more.
	next() (i int, due time.Time, ok bool)
}

// until is the closed loop for a time: every caller calls again at once.
type until struct {
	deadline time.Time
	n        atomic.Int64
}

func (p *until) next() (int, time.Time, bool) {
	now := time.Now()
	return int(p.n.Add(1) - 1), now, now.Before(p.deadline)
}

// later is a pacer that begins with its first call: what comes before the first one,
// such as a look at the nodes' metrics, is not part of its time.
type later struct {
	make func() pacer
	once sync.Once
	p    pacer
}

func (l *later) next() (int, time.Time, bool) {
	l.once.Do(func() { l.p = l.make() })
	return l.p.next()
}

// times is the closed loop for a number of calls.
type times struct {
	total int64
	n     atomic.Int64
}

func (p *times) next() (int, time.Time, bool) {
	i := p.n.Add(1) - 1
	return int(i), time.Now(), i < p.total
}

// sample is what was measured.
type sample struct {
	hist     *hdrhistogram.Histogram
	errors   int64
	firstErr error
	elapsed  time.Duration

	// Of an open loop: calls that were due, that began late, and that were dropped.
	due, late, dropped int64
	rate               float64

	series *series // nil where no one looks at it over time
	spent  spent
}

// merge adds what another caller, or another round, measured. Time adds up.
func (s *sample) merge(o *sample) {
	s.hist.Merge(o.hist)
	s.errors += o.errors
	if s.firstErr == nil {
		s.firstErr = o.firstErr
	}
	s.elapsed += o.elapsed
	s.due += o.due
	s.late += o.late
	s.dropped += o.dropped
	s.rate = max(s.rate, o.rate)
	s.spent.add(&o.spent)
	if o.series != nil {
		s.series = o.series
	}
}

func (s *sample) add(due time.Time, err error) {
	us := time.Since(due).Microseconds()
	if s.series != nil {
		s.series.add(us, err)
	}
	if err != nil {
		s.errors++
		if s.firstErr == nil {
			s.firstErr = err
		}
		return
	}
	s.hist.RecordValue(min(max(us, 1), s.hist.HighestTrackableValue()))
}

// op is one call: number i, by a caller with a random source of its own.
type op func(ctx context.Context, caller, i int, rng *rand.Rand) error

// load is callers, what they do, and when.
type load struct {
	callers int
	pacer   pacer
	do      op
	seed    uint64
	// series, if set, hears of every call, and tell of it now and then.
	series *series
	every  time.Duration
	tell   func(at time.Duration, p span)
}

// drive has callers make the calls a pacer gives, and nobody look at them over time.
func drive(ctx context.Context, callers int, p pacer, do op) (*sample, error) {
	return (&load{callers: callers, pacer: p, do: do}).run(ctx)
}

// run makes the calls and measures each. It returns early, with what was measured so
// far, when ctx ends or nearly everything fails.
func (l *load) run(ctx context.Context) (*sample, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	samples := make([]sample, l.callers)
	var failed atomic.Int64
	var wg, watcher sync.WaitGroup
	over := make(chan struct{})
	if l.series != nil {
		watcher.Go(func() { l.series.watch(over, l.every, l.tell) })
	}
	begin := time.Now()
	for c := range l.callers {
		s := &samples[c]
		s.hist, s.series = newHistogram(), l.series
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 0x9e3779b97f4a7c15^l.seed))
			for ctx.Err() == nil {
				i, due, ok := l.pacer.next()
				if !ok {
					return
				}
				if !s.await(ctx, due) {
					return
				}
				err := l.do(ctx, c, i, rng)
				if err != nil && ctx.Err() != nil {
					return // cut off by the end of the run, not by the node
				}
				s.add(due, err)
				if err != nil && failed.Add(1) >= maxErrors {
					cancel(fmt.Errorf("%d calls failed, the first with: %w", maxErrors, err))
				}
			}
		})
	}
	wg.Wait()
	close(over)
	watcher.Wait()
	all := &sample{hist: newHistogram()}
	for i := range samples {
		all.merge(&samples[i])
	}
	all.elapsed, all.series = time.Since(begin), l.series
	p := l.pacer
	if x, ok := p.(*later); ok {
		p = x.p
	}
	if p, ok := p.(*openLoop); ok {
		all.due, all.dropped = p.outcome()
		all.rate = round(1e9 / p.gap)
	} else {
		all.late = 0 // nothing was due before it was given
	}
	return all, context.Cause(ctx)
}

// await waits until a call is due and takes note of one that is late. In a closed
// loop calls are due when they are given.
func (s *sample) await(ctx context.Context, due time.Time) bool {
	if wait := time.Until(due); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false
		}
	}
	if time.Since(due) > lateAfter {
		s.late++
	}
	return true
}
