package node

import (
	"slices"
	"testing"
	"time"
)

func TestProcessMetrics(t *testing.T) {
	before, ok := cpuTime()
	if !ok {
		t.Skip("this system tells no processor time")
	}
	// Work until it shows, however coarse the system counts.
	for end := time.Now().Add(20 * time.Second); ; {
		if now, _ := cpuTime(); now > before {
			break
		}
		if time.Now().After(end) {
			t.Fatal("processor time stands still")
		}
	}
	if !slices.ContainsFunc(process(), func(m processMetric) bool { return m.name == "process_cpu_seconds_total" }) {
		t.Error("processor time is not among the metrics")
	}
}
