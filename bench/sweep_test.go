package bench

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// sampleSweep has a value without a place on an axis of decades, one whose nodes tell
// nothing, and workloads that not every value has.
func sampleSweep() Sweep {
	known := func(v float64) *float64 { return &v }
	at := func(v float64, nodes int, results ...Result) Swept {
		return Swept{Value: v, Report: Report{Settings: Settings{Nodes: nodes, Callers: 64, Facets: 1000, CPUs: 2, Seconds: 1}, Results: results}}
	}
	write := func(rate float64, cpu *float64) Result {
		return Result{Workload: "write", OpsPerSecond: rate, P50: 1000, P99: 5000, Ops: 100, Resources: &Resources{NodesCPU: cpu, Log: known(300)}}
	}
	return Sweep{Over: "nodes", Command: "facetd bench sweep --over nodes=3,1 <x>", Stopped: "nodes=5 and what follows is missing: no time",
		Points: []Swept{at(3, 3, write(900, known(0.12)), Result{Workload: "read", OpsPerSecond: 5, FirstError: "boom", Errors: 1}),
			at(1, 1, write(1000, known(0.05))), at(7, 7, write(800, nil)), at(0, 1, write(1, known(1)))}}
}

func TestSweepText(t *testing.T) {
	s := sampleSweep()
	var b bytes.Buffer
	if err := s.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "sweep.txt", b.Bytes())
}

func TestSweepJSON(t *testing.T) {
	s := sampleSweep()
	var b bytes.Buffer
	if err := s.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Over   string
		Points []struct {
			Value   float64
			Results []struct {
				Workload string
				Rate     float64 `json:"ops_per_second"`
			}
		}
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Over != "nodes" || len(got.Points) != 4 || got.Points[1].Value != 1 || got.Points[1].Results[0].Rate != 1000 {
		t.Errorf("got %+v", got)
	}
}

func TestSweepPage(t *testing.T) {
	s := sampleSweep()
	var b bytes.Buffer
	if err := s.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	// Of write rate, p50 and CPU of all nodes, and broken p99 and CPU of one node; of
	// read only the rate: no call of it succeeded, and its cost is unknown.
	lines := polylines(t, b.String())
	if lines["r0"] != 4 || lines["r0 far"] != 2 {
		t.Errorf("the page has the curves %v", lines)
	}
	for _, want := range []string{"nodes=5 and what follows is missing", "&lt;x&gt;", "<td>0</td>", "CPU node"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	// The curve goes from left to right whatever the order of the values.
	p := s.page("write").Plots[0]
	var last float64 = -1
	for _, at := range strings.Fields(p.Curves[0].Points) {
		x, _, _ := strings.Cut(at, ",")
		var v float64
		if err := json.Unmarshal([]byte(x), &v); err != nil || v <= last {
			t.Errorf("the curve is drawn through %s", p.Curves[0].Points)
			break
		}
		last = v
	}
}
