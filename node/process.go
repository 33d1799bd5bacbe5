package node

import (
	"os"
	"strconv"
	"strings"
)

// processMetric is one figure of the process as the system sees it, under the name
// monitoring knows it by.
type processMetric struct {
	name, kind, help string
	value            any
}

// process tells what the system knows of this process. What it does not tell is
// left out.
func process() (out []processMetric) {
	if rss, ok := residentBytes(); ok {
		out = append(out, processMetric{"process_resident_memory_bytes", "gauge", "Resident memory of the process.", rss})
	}
	if cpu, ok := cpuTime(); ok {
		out = append(out, processMetric{"process_cpu_seconds_total", "counter", "Processor time of the process, user and system.", strconv.FormatFloat(cpu.Seconds(), 'f', 6, 64)})
	}
	if n, ok := writtenBytes(); ok {
		out = append(out, processMetric{"process_io_storage_written_bytes_total", "counter", "Bytes the process had written to storage.", n})
	}
	return out
}

// residentBytes reads the process's resident memory where the system tells it.
func residentBytes() (int64, bool) {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	f := strings.Fields(string(raw))
	if len(f) < 2 {
		return 0, false
	}
	n, err := strconv.ParseInt(f[1], 10, 64)
	return n * int64(os.Getpagesize()), err == nil
}

// writtenBytes reads what the process had written to storage: pages are counted when
// they become dirty, or at once where the cache is passed by. What was cut off again
// before it was written counts too.
func writtenBytes() (int64, bool) {
	raw, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, false
	}
	return parseWritten(string(raw))
}

// parseWritten reads /proc/PID/io.
func parseWritten(s string) (int64, bool) {
	for line := range strings.Lines(s) {
		if v, ok := strings.CutPrefix(line, "write_bytes:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
