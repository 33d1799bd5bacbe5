package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// measure is the outcome of one measurement. Nil figures are unknown, or make no sense
// for the peer.
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
	// ServerCPU and ClientCPU are processor milliseconds per 1,000 operations, of all
	// servers together and of this process, which is both for a library.
	ServerCPU *float64 `json:"server_cpu_ms_per_1000"`
	ClientCPU float64  `json:"client_cpu_ms_per_1000"`
	// Disk is bytes the disk got per operation, by its own counter, of all servers
	// together, without DiskIdle, what it got a second while nobody called.
	Disk     *float64 `json:"disk_bytes_per_op"`
	DiskIdle float64  `json:"disk_idle_bytes_per_second"`
	Sent     *float64 `json:"sent_between_servers_bytes_per_op"`
	Resident *int64   `json:"resident_bytes"`                  // of all servers, afterwards
	PerKey   *float64 `json:"resident_bytes_per_new_database"` // workload create
	Load     float64  `json:"load_average"`                    // of the machine, when it began

	serverCPU  *time.Duration
	clientCPU  time.Duration
	disk, sent *int64
	watched    time.Duration // what disk is of
}

// settle makes figures per operation of what was counted.
func (m *measure) settle(idle float64) {
	if m.Ops == 0 {
		return
	}
	n := float64(m.Ops)
	cpu := func(d time.Duration) float64 { return d.Seconds() * 1e6 / n }
	m.ClientCPU = cpu(m.clientCPU)
	if m.serverCPU != nil {
		x := cpu(*m.serverCPU)
		m.ServerCPU = &x
	}
	if m.sent != nil {
		x := float64(*m.sent) / n
		m.Sent = &x
	}
	m.DiskIdle = idle
	if m.disk != nil {
		others := idle * m.watched.Seconds()
		// Where others wrote more than the load, nobody can tell what the load wrote.
		if all := float64(*m.disk); idle < busyDisk || others < all/2 {
			x := max(0, all-others) / n
			m.Disk = &x
		}
	}
}

// call is operation i, by a caller with a random source of its own.
type call func(ctx context.Context, caller, i int, rng *rand.Rand) error

// pace ends a closed loop: after a number of calls, or at a time. The first call is
// always made.
type pace struct {
	calls int64         // 0: any number
	d     time.Duration // 0: as long as it takes
	begin time.Time
	n     atomic.Int64
}

func lasting(d time.Duration) *pace { return &pace{d: d} }

// next gives the number of the next call.
func (p *pace) next(now time.Time) (i int, ok bool) {
	n := p.n.Add(1)
	return int(n - 1), (p.calls == 0 || n <= p.calls) && (p.d == 0 || n == 1 || now.Sub(p.begin) < p.d)
}

// run has callers call again and again: a closed loop. Calls that fail are counted;
// only the end of ctx, or too many of them, is an error.
func run(ctx context.Context, callers int, p *pace, do call) (m measure, err error) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // of all, m and failed
	var failed error
	all := newHistogram()
	var wg sync.WaitGroup
	p.begin = time.Now()
	for c := range callers {
		wg.Go(func() {
			h := newHistogram()
			rng := rand.New(rand.NewPCG(uint64(c), uint64(p.begin.UnixNano())))
			for inner.Err() == nil {
				from := time.Now()
				i, ok := p.next(from)
				if !ok {
					break
				}
				each, done := context.WithTimeout(inner, callTimeout)
				err := do(each, c, i, rng)
				done()
				if err == nil {
					h.RecordValue(max(1, time.Since(from).Microseconds()))
					continue
				}
				if inner.Err() != nil {
					break
				}
				mu.Lock()
				if failed == nil {
					failed = err
				}
				if m.Errors++; m.Errors >= maxErrors {
					cancel()
				}
				mu.Unlock()
			}
			mu.Lock()
			all.Merge(h)
			mu.Unlock()
		})
	}
	wg.Wait()
	m.Ops = all.TotalCount()
	m.OpsPerSecond = float64(m.Ops) / time.Since(p.begin).Seconds()
	m.P50, m.P99 = all.ValueAtPercentile(50), all.ValueAtPercentile(99)
	if failed != nil {
		m.FirstError = failed.Error()
	}
	switch {
	case ctx.Err() != nil:
		return m, context.Cause(ctx)
	case inner.Err() != nil:
		return m, failed
	}
	return m, nil
}

// newHistogram is one in microseconds, up to the timeout of a call.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, callTimeout.Microseconds()+1_000_000, 3)
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
