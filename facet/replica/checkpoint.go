package replica

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/broken"
)

// Checkpoint brings the facet's database file to the state cp was taken at, in the
// order of rule R11: images of the pages to be overwritten durable in the log,
// pages written and synced and their checksum verified, BASE durable. Any
// goroutine may call it; afterwards the caller calls cp.Done where its pages.Store
// lives, or cp.Abort on an error.
//
// ErrNotKnown says that the log is not known to be committed that far (wait for
// Known), ErrFull that the disk has no room; both left everything as it was, and
// so did an error of ctx. facet.ErrCorrupt says that the file failed its checksum:
// the facet is out of service here.
func (r Replica) Checkpoint(ctx context.Context, cp *pages.Checkpoint) error {
	if err := r.checkpoint(ctx, cp); err != nil {
		return fmt.Errorf("checkpoint %v at %v: %w", r.st.id, cp.Base().Position, err)
	}
	return nil
}

func (r Replica) checkpoint(ctx context.Context, cp *pages.Checkpoint) error {
	s, to := r.s, cp.Base()
	l, from, err := r.beginCheckpoint(ctx, to)
	if err != nil {
		return err
	}
	defer r.endCheckpoint(l)
	select { // a bound on open files and on pages written but not synced
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-s.dead:
		return s.alive()
	case <-ctx.Done():
		return ctx.Err()
	}
	if !cp.Unchanged() {
		if err := s.roomFor(from, to); err != nil {
			return err
		}
		if broken.Is(broken.NoImages) {
			// and on
		} else if err := r.placeImages(ctx, l, cp, from, to); err != nil {
			return err
		}
		// From here on it is finished or the process ends: ctx counts no more.
		if err := s.alive(); err != nil {
			return err
		}
		l.keep(cp)
		if err := cp.Write(); err != nil {
			return s.writeFailed(r.st, err)
		}
	}
	return s.placeBase(context.WithoutCancel(ctx), r.st, to)
}

// beginCheckpoint claims the facet's file, once everything up to to is known to
// be committed.
func (r Replica) beginCheckpoint(ctx context.Context, to pages.Base) (*live, pages.Base, error) {
	st := r.st
	for first := true; ; first = false {
		st.mu.Lock()
		l := st.live
		switch {
		case st.gone() != nil:
			defer st.mu.Unlock()
			return nil, pages.Base{}, st.gone()
		case st.health.broken():
			st.mu.Unlock()
			return nil, pages.Base{}, fmt.Errorf("%w: %v", ErrDamaged, st.health)
		case l == nil || to.Position.Seq <= st.basePos.Seq || to.Position.Seq > l.last.Seq ||
			l.epochAt(to.Position.Seq) != to.Position.Epoch:
			defer st.mu.Unlock()
			return nil, pages.Base{}, &GapError{st.last()}
		case l.checkpointing || l.installing:
			st.mu.Unlock()
			return nil, pages.Base{}, ErrOpen
		case l.commitKnown() >= to.Position.Seq || broken.Is(broken.ApplyAll): // R11, I5
			l.checkpointing = true
			from := st.base()
			st.mu.Unlock()
			return l, from, nil
		}
		durable := l.told == l.placed
		st.mu.Unlock()
		if durable || !first {
			return nil, pages.Base{}, ErrNotKnown
		}
		if err := l.wait(ctx); err != nil {
			return nil, pages.Base{}, err
		}
	}
}

func (r Replica) endCheckpoint(l *live) {
	r.st.mu.Lock()
	defer r.st.mu.Unlock()
	l.checkpointing = false
	l.settle()
}

// roomFor refuses to write what the disk may not have room for: a file that grows
// half-way would be an error of the disk.
func (s *Store) roomFor(from, to pages.Base) error {
	if to.Pages <= from.Pages {
		return nil
	}
	free, err := s.fs.Free()
	if err != nil {
		return fmt.Errorf("ask for free space: %w", err)
	}
	if need := int64(to.Pages-from.Pages)*facet.PageSize + checkpointMargin; free < need {
		return fmt.Errorf("%w: %d bytes free, %d needed", ErrFull, free, need)
	}
	return nil
}

// placeImages makes the images of the pages about to be overwritten durable. A
// checkpoint that only adds pages needs none: after a crash the file is the old
// base, followed by pages nobody reads.
func (r Replica) placeImages(ctx context.Context, l *live, cp *pages.Checkpoint, from, to pages.Base) error {
	buf := r.s.buffers.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= maxKeptBuffer {
			r.s.buffers.Put(buf)
		}
	}()
	after := uint32(0)
	for n := uint32(0); ; n++ {
		head := imagePart{number: n, to: to}
		p := head.append((*buf)[:0])
		p, last, more := cp.Overwritten(p, after, maxImagePart)
		*buf = p
		if n == 0 && len(p) == imageHeaderLen && to.Pages >= from.Pages {
			return nil
		}
		if !more {
			p[0] = 1
		}
		rec := commitlog.Record{Kind: kindPages, Incarnation: r.st.id, Epoch: to.Position.Epoch, Seq: to.Position.Seq, Payload: p}
		err := r.s.patient(ctx, func() error {
			r.st.mu.Lock()
			defer r.st.mu.Unlock()
			if n == 0 {
				l.images = l.images[:0]
			}
			return l.place(rec, pending{})
		})
		if err != nil {
			return err
		}
		if !more {
			break
		}
		after = last
	}
	// The file is written once this returns nil, and then to the end; when ctx is
	// over first, the images are of a checkpoint that never touched the file.
	return l.wait(ctx)
}

// writeFailed tells what an error of pages.Checkpoint.Write means.
func (s *Store) writeFailed(st *state, err error) error {
	var oe *openError
	var re *readError
	switch {
	case errors.Is(err, pages.ErrDiverged), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &re), errors.As(err, &oe):
		return s.openFailed(st, err)
	}
	s.fail(fmt.Errorf("write database file of %v: %w", st.id, err)) // R13
	return err
}

// placeBase records that the file is in the state to, durably.
func (s *Store) placeBase(ctx context.Context, st *state, to pages.Base) error {
	var l *live
	err := s.patient(ctx, func() error {
		st.mu.Lock()
		defer st.mu.Unlock()
		if st.tomb() {
			return ErrDeleted
		}
		l = s.wake(st)
		if err := l.place(baseRecord(st.id, to, tailOf(l.last)), pending{}); err != nil {
			return err
		}
		l.next = to
		return nil
	})
	if err != nil {
		return err
	}
	return l.wait(ctx)
}

// CheckpointIdle checkpoints a facet nobody has open, as far as it is known to be
// committed.
func (r Replica) CheckpointIdle(ctx context.Context) error {
	store, err := r.open(ctx, false)
	if err != nil {
		return err
	}
	if cp := store.Checkpoint(); cp != nil {
		if err = r.Checkpoint(ctx, cp); err != nil {
			cp.Abort()
		} else {
			cp.Done()
		}
	}
	return errors.Join(err, r.Close(store))
}

// corrupt is what the users of a broken facet are told.
func corrupt(id facet.Incarnation, h Health) error {
	return facet.Errorf(facet.CodeCorrupt,
		"facet %v is damaged on this store (%v) and is not served, so that nothing is lost silently: restore it from a backup or an export", id, h)
}
