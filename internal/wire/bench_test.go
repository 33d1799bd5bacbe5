package wire

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"net"

	"github.com/facetd/facetd/facet"
)

// BenchmarkEcho measures the echo rate E: pings of 64 bytes through the framing
// and batching of both sides, over loopback TCP.
//
// In one process:    go test -run - -bench Echo ./internal/wire
// In two processes:  FACET_ECHO_LISTEN=127.0.0.1:7499 go test -run TestEchoServer -timeout 10m ./internal/wire &
//
//	FACET_ECHO_ADDR=127.0.0.1:7499 go test -run - -bench Echo ./internal/wire
func BenchmarkEcho(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			var near net.Conn
			if addr := os.Getenv("FACET_ECHO_ADDR"); addr != "" {
				var err error
				if near, err = net.Dial("tcp", addr); err != nil {
					b.Fatal(err)
				}
			} else {
				var far net.Conn
				near, far = tcpPair(b)
				run(b, NewConn(far, nil, ConnConfig{}), nothing)
			}
			slots := make([]chan struct{}, callers+1)
			for i := range slots {
				slots[i] = make(chan struct{}, 1)
			}
			c := NewConn(near, nil, ConnConfig{})
			run(b, c, func(f Frame) error { slots[f.ID] <- struct{}{}; return nil })
			payload := make([]byte, 64)
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for id := 1; id <= callers; id++ {
				n := b.N / callers
				if id <= b.N%callers {
					n++
				}
				wg.Go(func() {
					for range n {
						if c.End(AppendPing(c.Begin(), TypePing, uint32(id), payload)) != nil {
							return
						}
						<-slots[id]
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "echo/s")
		})
	}
}

// TestEchoServer is the other process of BenchmarkEcho; it runs only when asked.
func TestEchoServer(t *testing.T) {
	addr := os.Getenv("FACET_ECHO_LISTEN")
	if addr == "" {
		t.Skip("FACET_ECHO_LISTEN is not set")
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	for {
		nc, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go NewConn(nc, nil, ConnConfig{}).Run(nothing)
	}
}

// BenchmarkRequestCodec is one request of a 256-byte insert, there and back.
func BenchmarkRequestCodec(b *testing.B) {
	args := facet.AppendBlob(facet.AppendInt(nil, 42), make([]byte, 256))
	req := facet.Request{
		Name:  facet.Name{Tenant: "acme", Facet: "notes"},
		Steps: []facet.Step{{SQL: []byte("INSERT INTO t VALUES (?, ?)"), Args: args, NArgs: 2}},
	}
	var buf []byte
	var got facet.Request
	var sc Scratch
	var in Interner
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendRequest(buf[:0], 7, &req)
		f, _, err := DecodeFrame(buf, MaxFrame)
		if err != nil {
			b.Fatal(err)
		}
		if err := DecodeRequest(f, &got, &sc, &in); err != nil {
			b.Fatal(err)
		}
	}
}
