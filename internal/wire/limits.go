package wire

import (
	"time"

	"github.com/facetd/facetd/facet"
)

// Every bound of the protocol, with its reason.
const (
	// MaxFrame is the longest body either side may send. It holds the largest
	// request and the largest single result item with room for what surrounds
	// them; a server may announce less for requests, never more.
	MaxFrame = facet.MaxRequestLen + 64<<10

	// MaxHello bounds every frame until the handshake is over, so that a peer
	// that has shown nothing yet cannot make this side hold much.
	MaxHello = 16 << 10

	// MaxToken bounds a token; it leaves room for the rest of a Hello.
	MaxToken = 8 << 10

	// MaxLabel bounds names of software, nodes and clusters in the handshake.
	MaxLabel = 256

	// MaxPing bounds what a ping carries. The answer is as long, so a larger one
	// would let a peer queue much with little.
	MaxPing = 4 << 10

	// ChunkLen is where an answer is cut: small enough that a large result does
	// not keep small answers of the same connection waiting, large enough that
	// its framing costs nothing.
	ChunkLen = 64 << 10

	// MaxConditions bounds the nodes of all conditions of one request: a decoded
	// node is forty bytes for one byte on the wire.
	MaxConditions = 4 * facet.MaxSteps

	// MaxNames bounds the parameter names of one request, for the same reason.
	MaxNames = 4 * facet.MaxArgs

	// maxParamName bounds one parameter name: SQLite's own identifiers have no
	// bound but the SQL text's; nobody types more than this.
	maxParamName = 1 << 10

	// maxInterned bounds each table of strings a connection remembers. A table
	// that is full forgets one entry for every new one.
	maxInterned = 4 << 10

	// MaxErrorLen bounds the text of an error on the wire.
	MaxErrorLen = 4 << 10

	// DefaultMaxInFlight is how many requests a client may have unanswered on one
	// connection when the server does not say otherwise.
	DefaultMaxInFlight = 1024

	// readBufMin and readBufMax bound the read buffer. It begins small, because
	// idle connections are many, and doubles when a read fills it.
	readBufMin = 4 << 10
	readBufMax = 64 << 10

	// writeBufKeep is the largest write buffer kept for the next batch.
	writeBufKeep = 256 << 10

	// writePiece is the most one write to the socket has, so that progress is seen
	// over slow links.
	writePiece = 128 << 10

	// corkLen is how much may gather while the reader works through a batch
	// before the writer is woken anyway.
	corkLen = 64 << 10
)

// Defaults of ConnConfig.
const (
	DefaultPingInterval = 5 * time.Second
	DefaultWriteTimeout = 15 * time.Second
	DefaultMaxPending   = 64 << 20
	silentPings         = 3 // intervals without a byte after which the peer is gone
)
