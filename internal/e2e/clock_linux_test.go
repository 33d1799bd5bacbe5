package e2e

import (
	"os"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// machineClock is how wrong the clocks of one machine are. It is a file that the node
// looks at, if it was built with facetd_faults; package node/lease has its layout.
type machineClock struct {
	t    testing.TB
	path string
	mem  *[clockWords]int64
}

const clockWords = 7

// The clocks: the boot clock leases are counted on, alone or with those it is compared
// with.
const (
	bootClock = 1 << unix.CLOCK_BOOTTIME
	allClocks = bootClock | 1<<unix.CLOCK_MONOTONIC | 1<<unix.CLOCK_MONOTONIC_RAW
)

func newMachineClock(t testing.TB, path string) *machineClock {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = clockWords * 8
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return &machineClock{t: t, path: path, mem: (*[clockWords]int64)(unsafe.Pointer(unsafe.SliceData(mem)))}
}

// set has the clocks jump by so many nanoseconds, and win so many in every second from
// now on.
func (m *machineClock) set(clocks, jump, rate int64) {
	m.t.Helper()
	var now [3]int64
	for i, id := range []int32{unix.CLOCK_BOOTTIME, unix.CLOCK_MONOTONIC, unix.CLOCK_MONOTONIC_RAW} {
		var ts unix.Timespec
		if err := unix.ClockGettime(id, &ts); err != nil {
			m.t.Fatal(err)
		}
		now[i] = ts.Nano()
	}
	since := now[0] - m.mem[4]
	ahead := m.mem[2] + since/1e9*m.mem[3] + since%1e9*m.mem[3]/1e9
	if m.mem[1] != clocks && m.mem[1] != 0 {
		ahead = 0 // what one of them was ahead the others are not
	}
	atomic.AddInt64(&m.mem[0], 1)
	atomic.StoreInt64(&m.mem[1], clocks)
	atomic.StoreInt64(&m.mem[2], ahead+jump)
	atomic.StoreInt64(&m.mem[3], rate)
	for i, t := range now {
		atomic.StoreInt64(&m.mem[4+i], t)
	}
	atomic.AddInt64(&m.mem[0], 1)
}

// steady ends a wrong rate; what the clocks are ahead stays.
func (m *machineClock) steady() { m.set(m.mem[1], 0, 0) }
