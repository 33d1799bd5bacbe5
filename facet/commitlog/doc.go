// Package commitlog is the one append-only log of a node: the commits,
// promises, bases and other records of all facets the node replicates, made
// durable together.
//
// It owns the order of records, their durability (one write and one fdatasync
// for everything that gathered while the previous pair ran), the segment files,
// the space they need, and the judgement at boot of what a crash or a rotten
// disk left (rules R3, R9, R13, R14, R15 of OWNERSHIP.md). It refuses to know
// what a record means: kinds and payloads are opaque, but for Reserve. It keeps
// no index of records, and removes no segment on its own (rule R12 is the
// caller's). The caller is package facet/replica; package node opens and closes
// it.
//
// Concurrency: every method of Log may be called from many goroutines. Append
// takes one short lock and no I/O, so it may be called under the caller's own
// lock of a facet, and the order in which Append calls return is the order of
// the log (rule R5). Three goroutines belong to a Log: two workers, of
// which one writes while the other calls Waiters, and the allocator that keeps
// zeroed segments ready.
//
// # Files
//
// All numbers are big-endian. CRC is CRC-32C. A directory holds
//
//	0000002a.seg    segment 42; the name is made durable after its header and before its first batch
//	spare-00000003  a file of zeros, waiting to become a segment
//	spare.tmp       a spare in the making, worthless after a crash
//
// A segment is a sequence of 4,096-byte blocks: the segment header, then
// batches, then zeros. Batches begin at blocks; every block has its own CRC.
//
// Segment header, block 0:
//
//	offset size
//	0      8     magic "facetlog"
//	8      4     version, 1
//	12     4     segment id, as in the file name
//	16     16    store id (rule R3)
//	32     8     number of the first batch of this segment
//	40     1     1 if the process that wrote the segment before began this one
//	             too, 0 if it is the first of its process
//	41     4051  zero
//	4092   4     CRC of bytes 0 to 4091
//
// First block of a batch:
//
//	0      4     CRC, seeded with the CRC of (store id, segment id), of bytes 4 to 4095;
//	             this is also the CRC of the batch, for it covers "following blocks" below
//	4      1     1
//	5      3     number of this block in the segment
//	8      8     batch number: 1, 2, 3 … over all segments
//	16     8     highest batch number known fsynced when this was written
//	24     4     CRC of the batch before, 0 if it is not known
//	28     4     bytes of records
//	32     4     number of records
//	36     4     CRC of the CRC fields of the following blocks, in order
//	40     4056  records
//
// Following blocks of a batch:
//
//	0      4     CRC, as above
//	4      1     2
//	5      3     number of this block in the segment
//	8      4088  records, continued
//
// Records lie back to back and continue over block borders; zeros fill the last
// block:
//
//	0      4     bytes of payload
//	4      1     kind
//	5      16    incarnation
//	21     8     epoch
//	29     8     seq
//	37     …     payload
//
// # What boot makes of it (rule R14)
//
// A batch is whole when all its blocks, its number and its length are right.
// Where the expected batch is not whole, a later batch number, in a sound first
// block behind it or in the header of the next segment, proves that the expected
// one had been fsynced: batches are written one at a time. It is a hole then:
// Damage of kind Hole, and reading goes on behind it. With no such proof it is
// the last batch. If its bad blocks are all zero, the crash tore it and nobody
// was told of it: it is dropped. If a bad block is not zero it may have been
// acknowledged and rotted since: it is dropped as Damage of kind Uncertain.
//
// What is dropped stays dropped: every process begins a new segment, whose
// header names its first batch, and batches of earlier segments from that number
// on do not count. Nothing has to be erased, and every later boot finds and
// reports the same Damage as long as the segment exists.
//
// # Why buffered writes
//
// Measured on the build machine (ext4 on a virtual disk, zeroed 64 MiB file, one
// writer, three runs each, writes per second):
//
//	            4 KiB         16 KiB        64 KiB
//	buffered    7.9k - 8.7k   6.4k - 8.3k   6.1k - 7.2k   pwrite + fdatasync
//	O_DIRECT    8.7k - 9.5k   7.6k - 9.6k   5.8k - 7.9k   pwrite + fdatasync
//	O_DSYNC     8.3k - 8.7k   7.6k - 8.8k   5.6k - 7.4k   pwrite alone
//
// The ranges overlap: no way is faster beyond the drift of the machine. Buffered
// writes need no aligned memory, work on every file system, and leave the latest
// records in the page cache, where Read finds them for a replica that lags. Boot
// reads around the page cache (disk.Direct), after a sync of what a killed
// process may have left unsynced.
package commitlog
