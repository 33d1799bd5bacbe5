package gossip

import (
	"time"

	"github.com/facetd/facetd/cluster"
)

// Every bound of this package, with its reason. What is set by Config is bound
// in Config.validate.
const (
	// maxMeta is what the library lets a node tell about itself. It panics
	// above that, so a longer meta never reaches it.
	maxMeta = 512

	// maxMembers bounds the members known, gone ones included.
	maxMembers = cluster.MaxNodes

	// maxKeys bounds the ring: a datagram nobody can read is tried with every
	// key of it. A rotation needs two.
	maxKeys = 8

	// maxSeeds bounds Config.Join. Seeds are a way in, not a list of members.
	maxSeeds = 64

	// maxLabel leaves room for the payload in a datagram.
	maxLabel = 64

	// maxJoinAddrs bounds the addresses tried in one round, because a name may
	// resolve to any number of them.
	maxJoinAddrs = 32

	// joinWorkers is how many addresses are tried at once: a seed that swallows
	// packets must not hold up the ones behind it.
	joinWorkers = 4

	// maxRejoin is how many lost members and seeds are tried in one round while
	// others are in sight. One would do to heal a partition.
	maxRejoin = 3

	// maxFollowUps bounds the quick rounds after a seed answered and somebody is
	// still missing: what one side says about the other is only refuted in the
	// first exchange, and heard in the second.
	maxFollowUps = 3

	// settleRounds is how many more exchanges of states a node begins right after
	// it found others. When many start at once, news are not passed on often
	// enough to reach all, and the regular exchange is half a minute away.
	settleRounds = 2

	// maxDatagram is the largest payload sent in one datagram: it fits the
	// smallest IPv6 packet, whatever tunnel is on the way.
	maxDatagram = 1200

	// maxReadDatagram is the largest UDP payload there is.
	maxReadDatagram = 65535

	// maxStreams bounds the streams open at once, so that strangers who connect
	// and say nothing cost a bounded number of goroutines.
	maxStreams = 256

	// maxStreamBytes bounds what is read from one stream: the state of the
	// largest cluster is under 1 MiB.
	maxStreamBytes = 4 << 20

	// packetQueue and streamQueue are handed over to the library.
	packetQueue = 256
	streamQueue = 16

	// handoffDepth is the library's queue of messages to apply, each a datagram
	// at most.
	handoffDepth = 1024

	// reportQueue bounds log lines and alarms waiting for the reporter; more are
	// dropped and counted.
	reportQueue = 256

	// maxAlarmKeys bounds the memory of which alarm was raised when.
	maxAlarmKeys = 256

	// alarmRepeat is how soon the same alarm is raised again.
	alarmRepeat = time.Minute

	// maxLinesPerSecond bounds what the library writes to the log: anybody can
	// send it datagrams to complain about.
	maxLinesPerSecond = 10

	// maxPortTries bounds the search for a port free for both UDP and TCP when
	// any port will do.
	maxPortTries = 10

	// leaveTimeout bounds Leave when its context has no end.
	leaveTimeout = 5 * time.Second

	// announceTimeout bounds the wait for an update to be sent; it goes on
	// spreading after that.
	announceTimeout = time.Second

	// readErrorPause keeps a broken socket from turning a goroutine into a spin.
	readErrorPause = 50 * time.Millisecond
)
