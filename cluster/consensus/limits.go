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
	// at start: 4 MiB are some 35,000 commands. When the last snapshot was
	// larger, its size is taken instead, so that writing snapshots never costs
	// more than writing the log.
	defaultSnapshotBytes = 4 << 20

	// defaultTrailing entries stay in the log behind a snapshot, for members
	// that lag a little.
	defaultTrailing = 256

	// retainSnapshots on disk: the newest, and one to fall back to.
	retainSnapshots = 2

	// openTimeout is how long Open waits for the lock on the log file, which
	// another process holds if it uses the same directory.
	openTimeout = time.Second

	// defaultStall is the time one entry may take before the watchdog speaks.
	defaultStall = 2 * time.Second

	// peerTimeout is the deadline of I/O with another voter: a peer that
	// vanished without a word must not hold anybody up for longer.
	peerTimeout = 10 * time.Second
	peerPool    = 3

	// Raft's own clocks.
	heartbeatTimeout = 1000 * time.Millisecond
	electionTimeout  = 1000 * time.Millisecond
	leaseTimeout     = 500 * time.Millisecond
	commitTimeout    = 50 * time.Millisecond
)
