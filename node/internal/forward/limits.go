package forward

import "time"

const (
	// MaxHops bounds how often one request is carried on. One is the rule; more
	// happen while nodes have not all heard of a move, and many are a loop.
	MaxHops = 3

	// maxUnderWay bounds the requests a node carries at once. What exceeds it is
	// refused at once: waiting for each other is how two nodes would deadlock.
	maxUnderWay = 4096

	// dialTimeout bounds connecting to another node: what takes longer across a
	// cluster is a node that vanished.
	dialTimeout = time.Second

	// A connection that is silent for pingAfter is asked for a sign of life and
	// given up after pingTimeout without one, so that nobody waits long for a node
	// that vanished.
	pingAfter   = 600 * time.Millisecond
	pingTimeout = 1200 * time.Millisecond

	// idleTimeout is how long an unused connection to a node is kept.
	idleTimeout = 90 * time.Second

	// copyLen is how much of an answer is in memory at once.
	copyLen = 32 << 10

	// stallTimeout is how long the client may take no byte of an answer.
	stallTimeout = 30 * time.Second
)
