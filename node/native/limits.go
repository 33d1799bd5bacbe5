package native

import (
	"time"

	"github.com/facetd/facetd/internal/wire"
)

// Bounds of the server side, with their reasons. Options override some.
const (
	// DefaultMaxConns bounds the connections of one server; each costs two
	// goroutines and some ten kilobytes when idle.
	DefaultMaxConns = 16 << 10

	// maxInFlightBytes bounds the request bytes one connection keeps unanswered:
	// two of the largest requests.
	maxInFlightBytes = 2 * wire.MaxFrame

	// highWater and lowWater: with more than highWater bytes of answers waiting
	// for a client, its requests are not read until lowWater is reached, so a
	// client that does not read stops itself. What was in flight already may
	// still pile up to wire.ConnConfig.MaxPending; beyond it the connection ends.
	highWater = 8 << 20
	lowWater  = 1 << 20

	// maxTxs bounds the interactive transactions one connection holds open: each
	// holds a facet, and its end on connection loss is a request.
	maxTxs = 1024

	// txForget is when an open transaction of which nothing was heard is
	// forgotten; the engine rolled it back long before (30 s at most).
	txForget = 2 * time.Minute

	// helloTimeout bounds the time from the Upgrade to the Hello.
	helloTimeout = 10 * time.Second

	// upgradeTimeout bounds the write of the answer to the Upgrade.
	upgradeTimeout = 10 * time.Second

	// drainGrace is how long a client that was told to go away may keep an idle
	// connection. It closes the connection itself once it has its answers; a
	// server that closed first could lose a request on its way.
	drainGrace = time.Second

	// refuseAfter is the retry hint of a request refused for load or drain.
	refuseAfter = 20 * time.Millisecond

	// Buffers of a pooled call larger than these are let go.
	keepBody   = 64 << 10
	keepResult = 64 << 10
	keepSteps  = 64
)
