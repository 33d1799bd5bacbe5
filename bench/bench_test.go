package bench

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write golden files")

// sampleReport has a value in every field.
func sampleReport() Report {
	r := Report{
		Settings: Settings{Facets: 1000, Callers: 64, ValueSize: 256, Rows: 100, Conns: 1, Seconds: 10, Nodes: 1,
			Target: "http://127.0.0.1:7400", Data: "/data/node", Started: "2026-11-22T00:00:00Z", Version: "v1.2.3",
			Go: "go1.26", OS: "linux", Arch: "amd64", CPUs: 2},
		Results: []Result{
			{Workload: "create", OpsPerSecond: 3210, P50: 18_000, P90: 21_000, P99: 40_123, P999: 41_000, Max: 41_003, Ops: 1000, Seconds: 0.3115, Callers: 64, Facets: 1000},
			{Workload: "write", OpsPerSecond: 31_680, P50: 1950, P90: 2100, P99: 4800, P999: 9999, Max: 20_000, Ops: 316_800, Seconds: 10, Callers: 64, Facets: 1000},
			{Workload: "read", OpsPerSecond: 120_000, P50: 520, P90: 700, P99: 999, P999: 1000, Max: 12_000_000, Errors: 2, FirstError: "limit_exceeded: no", Ops: 1_200_000, Seconds: 10, Callers: 64, Facets: 1000},
			{Workload: "hot_write", OpsPerSecond: 20_000, P50: 3000, P90: 3100, P99: 4000, P999: 5000, Max: 6000, Ops: 200_000, Seconds: 10, Callers: 64, Facets: 1},
		},
		Limits: &Limits{Echo: 326_000, Writes: 113_000, Reads: 490_000, Fsync: 90_000, HotWrites: 228_000, HotReads: 396_000,
			SDKEcho: 300_000, FsyncCalls: 3000, FsyncSingle: 3200, Stock: 5000},
		Idle: &Idle{Facets: 100_000, EmptyBytes: 30 << 20, PeakBytes: 400 << 20, HibernateBytes: 80 << 20, RestartBytes: 70 << 20,
			PerFacet: 524.3, Hibernated: 12.5, EmptyStart: 0.2, Start: 1.25},
	}
	known := func(v float64) *float64 { return &v }
	bytes, open := int64(90<<20), int64(64)
	r.Settings.Rate, r.Settings.Queue, r.Settings.Theta, r.Settings.Seed = 5000, 1024, 0.99, 7
	r.Settings.Command, r.Settings.CPU, r.Settings.Memory = "facetd bench --rate 5000", "A CPU", 8<<30
	r.Results = append(r.Results, Result{Workload: "counter", OpsPerSecond: 4990, P50: 300, P90: 500, P99: 1500, P999: 21_000, Max: 22_000,
		Ops: 49_900, Seconds: 10, Callers: 64, Facets: 64, Mode: "open", Rate: 5000, Due: 50_000, Late: 31, Dropped: 100, RowsPerOp: 1,
		Verified:    &Verified{Acknowledged: 49_900, Unknown: 1, Found: 49_901},
		Percentiles: []Percentile{{0, 100}, {50, 300}, {99, 1500}, {99.9, 21_000}, {100, 22_000}},
		Series:      []Point{{At: 0, Seconds: 5, Ops: 25_000, P50: 301, P99: 1400}, {At: 5, Seconds: 5, Ops: 24_900, Errors: 1, P50: 299, P99: 1600}},
		Resources: &Resources{ClientCPU: known(0.0153), NodesCPU: known(0.125), Log: known(312.5), Zeroed: known(350), Database: known(1024), Sent: known(120), Received: known(40),
			Resident: &bytes, Active: &open, Unknown: "not every node tells it"}})
	r.Active = &Active{Facets: 1000, ClosedBytes: 40 << 20, OpenBytes: 80 << 20, PerFacet: 41_940}
	r.Reference = &Reference{Owner: 41.26, Replica: 40, Fsync: 310.4}
	r.Reference.finish(587)
	r.Limits.combine()
	r.compare()
	return r
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs:\n%s", path, got)
	}
}

// The JSON is a contract with scripts.
func TestReportJSON(t *testing.T) {
	var b bytes.Buffer
	r := sampleReport()
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", b.Bytes())
}

func TestReportText(t *testing.T) {
	var b bytes.Buffer
	r := sampleReport()
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.txt", b.Bytes())
}

