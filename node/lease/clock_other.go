//go:build !linux

package lease

import (
	"time"

	"github.com/facetd/facetd/facet/quorum"
)

var start = time.Now()

// BootTime is Go's monotonic clock: on systems other than Linux facetd is for
// development, and leases do not survive a suspend there unharmed.
func BootTime() quorum.Instant { return quorum.Instant(time.Since(start)) }

func readClocks() Reading {
	t := BootTime()
	return Reading{t, t, t}
}
