// Package replica is the replica side of one node: for every facet the node keeps
// on disk, what it has promised, the entries of its log that are not yet in its
// database file, the base that file is at, and the file itself.
//
// It owns the meaning of the records in the node's commit log, the database
// files, their checkpoints, snapshots and imports becoming files, views of what is
// committed, tombstones, and what part of the commit log may go. Rules R5 to R15, R44 and the replica's part
// of R47 and R51 of OWNERSHIP.md are enforced here. It refuses to decide who
// owns a facet, to count acknowledgements, to run SQL, and to talk to peers: those
// are packages node and facet/quorum. Package node opens one Store per data
// directory.
//
// Concurrency: every method of Store and Replica may be called from many
// goroutines. A facet's state is guarded by its own mutex, under which nothing
// but commitlog.Append is called: that makes "compare with the promise, choose the
// place in the log" one critical section (rule R5). Acknowledgements come from
// a worker of the commit log, without any lock. A pages.Store got
// from Replica.Open belongs to its caller until Replica.Close.
//
// Lock order: Store.mu, state.mu, locks of package commitlog.
//
// # An idle facet
//
// A facet without entries above its base is one 96-byte value in a slab and four
// bytes in a hash table: no pointer, handle, goroutine or timer. Everything else
// (type live) exists while the facet has such entries, or is in use.
//
// # Records
//
// All numbers are big-endian. The record's frame in the commit log carries kind,
// incarnation, epoch and seq; kinds with bit 0x80 may use the reserve of a full
// disk (rule R15). A position is 32 bytes: epoch, seq, checksum.
//
//	0x01 ENTRY    epoch, seq: of the entry
//	     0   …    encoded facet.Commit
//	0x02 PAGES    epoch, seq: of the checkpoint
//	     0   1    1 for the last part, else 0
//	     1   3    zero
//	     4   4    number of the part, from 0
//	     8   4    size of the database after the checkpoint, in pages
//	     12  32   position of the checkpoint
//	     44  …    images of overwritten pages, see package pages
//	0x03 INSTALL  epoch, seq: of the snapshot
//	     0   8    number of the temporary file
//	     8   4    size in pages
//	     12  32   position of the snapshot
//	     44  1    health of the copy with it
//	     45  7    zero
//	     52  8    epoch promised when its health was lost, 0 if it is sound
//	0x81 PROMISE  epoch: the one promised; seq: of the last entry before
//	     0   16   boot id of the owner it was issued to
//	     16  8    epoch of the last entry before
//	0x82 CUT      epoch: of the session that cuts; seq: the first entry cut off
//	     0   32   position of the log after the cut
//	0x83 BASE     epoch, seq: of the base
//	     0   4    size of the database file in pages
//	     4   32   position of the base
//	     36  8    epoch of the last entry before
//	     44  8    seq of it
//	0x84 TOMB
//	     0   1    1 when the file has been moved to the trash, else 0
//	0x85 CARRY    epoch: the one promised, 0 for none; seq: of the last entry before
//	     0   1    bits: 1 tombstone, 2 file moved to the trash, 4 dropped: not
//	              kept here any more, base and last entry are zero
//	     1   1    health
//	     2   2    zero
//	     4   16   boot id of the owner promised
//	     20  8    epoch of the last entry before
//	     28  4    size of the database file in pages
//	     32  32   position of the base
//	     64  8    epoch promised when its health was lost, 0 if it is sound
//	0x86 DAMAGE   incarnation, epoch and seq are zero
//	     0   1    kind of commitlog.Damage
//	     1   3    zero
//	     4   4    segment
//	     8   4    offset
//	     12  8    first batch
//
// CARRY says all there is to say about a facet but its entries. It is written
// when the segment with its newest PROMISE, BASE or TOMB is about to go (rule
// R12), when the facet's health changes, and when it is created or dropped: of a
// dropped facet nothing is left but its promise (rule R6). DAMAGE says that damage of the log
// was found and that the health of the facets it hit was written before it.
//
// "The last entry before" is the end of the facet's log when the record was
// placed. It lets boot see that entries are missing, and prove for a facet that
// damage found before such a record took nothing from it.
//
// # Files
//
//	log/                              the commit log
//	facets/ab/ab….db                  database files, by the incarnation's first byte
//	tmp/<incarnation>-<number>.db     snapshots and imports being received
//	trash/<unix seconds>-<incarnation>.db   deleted and dropped facets, until the grace period is over
package replica
