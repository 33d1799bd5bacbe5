package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"unsafe"
)

// BlockSize is the unit of direct reads and the granularity at which space is
// counted.
const BlockSize = 4096

// SectorSize is the unit a device writes atomically: after a power cut each
// sector holds its old or its new content (or, on a bad device, garbage).
const SectorSize = 512

// Direct is added to the flags of OpenFile for reading what the device holds
// rather than what the page cache believes (rule R13: after a failed fsync the
// cache may show bytes that never reached the device). The file must be opened
// read-only; offset and length of every read must be multiples of BlockSize and
// the buffer must come from AlignedBuffer. Where a file system cannot read
// directly, cached pages are dropped when the file is opened instead.
const Direct = 1 << 30

// FS is a directory tree that survives crashes. Names are slash-separated,
// relative to the root of the FS and must not leave it; "." is the root.
type FS interface {
	// OpenFile takes the os.O_ flags O_RDONLY, O_RDWR, O_CREATE, O_EXCL and
	// O_TRUNC, and Direct. A file it created exists for good only after SyncDir
	// of its directory.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	// Rename replaces newName atomically: after a crash before SyncDir the old
	// state or the new one is found, never a mixture. When the two names are in
	// different directories both need SyncDir.
	Rename(oldName, newName string) error
	// Remove deletes a file or an empty directory.
	Remove(name string) error
	// ReadDir lists a directory in the order of names.
	ReadDir(name string) ([]Entry, error)
	// MkdirAll makes a directory and its parents. Each new one is an entry of
	// its parent and needs SyncDir there; MkdirAllSync does both.
	MkdirAll(name string, perm fs.FileMode) error
	// SyncDir makes the entries of a directory durable: names made, renamed or
	// removed in it before the call.
	SyncDir(name string) error
	// Stat returns the size of a file in bytes.
	Stat(name string) (int64, error)
	// Free returns the bytes still available to this process.
	Free() (int64, error)
}

// File is one open file. It has no position: every read and write names its
// offset.
type File interface {
	// ReadAt and WriteAt are those of io.ReaderAt and io.WriterAt: a short
	// count comes with an error, io.EOF when the file ends.
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Allocate reserves space for the bytes [0, size) and makes the file at
	// least size long; new bytes read as zero. Reserved is not written: for an
	// overwrite that needs no metadata the bytes must have been written and
	// synced once.
	Allocate(size int64) error
	Truncate(size int64) error
	// Datasync makes the content and the size of the file durable. It says
	// nothing about the file's name.
	Datasync() error
	Size() (int64, error)
	// Close releases the handle. It syncs nothing.
	Close() error
}

// Entry is one name in a directory.
type Entry struct {
	Name string
	Size int64 // zero for a directory
	Dir  bool
}

// IsFull reports whether err says that space or quota is used up: the operation
// did not happen because of that, and the disk is sound.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// MkdirAllSync makes the directory name and its parents, durably.
func MkdirAllSync(fsys FS, name string, perm fs.FileMode) error {
	if err := fsys.MkdirAll(name, perm); err != nil {
		return err
	}
	for d := filepath.ToSlash(filepath.Clean(name)); d != "."; {
		d = filepath.ToSlash(filepath.Dir(d))
		if err := fsys.SyncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// AlignedBuffer returns n zero bytes at an address direct reads accept.
func AlignedBuffer(n int) []byte {
	b := make([]byte, n+BlockSize)
	skip := 0
	if over := int(uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (BlockSize - 1)); over != 0 {
		skip = BlockSize - over
	}
	return b[skip : skip+n : skip+n]
}

// checkName refuses names that leave the root.
func checkName(op, name string) error {
	if !filepath.IsLocal(name) {
		return &fs.PathError{Op: op, Path: name, Err: fmt.Errorf("name leaves the root of the file system: %w", fs.ErrInvalid)}
	}
	return nil
}
