//go:build linux && amd64

package lease

import (
	"io"
	"runtime"
	"runtime/pprof"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFastClock compares the clock read without the kernel with what the kernel
// says before and after, in goroutines with small stacks, while the garbage
// collector moves stacks and the profiler interrupts.
func TestFastClock(t *testing.T) {
	if vdsoGettime() == 0 {
		t.Skip("this kernel maps no clock_gettime")
	}
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Fatal(err)
	}
	defer pprof.StopCPUProfile()
	kernel := func(clock int32) int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(clock, &ts); err != nil {
			t.Error(err)
		}
		return ts.Nano()
	}
	var wg sync.WaitGroup
	for range 2000 {
		wg.Go(func() {
			for _, clock := range []int32{unix.CLOCK_BOOTTIME, unix.CLOCK_MONOTONIC, unix.CLOCK_MONOTONIC_RAW} {
				for range 20 {
					var ts unix.Timespec
					before := kernel(clock)
					if !fastGettime(clock, &ts) {
						t.Errorf("clock %d cannot be read", clock)
						return
					}
					if now, after := ts.Nano(), kernel(clock); now < before || now > after {
						t.Errorf("clock %d says %d, the kernel %d before and %d after", clock, now, before, after)
						return
					}
				}
			}
		})
		if runtime.NumGoroutine() > 500 {
			runtime.GC()
		}
	}
	wg.Wait()
}

func BenchmarkBootTime(b *testing.B) {
	for b.Loop() {
		BootTime()
	}
}
