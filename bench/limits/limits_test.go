package limits

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/facetd/facetd/bench"
)

// The measurements without a node; cmd/facetd's scripts run all of them with one.
// One test, because the engine must come before the stock driver.
func TestMeasurements(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Facets: 3, Callers: 4, ValueSize: 100, Rows: 5, Duration: 20 * time.Millisecond}
	for _, n := range []int{cfg.Facets, 1} {
		w, r, err := cfg.engine(t.Context(), n)
		if err != nil || w <= 0 || r <= 0 {
			t.Fatalf("engine with %d facets: %v writes, %v reads, %v", n, w, r, err)
		}
	}
	var l bench.Limits
	if err := cfg.sync(t.Context(), &l); err != nil || l.Fsync < l.FsyncCalls || l.FsyncCalls <= 0 || l.FsyncSingle <= 0 {
		t.Fatalf("fdatasync: %+v, %v; callers that share calls get more than there are calls", l, err)
	}
	if stock, err := cfg.stock(t.Context()); err != nil || stock <= 0 {
		t.Fatalf("stock: %v, %v", stock, err)
	}
}

func TestMeasurementsEndWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	cfg := Config{Dir: t.TempDir(), Facets: 1, Callers: 1, ValueSize: 1, Rows: 1, Duration: maxDuration}
	if _, _, err := cfg.engine(ctx, 1); !errors.Is(err, why) {
		t.Errorf("engine: %v", err)
	}
	if err := cfg.sync(ctx, new(bench.Limits)); !errors.Is(err, why) {
		t.Errorf("fdatasync: %v", err)
	}
}

func TestAFailureIsTold(t *testing.T) {
	boom := errors.New("boom")
	cfg := Config{Duration: maxDuration}
	if _, err := cfg.rate(t.Context(), 3, func(c int) error {
		if c == 1 {
			return boom
		}
		return nil
	}); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
}

// The reference by its disk alone; cmd/facetd's scripts measure it with nodes.
func TestReference(t *testing.T) {
	f, err := newSyncFile(t.TempDir(), 1<<20, block)
	if err != nil {
		t.Fatal(err)
	}
	r := &Reference{cfg: Config{Dir: t.TempDir(), Duration: 5 * time.Millisecond}, disk: f}
	got, err := r.Measure(t.Context())
	if err != nil || got.Fsync <= 0 || got.Owner != 0 || got.Replica != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	for range 2*(1<<20)/block + 1 { // over the end
		if err := f.write(1); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := NewReference(t.Context(), Config{Dir: t.TempDir(), ValueSize: 1}, []string{"http://127.0.0.1:1"}); err == nil {
		t.Error("nobody listens there, and it is prepared")
	}
}
