package hrana

import (
	"time"

	"github.com/facetd/facetd/facet"
)

const (
	// MaxBodyLen bounds one request body: the largest request, whose blobs take
	// a third more in base64.
	MaxBodyLen = facet.MaxRequestLen * 4 / 3

	// MaxRequests bounds the requests of one pipeline.
	MaxRequests = 4096

	// MaxPipelineSteps bounds the statements of one pipeline, over all its
	// batches: what they decode to is larger than their text.
	MaxPipelineSteps = 16384

	// MaxConditions bounds the condition nodes of one pipeline, for the same
	// reason.
	MaxConditions = 65536

	// MaxStreams bounds the table of streams. A client's connection pool holds
	// one per connection; an entry is about 300 bytes.
	MaxStreams = 65536

	// MaxStoredTexts and MaxStoredLen bound the SQL texts stored by one stream.
	MaxStoredTexts = 256
	MaxStoredLen   = facet.MaxSQLLen

	// MaxStoredTotal bounds the SQL texts stored by all streams, in bytes.
	MaxStoredTotal = 64 << 20

	// abandonedTx is how long a stream that was left in a transaction stays when
	// the table is full. By then the service has long ended the transaction.
	abandonedTx = 10 * time.Minute

	// closeTimeout bounds the rollback of a transaction whose stream is closed.
	closeTimeout = 10 * time.Second

	// forwardFor is how long a request waits for an owner that can be reached: a
	// failover takes 1.6 s, and stock clients do not try again. Between it looks
	// again after forwardPauseMin, doubling to forwardPauseMax.
	forwardFor      = 5 * time.Second
	forwardPauseMin = 5 * time.Millisecond
	forwardPauseMax = 100 * time.Millisecond

	// maxBatonLen is longer than any baton made here.
	maxBatonLen = 128

	// maxShown is how much of a foreign string an error message repeats.
	maxShown = 60
)
