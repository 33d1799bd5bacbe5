package pages

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/facetd/facetd/facet"
)

// ErrDiverged marks a commit that does not lead where its checksum says. The copy
// it was applied to, or the commit, is wrong; the facet must stop and be rebuilt
// (rule R51).
var ErrDiverged = errors.New("checksum of the database differs from the commit's")

// ErrGap marks a commit that does not follow the last one applied.
var ErrGap = errors.New("commit does not follow the last one")

// ErrTooLarge marks a transaction with more than MaxStagedPages changed pages.
var ErrTooLarge = fmt.Errorf("transaction changes more than %d MiB of pages", MaxStagedPages*Size>>20)

// Base is the state of the database file: the position it was checkpointed at and
// its size in pages. The zero Base is the empty database with no file.
type Base struct {
	Position facet.Position
	Pages    uint32
}

// Store holds the pages of one facet.
//
// A page is looked up in three places. The stage holds what the transaction under
// way has written, and is dropped unless it is sealed. The overlay holds the
// newest committed version of every page changed since the base. The file holds
// the base; pages of it above fileLimit were cut off since and count as zeros.
//
// Frames in the overlay are never written again once a snapshot or checkpoint may
// hold them; a newer version takes the frame's place instead.
//
// Invariant: sum over all pages of Hash == pos.Sum. Invariant: the file is only
// written by a Checkpoint, and only pages that the overlay also holds.
type Store struct {
	openFile func() (File, error)
	shared   *shared

	base      Base
	pos       facet.Position
	pages     uint32 // size of the committed database
	fileLimit uint32

	overlay  map[uint32]*frame
	cutSince uint32 // smallest size of the database since the checkpoint under way was taken

	stage      []*frame // ascending by pgno
	stagePages uint32   // size of the database as the transaction sees it
	stageFloor uint32   // smallest size the transaction has set: committed pages above it are gone
	staging    bool

	enc *[]byte     // encoded pages of the last sealed commit, until Recycle
	old *[Size]byte // for reading a page of the file; most commits need none

	maxPages uint32
}

// frame is one version of one page.
type frame struct {
	pgno uint32
	sum  facet.Sum // Hash(pgno, data), valid in the overlay
	data [Size]byte
}

// maxKeptStage bounds the stage's list kept from one transaction to the next.
const maxKeptStage = 64

// maxKeptEncoding is the largest encoding buffer kept for another commit.
const maxKeptEncoding = 64 << 10

// New makes the store of a facet whose file is in the state base. open is called
// when the file is first needed, and never for an empty base that is only read.
func New(base Base, open func() (File, error)) *Store {
	return &Store{
		openFile: open, shared: &shared{},
		base: base, pos: base.Position, pages: base.Pages, fileLimit: base.Pages,
		stagePages: base.Pages, overlay: make(map[uint32]*frame), maxPages: facet.MaxPages,
	}
}

// Position is the position of the last commit sealed or applied.
func (s *Store) Position() facet.Position { return s.pos }

// Base is the state of the file.
func (s *Store) Base() Base { return s.base }

// Pages is the size of the committed database in pages.
func (s *Store) Pages() uint32 { return s.pages }

// Dirty is the number of pages the overlay holds.
func (s *Store) Dirty() int { return len(s.overlay) }

// SetMaxPages bounds the size of the database; writing beyond it is ErrFull.
func (s *Store) SetMaxPages(n uint32) { s.maxPages = min(n, facet.MaxPages) }

// ErrFull marks a write beyond the size quota of the database.
var ErrFull = errors.New("database is at its size limit")

// StagedPages is the size of the database as the transaction under way sees it.
func (s *Store) StagedPages() uint32 {
	if s.staging {
		return s.stagePages
	}
	return s.pages
}

// ReadAt reads the database as the transaction under way sees it. It returns the
// number of bytes that exist; the rest of p is zeroed.
func (s *Store) ReadAt(p []byte, off int64) (int, error) {
	size := int64(s.StagedPages()) * Size
	n := 0
	for n < len(p) && off < size {
		pgno, in := uint32(off/Size)+1, int(off%Size)
		k := min(len(p)-n, Size-in)
		if err := s.readPage(pgno, p[n:n+k], in); err != nil {
			return n, err
		}
		n, off = n+k, off+int64(k)
	}
	clear(p[n:])
	return n, nil
}

