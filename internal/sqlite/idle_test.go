package sqlite

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

func rss() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	n, _ := strconv.ParseInt(f[1], 10, 64)
	return n * int64(os.Getpagesize())
}

// BenchmarkIdleConnections reports what one open idle connection costs: resident
// memory, and what its account says, fresh and after ReleaseMemory and Park.
func BenchmarkIdleConnections(b *testing.B) {
	if runtime.GOOS != "linux" {
		b.Skip("reads /proc")
	}
	testVFS()
	name := newName(b)
	setup, err := Open(name, bridged)
	if err != nil {
		b.Fatal(err)
	}
	exec(b, setup, "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, v TEXT); CREATE INDEX i ON t(a); CREATE TABLE u(id INTEGER PRIMARY KEY, x, y); INSERT INTO t VALUES(1,1,'x')")
	if err := setup.Close(); err != nil {
		b.Fatal(err)
	}
	for _, mode := range []struct {
		name string
		opts Options
		park bool
		free bool
	}{
		{"open", Options{VFS: "test", Exclusive: true, CacheSize: 50}, false, false},
		{"parked", Options{VFS: "test", Exclusive: true, CacheSize: 50}, true, false},
		{"parked,released", Options{VFS: "test", Exclusive: true, CacheSize: 50}, true, true},
		{"lookaside1200x40", Options{VFS: "test", Exclusive: true, CacheSize: 50, LookasideSize: 1200, LookasideCount: 40}, false, false},
	} {
		b.Run(mode.name, func(b *testing.B) {
			const n = 1000
			var per, used float64
			for b.Loop() {
				debug.FreeOSMemory()
				before := rss()
				conns := make([]*Conn, n)
				for i := range conns {
					c, err := Open(name, mode.opts)
					if err != nil {
						b.Fatal(err)
					}
					s := prep(b, c, "SELECT v FROM t WHERE id=?")
					if _, err := s.Step(); err != nil {
						b.Fatal(err)
					}
					s.Reset()
					if mode.free {
						if err := s.Finalize(); err != nil {
							b.Fatal(err)
						}
						c.ReleaseMemory()
					}
					if mode.park {
						c.Park()
					}
					conns[i] = c
				}
				debug.FreeOSMemory()
				per = float64(rss()-before) / n
				used = float64(conns[0].MemoryUsed())
				for _, c := range conns {
					if err := c.Close(); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(per/1024, "KiB-rss/conn")
			b.ReportMetric(used/1024, "KiB-used/conn")
		})
	}
}
