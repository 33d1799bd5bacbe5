package scrub

import "time"

// Every bound of the package, with its reason.
const (
	// DefaultEvery is what rule R52 promises.
	DefaultEvery = 7 * 24 * time.Hour
	// DefaultRate is the most bytes read in a second: far below what a disk gives, and
	// eight terabytes in six days.
	DefaultRate = 16 << 20
	// MinRate reads something at all.
	MinRate = 64 << 10

	parts = 256

	// shortest is how soon a part is read again at the soonest, so that a node without
	// data does not turn in circles.
	shortest = 100 * time.Millisecond

	// saveEvery bounds how often the times are written. Parts of the usual interval are
	// half an hour apart, and each is saved.
	saveEvery = time.Minute

	// tries and tryPause are for files that are just being written.
	tries    = 3
	tryPause = 5 * time.Second

	// burst is the debt of the pace below which nobody sleeps.
	burst = 20 * time.Millisecond

	// lateEvery is how often it is said that the pace is too slow.
	lateEvery = 24 * time.Hour
)
