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
// left out; so is write_bytes of /proc/self/io, which counts whole folios: with a file
// system that has large ones a write of 4 KiB was seen to count as 1 MiB.
func process() (out []processMetric) {
	if rss, ok := residentBytes(); ok {
		out = append(out, processMetric{"process_resident_memory_bytes", "gauge", "Resident memory of the process.", rss})
	}
	if cpu, ok := cpuTime(); ok {
		out = append(out, processMetric{"process_cpu_seconds_total", "counter", "Processor time of the process, user and system.", strconv.FormatFloat(cpu.Seconds(), 'f', 6, 64)})
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