func TestCombinedLimit(t *testing.T) {
	l := Limits{Writes: 100, Reads: 300, Echo: 100}
	l.combine()
	if l.CombinedWrites != 50 || l.CombinedReads != 75 {
		t.Errorf("got %v and %v, want 50 and 75", l.CombinedWrites, l.CombinedReads)
	}
	l = Limits{Writes: 100}
	if l.combine(); l.CombinedWrites != 0 {
		t.Errorf("without an echo rate the combined limit is %v, want 0: not measured", l.CombinedWrites)
	}
}

func TestRound(t *testing.T) {
	for in, want := range map[float64]float64{0: 0, 123456: 123500, 0.123456: 0.1235, 9999.6: 10000, -1234.5: -1235} {
		if got := round(in); got != want {
			t.Errorf("round(%v) = %v, want %v", in, got, want)
		}
	}
}

// Merged histograms answer as one that saw everything.
func TestSamplesMerge(t *testing.T) {
	whole, parts := sample{hist: newHistogram()}, []*sample{{hist: newHistogram()}, {hist: newHistogram()}, {hist: newHistogram()}}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 10_000 {
		v := 1 + rng.Int64N(50_000_000)
		whole.hist.RecordValue(v)
		parts[i%3].hist.RecordValue(v)
	}
	failure := errors.New("first")
	parts[1].add(time.Now(), failure)
	parts[2].add(time.Now(), errors.New("second"))
	got := sample{hist: newHistogram()}
	for _, p := range parts {
		p.elapsed = time.Second
		got.merge(p)
	}
	for _, q := range []float64{50, 90, 99, 99.9} {
		if a, b := got.hist.ValueAtPercentile(q), whole.hist.ValueAtPercentile(q); a != b {
			t.Errorf("p%v is %d, want %d", q, a, b)
		}
	}
	r := got.result(Workload{Name: "w"})
	if r.Ops != 10_000 || r.Errors != 2 || r.FirstError != "first" || r.Seconds != 3 || r.OpsPerSecond != 3333 {
		t.Errorf("got %+v", r)
	}
}

func TestDriveMakesEveryCallOnce(t *testing.T) {
	var seen [1000]atomic.Int32
	s, err := drive(t.Context(), 7, &times{total: int64(len(seen))}, func(_ context.Context, _, i int, _ *rand.Rand) error {
		seen[i].Add(1)
		if i%100 == 0 {
			return errors.New("no")
		}
		return nil
	})
	if err != nil || s.errors != 10 || s.hist.TotalCount() != 990 {
		t.Errorf("%d calls, %d errors, %v; want 990, 10 and no error", s.hist.TotalCount(), s.errors, err)
	}
	for i := range seen {
		if n := seen[i].Load(); n != 1 {
			t.Fatalf("call %d was made %d times", i, n)
		}
	}
}

func TestDriveEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	s, err := drive(ctx, 4, &until{deadline: time.Now().Add(time.Hour)}, func(ctx context.Context, _, i int, _ *rand.Rand) error {
		if i == 100 {
			cancel(why)
		}
		return ctx.Err()
	})
	if !errors.Is(err, why) || s.errors != 0 {
		t.Errorf("got %v and %d errors, want the cause and none", err, s.errors)
	}
}

func TestDriveGivesUpWhenAllFails(t *testing.T) {
	boom := errors.New("boom")
	s, err := drive(t.Context(), 4, &until{deadline: time.Now().Add(time.Hour)}, func(context.Context, int, int, *rand.Rand) error { return boom })
	if !errors.Is(err, boom) || s.errors < maxErrors {
		t.Errorf("got %v after %d errors", err, s.errors)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, c := range []Config{{Facets: -1}, {Callers: MaxCallers + 1}, {ValueSize: MaxValueSize + 1}, {Duration: 2 * MaxDuration}, {}} {
		if _, err := Run(t.Context(), c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	for names, good := range map[string]bool{"write create": false, "create create": false, "idle create write": true} {
		ws, err := Select(strings.Fields(names)...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Run(t.Context(), Config{Workloads: ws}); strings.Contains(err.Error(), "create comes before") == good {
			t.Errorf("%s: %v", names, err)
		}
	}
	if _, err := Select("write", "wrote"); err == nil {
		t.Error("an unknown workload is accepted")
	}
}
