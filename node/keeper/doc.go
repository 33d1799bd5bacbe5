// Package keeper is what a node does for the owners that live elsewhere: it keeps
// their copies. It takes their appends, promises and snapshots into the replica
// store of this node, tells them what it has, brings copies that went idle to
// their files, and takes away those that are no longer wanted.
//
// It owns the door check of rule R6: a session may change a copy only if the
// placement table of this node says that its epoch was issued to the process life
// that speaks, or if this store has promised exactly that session before. It owns
// the creation of copies by the word of such an owner (R42, R47), and their end by
// the word of the table (R4, R47). It refuses to know what an entry contains, to
// count acknowledgements, to decide who owns or keeps a facet, and to touch a copy
// the table does not know. Package node makes one Keeper per data directory and
// gives it to the peer transport as Handler and Installer.
//
// The answers to a session that does not pass the door:
//
//	the table has a higher epoch       *replica.EpochError with that epoch
//	the table has that epoch, of
//	another process life               replica.ErrBoot, and an alarm
//	nobody (given back)                replica.ErrUnknown
//	the table has not that epoch yet   PREPARE waits for it up to PrepareWait, then
//	                                   replica.ErrUnknown; others replica.ErrBusy
//	the incarnation is tombstoned      replica.ErrDeleted
//
// A facet being deleted has an epoch that nobody holds (R47). A PREPARE of it is a
// fence and welcome from whoever asks; it is promised to nobody.
//
// Concurrency: every method of Keeper may be called from any goroutine; Sweep runs
// once at a time. Append, Known, Check and Prepare never block: they do what can be
// done at once and leave the rest to goroutines of the Keeper, which end before
// Close returns. The door check is made without a lock. That is safe because the
// table only moves forward: an epoch it has passed is refused, and one that is
// raised between the check and the log is met by the store, where "compare with
// the promise, choose the place" is one step (R5).
package keeper
