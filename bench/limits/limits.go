package limits

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/bench"
)

// Bounds, with their reasons.
const (
	// DefaultDuration is long enough for steady figures and short enough to keep
	// the engine's pages, which are never checkpointed here, in memory.
	DefaultDuration = 3 * time.Second
	maxDuration     = 10 * time.Second

	// warmUp runs before each measurement and does not count.
	warmUp = 300 * time.Millisecond

	// logBytes is the size of the file the disk is measured with: one segment of
	// the commit log.
	logBytes = 64 << 20
	block    = 4096
)

// Config says what to measure. All fields but Token, Duration and Progress are
// required.
type Config struct {
	Endpoint  string // node that echoes
	Token     string
	Dir       string // on the disk to be measured; made, used and removed
	Facets    int
	Callers   int
	ValueSize int // bytes
	Rows      int // each facet has before
	// Duration of each measurement, at most 10 s. Default 3 s.
	Duration time.Duration
	Progress func(string)
}

// Measure measures one limit after the other.
func Measure(ctx context.Context, cfg Config) (l bench.Limits, err error) {
	if cfg.Duration <= 0 {
		cfg.Duration = DefaultDuration
	}
	cfg.Duration = min(cfg.Duration, maxDuration)
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	if cfg.Facets < 1 || cfg.Callers < 1 || cfg.ValueSize < 1 || cfg.Rows < 1 {
		return l, fmt.Errorf("measure limits: facets, callers, value size and rows must be at least 1")
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return l, err
	}
	defer os.RemoveAll(cfg.Dir)
	for _, step := range []struct {
		what string
		run  func() error
	}{
		{"echo over a framed connection", func() (err error) { l.Echo, err = cfg.echo(ctx); return err }},
		{"echo through the SDK", func() (err error) { l.SDKEcho, err = cfg.sdkEcho(ctx); return err }},
		{"fdatasync", func() error { return cfg.sync(ctx, &l) }},
		{"engine alone, all facets", func() (err error) { l.Writes, l.Reads, err = cfg.engine(ctx, cfg.Facets); return err }},
		{"engine alone, one facet", func() (err error) { l.HotWrites, l.HotReads, err = cfg.engine(ctx, 1); return err }},
		{"stock SQLite, WAL, synchronous=FULL", func() (err error) { l.Stock, err = cfg.stock(ctx); return err }},
	} {
		cfg.Progress("limit: " + step.what)
		if err := step.run(); err != nil {
			return l, fmt.Errorf("%s: %w", step.what, err)
		}
		if ctx.Err() != nil {
			return l, context.Cause(ctx)
		}
	}
	return l, nil
}

// rate has callers call do until the time is over and gives calls per second. The
// warm-up comes first.
func (cfg *Config) rate(ctx context.Context, callers int, do func(caller int) error) (float64, error) {
	if _, err := loop(ctx, callers, min(warmUp, cfg.Duration), do); err != nil {
		return 0, err
	}
	return loop(ctx, callers, cfg.Duration, do)
}

func loop(ctx context.Context, callers int, d time.Duration, do func(caller int) error) (float64, error) {
	var wg sync.WaitGroup
	var total atomic.Int64
	var failed atomic.Pointer[error]
	begin := time.Now()
	deadline := begin.Add(d)
	for c := range callers {
		wg.Go(func() {
			n := int64(0)
			defer func() { total.Add(n) }()
			for time.Now().Before(deadline) && ctx.Err() == nil && failed.Load() == nil {
				if err := do(c); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				n++
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return float64(total.Load()) / time.Since(begin).Seconds(), nil
}
