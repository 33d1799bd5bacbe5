package lease

import (
	"time"

	"github.com/facetd/facetd/facet/quorum"
)

// Every bound of the package, with its reason.
const (
	// maxInFlight bounds the renewals of one holder without an answer: as many as
	// are sent within one TTL. Older answers are worth nothing.
	maxInFlight = 4

	// retryAfter is how soon a renewal that found no leader is sent again: between
	// two elections that takes, and what a lease may lose.
	retryAfter = 100 * time.Millisecond

	// RoundEvery is the least time between two rounds of grants, each of which is
	// an entry of the placement log: 5 a second however many nodes there are, half of
	// what renewals out of phase would make, and nothing that a lease of 1.5 s would
	// miss.
	RoundEvery = 200 * time.Millisecond

	// silentAfter is how long a new leader waits for the answer to one of its
	// heartbeats: some of them, at the default of 40 to 80 ms between two.
	silentAfter = 400 * time.Millisecond

	// A leader looks every listenEvery who has answered a heartbeat since, and takes
	// a node for gone that it found silent silentTimes in a row: half a lease, and ten
	// heartbeats at the least. Its facets are recovered elsewhere while its lease runs
	// out. silentAtFirst is for nodes that never answered this leader. One without a
	// connection counts twice.
	listenEvery   = 100 * time.Millisecond
	silentTimes   = 8
	silentAtFirst = 5

	// maxAskers bounds the callers that wait for a judgement: the facets of a lost
	// node, asked for more than once.
	maxAskers = 32 << 10

	// maxBatches bounds the entries of judged commands on their way: while one is
	// written the next one gathers.
	maxBatches = 2

	// batchCommands bounds the commands of one of them, as package consensus does.
	batchCommands = 512

	// ServeWait bounds how long a command of another node waits for its judgement:
	// two leases. The node asks again.
	ServeWait = 4 * time.Second

	// maxAccepts bounds the proposals other nodes have under way here. Each holds
	// up to 512 commands and a goroutine.
	maxAccepts = 1024

	// watchWindow and watchApart: clocks that run more than one percent apart over
	// ten seconds are not trusted (R41). watchEvery is how often they are read.
	watchWindow = 10 * time.Second
	watchApart  = 100 // one part in
	watchEvery  = time.Second

	// echoSlots of echoSlot are how far back a clock is compared with the granter's: the
	// tightest exchange of each. Three windows, so that clocks can be found to agree
	// over a network that takes up to 150 ms there and back. maxEcho bounds what a clock
	// may show: 146 years, and differences of differences fit.
	echoSlot  = time.Second
	echoSlots = 32
	echoKept  = quorum.Instant(echoSlots * echoSlot)
	maxEcho   = quorum.Instant(1) << 62

	// readTries and readWithin: three clocks cannot be read at once. A reading that
	// took longer, because something came between, is taken again.
	readTries  = 4
	readWithin = 2 * time.Millisecond
)
