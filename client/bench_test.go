package client_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/native"
	"github.com/facetd/facetd/node/native/nativetest"
	"github.com/facetd/facetd/node/service"
)

// canned answers every request at once with one row of 256 bytes, and Exec with
// its outcome: what is measured is the way there and back.
type canned struct{ nativetest.Service }

var oneRow = func() facet.Result {
	res, at := facet.BeginItem(nil, facet.ItemColumns)
	res = facet.AppendStr(append(res, 1), "body")
	res = facet.EndItem(facet.AppendStr(res, "BLOB"), at)
	res, at = facet.BeginItem(res, facet.ItemRow)
	res = facet.EndItem(facet.Result(facet.AppendBlob(facet.Values(res), make([]byte, 256))), at)
	return facet.AppendDone(res, facet.Done{RowsOut: 1})
}()

var oneDone = facet.AppendDone(nil, facet.Done{Changes: 1, LastRowID: 7})

func (*canned) Submit(call *service.Call) {
	answer := oneRow
	if call.Request.Steps[0].NoRows {
		answer = oneDone
	}
	call.Response.Result = append(call.Response.Result[:0], answer...)
	call.Response.Position = facet.Position{Epoch: 1, Seq: 9}
	call.Done(call)
}

// benchClient connects to this process, or to the other one:
//
//	FACET_BENCH_LISTEN=127.0.0.1:7498 go test -run TestBenchServer -timeout 10m ./client &
//	FACET_BENCH_ADDR=127.0.0.1:7498 go test -run - -bench . ./client
func benchClient(b *testing.B, opt client.Options) *client.Client {
	addr := os.Getenv("FACET_BENCH_ADDR")
	if addr == "" {
		return open(b, opt, startService(b, &canned{}, native.Options{}))
	}
	c, err := client.Open(b.Context(), []string{addr}, opt)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// TestBenchServer is the other process of the benchmarks; it runs only when asked.
func TestBenchServer(t *testing.T) {
	addr := os.Getenv("FACET_BENCH_LISTEN")
	if addr == "" {
		t.Skip("FACET_BENCH_LISTEN is not set")
	}
	mux := http.NewServeMux()
	mux.Handle(wire.Path, native.New(&canned{}, native.Options{}))
	t.Fatal(http.ListenAndServe(addr, mux))
}

func callers(b *testing.B, n int, do func(caller int) error) {
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range n {
		share := b.N / n
		if w < b.N%n {
			share++
		}
		wg.Go(func() {
			for range share {
				if err := do(w); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
}

func BenchmarkSDK(b *testing.B) {
	ctx := context.Background()
	body := make([]byte, 256)
	for _, n := range []int{1, 64} {
		for _, conns := range []int{1, 2} {
			if n == 1 && conns > 1 {
				continue
			}
			name := fmt.Sprintf("callers=%d/conns=%d", n, conns)
			c := func(b *testing.B) *client.Client { return benchClient(b, client.Options{ConnsPerNode: conns}) }
			b.Run("Echo/"+name, func(b *testing.B) {
				c := c(b)
				callers(b, n, func(int) error { _, err := c.Echo(ctx, body[:64]); return err })
			})
			b.Run("Exec/"+name, func(b *testing.B) {
				f := openFacet(b, c(b))
				callers(b, n, func(int) error {
					_, err := f.Exec(ctx, "INSERT INTO note VALUES (?, ?)", 7, body)
					return err
				})
			})
			b.Run("QueryRow/"+name, func(b *testing.B) {
				f := openFacet(b, c(b))
				out := make([][]byte, n)
				callers(b, n, func(w int) error {
					return f.QueryRow(ctx, "SELECT body FROM note WHERE id = ?", 7).Scan(&out[w])
				})
			})
		}
	}
}
