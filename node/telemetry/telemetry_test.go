package telemetry

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/service"
)

func name(t testing.TB) facet.Name {
	t.Helper()
	n, err := facet.NewName("acme", "shop")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// end takes a call through its phases.
func end(r *Recorder, call *service.Call, wait, run, confirm time.Duration) {
	call.Done = func(*service.Call) {}
	call.Watch(r)
	time.Sleep(wait)
	call.Phases.Started = service.Clock()
	time.Sleep(run)
	call.Phases.Executed = service.Clock()
	time.Sleep(confirm)
	call.Finish()
}

func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Options{Log: slog.New(slog.DiscardHandler)})
		reg := prometheus.NewPedanticRegistry()
		r.Register(reg)
		write := &service.Call{}
		write.Phases.Wrote = true // of an earlier use
		end(r, write, 2*time.Millisecond, 20*time.Millisecond, 200*time.Millisecond)
		write = &service.Call{}
		write.Done = func(*service.Call) {}
		write.Watch(r)
		write.Phases = service.Phases{Submitted: write.Phases.Submitted, Started: service.Clock() + 2*time.Millisecond, Executed: service.Clock() + 22*time.Millisecond, Wrote: true}
		time.Sleep(222 * time.Millisecond)
		write.Finish()
		end(r, &service.Call{Request: facet.Request{Tx: facet.TxID{1}}}, 0, time.Millisecond, 0)
		end(r, &service.Call{Request: facet.Request{Read: facet.ReadFollower}}, 0, time.Millisecond, 0)
		refused := &service.Call{Done: func(*service.Call) {}, Err: facet.Errorf(facet.CodeBusy, "busy")}
		refused.Watch(r)
		refused.Finish()
		strange := &service.Call{Done: func(*service.Call) {}, Err: errors.New("no facet.Error")}
		strange.Watch(r)
		strange.Finish()
		strange.Finish() // watched once

		want := `
# HELP facetd_requests_total Requests this node answered, by kind (read, write, tx for a part of an interactive transaction, follower_read) and by code, ok or that of the error.
# TYPE facetd_requests_total counter
facetd_requests_total{code="busy",kind="read"} 1
facetd_requests_total{code="internal",kind="read"} 1
facetd_requests_total{code="ok",kind="follower_read"} 1
facetd_requests_total{code="ok",kind="read"} 1
facetd_requests_total{code="ok",kind="tx"} 1
facetd_requests_total{code="ok",kind="write"} 1
`
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "facetd_requests_total"); err != nil {
			t.Error(err)
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		sums := map[string]float64{}
		counts := map[string]uint64{}
		for _, f := range families {
			for _, m := range f.Metric {
				if h := m.GetHistogram(); h != nil {
					sums[f.GetName()] += h.GetSampleSum()
					counts[f.GetName()] += h.GetSampleCount()
				}
			}
		}
		if got := sums["facetd_request_commit_seconds"]; got < 0.1999 || got > 0.2001 || counts["facetd_request_commit_seconds"] != 1 {
			t.Errorf("confirming took %v s in %d writes, want 0.2 in 1", got, counts["facetd_request_commit_seconds"])
		}
		if got := sums["facetd_request_wait_seconds"]; got < 0.0039 || got > 0.0041 || counts["facetd_request_wait_seconds"] != 4 {
			t.Errorf("waiting took %v s in %d requests, want 0.004 in 4", got, counts["facetd_request_wait_seconds"])
		}
		if counts["facetd_request_duration_seconds"] != 6 {
			t.Errorf("%d durations, want 6", counts["facetd_request_duration_seconds"])
		}
		if lints, err := testutil.GatherAndLint(reg); err != nil || len(lints) > 0 {
			t.Error(lints, err)
		}
	})
}

func TestSlowRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		r := New(Options{Slow: time.Second, Log: slog.New(slog.NewTextHandler(&out, nil))})
		sql := "SELECT '" + strings.Repeat("é", 400) + "'"
		slow := func() *service.Call {
			args := facet.Values{}
			return &service.Call{Request: facet.Request{Name: name(t), Steps: []facet.Step{{SQL: []byte(sql), Args: args}}}}
		}
		end(r, slow(), 0, 999*time.Millisecond, 0)
		if out.Len() > 0 {
			t.Errorf("logged before its time: %s", &out)
		}
		end(r, slow(), 100*time.Millisecond, 700*time.Millisecond, 200*time.Millisecond)
		line := out.String()
		for _, want := range []string{"facet=acme/shop", "kind=read", "took=1s", "waited=100ms", "executed=700ms", "confirmed=200ms", "statements=1", "…"} {
			if !strings.Contains(line, want) {
				t.Errorf("%s is missing in %s", want, line)
			}
		}
		if strings.Contains(line, `\x`) || len(line) > 1000 {
			t.Errorf("the SQL is not cut at a rune: %s", line)
		}
		// Many in one second: some are told, and how many were not.
		out.Reset()
		time.Sleep(time.Second)
		for range 50 {
			c := slow()
			c.Done = func(*service.Call) {}
			c.Watch(r)
			c.Phases.Submitted -= 2 * time.Second
			c.Finish()
		}
		if n := strings.Count(out.String(), "\n"); n != maxSlowLines {
			t.Errorf("%d lines in a second", n)
		}
		end(r, slow(), 0, time.Second, 0)
		if !strings.Contains(out.String(), "omitted_before=40") {
			t.Errorf("what was omitted is not told: %s", &out)
		}
	})
}

// TestEndedAllocatesNothing for requests that are not slow.
func TestEndedAllocatesNothing(t *testing.T) {
	r := New(Options{Slow: time.Hour})
	call := &service.Call{Done: func(*service.Call) {}}
	if n := testing.AllocsPerRun(1000, func() {
		call.Watch(r)
		call.Phases.Started, call.Phases.Executed, call.Phases.Wrote = service.Clock(), service.Clock(), true
		call.Finish()
	}); n > 0 {
		t.Errorf("%v allocations a request", n)
	}
}

func BenchmarkEnded(b *testing.B) {
	r := New(Options{})
	call := &service.Call{Done: func(*service.Call) {}}
	for b.Loop() {
		call.Watch(r)
		call.Phases.Started, call.Phases.Executed, call.Phases.Wrote = service.Clock(), service.Clock(), true
		call.Finish()
	}
}

// TestTraced: what its client traces is told with its parts, and no more of it than is
// good for a collector.
func TestTraced(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	synctest.Test(t, func(t *testing.T) {
		r := New(Options{Log: slog.New(slog.DiscardHandler), TracerProvider: provider})
		traced := func() *service.Call {
			return &service.Call{Request: facet.Request{Name: name(t), Trace: facet.Trace{ID: [16]byte{1}, Span: [8]byte{2}, Sampled: true}}}
		}
		unsampled := traced()
		unsampled.Request.Trace.Sampled = false
		end(r, unsampled, 0, 0, 0)
		if n := len(exporter.GetSpans()); n != 0 {
			t.Errorf("%d spans of a request that is not sampled", n)
		}
		end(r, traced(), time.Millisecond, 2*time.Millisecond, 4*time.Millisecond)
		took := map[string]time.Duration{}
		for _, s := range exporter.GetSpans() {
			took[s.Name] = s.EndTime.Sub(s.StartTime)
			if s.SpanContext.TraceID() != [16]byte{1} {
				t.Errorf("%s is of trace %v", s.Name, s.SpanContext.TraceID())
			}
		}
		for what, want := range map[string]time.Duration{"facetd read": 7 * time.Millisecond, "wait for the facet": time.Millisecond, "sqlite": 2 * time.Millisecond, "confirm": 4 * time.Millisecond} {
			if took[what] != want {
				t.Errorf("%s took %v, want %v", what, took[what], want)
			}
		}
		exporter.Reset()
		time.Sleep(time.Second)
		for range maxTraced + 100 {
			end(r, traced(), 0, 0, 0)
		}
		roots := 0
		for _, s := range exporter.GetSpans() {
			if s.Name == "facetd read" {
				roots++
			}
		}
		if roots != maxTraced || testutil.ToFloat64(r.untraced) != 100 {
			t.Errorf("%d of %d requests were told, %v omitted", roots, maxTraced+100, testutil.ToFloat64(r.untraced))
		}
	})
}
