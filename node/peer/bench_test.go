package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/facetd/facetd/facet"
)

// counted counts what goes over a connection, both ways.
type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// benchAcks counts acknowledgements, and gives each caller's window back.
type benchAcks struct {
	windows map[facet.Incarnation]chan facet.Seq
	ready   chan struct{}
	all     atomic.Int64
}

func (b *benchAcks) Ready(Remote) {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (b *benchAcks) Acked(_ Remote, acks []Ack) {
	b.all.Add(int64(len(acks)))
	for i := range acks {
		select {
		case b.windows[acks[i].Incarnation] <- acks[i].Seq:
		default: // it looks at the newest when it comes to it
		}
	}
}

func (b *benchAcks) Lost(Remote, error) {}

// benchAppend has 64 goroutines append entries of 300 bytes over loopback to a
// handler that acknowledges at once, each with at most window entries unanswered.
func benchAppend(b *testing.B, window int) {
	const callers = 64
	acks := &benchAcks{windows: make(map[facet.Incarnation]chan facet.Seq), ready: make(chan struct{}, 1)}
	for i := range callers {
		acks.windows[testID(i+1)] = make(chan facet.Seq, window)
	}
	where := newAddresses()
	start(b, "n2", where, nil)
	var wire atomic.Int64
	n1 := start(b, "n1", where, func(cfg *Config) {
		cfg.Acks = acks
		var d net.Dialer
		cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			nc, err := d.DialContext(ctx, "tcp", address)
			return counted{nc, &wire}, err
		}
	})
	p := n1.Peer("n2")
	connect(b, p)
	// Warm up: buffers grow to their size and the slots learn the facets.
	run := func(from, each int) {
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				id := testID(i + 1)
				back := acks.windows[id]
				free := window
				c := entry(id, 5, 1, 300)
				for s := from; s < from+each; s++ {
					if free == 0 {
						<-back
						free++
					}
					free--
					c.Seq, c.PreSum, c.PostSum, c.PrevEpoch = facet.Seq(s), sumAt(facet.Seq(s-1)), sumAt(facet.Seq(s)), 5
					for {
						err := p.Append(AppendItem{Epoch: 5, Commit: facet.Seq(s - 1), Entry: c})
						if err == nil {
							break
						}
						if !errors.Is(err, ErrBusy) {
							b.Error(err)
							return
						}
						<-acks.ready
						acks.Ready(Remote{})
					}
				}
				for ; free < window; free++ {
					<-back
				}
			})
		}
		wg.Wait()
	}
	run(1, 2000)
	each := max(b.N/callers, 1)
	var before, after runtime.MemStats
	wire.Store(0)
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	run(2001, each)
	b.StopTimer()
	runtime.ReadMemStats(&after)
	n := float64(each * callers)
	b.ReportMetric(n/b.Elapsed().Seconds(), "appends/s")
	b.ReportMetric(float64(wire.Load())/n-300, "overhead-B/append")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "allocs/append")
}

func BenchmarkAppend(b *testing.B) {
	b.Run("window=1", func(b *testing.B) { benchAppend(b, 1) })
	b.Run("window=64", func(b *testing.B) { benchAppend(b, 64) })
}

// BenchmarkRoundTrip is one append and its acknowledgement, alone.
func BenchmarkRoundTrip(b *testing.B) {
	where := newAddresses()
	acked := make(chan facet.Seq, 1)
	start(b, "n2", where, nil)
	p := start(b, "n1", where, func(cfg *Config) { cfg.Acks = lastAck{acked} }).Peer("n2")
	connect(b, p)
	c := entry(idA, 5, 1, 300)
	for seq := facet.Seq(1); b.Loop(); seq++ {
		c.Seq, c.PrevEpoch, c.PreSum, c.PostSum = seq, 5, sumAt(seq-1), sumAt(seq)
		if err := p.Append(AppendItem{5, seq - 1, c}); err != nil {
			b.Fatal(err)
		}
		<-acked
	}
}

// BenchmarkSnapshot sends 256 MiB to a receiver that throws them away.
func BenchmarkSnapshot(b *testing.B) {
	const pages = 64 << 10
	where := newAddresses()
	start(b, "n2", where, installs(func(_ context.Context, _ Remote, _ SnapshotOffer, src io.Reader) (facet.Position, error) {
		_, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{src}, make([]byte, 256<<10))
		return pos, err
	}))
	p := start(b, "n1", where, nil).Peer("n2")
	b.SetBytes(pages * facet.PageSize)
	for b.Loop() {
		if _, _, err := p.SendSnapshot(b.Context(), offerOf(pages), same{}); err != nil {
			b.Fatal(err)
		}
	}
}

// same is a snapshot that costs nothing to read.
type same struct{}

func (same) ReadPage(uint32, []byte) error { return nil }
