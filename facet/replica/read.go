package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
)

// Open builds the facet's pages from base and log, and nothing else (R23): all
// entries that are in the log when it is called, for an owner that has adopted
// them, else those known to be committed. It waits until they are durable. The
// store belongs to the caller until Close; one can be open at a time.
//
// A facet whose copy is not sound is facet.ErrCorrupt.
func (r Replica) Open(ctx context.Context, all bool) (*pages.Store, error) {
	store, err := r.open(ctx, all)
	if err != nil {
		return nil, fmt.Errorf("open %v: %w", r.st.id, err)
	}
	return store, nil
}

func (r Replica) open(ctx context.Context, all bool) (*pages.Store, error) {
	s, st := r.s, r.st
	st.mu.Lock()
	l, err := r.claim()
	if err != nil {
		st.mu.Unlock()
		return nil, err
	}
	waiting := all && l.told != l.placed
	st.mu.Unlock()
	if waiting {
		if err := l.wait(ctx); err != nil {
			return nil, errors.Join(err, r.Close(nil))
		}
	}

	st.mu.Lock()
	base, n := st.base(), int(l.commitKnown()-st.basePos.Seq)
	if all {
		n = int(l.durable - st.basePos.Seq)
	}
	locs := append([]commitlog.Loc(nil), l.entries[:n]...)
	st.mu.Unlock()

	if err := s.verify(st, base); err != nil {
		return nil, errors.Join(s.openFailed(st, err), r.Close(nil))
	}
	store := pages.New(base, func() (pages.File, error) {
		// A base with pages has a file; making an empty one would hide its loss.
		f, err := s.openDB(st.id, base.Pages == 0)
		if err != nil {
			return nil, err
		}
		return f, nil
	})
	for c, err := range s.commits(st.id, locs) {
		if err == nil {
			err = store.Apply(c)
		}
		if err != nil {
			return nil, errors.Join(s.openFailed(st, err), r.Close(store))
		}
	}
	return store, nil
}

// verify compares the file of a base with it, if it is small enough to be read whole
// (R51). What is at rest for long may rot, and a commit whose old pages are not those of
// the other members fits none of their copies: one bit at the owner would put all of them
// out of service.
func (s *Store) verify(st *state, base pages.Base) error {
	if base.Pages == 0 || base.Pages > verifiedPages {
		return nil
	}
	f, err := s.openDB(st.id, false)
	if err != nil {
		return err
	}
	defer f.Close() // opened for reading: nothing can be lost by closing it
	return pages.Verify(f, base)
}

// claim marks the facet as open. State.mu is held.
func (r Replica) claim() (*live, error) {
	st := r.st
	switch {
	case st.gone() != nil:
		return nil, st.gone()
	case st.health.broken():
		return nil, corrupt(st.id, st.health)
	}
	l := r.s.wake(st)
	if l.open || l.installing || l.checkpointing {
		return nil, ErrOpen
	}
	l.open = true
	return l, nil
}

// openFailed tells what an error of reading base and log means.
func (s *Store) openFailed(st *state, err error) error {
	var re *readError
	switch {
	case errors.Is(err, pages.ErrDiverged), errors.Is(err, pages.ErrGap), errors.Is(err, pages.ErrMalformed):
		s.logger.Error("base and log do not fit: facet is out of service on this store", "facet", st.id, "error", err)
		s.quarantine(st, Diverged) // R51
		return fmt.Errorf("%w: %w", corrupt(st.id, Diverged), err)
	case errors.Is(err, commitlog.ErrCorrupt), errors.Is(err, fs.ErrNotExist), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &re):
		s.logger.Error("parts of the facet are lost: it is out of service on this store", "facet", st.id, "error", err)
		s.quarantine(st, Holed)
		return fmt.Errorf("%w: %w", corrupt(st.id, Holed), err)
	}
	return err
}

// Close gives back what Open returned and closes it. Nothing is checkpointed.
func (r Replica) Close(store *pages.Store) error {
	var err error
	if store != nil {
		err = store.Close()
	}
	r.st.mu.Lock()
	defer r.st.mu.Unlock()
	if l := r.st.live; l != nil {
		l.open = false
		l.settle()
	}
	return err
}

// Entries calls for the durable entries of the facet's log from seq on, in order,
// as they are when the iteration begins. Entries below the base, or removed while
// it goes on, are ErrCompacted. The commit is good until the next one.
func (r Replica) Entries(from facet.Seq) iter.Seq2[*facet.Commit, error] {
	return r.entries(from, func(l *live) facet.Seq { return l.durable })
}

// entries are those from from up to end, which is called with state.mu held and must
// not be above what is durable.
func (r Replica) entries(from facet.Seq, end func(*live) facet.Seq) commits {
	return func(yield func(*facet.Commit, error) bool) {
		st := r.st
		st.mu.Lock()
		var locs []commitlog.Loc
		var err error
		switch l := st.live; {
		case st.gone() != nil:
			err = st.gone()
		case st.health.broken():
			err = ErrDamaged
		case from <= st.basePos.Seq:
			err = ErrCompacted
		case l != nil && from <= end(l):
			locs = append(locs, l.entries[from-l.first:end(l)+1-l.first]...)
		}
		st.mu.Unlock()
		if err != nil {
			yield(nil, fmt.Errorf("entries of %v from %v: %w", st.id, from, err))
			return
		}
		for c, err := range r.s.commits(st.id, locs) {
			if errors.Is(err, commitlog.ErrRemoved) {
				err = fmt.Errorf("%w: %w", ErrCompacted, err)
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

type commits = iter.Seq2[*facet.Commit, error]

// commits reads entries from the log. The commit is good until the next one.
func (s *Store) commits(id facet.Incarnation, locs []commitlog.Loc) commits {
	return func(yield func(*facet.Commit, error) bool) {
		var buf []byte
		for _, loc := range locs {
			payload, err := s.log.Read(loc, buf[:0])
			if err != nil {
				yield(nil, err)
				return
			}
			buf = payload
			c, err := facet.DecodeCommit(id, payload)
			if err != nil {
				yield(nil, fmt.Errorf("%w: %w", commitlog.ErrCorrupt, err))
				return
			}
			if !yield(&c, nil) {
				return
			}
		}
	}
}
