package lease

import (
	"time"

	"github.com/facetd/facetd/facet/quorum"
)

// watchdog compares clocks (R41). It is pure: readings come in, verdicts go out.
//
// The clock of leases must run as fast as everybody else's. Time servers may
// discipline it, by a few hundred parts in a million; more than one percent away
// from the hardware's clock means that one of them is broken, and so does a jump.
// Time the machine was suspended is none: the boot clock counts it, the other two
// do not, and so it shows as the difference of boot and monotonic clock.
type watchdog struct {
	margin time.Duration

	begun       bool
	first, last Reading // of the window, and the latest
	bad         bool
}

// verdict is what a reading means.
type verdict uint8

const (
	fine      verdict = iota
	suspended         // the machine slept: a lease from before is over
	tripped           // the clocks are not to be trusted from now on
	cleared           // they agreed for a whole window again
)

// look takes in a reading.
func (d *watchdog) look(r Reading) verdict {
	if !d.begun {
		d.begun, d.first, d.last = true, r, r
		return fine
	}
	raw, mono, boot := r.Raw-d.last.Raw, r.Mono-d.last.Mono, r.Boot-d.last.Boot
	d.last = r
	margin := quorum.Instant(d.margin)
	if abs(mono-raw) > margin+raw/watchApart || boot-mono < -margin || raw < 0 {
		return d.judge(r, true)
	}
	v := fine
	if boot-mono > margin {
		v = suspended
	}
	if raw = r.Raw - d.first.Raw; raw >= quorum.Instant(watchWindow) {
		apart := abs((r.Mono-d.first.Mono)-raw) > raw/watchApart
		if w := d.judge(r, apart); w != fine {
			v = w
		}
	}
	return v
}

// wentBack takes in that the clock of leases went back: a new window begins.
func (d *watchdog) wentBack() verdict {
	was := d.bad
	d.bad, d.begun = true, false
	if was {
		return fine
	}
	return tripped
}

// judge ends a window. One jump in it and it was a bad one.
func (d *watchdog) judge(r Reading, bad bool) verdict {
	was := d.bad
	d.bad, d.first = bad, r
	switch {
	case bad && !was:
		return tripped
	case !bad && was:
		return cleared
	}
	return fine
}

func abs(d quorum.Instant) quorum.Instant { return max(d, -d) }
