package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/facetd/facetd/internal/disk"
)

// How a node lives on a disk without a byte left (rule R15).
//
// The placement log is written for as long as a cluster lives, by renewals of
// leases alone five times a second, and a node that cannot write it decides
// nothing: its reads would end with its lease. So its file is kept longer than
// what is in it, by blocks that the file system has set aside. bbolt grows its
// file only past the end, so it uses them; and by truncation, which sets nothing
// aside, so this is done here, ahead of it.
//
// Invariant: before entries are written there is room within the file for all
// that writing them may take, and logFloor beyond. If there is not they are
// refused with ErrFull, before bbolt has touched anything. Raft goes on: a leader
// steps down, a follower does not acknowledge, and both try again.
//
// The floor is for what must not be refused: the term and the vote, without which
// Raft panics, and the cut behind a snapshot, which makes room. It does not wear
// off: a transaction frees as many pages as it rewrites.
//
// A full disk may stay full for days, and then only a snapshot makes room in the
// log. It gets it from a file of zeros beside the log, which is given up for it
// and made again when the snapshot before it went.
//
// A write that the file system refuses nonetheless (one that copies on write has
// no room set aside for anything) does not end the process either, see refused.
//
// Rejected: a file of its own for term and vote, which would leave the log itself
// without room; and bbolt's MaxSize, which counts its growth by 16 MiB.

// room is the file of the placement log as far as its size goes.
type room struct {
	*watcher
	store *raftboltdb.BoltStore
	file  disk.File // the log's, beside bbolt's handle

	// mu is held through every write of the file: bbolt takes them one by one
	// anyway, and reads its metas and the file's size in peace.
	mu      sync.Mutex
	size    int64     // guarded by mu; the bytes [0, size) have blocks
	denied  time.Time // guarded by mu; when the file system last gave none, zero when it gave some since
	hurried time.Time // guarded by mu; when short was last called
}

