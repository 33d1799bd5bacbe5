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
}

// merge adds what another caller, or another round, measured. Time adds up.
func (s *sample) merge(o *sample) {
	s.hist.Merge(o.hist)
	s.errors += o.errors
	if s.firstErr == nil {
		s.firstErr = o.firstErr
	}
	s.elapsed += o.elapsed
}

func (s *sample) add(due time.Time, err error) {
	if err != nil {
		s.errors++
		if s.firstErr == nil {
			s.firstErr = err
		}
		return
	}
	us := time.Since(due).Microseconds()
	s.hist.RecordValue(min(max(us, 1), s.hist.HighestTrackableValue()))
}

// op is one call: number i, by a caller with a random source of its own.
type op func(ctx context.Context, caller, i int, rng *rand.Rand) error

// drive has callers make the calls a pacer gives, and measures each. It returns
// early, with what was measured so far, when ctx ends or nearly everything fails.
func drive(ctx context.Context, callers int, p pacer, do op) (*sample, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	samples := make([]sample, callers)
	var failed atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for c := range callers {
		s := &samples[c]
		s.hist = newHistogram()
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(c), 0x9e3779b97f4a7c15))
			for ctx.Err() == nil {
				i, due, ok := p.next()
				if !ok {
					return
				}
				err := do(ctx, c, i, rng)
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
	all := &sample{hist: newHistogram()}
	for i := range samples {
		all.merge(&samples[i])
	}
	all.elapsed = time.Since(begin)
	return all, context.Cause(ctx)
}
