package client

import "time"

// Bounds of the SDK, with their reasons.
const (
	// defaultDialTimeout bounds connecting and the handshake: what is longer than
	// this across a cluster is a node that vanished, and its facets move in 1.6 s.
	defaultDialTimeout = time.Second

	// defaultRetryFor bounds how long one call is retried when its context has no
	// deadline: much longer than a failover takes, and not for ever.
	defaultRetryFor = 30 * time.Second

	// defaultPingInterval is how long a node may be silent before it is asked for a
	// sign of life. After three times this the connection is given up, which is
	// about when the facets of a node that vanished are served by others.
	defaultPingInterval = 600 * time.Millisecond

	// defaultConns is Options.ConnsPerNode where none is given.
	defaultConns = 2

	// laneFull is how many requests under way make another connection worth while.
	laneFull = 24

	// maxRedirects bounds redirects in a row without a pause: more mean that
	// ownership is moving, and asking faster does not help.
	maxRedirects = 4

	// maxTries bounds the tries of one call whatever the time: an hour of them.
	maxTries = 1 << 16

	// backoffMin and backoffMax bound the pause between tries: the first is for a
	// facet whose owner is about to be known, the last is what a failover may
	// take longer because of it. maxHint bounds what a node may ask for.
	backoffMin = 2 * time.Millisecond
	backoffMax = 100 * time.Millisecond
	maxHint    = 2 * time.Second

	// redialMin and redialMax bound how often a node that cannot be reached is
	// dialed again. Nobody waits for these dials.
	redialMin = 20 * time.Millisecond
	redialMax = 500 * time.Millisecond

	// surveyEvery is how long the list of the cluster's nodes is good enough,
	// surveyTimeout bounds asking for it.
	surveyEvery   = 10 * time.Second
	surveyTimeout = 5 * time.Second

	// renewMargin is how long before the end of its token a connection is left at
	// most; with less than renewLeast left it is used until the node ends it, or a
	// source that has nothing newer would be asked faster and faster.
	renewMargin = time.Minute
	renewLeast  = 5 * time.Second

	// maxExpiry is the end of the year 9999, in seconds.
	maxExpiry = 253402300799

	// keyCounters is the number of counters of idempotency keys: 32 KiB a client.
	keyCounters = 4096

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

	// maxPEM bounds a file of certificates.
	maxPEM = 1 << 20

	// listPage is the page size of List.
	listPage = 1000
)
