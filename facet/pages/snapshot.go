package pages

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/facetd/facetd/facet"
)

// ErrSnapshotTooOld marks a snapshot that could not be kept because the facet
// changed too much while it was read. Take another.
var ErrSnapshotTooOld = errors.New("facet changed too much while its snapshot was read")

// shared is what snapshots and checkpoints share with the store: the file, and
// the duty to keep what an open snapshot still needs from it.
type shared struct {
	// frozen counts the snapshots and checkpoints that may hold frames of the
	// overlay. While it is not zero a frame that is replaced is left to the
	// garbage collector instead of being used again.
	frozen atomic.Int32

	mu    sync.RWMutex // held for reading by snapshot reads, for writing by page writes
	file  File
	pages uint32 // length of the file in pages, once it is open
	snaps map[*Snapshot]struct{}
}

// closeStore closes the file. Snapshots still open have lost it: another store may
// write to the file from now on.
func (sh *shared) closeStore() error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for sn := range sh.snaps {
		sn.lost, sn.saved = true, nil
	}
	sh.snaps = nil
	if sh.file == nil {
		return nil
	}
	f := sh.file
	sh.file = nil
	return f.Close()
}

// open gives the file, opening it when it is first needed. What a checkpoint left
// behind the end of base (see resize) is cut off then: nobody can need it.
func (sh *shared) open(open func() (File, error), base Base) (File, error) {
	sh.mu.RLock()
	f := sh.file
	sh.mu.RUnlock()
	if f != nil {
		return f, nil
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.file == nil {
		f, err := open()
		if err != nil {
			return nil, err
		}
		size, err := f.Size()
		if want := int64(base.Pages) * Size; err == nil && size > want {
			err = f.Truncate(want)
			size = want
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		sh.file, sh.pages = f, uint32(size/Size)
	}
	return sh.file, nil
}

// Snapshot is the whole facet at one position. It stays readable while the store
// goes on; when a checkpoint is about to overwrite a page of the file that the
// snapshot needs, the page is saved for it first. Methods may be called from one
// goroutine at a time, any goroutine.
type Snapshot struct {
	shared    *shared
	position  facet.Position
	pages     uint32
	fileLimit uint32
	frames    map[uint32]*frame
	saved     map[uint32]*[Size]byte // guarded by shared.mu
	lost      bool                   // guarded by shared.mu
}

// Snapshot freezes the newest committed state. Close it.
func (s *Store) Snapshot() (*Snapshot, error) {
	if s.fileLimit > 0 { // the snapshot must not be the first to open the file
		if _, err := s.shared.open(s.openFile, s.base); err != nil {
			return nil, fmt.Errorf("open database file: %w", err)
		}
	}
	sn := &Snapshot{
		shared: s.shared, position: s.pos, pages: s.pages, fileLimit: s.fileLimit,
		frames: maps.Clone(s.overlay),
	}
	s.shared.frozen.Add(1)
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	if s.shared.snaps == nil {
		s.shared.snaps = make(map[*Snapshot]struct{})
	}
	s.shared.snaps[sn] = struct{}{}
	return sn, nil
}

// Snapshots is the number of open snapshots.
func (s *Store) Snapshots() int {
	s.shared.mu.RLock()
	defer s.shared.mu.RUnlock()
	return len(s.shared.snaps)
}

// Position is what the snapshot shows.
func (sn *Snapshot) Position() facet.Position { return sn.position }

// Pages is its size in pages.
func (sn *Snapshot) Pages() uint32 { return sn.pages }

// ReadPage fills dst, which is Size long, with the page.
func (sn *Snapshot) ReadPage(pgno uint32, dst []byte) error {
	if f := sn.frames[pgno]; f != nil {
		copy(dst, f.data[:])
		return nil
	}
	if pgno > sn.fileLimit {
		clear(dst)
		return nil
	}
	sn.shared.mu.RLock()
	defer sn.shared.mu.RUnlock()
	if sn.lost {
		return ErrSnapshotTooOld
	}
	if p := sn.saved[pgno]; p != nil {
		copy(dst, p[:])
		return nil
	}
	return readFull(sn.shared.file, dst[:Size], int64(pgno-1)*Size, pgno)
}

// WriteTo writes the database as a plain SQLite file.
func (sn *Snapshot) WriteTo(w io.Writer) (int64, error) {
	var n int64
	buf := make([]byte, 64*Size)
	for p := uint32(1); p <= sn.pages; {
		k := 0
		for ; k < len(buf) && p <= sn.pages; p++ {
			if err := sn.ReadPage(p, buf[k:k+Size]); err != nil {
				return n, err
			}
			k += Size
		}
		m, err := w.Write(buf[:k])
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Close ends the snapshot; nobody may be reading it. It may be called twice.
func (sn *Snapshot) Close() error {
	sn.shared.mu.Lock()
	defer sn.shared.mu.Unlock()
	if _, open := sn.shared.snaps[sn]; !open {
		return nil
	}
	delete(sn.shared.snaps, sn)
	sn.saved = nil
	sn.shared.frozen.Add(-1)
	return nil
}

// save keeps the page of the file for every open snapshot that needs it. Called
// with mu held for writing, before the page is overwritten.
func (sh *shared) save(pgno uint32) error {
	for sn := range sh.snaps {
		if sn.lost || pgno > sn.fileLimit || sn.frames[pgno] != nil || sn.saved[pgno] != nil {
			continue
		}
		if len(sn.saved) >= maxSavedPages {
			sn.lost, sn.saved = true, nil
			continue
		}
		p := new([Size]byte)
		if err := readFull(sh.file, p[:], int64(pgno-1)*Size, pgno); err != nil {
			return err
		}
		if sn.saved == nil {
			sn.saved = make(map[uint32]*[Size]byte)
		}
		sn.saved[pgno] = p
	}
	return nil
}
