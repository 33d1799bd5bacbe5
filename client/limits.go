package client

import "time"

// Bounds of the SDK, with their reasons.
const (
	// defaultDialTimeout bounds connecting and the handshake.
	defaultDialTimeout = 5 * time.Second

	// defaultRetryFor bounds how long one call is retried when its context does
	// not end it earlier: longer than a failover takes, short enough for a person.
	defaultRetryFor = 15 * time.Second

	// defaultConns is Options.ConnsPerNode where none is given.
	defaultConns = 2

	// maxRedirects bounds redirects in a row without a pause: more mean that
	// ownership is moving, and asking faster does not help.
	maxRedirects = 4

	// maxTries bounds the tries of one call whatever the time.
	maxTries = 100

	// backoffMin and backoffMax bound the pause between tries.
	backoffMin = 5 * time.Millisecond
	backoffMax = 500 * time.Millisecond

	// redialMin and redialMax bound how often a node that cannot be reached is
	// dialed again.
	redialMin = 20 * time.Millisecond
	redialMax = 2 * time.Second

	// maxNodes bounds the nodes a client keeps connections to.
	maxNodes = 256

	// maxOwners bounds the placement cache, in facets.
	maxOwners = 64 << 10

	// defaultMaxResult bounds the bytes of one answer: four times the server's
	// default bound on a result.
	defaultMaxResult = 128 << 20

	// largeFrame is the request length from which requests queue one after the
	// other, so that the connection's write queue stays bounded; maxQueued is how
	// much may be queued when one of them is added.
	largeFrame = 4 << 10
	maxQueued  = 8 << 20

	// keepBuffer is the largest buffer a pooled call keeps.
	keepBuffer = 64 << 10

	// maxColumnCache bounds the column lists remembered, in entries; a full cache
	// starts over. maxCachedColumns bounds one, encoded.
	maxColumnCache   = 4 << 10
	maxCachedColumns = 1 << 10

	// rollbackTimeout bounds the rollback of a transaction whose context ended.
	rollbackTimeout = 5 * time.Second

	// maxErrorBody bounds an HTTP error body, maxInfoBody a management answer.
	maxErrorBody = 64 << 10
	maxInfoBody  = 8 << 20

	// listPage is the page size of List.
	listPage = 1000
)
