package lease

import "github.com/facetd/facetd/facet/quorum"

// Clock reads the clock leases are counted on: it goes on while the machine is
// suspended, and nobody sets it (R37).
type Clock func() quorum.Instant

// Reading is one look at the three clocks the watchdog compares.
type Reading struct {
	Boot quorum.Instant // the clock of leases
	Mono quorum.Instant // the same without suspended time
	Raw  quorum.Instant // the hardware's, which nobody disciplines
}

// readTogether takes a reading in which nothing came between.
func readTogether(read func() Reading, boot Clock) (r Reading, ok bool) {
	for range readTries {
		r = read()
		if boot()-r.Boot <= quorum.Instant(readWithin) {
			return r, true
		}
	}
	return r, false
}
