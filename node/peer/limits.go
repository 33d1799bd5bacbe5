package peer

import (
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
)

// Every bound of the protocol, with its reason.
const (
	// MaxItems bounds the items of one frame and of one call: ten thousand facets
	// of a lost node are twenty messages, and none keeps the reader busy for long.
	MaxItems = 512

	// MaxCommand bounds one forwarded placement command and one result.
	MaxCommand = 64 << 10

	// MaxExchange bounds a question of Exchange and its answer: nodes that found a
	// cluster tell one another of at most a few dozen others.
	MaxExchange = 16 << 10

	// MaxFetch bounds the bytes of entries one FETCH is answered with; a single
	// entry may be longer.
	MaxFetch = 4 << 20

	// DefaultFetch is what a FETCH without a bound asks for.
	DefaultFetch = 1 << 20

	// maxFrame is the longest body: one entry with all its pages, and what
	// surrounds it. A batch of commands is far below.
	maxFrame = facet.MaxCommitBytes + 64<<10

	// maxProposal bounds the commands of one PROPOSE together.
	maxProposal = 4 << 20

	// batchBody is where a batch of small items is cut. Below the read buffer of
	// package wire, so that no batch costs memory of its own.
	batchBody = 16 << 10

	// chunkLen is one write to the socket while more is waiting.
	chunkLen = 64 << 10

	// freeChunks of each connection are kept for the next writes.
	freeChunks = 4

	// slots of each direction remember facets, so that a steady stream of
	// commits names them with two bytes. 4,096 times 56 bytes a connection.
	slots = 4096

	// snapshotPages are sent in one frame, which fits the read buffer of
	// package wire.
	snapshotPages = 15

	// Appends waiting for one peer, by number and by bytes. Two bounds because a
	// commit has between 100 bytes and 68 MiB; the first one may be of any size.
	DefaultQueueItems = 64 << 10
	DefaultQueueBytes = 16 << 20

	// maxReplies bounds the bytes of answers waiting for a peer that asked: one
	// fetched entry of any size, and half a million acknowledgements. A peer that
	// leaves more unread is disconnected.
	maxReplies = maxFrame + 32<<20

	// fetchHigh is where the next entry waits for the peer to take those before.
	fetchHigh = 1 << 20

	// maxFetches bounds the FETCHes one peer has under way here; each reads the
	// log.
	maxFetches = 16

	// maxOrders bounds the ORDERs one peer has under way here: each may move a
	// facet, and more at once would not end sooner.
	maxOrders = 64

	// maxUses bounds the USEs one peer has under way here: each may walk over all facets
	// of a tenant.
	maxUses = 16

	// maxCalls bounds the calls one peer has not answered yet.
	maxCalls = 4096

	// maxConns bounds the connections accepted: three of each kind from the
	// largest cluster. maxGreeting of them may be unknown yet.
	maxConns    = 3 * 1024
	maxGreeting = 256

	// maxTransfers bounds the snapshots received at once: each has a file open and
	// competes for the disk.
	maxTransfers = 16

	// maxPeers bounds the peers of one transport: twice the largest cluster, for
	// nodes that have been replaced.
	maxPeers = 2 * 1024

	// maxText bounds the text of an error.
	maxText = 256
)

const (
	// pingInterval is how often a silent peer is asked for a sign of life. Package
	// wire gives up after three of them: 3.9 to 4.9 s.
	pingInterval = 1300 * time.Millisecond

	// writeTimeout bounds one write, which may hold a commit of 68 MiB. A peer
	// that vanished is noticed by its silence, long before.
	writeTimeout = 30 * time.Second

	// signBytes and signInterval: while a long frame comes in, the sender is given
	// a sign of life, for its own questions wait behind that frame.
	signBytes    = 64 << 10
	signInterval = time.Second

	// maxPending is what package wire may hold for one connection: twice the
	// largest frame, above the queues bounded here.
	maxPending = 2*maxFrame + 2*maxReplies

	// dialTimeout bounds the connection, greetTimeout the greeting after it: a
	// few round trips and, with TLS, a few signatures.
	dialTimeout  = 2 * time.Second
	greetTimeout = 3 * time.Second

	// Backoff of dialling: doubled from first to last, plus or minus a quarter. A
	// failover waits for a promise within a second or two, so last is short.
	backoffFirst = 50 * time.Millisecond
	backoffLast  = time.Second

	// stable is how long a connection must have lived for the backoff to start
	// over.
	stable = 5 * time.Second

	// redialFor is how long a peer nobody asks for is dialled again.
	redialFor = 30 * time.Second

	// resumeWithin is how long half a snapshot waits for its sender to come back.
	resumeWithin = 30 * time.Second

	// maxFruitless is how many times in a row a snapshot is offered again without
	// a page having been taken.
	maxFruitless = 8

	// refusalLog is the least time between two log lines about refused
	// connections: a mistaken neighbour dials every second.
	refusalLog = 10 * time.Second

	// TCP keepalive, for connections that are handed to Raft and may be idle.
	keepIdle     = 2 * time.Second
	keepInterval = time.Second
	keepCount    = 3
)

func connConfig() wire.ConnConfig {
	return wire.ConnConfig{
		PingInterval: pingInterval, WriteTimeout: writeTimeout, MaxPending: maxPending, MaxFrame: maxFrame,
	}
}