// openRoom sets room aside. A disk that has none is no reason not to start.
func openRoom(dir string, store *raftboltdb.BoltStore, w *watcher) (*room, error) {
	r := &room{watcher: w, store: store}
	var err error
	if r.file, err = disk.OS(dir).OpenFile(logFile, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if r.size, err = allocated(filepath.Join(dir, logFile)); err == nil {
		err = r.claim(0)
	}
	if err != nil && !errors.Is(err, ErrFull) {
		return nil, errors.Join(err, r.file.Close())
	}
	return r, nil
}

func (r *room) close() error {
	if r == nil {
		return nil
	}
	return r.file.Close()
}

// allocated is the size of a file if all of it has blocks, else zero: then nothing
// is known of what bbolt has not written yet.
func allocated(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int64(st.Blocks)*512 < info.Size() {
		return 0, nil
	}
	return info.Size(), nil
}

// claim makes sure that n bytes of pages can be written. Mu is held, or nobody
// else knows of r.
func (r *room) claim(n int64) error {
	left, err := r.left()
	if err != nil {
		return fmt.Errorf("look at placement log: %w", err)
	}
	enough := left-n >= logFloor
	if left-n < logRoom/2 && (!enough || time.Since(r.denied) >= roomRetry) {
		if left, err = r.extend(left); err != nil {
			return err
		}
		enough = left-n >= logFloor
	}
	if left-n < logRoom/2 && time.Since(r.hurried) >= snapshotRetry {
		r.hurried = time.Now()
		r.short()
	}
	if !enough {
		return fmt.Errorf("%w: %d bytes are left in its file, %d are kept", ErrFull, left, logFloor)
	}
	return nil
}

// extend has the file system set blocks aside until logRoom is left.
func (r *room) extend(left int64) (int64, error) {
	want := (r.size + logRoom - left + 1<<20 - 1) >> 20 << 20
	err := r.file.Allocate(want)
	switch {
	case err == nil:
		// The size is on disk before a page beyond the old one is (bbolt does the
		// same when it grows its file).
		if err := r.file.Datasync(); err != nil {
			return 0, fmt.Errorf("extend placement log: %w", err)
		}
		if !r.denied.IsZero() {
			r.log.Info("the disk has room for the placement log again")
		}
		r.size, r.denied = want, time.Time{}
		return r.left()
	case disk.IsFull(err):
		if r.denied.IsZero() {
			r.log.Error("the disk is full; the placement log lives on what was set aside for it: make room", "bytes", max(left-logFloor, 0))
		}
		r.denied = time.Now()
		return left, nil
	}
	return 0, fmt.Errorf("extend placement log: %w", err)
}

// left is how many bytes of pages bbolt can write without a new block: what it
// never used, up to size, and what it used and freed. What the newest transaction
// freed counts: no reader stays for longer than a lookup.
func (r *room) left() (int64, error) {
	used, page, err := highWater(r.file)
	if err != nil {
		return 0, err
	}
	// All below the high-water mark was written once, so it has blocks.
	r.size = max(r.size, used)
	st := r.store.Stats()
	return r.size - used + int64(st.FreePageN+st.PendingPageN)*page, nil
}

// write runs one write of the file: of entries, which take at most n bytes of
// pages, or, with 0, of what the floor is for.
func (r *room) write(n int64, f func() error) error {
	if r == nil {
		return f()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > 0 {
		if err := r.claim(n); err != nil {
			return err
		}
	}
	return f()
}

// cost bounds what writing entries takes: bbolt rewrites the last leaf, splits it
// into leaves of two entries at least, each filled up to a page, and rewrites the
// path to it.
func cost(entries []*raft.Log) int64 {
	n := int64(logRewrite)
	for _, e := range entries {
		n += int64(len(e.Data)+len(e.Extensions)) + entryPages
	}
	return n
}

// refused reports whether a write was turned down for lack of room, so that
// nothing was done and the disk is as sound as before. That is not the failed
// write of rule R13. bbolt writes the pages of a transaction where the newest
// committed state has none, syncs them, and only then a meta page that refers to
// them; when the file system takes one of these writes not at all it forgets the
// transaction, and the pages it wrote mean nothing until they are written again.
// Only a write counts: after an fsync that failed, for whatever reason, nobody
// knows what the disk holds.
func refused(err error) bool {
	var op *fs.PathError
	return errors.Is(err, ErrFull) || errors.As(err, &op) && op.Op == "write" && disk.IsFull(err)
}

// bbolt's file begins with two meta pages, written in turns:
//
//	page header  16 bytes
//	magic        uint32  0xED0CDAED
//	version      uint32  2
//	page size    uint32
//	flags        uint32
//	root         16 bytes
//	free list    uint64
//	high water   uint64  pages from here on were never used
//	transaction  uint64  the higher one of two valid metas counts
//	checksum     uint64  FNV-1a of the 56 bytes before it
//
// in the byte order of the machine. bbolt tells the high-water mark to nobody.
const (
	metaAt      = 16
	metaLen     = 64
	metaMagic   = 0xED0CDAED
	metaVersion = 2
)

// highWater is where the pages end that bbolt ever used, and the size of one.
func highWater(f io.ReaderAt) (used, page int64, err error) {
	page = int64(os.Getpagesize())
	newest, found := uint64(0), false
	for i := range int64(2) {
		var b [metaLen]byte
		if _, err := f.ReadAt(b[:], i*page+metaAt); err != nil {
			return 0, 0, err
		}
		sum := fnv.New64a()
		sum.Write(b[:56])
		o := binary.NativeEndian
		if o.Uint32(b[0:]) != metaMagic || o.Uint32(b[4:]) != metaVersion || o.Uint64(b[56:]) != sum.Sum64() {
			continue // torn by a crash; bbolt goes on with the other one
		}
		page = int64(o.Uint32(b[8:]))
		if tx := o.Uint64(b[48:]); !found || tx > newest {
			newest, found = tx, true
			used = int64(o.Uint64(b[40:])) * page
		}
	}
	if !found {
		return 0, 0, errors.New("no meta page is valid")
	}
	return used, page, nil
}

// ballast is the file of zeros that is given up for a snapshot.
type ballast struct {
	dir  string
	path string
}

const ballastFile = "raft.room"

func newBallast(dir string) *ballast {
	return &ballast{dir: dir, path: filepath.Join(dir, ballastFile)}
}

// drop gives the room back to the file system. It is false when there was none.
func (b *ballast) drop() bool { return b != nil && os.Remove(b.path) == nil }

// keep sets aside what a snapshot of that size takes, or as much as there is. A
// file that is there and as long is left alone. Nothing depends on it surviving a
// crash, so it is not synced.
func (b *ballast) keep(size int64) error {
	if b == nil {
		return nil
	}
	size = (size + ballastLeast - 1) / ballastLeast * ballastLeast
	f, err := disk.OS(b.dir).OpenFile(ballastFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	for ; size >= ballastLeast; size /= 2 {
		if err = f.Allocate(size); !disk.IsFull(err) {
			break
		}
	}
	return errors.Join(err, f.Close())
}