// readPage fills dst from the page, starting at byte in.
func (s *Store) readPage(pgno uint32, dst []byte, in int) error {
	if s.staging {
		if i, ok := s.find(pgno); ok {
			copy(dst, s.stage[i].data[in:])
			return nil
		}
		if pgno > s.stageFloor {
			clear(dst)
			return nil
		}
	}
	if f, ok := s.overlay[pgno]; ok {
		copy(dst, f.data[in:])
		return nil
	}
	return s.readFile(pgno, dst, in)
}

// readFile reads from the base file; pages it does not have are zeros.
func (s *Store) readFile(pgno uint32, dst []byte, in int) error {
	if pgno > s.fileLimit {
		clear(dst)
		return nil
	}
	f, err := s.shared.open(s.openFile, s.base)
	if err != nil {
		return fmt.Errorf("open database file: %w", err)
	}
	return readFull(f, dst, int64(pgno-1)*Size+int64(in), pgno)
}

func readFull(f File, dst []byte, off int64, pgno uint32) error {
	n, err := f.ReadAt(dst, off)
	if n == len(dst) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read page %d of database file: %w", pgno, err)
}

// WriteAt puts page-aligned data into the stage.
func (s *Store) WriteAt(p []byte, off int64) error {
	if off%Size != 0 || len(p)%Size != 0 || off < 0 {
		return fmt.Errorf("write %d bytes at %d: not whole pages of %d bytes", len(p), off, Size)
	}
	s.begin()
	for len(p) > 0 {
		pgno := uint32(off/Size) + 1
		if pgno > s.maxPages || off/Size >= int64(s.maxPages) {
			return fmt.Errorf("write page %d: %w (%d pages)", off/Size+1, ErrFull, s.maxPages)
		}
		i, ok := s.find(pgno)
		if !ok {
			if len(s.stage) >= MaxStagedPages {
				return ErrTooLarge
			}
			f := s.frame()
			f.pgno = pgno
			s.stage = slices.Insert(s.stage, i, f)
		}
		copy(s.stage[i].data[:], p[:Size])
		s.stagePages = max(s.stagePages, pgno)
		p, off = p[Size:], off+Size
	}
	return nil
}

// Truncate sets the size of the database as the transaction sees it.
func (s *Store) Truncate(size int64) error {
	if size%Size != 0 || size < 0 || size/Size > int64(s.maxPages) {
		return fmt.Errorf("truncate to %d bytes: not a size within %d pages", size, s.maxPages)
	}
	s.begin()
	n := uint32(size / Size)
	i, _ := s.find(n + 1)
	for _, f := range s.stage[i:] {
		s.recycle(f)
	}
	s.stage = s.stage[:i]
	s.stagePages, s.stageFloor = n, min(s.stageFloor, n)
	return nil
}

func (s *Store) begin() {
	if !s.staging {
		s.staging, s.stagePages, s.stageFloor = true, s.pages, s.pages
	}
}

// find returns the place of pgno in the stage and whether it is there.
func (s *Store) find(pgno uint32) (int, bool) {
	// Pages arrive mostly in ascending order: look at the end first.
	n := len(s.stage)
	if n == 0 || s.stage[n-1].pgno < pgno {
		return n, false
	}
	return slices.BinarySearchFunc(s.stage, pgno, func(f *frame, p uint32) int {
		return int(int64(f.pgno) - int64(p))
	})
}

// frames are shared by all stores: the frame one facet gives back is still in the
// processor's cache when the next one writes into it.
var frames = sync.Pool{New: func() any { return new(frame) }}

func (s *Store) frame() *frame { return frames.Get().(*frame) }

// Close closes the file. The store must not be used afterwards; snapshots still
// open give ErrSnapshotTooOld where they would need the file.
func (s *Store) Close() error { return s.shared.closeStore() }

func (s *Store) recycle(f *frame) { frames.Put(f) }
