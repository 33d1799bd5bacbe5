package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/internal/disk"
)

// Pace is called before n bytes are read by a scrub; it waits as long as they are to
// take. Nil does not wait.
type Pace func(ctx context.Context, n int) error

// Scrub reads the facet's database file from the device, open or not, and compares it
// with its base (R52). The facet may be written meanwhile: what a checkpoint overwrites
// is kept for as long as it is read. ErrOpen says that the file is just being written,
// or was changed too much, and ErrBusy that too many read it: try again later. A file
// that fails is taken out of service (R51), and the error is facet.ErrCorrupt.
func (r Replica) Scrub(ctx context.Context, pace Pace) error {
	if err := r.scrub(ctx, pace); err != nil {
		return fmt.Errorf("scrub %v: %w", r.st.id, err)
	}
	return nil
}

func (r Replica) scrub(ctx context.Context, pace Pace) error {
	for again := false; ; again = true {
		b, err := r.baseSource(maxSavedPages, true)
		if err != nil {
			return err
		}
		err = b.verify(ctx, pace)
		current := b.current()
		b.Close() // opened for reading: nothing can be lost by closing it
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case errors.Is(err, pages.ErrSnapshotTooOld):
			return ErrOpen
		case current || again:
			return r.s.openFailed(r.st, err)
		}
		// A checkpoint may have mended what was wrong. If the next base is wrong too, it
		// has not, whether that one is current still or not: a facet that is written all
		// the time is never read at a base that stays.
	}
}

// verify compares the file with its base.
func (b *BaseFile) verify(ctx context.Context, pace Pace) error {
	var sum facet.Sum
	buf := disk.AlignedBuffer(scrubChunk * pages.Size)
	for at := uint32(0); at < b.base.Pages; {
		n := min(scrubChunk, b.base.Pages-at)
		if pace != nil {
			if err := pace(ctx, int(n)*pages.Size); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := b.readRun(at+1, buf[:n*pages.Size]); err != nil {
			return err
		}
		for i := range n {
			sum = sum.Add(pages.Hash(at+i+1, buf[i*pages.Size:(i+1)*pages.Size]))
		}
		at += n
	}
	if sum != b.base.Position.Sum && !broken.Is(broken.BlindScrub) {
		return fmt.Errorf("database file at %v sums to %v, want %v: %w", b.base.Position, sum, b.base.Position.Sum, pages.ErrDiverged)
	}
	return nil
}

// readRun fills dst with pages from first on.
func (b *BaseFile) readRun(first uint32, dst []byte) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.lost != nil {
		return b.lost
	}
	step := len(dst)
	if len(b.saved) > 0 {
		step = pages.Size // what is saved may be gone from the file
	}
	for at := 0; at < len(dst); at += step {
		pgno := first + uint32(at/pages.Size)
		if p := b.saved[pgno]; p != nil {
			copy(dst[at:], p[:])
		} else if n, err := b.f.ReadAt(dst[at:at+step], int64(pgno-1)*pages.Size); n < step {
			return endOf(err)
		}
	}
	return nil
}

// Outvoted takes the copy out of service because a majority of the facet's members has
// other content at the position at (R51), if it ends there still. ErrGap says that it
// does not.
func (r Replica) Outvoted(at facet.Position) error {
	st := r.st
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case st.gone() != nil:
		return st.gone()
	case st.health.broken():
		return ErrDamaged
	case at.IsZero() || st.last() != at:
		return &GapError{st.last()}
	}
	r.s.wake(st)
	_ = r.s.diverged(st, fmt.Errorf("most members have other content at %v", at)) // it is what was asked for
	return nil
}

// ScrubLog reads one segment of the commit log from the device and checks it (R52). Of
// a segment that has rotted nothing is needed for long: from then on Collect brings what
// lies in it, and before it, to where it is sound, and removes it. The error is
// facet.ErrCorrupt, and for a segment that is not there any more nil.
func (s *Store) ScrubLog(ctx context.Context, id uint32, pace Pace) error {
	err := s.log.Verify(ctx, id, pace)
	switch {
	case errors.Is(err, commitlog.ErrRemoved):
		return nil
	case !errors.Is(err, commitlog.ErrCorrupt):
		return err
	}
	s.rotten.Store(max(s.rotten.Load(), id)) // only the scrubber calls this
	if segs := s.log.Segments(); len(segs) > 0 && segs[len(segs)-1].ID == id {
		s.log.Turn(id)
		if terr := s.carryOne(ctx); terr != nil {
			err = errors.Join(err, terr)
		}
	}
	s.logger.Error("a segment of the commit log has rotted: what it holds is brought elsewhere, and facets that need what cannot be read are replaced by their other replicas",
		"segment", id, "error", err)
	return facet.Errorf(facet.CodeCorrupt, "%v", err)
}

// carryOne writes a record, so that the log begins its next segment.
func (s *Store) carryOne(ctx context.Context) error {
	var err error
	s.each(func(st *state) bool {
		err = s.patient(ctx, func() error {
			st.mu.Lock()
			defer st.mu.Unlock()
			l := s.wake(st)
			defer l.settle()
			return l.carry()
		})
		return false
	})
	return err
}

// Rotten is the newest segment of the log in which damage was found since the store was
// opened, and that is still there; zero for none.
func (s *Store) Rotten() uint32 {
	id := s.rotten.Load()
	if segs := s.log.Segments(); len(segs) == 0 || segs[0].ID > id {
		return 0
	}
	return id
}

// IDs lists the facets kept here whose ids begin with first, one 256th of them.
func (s *Store) IDs(first byte) []facet.Incarnation {
	var ids []facet.Incarnation
	s.each(func(st *state) bool {
		if st.id[0] != first {
			return true
		}
		st.mu.Lock()
		defer st.mu.Unlock()
		if st.gone() == nil {
			ids = append(ids, st.id)
		}
		return true
	})
	return ids
}

// Damage is a copy that is not Healthy.
type Damage struct {
	ID     facet.Incarnation
	Health Health
	// Since is the epoch promised when that was found: a session of a higher one heals
	// the copy.
	Since facet.Epoch
}

// Damaged lists copies that are not Healthy, at most limit, and tells how many there
// are.
func (s *Store) Damaged(limit int) (list []Damage, n int) {
	for _, d := range s.lost.list() {
		r, err := s.Replica(d.ID)
		if err != nil {
			continue // dropped or deleted
		}
		if d.Health = r.Meta().Health; d.Health == Healthy {
			continue
		}
		if n++; len(list) < limit {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b Damage) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return list, n
}
