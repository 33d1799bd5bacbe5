package sqlite

// Bounds of everything this package allocates or tables.
const (
	// maxFiles bounds the open files of all bridged VFSs; it is the engine's
	// bound on active facets with an order of magnitude to spare.
	maxFiles = 1 << 20
	// maxVFS bounds RegisterVFS; a process registers one, a test a handful.
	maxVFS = 256
	// maxPathname bounds names given to a bridged VFS, terminating NUL included.
	maxPathname = 512
	// maxSQL bounds one Prepare, SQLite's own length type being an int32.
	maxSQL = 1 << 30
	// maxValue bounds one bound value for the same reason.
	maxValue = 1<<31 - 1

	// bindArenaMin and bindArenaMax bound the bytes a statement keeps for its
	// bound text and blobs between executions. Values that do not fit are copied
	// by SQLite for the one execution.
	bindArenaMin = 256
	bindArenaMax = 8 << 10

	// sqlScratch is how much SQL text is copied through memory a thread context
	// keeps; longer text is copied through a temporary buffer.
	sqlScratch = 4 << 10

	// arenaChunk is the unit in which a connection's arena grows, arenaMax how
	// far: what a connection freed stays with it until it closes, so a burst of
	// small allocations beyond the bound goes to the process-wide allocator.
	arenaChunk = 8 << 10
	arenaMax   = 1 << 20

	// slabBytes is the unit in which page slots are taken from the system;
	// maxSlotPools bounds the distinct slot sizes (one per page size used).
	slabBytes    = 1 << 20
	maxSlotPools = 64

	// slabAhead of a slab is brought into memory at a time. A page fault costs
	// more than the page it brings, and under the creation of facets faults in slabs
	// were an eighth of the node's time. It is also what an open process holds in
	// excess, for each pool.
	slabAhead = 64 << 10

	// maxIdleThreads bounds thread contexts kept for reuse; each holds the
	// C stack of the deepest call it ran (typically tens of KiB).
	maxIdleThreads = 16
)
