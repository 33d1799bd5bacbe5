package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// measure is the outcome of one measurement.
type measure struct {
	Round        int     `json:"round"`
	Peer         string  `json:"peer"`
	Workload     string  `json:"workload"`
	OpsPerSecond float64 `json:"ops_per_second"`
	P50          int64   `json:"p50_us"`
	P99          int64   `json:"p99_us"`
	Ops          int64   `json:"ops"`
	Errors       int64   `json:"errors"`
	FirstError   string  `json:"first_error,omitempty"`
	// ServerCPU and ClientCPU are processor milliseconds per 1,000 operations, of
	// the three servers together and of this process.
	ServerCPU float64 `json:"server_cpu_ms_per_1000"`
	ClientCPU float64 `json:"client_cpu_ms_per_1000"`
	Load      float64 `json:"load_average"` // of the machine, when it began
}

// call is one operation of a caller, with a random source of its own.
type call func(ctx context.Context, caller int, rng *rand.Rand) error

// run has callers call again and again for a time: a closed loop.
func run(ctx context.Context, n int, d time.Duration, do call) (m measure, failed error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var errs, ops atomic.Int64
	var mu sync.Mutex // of all and failed
	all := newHistogram()
	var wg sync.WaitGroup
	begin := time.Now()
	deadline := begin.Add(d)
	for c := range n {
		wg.Go(func() {
			h := newHistogram()
			rng := rand.New(rand.NewPCG(uint64(c), uint64(begin.UnixNano())))
			for ctx.Err() == nil {
				from := time.Now()
				if !from.Before(deadline) {
					break
				}
				each, done := context.WithTimeout(ctx, callTimeout)
				err := do(each, c, rng)
				done()
				if err == nil {
					h.RecordValue(max(1, time.Since(from).Microseconds()))
					ops.Add(1)
					continue
				}
				if ctx.Err() != nil {
					break
				}
				mu.Lock()
				if failed == nil {
					failed = err
				}
				mu.Unlock()
				if errs.Add(1) >= maxErrors {
					cancel()
				}
			}
			mu.Lock()
			all.Merge(h)
			mu.Unlock()
		})
	}
	wg.Wait()
	m.Ops, m.Errors = ops.Load(), errs.Load()
	m.OpsPerSecond = float64(m.Ops) / time.Since(begin).Seconds()
	m.P50, m.P99 = all.ValueAtPercentile(50), all.ValueAtPercentile(99)
	if failed != nil {
		m.FirstError = failed.Error()
	}
	return m, failed
}

// newHistogram is one in microseconds, up to the timeout of a call.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, callTimeout.Microseconds()+1_000_000, 3)
}

// fill writes every key once.
func fill(ctx context.Context, s session, callers, keys, size int) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, callers)
	for c := range callers {
		wg.Go(func() {
			value := randomText(rand.New(rand.NewPCG(uint64(c), 1)), size)
			for {
				i := int(next.Add(1) - 1)
				if i >= keys {
					return
				}
				each, done := context.WithTimeout(ctx, callTimeout)
				err := s.write(each, i, value, true)
				done()
				if err != nil {
					errs <- fmt.Errorf("first write of key %d: %w", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// writes gives every caller a value of its own, which it changes with every call.
func writes(s session, callers, keys, size int) call {
	values := make([][]byte, callers)
	for c := range values {
		values[c] = randomText(rand.New(rand.NewPCG(uint64(c), 2)), size)
	}
	return func(ctx context.Context, caller int, rng *rand.Rand) error {
		v := values[caller]
		v[rng.IntN(len(v))] = alphabet[rng.IntN(len(alphabet))]
		return s.write(ctx, rng.IntN(keys), v, false)
	}
}

func reads(s session, keys, size int) call {
	return func(ctx context.Context, _ int, rng *rand.Rand) error {
		key := rng.IntN(keys)
		n, err := s.read(ctx, key)
		if err == nil && n != size {
			err = fmt.Errorf("key %d has a value of %d bytes, want %d", key, n, size)
		}
		return err
	}
}

// alphabet needs no escapes in JSON.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func randomText(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[rng.IntN(len(alphabet))]
	}
	return b
}
