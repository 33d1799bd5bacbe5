// Package disk is the file system seam for everything that must survive a
// crash: the commit log, page files, the replica's stores.
//
// It owns two small interfaces, FS and File, and two implementations. OS is a
// directory of a real file system. Mem is a disk in memory that keeps only
// synced bytes: a power cut (Mem.Crash) drops, keeps, reorders or tears what was
// not synced, directory entries included, and faults can be injected by
// operation and path. Code that is correct on Mem for every crash point makes
// no assumption a real file system does not keep.
//
// It refuses to hide durability: nothing is durable before File.Datasync (bytes
// and size of one file) and FS.SyncDir (names in one directory) have returned
// nil. It never retries, and never buffers on its own.
//
// Callers are the packages that keep state on disk. An error of WriteAt,
// Truncate, Datasync, Allocate, Rename or SyncDir means that the caller no
// longer knows what the disk holds; rule R13 says what to do then. IsFull tells
// the one case apart that is not an I/O error.
//
// Concurrency: every method of every implementation may be called from many
// goroutines at once. A write that overlaps another write or read of the same
// bytes gives one of the two contents sector by sector. Mem holds no lock while
// an injected delay sleeps, so it can be used inside testing/synctest bubbles.
package disk
