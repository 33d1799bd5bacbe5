package replica

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/disk"
)

// BaseFile is a facet's database file as it is at one base, for sending a snapshot
// of it. It stays that while checkpoints go on, while a snapshot takes the facet's
// place, and after the facet is gone: a checkpoint first saves the pages it is
// about to overwrite, and a file that is replaced or moved stays readable. One
// goroutine reads; Close may be called from another one, and twice.
type BaseFile struct {
	r    Replica
	base pages.Base
	f    *dbFile // nil without pages

	mu      sync.RWMutex // held for reading while a page is read, for writing while one is saved
	saved   map[uint32]*[pages.Size]byte
	scratch []byte // one page, for saving
	limit   int    // of saved
	lost    error  // why it cannot be read any more
}

var errBaseClosed = errors.New("base file is closed")

// endOf tells a file that ends within a page.
func endOf(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// BaseSource gives the facet's database file at its base, open or not; everything
// in it is committed. Close it: until then it costs an open file. ErrOpen says that
// a checkpoint or an install is just writing, ErrBusy that too many are being read:
// try again.
func (r Replica) BaseSource() (pages.Base, *BaseFile, error) {
	b, err := r.baseSource(maxSavedPages, false)
	if err != nil {
		return pages.Base{}, nil, fmt.Errorf("read base of %v: %w", r.st.id, err)
	}
	return b.base, b, nil
}

// baseSource gives a base file for which up to saved pages are kept; direct, for reads
// that skip the page cache: those are of whole pages and into aligned buffers.
func (r Replica) baseSource(saved int, direct bool) (*BaseFile, error) {
	st := r.st
	st.mu.Lock()
	base, err := st.base(), r.readable()
	st.mu.Unlock()
	if err != nil {
		return nil, err
	}
	b := &BaseFile{r: r, base: base, limit: saved}
	var openErr error
	switch {
	case base.Pages == 0:
	case direct:
		b.f, openErr = r.s.openDirect(st.id)
	default:
		b.f, openErr = r.s.openDB(st.id, false)
	}
	st.mu.Lock()
	switch err = r.readable(); {
	case err != nil:
	case st.base() != base:
		err = ErrOpen // it was written since the first look, so this may be another file
	case openErr == nil:
		// Nothing writes to the file from here on but a checkpoint that saves first.
		l := r.s.wake(st)
		l.sources = append(l.sources, b)
	}
	st.mu.Unlock()
	switch {
	case openErr != nil && err == nil:
		return nil, r.s.openFailed(st, openErr)
	case err != nil && b.f != nil:
		b.f.Close()
	}
	return b, err
}

// readable says why the base cannot be read now. State.mu is held.
func (r Replica) readable() error {
	st := r.st
	l := st.live
	switch {
	case st.gone() != nil:
		return st.gone()
	case st.health.broken():
		return fmt.Errorf("%w: %v", ErrDamaged, st.health)
	case l == nil:
		return nil
	case l.checkpointing || l.installing:
		return ErrOpen
	case len(l.sources) >= maxSources:
		return ErrBusy
	}
	return nil
}

// ReadPage fills dst, which is one page long, with the page; they are numbered from
// 1. pages.ErrSnapshotTooOld says that the facet changed too much since: take
// another one. facet.ErrCorrupt says that the file cannot be read: the facet is out
// of service here.
func (b *BaseFile) ReadPage(pgno uint32, dst []byte) error {
	if pgno == 0 || pgno > b.base.Pages {
		return fmt.Errorf("read page %d of %v: it has %d", pgno, b.r.st.id, b.base.Pages)
	}
	if err := b.read(pgno, dst[:pages.Size]); err != nil {
		return fmt.Errorf("read page %d of %v at %v: %w", pgno, b.r.st.id, b.base.Position, err)
	}
	return nil
}

func (b *BaseFile) read(pgno uint32, dst []byte) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.lost != nil {
		return b.lost
	}
	if p := b.saved[pgno]; p != nil {
		copy(dst, p[:])
		return nil
	}
	if n, err := b.f.ReadAt(dst, int64(pgno-1)*pages.Size); n < len(dst) {
		return b.failed(endOf(err))
	}
	return nil
}

// failed tells what an error of reading means: if it is still the facet's file, the
// copy is out of service.
func (b *BaseFile) failed(err error) error {
	if !b.current() {
		return err
	}
	return b.r.s.openFailed(b.r.st, err)
}

// current reports whether it is the facet's file at its base still.
func (b *BaseFile) current() bool {
	st := b.r.st
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.gone() == nil && st.base() == b.base
}

// Close ends the reading.
func (b *BaseFile) Close() error {
	st := b.r.st
	st.mu.Lock()
	if l := st.live; l != nil {
		l.sources = slices.DeleteFunc(l.sources, func(x *BaseFile) bool { return x == b })
		l.settle()
	}
	st.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.f
	b.lost, b.saved, b.f = errBaseClosed, nil, nil
	if f == nil {
		return nil
	}
	return f.Close()
}

// keep saves what the checkpoint is about to overwrite for those who read the file
// as it is. Nobody begins to read while the facet is being checkpointed.
func (l *live) keep(cp *pages.Checkpoint) {
	l.st.mu.Lock()
	sources := slices.Clone(l.sources)
	l.st.mu.Unlock()
	for _, b := range sources {
		for pgno := range cp.Replaced() {
			if !b.save(pgno) {
				break
			}
		}
	}
}

// save keeps one page; it reports whether more can be kept.
func (b *BaseFile) save(pgno uint32) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.lost != nil:
		return false
	case pgno > b.base.Pages || b.saved[pgno] != nil:
		return true
	case len(b.saved) >= b.limit:
		b.lost, b.saved = pages.ErrSnapshotTooOld, nil
		return false
	}
	if b.scratch == nil {
		b.scratch = disk.AlignedBuffer(pages.Size)
	}
	if n, err := b.f.ReadAt(b.scratch, int64(pgno-1)*pages.Size); n < pages.Size {
		b.lost, b.saved = endOf(err), nil // the checkpoint, which reads it too, will say more
		return false
	}
	if b.saved == nil {
		b.saved = make(map[uint32]*[pages.Size]byte)
	}
	p := [pages.Size]byte(b.scratch)
	b.saved[pgno] = &p
	return true
}
