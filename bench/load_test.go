package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestOpenLoopCountsFromDue: one caller, calls due every 10 ms, each taking 5 ms but
// one, which takes 205 ms. In a closed loop one call would be slow; here all that were
// due meanwhile are, until the caller has caught up.
func TestOpenLoopCountsFromDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &load{callers: 1, pacer: newOpenLoop(time.Now(), 100, time.Second, 100), do: func(_ context.Context, _, i int, _ *rand.Rand) error {
			took := 5 * time.Millisecond
			if i == 10 {
				took += 200 * time.Millisecond
			}
			time.Sleep(took)
			return nil
		}}
		s, err := l.run(t.Context())
		if err != nil || s.hist.TotalCount() != 100 || s.due != 100 || s.dropped != 0 {
			t.Fatalf("%d calls of %d due, %d dropped, %v", s.hist.TotalCount(), s.due, s.dropped, err)
		}
		// Call 10+k is done 205 + 5k ms after call 10 was due, itself due after 10k ms:
		// the latency is 205 - 5k until it is 5 again, and those up to k = 39 began late.
		if s.late != 39 {
			t.Errorf("%d began late, want 39", s.late)
		}
		if p := s.hist.ValueAtPercentile(80); p < 95_000 || p > 115_000 {
			t.Errorf("p80 is %d µs, want about 105 ms", p)
		}
		if m := s.hist.Max(); m < 204_000 || m > 206_000 {
			t.Errorf("the longest took %d µs, want 205 ms", m)
		}
	})
}

// TestOpenLoopDrops: what does not fit in the queue is dropped and counted, and every
// call that was due is either made or counted.
func TestOpenLoopDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := make(map[int]bool)
		l := &load{callers: 1, pacer: newOpenLoop(time.Now(), 1000, time.Second, 5), do: func(_ context.Context, _, i int, _ *rand.Rand) error {
			if seen[i] {
				t.Errorf("call %d was made twice", i)
			}
			seen[i] = true
			time.Sleep(100 * time.Millisecond)
			return nil
		}}
		s, err := l.run(t.Context())
		if err != nil || s.due != 1000 || s.hist.TotalCount()+s.dropped != 1000 || int64(len(seen)) != s.hist.TotalCount() {
			t.Fatalf("%d calls and %d dropped of %d, %v", s.hist.TotalCount(), s.dropped, s.due, err)
		}
		// One at once, one every 100 ms, and five that waited at the end.
		if n := s.hist.TotalCount(); n < 10 || n > 16 {
			t.Errorf("%d calls were made in a second by one caller that takes 100 ms", n)
		}
	})
}

// TestOpenLoopGivesUp: calls that hang do not keep a run going for the whole queue.
func TestOpenLoopGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		l := &load{callers: 1, pacer: newOpenLoop(begin, 100, time.Second, 1000), do: func(context.Context, int, int, *rand.Rand) error {
			time.Sleep(4 * time.Second)
			return nil
		}}
		s, err := l.run(t.Context())
		if err != nil || s.hist.TotalCount()+s.dropped != 100 || s.dropped < 90 {
			t.Errorf("%d calls and %d dropped, %v", s.hist.TotalCount(), s.dropped, err)
		}
		if took := time.Since(begin); took > time.Second+drainWait+4*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestSeriesCountsAll: whatever is added is in one point, and there are never too many.
func TestSeriesCountsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &load{callers: 3, pacer: &until{deadline: time.Now().Add(90 * time.Second)}, series: newSeries(), every: 10 * time.Second,
			do: func(_ context.Context, _, i int, _ *rand.Rand) error {
				time.Sleep(10 * time.Millisecond)
				if i%100 == 0 {
					return errors.New("no")
				}
				return nil
			}}
		told := 0
		l.tell = func(at time.Duration, p span) {
			told++
			if p.ops < 2500 || p.ops > 3500 {
				t.Errorf("after %v: %d operations in the last ten seconds, want about 3,000", at, p.ops)
			}
		}
		s, err := l.run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		points := s.series.report()
		var ops, errs int64
		var took float64
		for _, p := range points {
			ops, errs, took = ops+p.Ops, errs+p.Errors, took+p.Seconds
			if p.Ops > 10 && (p.P50 < 9500 || p.P50 > 10_500) {
				t.Errorf("p50 is %d, want 10,000 to 2 %%", p.P50)
			}
		}
		if ops != s.hist.TotalCount() || errs != s.errors || math.Abs(took-s.elapsed.Seconds()) > 0.1 {
			t.Errorf("points hold %d and %d in %.2fs, the sample %d and %d in %v", ops, errs, took, s.hist.TotalCount(), s.errors, s.elapsed)
		}
		if len(points) < seriesPoints/2 || len(points) > seriesPoints || told < 8 {
			t.Errorf("%d points, told %d times", len(points), told)
		}
	})
}

func TestBuckets(t *testing.T) {
	for v := int64(0); v < 60_000_000; v += 1 + v/50 {
		got := bucketValue(bucketOf(v))
		if math.Abs(float64(got-v)) > float64(v)/64+1 {
			t.Fatalf("%d is counted as %d", v, got)
		}
	}
}

