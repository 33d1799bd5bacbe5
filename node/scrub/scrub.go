package scrub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/disk"
)

// Options are the settings of a Scrubber. Zero values are the defaults.
type Options struct {
	Store *replica.Store // required
	FS    disk.FS        // required: where the times are kept, in File
	File  string         // required

	// Every is how old the last reading of anything may become. Default DefaultEvery.
	Every time.Duration
	// Rate is the most bytes read in a second. Default DefaultRate. A rate at which the
	// data of the node take longer than Every is told in the log.
	Rate int64

	// Damaged is told of each copy whose file failed, when it is out of service. It must
	// not block. Nil is told nothing.
	Damaged func(facet.Incarnation)

	Logger *slog.Logger // default slog.Default()
}

// Scrubber reads what a store keeps, again and again. See the package comment.
type Scrubber struct {
	opts   Options
	log    *slog.Logger
	pace   pace
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// Of the goroutine of run.
	times    times
	saved    time.Time
	unsaved  bool
	segments map[uint32]time.Time // of the log, when each was read last
	told     time.Time            // when it was said last that the pace is too slow

	counts counts
}

type counts struct{ facets, bytes, segments, damaged, missed, oldest atomic.Int64 }

// Stats are counters since the start, for metrics.
type Stats struct {
	Facets   int64         // files read
	Segments int64         // segments of the log read
	Bytes    int64         // of both
	Damaged  int64         // files and segments that failed
	Missed   int64         // files that were being written whenever they were to be read
	Oldest   time.Duration // since the part read longest ago was read
}

// New makes a Scrubber and begins. Close it before the store.
func New(opts Options) (*Scrubber, error) {
	if opts.Store == nil || opts.FS == nil || opts.File == "" {
		return nil, errors.New("scrub options: Store, FS and File are required")
	}
	if opts.Every == 0 {
		opts.Every = DefaultEvery
	}
	if opts.Rate == 0 {
		opts.Rate = DefaultRate
	}
	if opts.Every < 0 || opts.Rate < MinRate {
		return nil, fmt.Errorf("scrub options: everything every %v at %d bytes a second, want at least %d", opts.Every, opts.Rate, MinRate)
	}
	if opts.Damaged == nil {
		opts.Damaged = func(facet.Incarnation) {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	s := &Scrubber{opts: opts, log: opts.Logger, pace: pace{rate: opts.Rate}, segments: map[uint32]time.Time{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.run)
	return s, nil
}

// Close ends it and keeps what it remembers. It may be called twice.
func (s *Scrubber) Close() error {
	s.cancel()
	s.wg.Wait()
	return nil
}

// Stats tells what was done so far.
func (s *Scrubber) Stats() Stats {
	c := &s.counts
	st := Stats{Facets: c.facets.Load(), Segments: c.segments.Load(), Bytes: c.bytes.Load(), Damaged: c.damaged.Load(), Missed: c.missed.Load()}
	if at := c.oldest.Load(); at > 0 {
		st.Oldest = max(time.Since(time.Unix(at, 0)), 0)
	}
	return st
}

// interval is how long after one reading the next is due.
func (s *Scrubber) interval() time.Duration { return s.opts.Every / 7 * 6 }

// run reads part after part.
func (s *Scrubber) run() {
	s.load()
	s.save()
	defer s.save()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		next, at := s.times.oldest()
		timer.Reset(max(time.Until(at.Add(s.interval())), min(shortest, s.opts.Every/(4*parts))))
		select {
		case <-timer.C:
		case <-s.ctx.Done():
			return
		}
		s.readLog()
		s.readPart(next)
		if s.ctx.Err() != nil {
			return // the part is read again
		}
		s.times.set(next, time.Now())
		s.unsaved = true
		if time.Since(s.saved) >= saveEvery {
			s.save()
		}
		s.late()
	}
}

// late says when the pace is too slow for what is promised.
func (s *Scrubber) late() {
	_, at := s.times.oldest()
	s.counts.oldest.Store(at.Unix())
	if age := time.Since(at); age > s.opts.Every && time.Since(s.told) >= lateEvery {
		s.told = time.Now()
		s.log.Warn("data are not read again in time: the node was down, or has more data than the rate allows for; raise scrub-rate or scrub-every",
			"oldest_hours", int(age.Hours()), "bytes_per_second", s.opts.Rate)
	}
}

// readPart reads the files of one part.
func (s *Scrubber) readPart(part int) {
	ids := s.opts.Store.IDs(byte(part))
	for try := 1; len(ids) > 0 && s.ctx.Err() == nil; try++ {
		var again []facet.Incarnation
		for _, id := range ids {
			if s.ctx.Err() == nil && !s.read(id) {
				again = append(again, id)
			}
		}
		if ids = again; len(ids) == 0 {
			return
		}
		if try == tries {
			s.counts.missed.Add(int64(len(ids)))
			s.log.Warn("files are written whenever they are to be scrubbed; their turn comes again", "files", len(ids), "example", ids[0].String())
			return
		}
		s.sleep(tryPause)
	}
}

// read reads one file. It is false if that is to be tried again.
func (s *Scrubber) read(id facet.Incarnation) bool {
	r, err := s.opts.Store.Replica(id)
	if err == nil {
		err = r.Scrub(s.ctx, s.take)
	}
	switch {
	case err == nil:
		s.counts.facets.Add(1)
	case errors.Is(err, facet.ErrCorrupt):
		s.counts.damaged.Add(1)
		s.log.Error("a database file failed its check: the copy is out of service, and replaced by its other replicas if there are any", "incarnation", id.String(), "error", err)
		s.opts.Damaged(id)
	case errors.Is(err, replica.ErrOpen), errors.Is(err, replica.ErrBusy):
		return false
	case errors.Is(err, replica.ErrUnknown), errors.Is(err, replica.ErrDeleted), errors.Is(err, replica.ErrDamaged), s.ctx.Err() != nil:
		// Gone, or known to be damaged.
	default:
		s.counts.missed.Add(1)
		s.log.Warn("scrub", "incarnation", id.String(), "error", err)
	}
	return true
}

// readLog reads the segments of the log that are due.
func (s *Scrubber) readLog() {
	seen := make(map[uint32]time.Time)
	for _, seg := range s.opts.Store.Log().Segments() {
		at, known := s.segments[seg.ID]
		if !known {
			at = time.Now() // the start has read it, or it is new
		}
		if time.Since(at) >= s.interval() && s.ctx.Err() == nil {
			err := s.opts.Store.ScrubLog(s.ctx, seg.ID, s.take)
			switch {
			case errors.Is(err, facet.ErrCorrupt):
				s.counts.damaged.Add(1)
			case err != nil && s.ctx.Err() == nil:
				s.log.Warn("scrub the commit log", "segment", seg.ID, "error", err)
			}
			if s.ctx.Err() == nil {
				s.counts.segments.Add(1)
				at = time.Now()
			}
		}
		seen[seg.ID] = at
	}
	s.segments = seen
}

// take is the pace of everything that is read.
func (s *Scrubber) take(ctx context.Context, n int) error {
	s.counts.bytes.Add(int64(n))
	return s.pace.take(ctx, n)
}

func (s *Scrubber) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ctx.Done():
	}
}

// pace keeps to a rate. It belongs to one goroutine.
type pace struct {
	rate int64
	free time.Time // when what was taken is paid for
}

// take takes n bytes, after those before are paid for, but for a burst.
func (p *pace) take(ctx context.Context, n int) error {
	now := time.Now()
	if wait := p.free.Sub(now); wait > burst {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now = time.Now()
	}
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(int64(n) * int64(time.Second) / p.rate))
	return nil
}
