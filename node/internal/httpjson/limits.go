package httpjson

import "time"

const (
	// MaxDepth bounds the nesting of a JSON document. The deepest legal one is a
	// Hrana condition (facet.MaxConditionDepth, two levels each) inside a batch
	// inside a pipeline.
	MaxDepth = 64

	// DefaultBudget bounds the bytes of request bodies held in memory at once,
	// over all requests: eight of the largest ones.
	DefaultBudget = 256 << 20

	// firstRead is what a body gets before its sender has proved to send more. A
	// Content-Length is a claim, not a reason to allocate.
	firstRead = 16 << 10

	// keepBuffer is the largest buffer that goes back to a pool.
	keepBuffer = 256 << 10

	// chunkLen is how much of an answer is gathered before it is sent, and so
	// also what one answer under way costs beside its result.
	chunkLen = 32 << 10

	// stallTimeout is how long a peer may neither send nor take a byte, and how much he
	// may be behind minPace, in bytes a second: what the slowest of modems had.
	stallTimeout = 30 * time.Second
	minPace      = 1 << 10

	// maxNames bounds the fields of an object that is no list of arguments: no kind of
	// request has half as many.
	maxNames = 32

	// maxShown is how much of a foreign string an error message repeats.
	maxShown = 60
)