// TestZipf compares how often numbers come with what the distribution says, and one
// seed with itself.
func TestZipf(t *testing.T) {
	const n, draws = 100, 200_000
	z := newZipf(n, 0.99)
	counts := make([]int, n)
	rng, again := rand.New(rand.NewPCG(1, 2)), rand.New(rand.NewPCG(1, 2))
	for range draws {
		k := z.next(rng)
		if k != z.next(again) {
			t.Fatal("the same seed chooses otherwise")
		}
		counts[k]++
	}
	// The first two are exact, the rest is an approximation.
	for k, within := range map[int]float64{0: 0.03, 1: 0.05, 9: 0.25, 50: 0.4} {
		want := draws / (z.zeta * math.Pow(float64(k+1), 0.99))
		if got := float64(counts[k]); math.Abs(got-want) > within*want {
			t.Errorf("number %d came %v times, want about %.0f", k, got, want)
		}
	}
	for _, few := range []int{1, 2, 3} {
		z := newZipf(few, 0.5)
		for range 1000 {
			if k := z.next(rng); k < 0 || k >= few {
				t.Fatalf("%d of %d", k, few)
			}
		}
	}
}

// TestSpent: what is known of every node is a figure, and nothing else is.
func TestSpent(t *testing.T) {
	metrics := func(text string) map[string]float64 {
		m, err := parseMetrics(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if _, err := parseMetrics(strings.NewReader(metricCPU + " soon\n")); err == nil {
		t.Error("a figure that is none is accepted")
	}
	before := usage{cpuKnown: true, nodes: []map[string]float64{
		metrics("# HELP x\nother 3\n" + metricCPU + " 1.5\n" + metricLog + " 100\n" + metricZeroed + " 0\n" + metricDatabase + " 4096\n" + metricPeers + " 7\n" + metricResident + " 10\n"),
		metrics(metricCPU + " 2\n" + metricZeroed + " 5\n" + metricDatabase + " 0\n" + metricLog + " 100\n" + metricResident + " 10\n")}}
	after := usage{cpu: time.Second, cpuKnown: true, sent: 500, nodes: []map[string]float64{
		metrics(metricCPU + " 2.5\n" + metricLog + " 300\n" + metricZeroed + " 1000\n" + metricDatabase + " 8192\n" + metricPeers + " 9\n" + metricResident + " 11\n"),
		metrics(metricCPU + " 3\n" + metricZeroed + " 5\n" + metricDatabase + " 4096\n" + metricLog + " 50\n" + metricResident + " 12\n")}}
	s := after.since(&before)
	r := s.report(100)
	if *r.ClientCPU != 10 || *r.NodesCPU != 20 || *r.Sent != 5 || *r.Database != 81.92 || *r.Zeroed != 10 || *r.Resident != 23 {
		t.Errorf("got %+v", r)
	}
	if r.Log != nil || r.Peers != nil || r.Active != nil || r.Unknown == "" {
		t.Errorf("a counter that fell and one that a node does not tell are known: %+v", r)
	}
	lost := usage{err: errors.New("gone")}
	s2 := lost.since(&before)
	s.add(&s2)
	if r := s.report(100); r.NodesCPU != nil {
		t.Errorf("known and unknown is known: %+v", r)
	}
}

func TestReportIsReadAsWritten(t *testing.T) {
	r := sampleReport()
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	got, err := ReadJSON(&b)
	if err != nil || !reflect.DeepEqual(*got, r) {
		t.Errorf("%v: %+v", err, got)
	}
	long, _ := json.Marshal(Report{Results: []Result{{Series: make([]Point, seriesPoints+1)}}})
	for _, bad := range []string{"", "{}", "[1]", `{"results":[]}`, string(long)} {
		if _, err := ReadJSON(strings.NewReader(bad)); err == nil {
			t.Errorf("%.40q is taken for a report", bad)
		}
	}
}

// polylines counts the curves of a page by their class, and looks that the page is
// well-formed and asks for nothing.
func polylines(t *testing.T, text string) map[string]int {
	t.Helper()
	lines := make(map[string]int)
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		tok, err := d.Token()
		if err == io.EOF {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		if e.Name.Local == "script" {
			t.Error("there is a script")
		}
		for _, a := range e.Attr {
			if n := a.Name.Local; n == "href" || n == "src" {
				t.Errorf("%s asks for %s", e.Name.Local, a.Value)
			}
			if e.Name.Local == "polyline" && a.Name.Local == "class" {
				lines[a.Value]++
			}
			if e.Name.Local == "polyline" && a.Name.Local == "points" && (strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf")) {
				t.Errorf("a curve is drawn through %s", a.Value)
			}
		}
	}
}

// TestPage: the page is well-formed, asks for nothing, and shows what the reports say,
// as text whatever it is.
func TestPage(t *testing.T) {
	r, o := sampleReport(), sampleReport()
	o.Settings.Command = `facetd bench --data "<script>alert(1)</script>"`
	o.Results = append(o.Results, Result{Workload: "bare"}, Result{Workload: "odd", OpsPerSecond: math.MaxFloat64,
		Series: []Point{{Seconds: -1}, {At: 1, Seconds: 1}}, Percentiles: []Percentile{{100, 1}, {200, -5}}})
	var b bytes.Buffer
	if err := WriteHTML(&b, []Named{{"one", &r}, {"<two>", &o}}); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	lines := polylines(t, text)
	// Of counter in both: throughput, percentiles, p50 over time; p99 over time.
	if lines["r0"] < 3 || lines["r1"] < 3 || lines["r0 far"] < 1 || lines["r1 far"] < 1 {
		t.Errorf("curves are missing: %v", lines)
	}
	for _, want := range []string{"facetd bench --rate 5000", "&lt;script&gt;", "&lt;two&gt;", "prefers-color-scheme: dark", "unknown", "49,900 increments were acknowledged"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if err := WriteHTML(io.Discard, make([]Named, MaxReports+1)); err == nil {
		t.Error("too many reports are accepted")
	}
}
