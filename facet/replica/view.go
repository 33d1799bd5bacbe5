package replica

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/broken"
)

// View is the committed state of a copy, for reading while the copy is somebody else's
// to change (rule R35): it holds pages of its own above the file as it was when the
// view was opened, and disturbs nobody. Promises, appends, checkpoints, snapshots and
// deletion go on under it. It is at what was known to be committed when it was last
// advanced, and never above.
//
// It costs an open file, and memory for the pages changed since the base, up to what
// Advance is told, and for those a checkpoint overwrites meanwhile, up to
// maxViewSaved. So it is to be opened anew when the base has moved (see Behind).
//
// It belongs to one goroutine at a time.
type View struct {
	r     Replica
	base  *BaseFile
	store *pages.Store
}

// ErrViewFull says that a view would hold more changed pages than it may: bring the
// copy to its file (CheckpointIdle) and open another one.
var ErrViewFull = errors.New("too much was committed since the file was written")

// OpenView opens a view at the base; Advance brings it to what is committed. ErrOpen
// and ErrBusy mean: try again soon.
func (r Replica) OpenView() (*View, error) {
	b, err := r.baseSource(maxViewSaved, false)
	if err != nil {
		return nil, fmt.Errorf("open view of %v: %w", r.st.id, err)
	}
	if b.base.Pages <= verifiedPages {
		if err := b.verify(context.Background(), nil); err != nil {
			current := b.current()
			b.Close() // opened for reading: nothing can be lost by closing it
			if current {
				err = r.s.openFailed(r.st, err)
			}
			return nil, fmt.Errorf("open view of %v: %w", r.st.id, err)
		}
	}
	f := &viewFile{BaseFile: b}
	return &View{r: r, base: b, store: pages.New(b.base, func() (pages.File, error) { return f, nil })}, nil
}

// Store holds the pages. Nobody writes to it but Advance.
func (v *View) Store() *pages.Store { return v.store }

// Behind reports whether the copy has another base than the view began with.
func (v *View) Behind() bool {
	v.r.st.mu.Lock()
	defer v.r.st.mu.Unlock()
	return v.r.st.base() != v.base.base
}

// Lost is why pages of the view cannot be read any more, nil while they can.
func (v *View) Lost() error {
	v.base.mu.RLock()
	defer v.base.mu.RUnlock()
	return v.base.lost
}

// Advance brings the view to what is known to be committed now, holding at most limit
// changed pages, and reports whether it moved. ErrCompacted says that the base has
// moved too far: open another view. facet.ErrCorrupt says that file and log do not fit:
// the facet is out of service here. After another error the copy serves no views, or
// not this one; the view is good for nothing then but Close.
func (v *View) Advance(ctx context.Context, limit int) (moved bool, err error) {
	at := v.store.Position().Seq
	for c, err := range v.r.entries(at+1, committedEnd) {
		if err == nil {
			err = v.store.Apply(c)
		}
		if err == nil && v.store.Dirty() > limit {
			err = ErrViewFull
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			if !v.Behind() { // what does not fit is the copy's file and log as they are (R51)
				err = v.r.s.openFailed(v.r.st, err)
			}
			return false, fmt.Errorf("advance view of %v at %v: %w", v.r.st.id, v.store.Position(), err)
		}
		moved = true
	}
	return moved, nil
}

// committedEnd is how far a view may go (R35).
func committedEnd(l *live) facet.Seq {
	if broken.Is(broken.FollowerAhead) {
		return l.durable
	}
	return l.commitKnown()
}

// Close gives everything back. It may be called twice.
func (v *View) Close() error {
	err := v.store.Close()
	return errors.Join(err, v.base.Close())
}

// viewFile is a base file as pages.Store reads one. BaseFile.Close ends it.
type viewFile struct {
	*BaseFile
	page [pages.Size]byte // for a part of one
}

var errReadOnlyFile = errors.New("the file of a view is not written")

// ReadAt reads within one page, as pages.Store does.
func (f *viewFile) ReadAt(p []byte, off int64) (int, error) {
	pgno, in := uint32(off/pages.Size)+1, int(off%pages.Size)
	if pgno > f.base.Pages {
		return 0, io.EOF
	}
	if in == 0 && len(p) == pages.Size {
		return len(p), f.ReadPage(pgno, p)
	}
	if err := f.ReadPage(pgno, f.page[:]); err != nil {
		return 0, err
	}
	return copy(p, f.page[in:]), nil
}

func (f *viewFile) Size() (int64, error)               { return int64(f.base.Pages) * pages.Size, nil }
func (f *viewFile) WriteAt([]byte, int64) (int, error) { return 0, errReadOnlyFile }
func (f *viewFile) Truncate(int64) error               { return errReadOnlyFile }
func (f *viewFile) Datasync() error                    { return errReadOnlyFile }
func (f *viewFile) Close() error                       { return nil }

// Moved gives a channel that is closed when more may be known to be committed than
// now, or nil when nothing of the facet is under way. It says nothing of a copy that
// was replaced or is gone: look again after a while.
func (r Replica) Moved() <-chan struct{} {
	r.st.mu.Lock()
	defer r.st.mu.Unlock()
	l := r.st.live
	if l == nil {
		return nil
	}
	if l.moved == nil {
		l.moved = make(chan struct{})
	}
	return l.moved
}

// stir wakes who waits for more to be committed. State.mu is held.
func (l *live) stir() {
	if l.moved != nil {
		close(l.moved)
		l.moved = nil
	}
}
