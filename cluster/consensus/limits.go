package consensus

import "time"

// Every bound of the package, with its reason.
const (
	// MaxBatch is the most commands in one log entry.
	MaxBatch = 512

	// MaxCommandLen bounds one command. It keeps an entry of one command
	// within MaxEntryBytes.
	MaxCommandLen = 64 << 10

	// MaxEntryBytes bounds one log entry, so that an append message to another
	// node (maxAppendEntries of them) stays at 4 MiB.
	MaxEntryBytes    = 256 << 10
	maxAppendEntries = 16

	// maxQueue bounds the proposals that wait for the batch in flight. Beyond
	// it callers wait to get in, with their context.
	maxQueue = 2048

	// defaultSnapshotBytes of log since the last snapshot cause the next one.
	// It bounds the log file, what it adds to resident memory, and the replay
	// at start: 4 MiB are some 35,000 commands in batches, or 15,000 in entries of
	// their own. When the last snapshot was
	// larger, its size is taken instead, so that writing snapshots never costs
	// more than writing the log.
	defaultSnapshotBytes = 4 << 20

	// defaultTrailing entries stay in the log behind a snapshot, for members
	// that lag a little.
	defaultTrailing = 256

	// entryCost is what an entry takes beside its commands, in memory and in the
	// log file with its half-empty pages. Renewals of leases are entries of a few
	// bytes; without it the log of a day of them would cause no snapshot.
	entryCost = 256

	// logRoom is what the log file is extended to have left, half of it what it
	// always has: twice what causes a snapshot, since pages are half full, so that
	// a disk that fills up now leaves the time to take one.
	logRoom = 16 << 20

	// logFloor of that is not for entries, but for the term, the vote and the cut
	// behind a snapshot. The cut is the largest: it may rewrite two leaves of four
	// entries of MaxEntryBytes.
	logFloor = 3 << 20

	// logRewrite is what writing entries rewrites beside them: the last leaf, of
	// four entries at most or one page, and the path to it.
	logRewrite = 4*(MaxEntryBytes+entryCost) + 64<<10

	// entryPages is what an entry takes beside its data: its headers, and half a
	// page that stays empty, since a leaf has two entries at least.
	entryPages = entryCost + 2<<10

	// roomRetry is how soon a file system that had no room is asked again.
	roomRetry = time.Second

	// snapshotRetry is how soon a snapshot that failed is tried again, and how often
	// one is taken because room runs out.
	snapshotRetry = 10 * time.Second

	// ballastLeast is the least that is set aside for a snapshot, and the unit.
	ballastLeast = 64 << 10

	// retainSnapshots on disk: the newest, and one to fall back to.
	retainSnapshots = 2

	// openTimeout is how long Open waits for the lock on the log file, which
	// another process holds if it uses the same directory.
	openTimeout = time.Second

	// defaultStall is the time one entry may take before the watchdog speaks.
	defaultStall = 2 * time.Second

	// peerTimeout is the deadline of I/O with another member: a peer that
	// vanished without a word must not hold anybody up for longer. A snapshot
	// gets as much for each 256 KiB.
	peerTimeout = 5 * time.Second
	peerPool    = 3

	// staleConn is how soon a call must have failed for its connection to be
	// of a process that is gone.
	staleConn = 100 * time.Millisecond

	// Raft's own clocks. A follower stands for election between one and two
	// heartbeat timeouts after it last looked, and looks as often: 400 ms find
	// a dead leader in 400 to 1,200 ms, 600 as a rule, and outlast the pauses of a busy
	// machine. The first vote is only asked for (pre-vote), so one node's pause
	// disturbs nobody.
	defaultHeartbeat = 400 * time.Millisecond
	minHeartbeat     = 50 * time.Millisecond
	maxHeartbeat     = 10 * time.Second

	// commitTimeout is how long followers may not know of a commit when nothing
	// follows it and the nudge was lost. Each follower of an idle leader gets a
	// message that often, so it is long.
	commitTimeout = 500 * time.Millisecond

	// nudgeAll and nudgeEach space out the news of commits for all followers, so
	// that a stream of single commits costs each at most 200 messages a second,
	// and the leader of a large cluster 1,000. nudgeBurst commits after a pause are
	// told at once: the steps of a handover are entries that somebody waits for at a
	// node that did not propose them.
	nudgeAll   = 5 * time.Millisecond
	nudgeEach  = time.Millisecond
	nudgeBurst = 4

	// transferPause is how long a new leader waits to try its barrier again
	// while its leadership is being transferred.
	transferPause = 50 * time.Millisecond

	// retryPause is how soon proposals that were turned away are tried again
	// when nothing is heard of a new leader.
	retryPause = 20 * time.Millisecond

	// forwardsInFlight bounds the batches on their way to the leader: enough to
	// keep its queue filled, few enough for batches to grow under load.
	forwardsInFlight = 4

	// forwardTimeout is how long a forwarded batch may take. It is longer than
	// an election, which the leader might wait for with it.
	forwardTimeout = 5 * time.Second

	// asideFor is how long a stalled leader keeps quiet: several elections.
	asideFor = 5 * time.Second

	// A snapshot is put off while a follower receives the last one, or what was
	// logged since, until the log has grown to holdFactor times the size that
	// causes a snapshot, or the follower was silent for installPatience.
	// Otherwise a follower that is slower than snapshots are made gets one
	// after the other and never arrives. installSlack entries count as arrived.
	holdFactor      = 8
	installPatience = 30 * time.Second
	installSlack    = 64
	holdPause       = time.Second

	// askTimeout is how long a node may take to say who it is, asksAtOnce how
	// many are asked at a time.
	askTimeout = 2 * time.Second
	asksAtOnce = 8

	// foundPause is how often a node that belongs to no cluster asks around, and
	// sayAgain how often it says why it still does.
	foundPause = 250 * time.Millisecond
	sayAgain   = time.Minute

	// maxVoters of a large cluster: five survive the loss of two, and more make
	// every commit slower.
	maxVoters = 5

	// defaultStableAfter and defaultGoneAfter: see Config.
	defaultStableAfter = 5 * time.Second
	defaultGoneAfter   = 10 * time.Minute

	// replaceAfter is how long a voter may be silent before another takes its
	// place: longer than a restart.
	replaceAfter = 30 * time.Second

	// maxAside bounds the logs set aside beside a directory: nobody repeats that
	// more often by intention.
	maxAside = 100

	// reconcileEvery is how often a leader looks at the membership without a
	// reason. It sends nothing as long as all is well.
	reconcileEvery = time.Second

	// changeTimeout is how long Raft may take to take a membership change up:
	// it waits for the one before.
	changeTimeout = 5 * time.Second

	// maxLag is how many entries behind a member may be and still be said to
	// keep up.
	maxLag = 512
)
