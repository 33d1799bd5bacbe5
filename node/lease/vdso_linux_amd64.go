package lease

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Every read looks at the clock (R33), and golang.org/x/sys asks the kernel for
// it: a system call, a twelfth of all the time a read takes. The kernel maps code
// that answers without one into every process, the vDSO (vdso(7)); Go's runtime
// uses it for its own clocks, which are not the one of leases.

// vdsoGettime is the address of that code, 0 where there is none. It is looked up when
// a clock is read first: most commands of the binary never do.
var vdsoGettime = sync.OnceValue(func() uintptr { return findVDSO("__vdso_clock_gettime") })

// fastGettime reads the clock without entering the kernel, unless it reports false.
func fastGettime(clock int32, ts *unix.Timespec) bool {
	at := vdsoGettime()
	return at != 0 && callVDSO(at, clock, ts) == 0
}

// callVDSO calls clock_gettime at fn. It runs on the goroutine's stack, grown to
// what the kernel's code could ever need.
//
//go:noescape
func callVDSO(fn uintptr, clock int32, ts *unix.Timespec) int32

// findVDSO looks a function of the vDSO up, and returns 0 where that fails: the
// system call does the same.
func findVDSO(name string) uintptr {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		if !strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			continue
		}
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil || to <= from {
			return 0
		}
		// The kernel's own memory, which never moves and never goes.
		image := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&from))), to-from)
		file, err := elf.NewFile(bytes.NewReader(image))
		if err != nil {
			return 0
		}
		symbols, err := file.DynamicSymbols()
		if err != nil {
			return 0
		}
		for _, s := range symbols {
			if s.Name == name && s.Value != 0 && s.Value < uint64(to-from) {
				return from + uintptr(s.Value) // the image is linked at address 0
			}
		}
	}
	return 0
}
