package node

import (
	"slices"
	"testing"
	"time"
)

func TestProcessMetrics(t *testing.T) {
	if n, ok := parseWritten("rchar: 1\nwchar: 2\nread_bytes: 3\nwrite_bytes: 4096\ncancelled_write_bytes: 5\n"); !ok || n != 4096 {
		t.Errorf("got %d, %v, want 4096", n, ok)
	}
	for _, bad := range []string{"", "cancelled_write_bytes: 5\n", "write_bytes: many\n"} {
		if n, ok := parseWritten(bad); ok {
			t.Errorf("%q gives %d", bad, n)
		}
	}
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
