package pages

import (
	"fmt"
	"sync"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
)

// Discard drops the stage: the transaction was rolled back and leaves no trace.
func (s *Store) Discard() {
	for _, f := range s.stage {
		s.recycle(f)
	}
	s.stage, s.staging = s.stage[:0], false
	if cap(s.stage) > maxKeptStage {
		s.stage = nil
	}
}

// Staged reports whether a transaction has written anything.
func (s *Store) Staged() bool { return s.staging }

// Seal turns the stage into the commit that follows Position, in the given epoch,
// and makes it the newest committed state. ok is false when the transaction
// changed nothing; then there is no commit. The commit's Pages are valid until the
// next Seal or Recycle.
//
// An error leaves the store unusable for writing: the caller drops it and builds
// another from the log (rule R26).
func (s *Store) Seal(id facet.Incarnation, epoch facet.Epoch) (c facet.Commit, ok bool, err error) {
	if !s.staging {
		return c, false, nil
	}
	// A transaction that shrank the database and grew it again left holes where
	// there were pages before: they are zeros now and must be told as such.
	for p := s.stageFloor + 1; p <= min(s.stagePages, s.pages); p++ {
		if _, ok := s.find(p); !ok {
			var zero [Size]byte
			if err := s.WriteAt(zero[:], int64(p-1)*Size); err != nil {
				return c, false, err
			}
		}
	}
	if s.enc == nil {
		s.enc = encodings.Get().(*[]byte)
	}
	enc, sum, last := (*s.enc)[:0], s.pos.Sum, uint32(0)
	kept := s.stage[:0]
	for _, f := range s.stage {
		old, oldSum, err := s.committed(f.pgno)
		if err != nil {
			return c, false, err
		}
		at := Size // where the page first differs
		if f.pgno <= s.stagePages {
			at = nextDiff(old, f.data[:], 0)
		}
		if at == Size {
			s.recycle(f)
			continue
		}
		f.sum = Hash(f.pgno, f.data[:])
		sum = sum.Sub(oldSum).Add(f.sum)
		enc = appendDelta(enc, last, f.pgno, old, f.data[:], at)
		last = f.pgno
		kept = append(kept, f)
	}
	s.stage, *s.enc = kept, enc
	if len(enc) == 0 && s.stagePages == s.pages {
		s.Discard()
		return c, false, nil
	}
	if len(enc) > facet.MaxCommitBytes {
		return c, false, ErrTooLarge
	}
	if sum, err = s.cut(sum, s.stagePages); err != nil {
		return c, false, err
	}
	c = facet.Commit{
		Incarnation: id, Kind: facet.KindCommit, Epoch: epoch, Seq: s.pos.Seq + 1,
		PrevEpoch: s.pos.Epoch, PreSum: s.pos.Sum, PostSum: sum,
		DBPages: s.stagePages, Pages: enc,
	}
	s.adopt(&c, s.stage)
	s.stage, s.staging = s.stage[:0], false
	return c, true, nil
}

// encodings are buffers for encoded pages, shared by all stores for the same reason
// as frames are.
var encodings = sync.Pool{New: func() any { return new([]byte) }}

// Recycle gives back the memory of the last sealed commit's Pages, once the commit
// was handed on.
func (s *Store) Recycle() {
	if s.enc != nil && cap(*s.enc) <= maxKeptEncoding {
		encodings.Put(s.enc)
	}
	s.enc = nil
}

// Barrier makes the barrier entry that follows Position in the given epoch.
func (s *Store) Barrier(id facet.Incarnation, epoch facet.Epoch) facet.Commit {
	c := facet.Commit{
		Incarnation: id, Kind: facet.KindBarrier, Epoch: epoch, Seq: s.pos.Seq + 1,
		PrevEpoch: s.pos.Epoch, PreSum: s.pos.Sum, PostSum: s.pos.Sum, DBPages: s.pages,
	}
	s.adopt(&c, nil)
	return c
}

// Apply makes c, which must follow Position, the newest committed state. When it
// fails nothing has changed. c.Pages may be re-used afterwards.
func (s *Store) Apply(c *facet.Commit) error {
	if s.staging {
		return fmt.Errorf("apply commit %v: a transaction is under way", c.Position())
	}
	if c.Prev() != s.pos {
		return fmt.Errorf("apply commit %v after %v: %w", c.Position(), s.pos, ErrGap)
	}
	d := decoder{src: c.Pages, limit: c.DBPages}
	sum := s.pos.Sum
	var frames []*frame
	for len(d.src) > 0 {
		pgno, ranges, err := d.next()
		if err != nil {
			return fmt.Errorf("apply commit %v: %w", c.Position(), err)
		}
		old, oldSum, err := s.committed(pgno)
		if err != nil {
			return fmt.Errorf("apply commit %v: %w", c.Position(), err)
		}
		f := s.frame()
		f.pgno = pgno
		copy(f.data[:], old)
		if err := d.patch(ranges, f.data[:]); err != nil {
			return fmt.Errorf("apply commit %v: %w", c.Position(), err)
		}
		f.sum = Hash(pgno, f.data[:])
		sum = sum.Sub(oldSum).Add(f.sum)
		frames = append(frames, f)
	}
	sum, err := s.cut(sum, c.DBPages)
	if err != nil {
		return fmt.Errorf("apply commit %v: %w", c.Position(), err)
	}
	if sum != c.PostSum && !broken.Is(broken.NoSum) {
		return fmt.Errorf("apply commit %v: sum is %v, commit says %v: %w", c.Position(), sum, c.PostSum, ErrDiverged)
	}
	s.adopt(c, frames)
	return nil
}

// committed is the newest committed content of the page and its hash. The slice
// is valid until the next call.
func (s *Store) committed(pgno uint32) ([]byte, facet.Sum, error) {
	if f, ok := s.overlay[pgno]; ok {
		return f.data[:], f.sum, nil
	}
	if pgno > s.fileLimit {
		return zeroPage[:], facet.Sum{}, nil
	}
	if s.old == nil {
		s.old = new([Size]byte)
	}
	if err := s.readFile(pgno, s.old[:], 0); err != nil {
		return nil, facet.Sum{}, err
	}
	return s.old[:], Hash(pgno, s.old[:]), nil
}

var zeroPage [Size]byte // never written

// cut subtracts from sum the pages that a database of n pages no longer has.
func (s *Store) cut(sum facet.Sum, n uint32) (facet.Sum, error) {
	for p := n + 1; p <= s.pages; p++ {
		_, old, err := s.committed(p)
		if err != nil {
			return sum, err
		}
		sum = sum.Sub(old)
	}
	return sum, nil
}

// adopt puts the frames of c into the overlay and moves Position to it.
func (s *Store) adopt(c *facet.Commit, frames []*frame) {
	for _, f := range frames {
		if old := s.overlay[f.pgno]; old != nil && s.shared.frozen.Load() == 0 {
			s.recycle(old)
		}
		s.overlay[f.pgno] = f
	}
	if c.DBPages < s.pages {
		for p := range s.overlay {
			if p > c.DBPages {
				delete(s.overlay, p)
			}
		}
		s.fileLimit = min(s.fileLimit, c.DBPages)
		s.cutSince = min(s.cutSince, c.DBPages)
	}
	s.pages = c.DBPages
	s.pos = c.Position()
}
