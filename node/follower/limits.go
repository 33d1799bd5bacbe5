package follower

import (
	"time"

	"github.com/facetd/facetd/facet"
)

const (
	// MaxWait bounds how long a request waits for the copy to come to its bookmark, or
	// for a checkpoint or snapshot to be in place. A member that is well is there in
	// some milliseconds, and the owner has everything at once.
	MaxWait = time.Second

	// maxViews bounds the open views: each is an open file, a SQLite connection, and up
	// to maxDirty and what a checkpoint saves for it, 12 MiB in all.
	maxViews = 64

	// maxDirty bounds the changed pages of one view (8 MiB). Above it the copy is
	// brought to its file.
	maxDirty = 8 << 20 / facet.PageSize

	// maxEntries is how many entries above its file a view is opened with: reading them
	// takes some 30 ms. With more the copy is brought to its file first.
	maxEntries = 8192

	// checkpointAgain is how long a copy is not brought to its file again after that
	// failed: its reads go to the owner meanwhile.
	checkpointAgain = 5 * time.Second

	// maxQueue bounds the requests of one facet that wait here.
	maxQueue = 1024

	// lookAgain is how soon a copy is tried again that somebody else writes to.
	lookAgain = 5 * time.Millisecond

	// askAgain is how often the owner is asked to tell what is committed while a request
	// waits for that, askSometimes while none does; askTimeout bounds one question.
	askAgain     = 100 * time.Millisecond
	askSometimes = time.Second
	askTimeout   = time.Second

	// sweepEvery is how often idle views are looked for.
	sweepEvery = time.Second

	// maxTries bounds how often a view is opened anew for one look.
	maxTries = 3
)

// DefaultIdleAfter is how long a view stays open that nobody uses.
const DefaultIdleAfter = 30 * time.Second
