package placement

import "github.com/facetd/facetd/cluster"

// Every bound of the table, with its reason. Bounds that make a command be
// refused count only what all nodes agree on, so all nodes refuse alike.
const (
	// MaxBatch is the most commands in one log entry: ten thousand facets of a
	// lost node cost tens of entries, and one entry stays well below a
	// millisecond to apply.
	MaxBatch = 512

	// MaxCommandLen bounds one encoded command: the longest name, a full set
	// and two addresses fit twice.
	MaxCommandLen = 2048

	// MaxResultLen bounds one encoded result: a row with two full sets.
	MaxResultLen = 2048

	// MaxMembers is the size of the largest replica set.
	MaxMembers = 5

	// MaxFacets bounds the rows of one table. The design point is a million;
	// this leaves room and keeps row numbers in 32 bits.
	MaxFacets = 16 << 20

	// MaxNodes bounds the registered nodes.
	MaxNodes = cluster.MaxNodes

	// MaxTenants bounds the tenants with settings of their own: as many as there may be
	// facets at the design point, some 150 bytes each.
	MaxTenants = 1 << 20

	// MaxList bounds the rows one List call copies under the read lock.
	MaxList = 1000

	// MaxPendingChanges bounds what a Watcher remembers for a slow reader.
	// Beyond it the reader is told to look at everything.
	MaxPendingChanges = 16384

	// maxBlockLen bounds the payload of one snapshot block, so that restoring
	// needs one small buffer whatever the table's size.
	maxBlockLen = 64 << 10

	// walkChunks is how many chunks of rows an iteration reads under one hold
	// of the read lock: 292 rows, some ten microseconds.
	walkChunks = 4

	// applySlice is how many commands Apply carries out under one hold of the
	// write lock: enough not to queue behind readers for every command, few
	// enough that a reader waits some ten microseconds.
	applySlice = 8
)
