package audit

import "time"

// Every bound of the package, with its reason.
const (
	// DefaultEvery is what rule R52 wants.
	DefaultEvery = time.Hour

	// maxSuspects bounds the facets looked at one by one in one comparison. What is
	// left over is looked at in the next one.
	maxSuspects = 64 << 10

	// maxWakes bounds the facets woken in one comparison, wakesAtOnce at a time: a node
	// that was away for long is caught up over some hours, as its facets are used.
	maxWakes    = 4096
	wakesAtOnce = 4
	wakeTimeout = 10 * time.Second

	// askTimeout bounds one question. Digests cost the other node a walk.
	askTimeout = 30 * time.Second

	// askPause is left between two questions about facets one by one: a thousand
	// messages of 20 kB do not come as one burst.
	askPause = 20 * time.Millisecond
)
