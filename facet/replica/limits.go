package replica

import (
	"time"

	"github.com/facetd/facetd/facet"
)

const (
	// maxImagePart bounds one PAGES record: a checkpoint of a large facet must not
	// delay the commits of others by more than one write of this size.
	maxImagePart = 4 << 20

	// DefaultCheckpoints bounds the checkpoints that are writing at once, each with
	// an open file. Many together share one sync.
	DefaultCheckpoints = 512

	// DefaultLogBudget is the log size above which Collect names the facets that
	// keep segments from being removed.
	DefaultLogBudget = 512 << 20

	// DefaultTailEntries is how many committed entries above its file make a facet
	// long: the next owner reads them at some 4 µs each before it serves, and each
	// takes 16 bytes of memory.
	DefaultTailEntries = 32 << 10

	// maxLong bounds the facets Collect names as long.
	maxLong = 64

	// DefaultTrashGrace is how long the file of a deleted facet is kept.
	DefaultTrashGrace = 24 * time.Hour

	// checkpointMargin is left free on the disk by checkpoints and snapshots: the
	// log's reserve and the placement store go first (rule R15).
	checkpointMargin = 64 << 20

	// minTreeSync is the batch of files from which one sync of the whole file
	// system is cheaper than one of each file and directory. Measured on ext4:
	// about equal at 8, 2.1 times faster at 16, 3 times at 512.
	minTreeSync = 16

	// syncWorkers bounds the fdatasyncs of a smaller batch that run at once.
	syncWorkers = 8

	// carryBatch bounds the CARRY records written between two waits for the log.
	carryBatch = 4096

	// maxPins bounds the facets Collect names.
	maxPins = 4096

	// installChunk is one write of a snapshot being received.
	installChunk = 64 * facet.PageSize

	// maxSources bounds the base files of one facet that are being read at once,
	// each an open file: the members of a set being filled are fewer.
	maxSources = 8

	// maxSavedPages bounds the pages a checkpoint keeps for one of them (64 MiB).
	maxSavedPages = 64 << 20 / facet.PageSize

	// maxViewSaved bounds the pages a checkpoint keeps for a view (4 MiB), which is
	// opened anew when it is used next. What is read through one for longer than that
	// is read again.
	maxViewSaved = 4 << 20 / facet.PageSize

	// verifiedPages is up to which size (4 MiB) a database file is read and checked when
	// it is opened. That takes about a millisecond at most where it is in the page cache,
	// which what is opened then reads from. A larger one is left to the scrub.
	verifiedPages = 4 << 20 / facet.PageSize

	// scrubChunk is the pages one read of a scrub brings into memory.
	scrubChunk = 64

	// maxKeptBuffer is the largest encoding buffer kept for the next commit.
	maxKeptBuffer = 256 << 10
)
