package lease

import (
	"golang.org/x/sys/unix"

	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/internal/broken"
)

// BootTime is CLOCK_BOOTTIME. Go's own monotonic clock stops in suspend, and a
// lease would outlive its end in it.
func BootTime() quorum.Instant {
	if broken.Is(broken.Suspend) {
		return gettime(unix.CLOCK_MONOTONIC)
	}
	return gettime(unix.CLOCK_BOOTTIME)
}

// readClocks reads what the watchdog compares.
func readClocks() Reading {
	return Reading{Boot: gettime(unix.CLOCK_BOOTTIME), Mono: gettime(unix.CLOCK_MONOTONIC), Raw: gettime(unix.CLOCK_MONOTONIC_RAW)}
}

func gettime(clock int32) quorum.Instant {
	var ts unix.Timespec
	if fastGettime(clock, &ts) {
		return skewed(clock, quorum.Instant(ts.Nano()))
	}
	if err := unix.ClockGettime(clock, &ts); err != nil {
		panic("read clock: " + err.Error()) // these clocks are older than any kernel Go runs on
	}
	return skewed(clock, quorum.Instant(ts.Nano()))
}
