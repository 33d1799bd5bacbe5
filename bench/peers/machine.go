package main

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// machineReport is what the report says of the machine. What the system does not tell
// is empty.
type machineReport struct {
	CPU        string  `json:"cpu"`
	CPUs       int     `json:"cpus"`
	Memory     int64   `json:"memory_bytes"`
	OS         string  `json:"os"`
	Arch       string  `json:"arch"`
	Kernel     string  `json:"kernel"`
	FileSystem string  `json:"file_system"`
	Disk       string  `json:"disk"` // as the kernel calls it
	Sync       int64   `json:"fdatasync_p50_us"`
	SyncP99    int64   `json:"fdatasync_p99_us"`
	Load       float64 `json:"load_average"`
	Go         string  `json:"go"`
}

// look looks at the machine, and at the disk that holds dir.
func look(dir string) (m machineReport, err error) {
	m = machineReport{CPUs: runtime.NumCPU(), OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version(), Load: loadAverage(),
		CPU: procField("/proc/cpuinfo", "model name"), Kernel: fileText("/proc/sys/kernel/osrelease")}
	if kib, err := strconv.ParseInt(strings.TrimSuffix(procField("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		m.Memory = kib << 10
	}
	if number := deviceOf(dir); number != "" {
		m.FileSystem = fileSystem(fileText("/proc/self/mountinfo"), number)
		if at, err := filepath.EvalSymlinks("/sys/dev/block/" + number); err == nil {
			m.Disk = filepath.Base(at)
		}
	}
	m.Sync, m.SyncP99, err = syncTimes(filepath.Join(dir, "sync"))
	return m, err
}

// fileSystem finds the type of the file system on a device in the text of mountinfo.
func fileSystem(mounts, number string) string {
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(line, " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if ok && len(fields) > 2 && len(rest) > 0 && fields[2] == number {
			return rest[0]
		}
	}
	return ""
}

// syncTimes measures an overwrite of 4 KiB with fdatasync, by one writer: the median
// and the 99th percentile.
func syncTimes(name string) (p50, p99 int64, err error) {
	f, err := os.Create(name)
	if err != nil {
		return 0, 0, err
	}
	defer os.Remove(name)
	defer f.Close()
	if _, err := f.Write(make([]byte, syncSize)); err != nil {
		return 0, 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, 0, err
	}
	h, block := newHistogram(), make([]byte, syncBlock)
	for begin := time.Now(); time.Since(begin) < syncTime; {
		from := time.Now()
		block[0]++
		if _, err := f.WriteAt(block, int64(block[0])*syncBlock); err != nil {
			return 0, 0, err
		}
		if err := datasync(f); err != nil {
			return 0, 0, err
		}
		h.RecordValue(max(1, time.Since(from).Microseconds()))
	}
	return h.ValueAtPercentile(50), h.ValueAtPercentile(99), nil
}

// ownProcessor is the processor time this process has used.
func ownProcessor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// loadAverage is that of the last minute; 0 where the system does not tell.
func loadAverage() float64 {
	first, _, _ := strings.Cut(fileText("/proc/loadavg"), " ")
	x, _ := strconv.ParseFloat(first, 64) // the kernel wrote it
	return x
}

func fileText(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

func procField(file, name string) string {
	lines := strings.Split(fileText(file), "\n")
	i := slices.IndexFunc(lines, func(l string) bool {
		k, _, ok := strings.Cut(l, ":")
		return ok && strings.TrimSpace(k) == name
	})
	if i < 0 {
		return ""
	}
	_, v, _ := strings.Cut(lines[i], ":")
	return strings.TrimSpace(v)
}
