//go:build facetd_faults

package lease

import (
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/facetd/facetd/facet/quorum"
)

// skew is how wrong the clocks of this machine are: a file that a test shares with
// this process and changes at any time (internal/e2e). A release has none of this.
//
//	0   8  version, odd while the rest changes
//	8   8  set of clocks that are off, a bit for each clock id
//	16  8  nanoseconds they are ahead at their base
//	24  8  nanoseconds they win in a second since then
//	32  8  base of the boot clock; 40 of the monotonic, 48 of the raw one
type skew struct {
	version, clocks, ahead, rate atomic.Int64
	base                         [3]atomic.Int64
}

// skewEnv names the file.
const skewEnv = "FACETD_FAULTS_CLOCK"

var skewFile = sync.OnceValue(func() *skew {
	name := os.Getenv(skewEnv)
	if name == "" {
		return nil
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		panic("open the file of clock faults: " + err.Error())
	}
	defer f.Close() // the mapping stays
	mem, err := unix.Mmap(int(f.Fd()), 0, int(unsafe.Sizeof(skew{})), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		panic("map the file of clock faults: " + err.Error())
	}
	return (*skew)(unsafe.Pointer(unsafe.SliceData(mem)))
})

// skewed is what a clock that is off shows at the time t.
func skewed(clock int32, t quorum.Instant) quorum.Instant {
	s := skewFile()
	if s == nil {
		return t
	}
	var base *atomic.Int64
	switch clock {
	case unix.CLOCK_BOOTTIME:
		base = &s.base[0]
	case unix.CLOCK_MONOTONIC:
		base = &s.base[1]
	default:
		base = &s.base[2]
	}
	for {
		v := s.version.Load()
		on, ahead, rate, from := s.clocks.Load()&(1<<clock) != 0, s.ahead.Load(), s.rate.Load(), base.Load()
		if v%2 != 0 || s.version.Load() != v {
			continue
		}
		if !on {
			return t
		}
		since := int64(t) - from
		return t + quorum.Instant(ahead+since/1e9*rate+since%1e9*rate/1e9)
	}
}
