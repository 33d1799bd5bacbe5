package commitlog

import (
	"time"

	"github.com/facetd/facetd/facet"
)

const (
	// MaxPayload bounds one record: the largest encoded commit.
	MaxPayload = facet.MaxCommitBytes + 64

	// maxUnit bounds the records of one AppendMany, framed: one of the largest
	// and a few small ones that must land with it.
	maxUnit = MaxPayload + 1<<20

	// DefaultSegmentBytes is large enough that switching segments costs
	// nothing, small enough that removal gives space back in steps.
	DefaultSegmentBytes = 64 << 20
	minSegmentBytes     = 16 << 10 // a header and three blocks: for tests
	// maxSegmentBytes bounds what a scan holds in memory: one segment.
	maxSegmentBytes = 256 << 20

	// firstSegmentBytes keeps the first start short: nobody waits for more than
	// this to be zeroed.
	firstSegmentBytes = 4 << 20

	// growSegments is how much larger than the one that fills the next segment is
	// made, until it has its size: a node that has just begun, and is busy, does not
	// zero a large one meanwhile, whose syncs those of its commits would wait for.
	growSegments = 4

	// DefaultPendingBytes bounds what is appended but not yet durable.
	DefaultPendingBytes = 64 << 20

	// DefaultLowWaterBytes of free disk are left to what must go on when the
	// disk is full: the reserve, the placement store, checkpoints.
	DefaultLowWaterBytes = 256 << 20

	// DefaultReserveBytes are 2,048 fsyncs of reserve-class records, each with
	// its own block.
	DefaultReserveBytes = 8 << 20

	// maxBatch bounds one write, so that a burst does not delay the
	// acknowledgement of its first record; a larger unit gets its own batch.
	maxBatch = 4 << 20
	// minBatchBuffer is what a batch buffer starts with.
	minBatchBuffer = 64 << 10
	// bigUnit is where the copy is made before the lock is taken.
	bigUnit = 1 << 20
	// maxFreeBatches bounds the buffers kept for re-use.
	maxFreeBatches = 4

	// maxOpenFiles bounds the segments kept open for Read.
	maxOpenFiles = 32
	// maxSpares bounds the spares taken over at boot.
	maxSpares = 2
	// maxNamed bounds the records named in one Damage.
	maxNamed = 1 << 16

	// verifyChunk is one read of Verify, and what it holds in memory.
	verifyChunk = 1 << 20

	// zeroChunk is one write of zeros and its sync, zeroRest how many times as long as it
	// took is rested behind it, zeroRestMax at most: a sync of commits waits for what the
	// disk has under way.
	zeroChunk   = 512 << 10
	zeroRest    = 7
	zeroRestMax = 100 * time.Millisecond

	// truncateSlack: boot cuts the unused end of a segment when it is longer.
	truncateSlack = 16 << 10

	// The allocator asks a full disk again after retryMin, doubling to retryMax.
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
)
