package bench

import (
	"os"
	"strconv"
	"strings"
)

// machine tells what the report says of this machine, empty where the system does
// not tell.
func machine() (cpu string, memory int64) {
	cpu = procField("/proc/cpuinfo", "model name")
	if kib, err := strconv.ParseInt(strings.TrimSuffix(procField("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		memory = kib << 10
	}
	return cpu, memory
}

func procField(file, name string) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(raw)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
