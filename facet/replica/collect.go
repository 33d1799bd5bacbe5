package replica

import (
	"context"
	"fmt"
	"math"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
)

// Collection is what Collect did and what hinders it.
type Collection struct {
	Removed int   // segments
	Carried int   // facets whose newest records were written again (R12)
	Size    int64 // of the log afterwards
	// Pins are facets whose entries keep the oldest segment, when the log is above
	// its budget or has rotted: checkpoint them, with CheckpointIdle if they are not open.
	Pins []facet.Incarnation
	// Long are facets that are not open and have many committed entries above their
	// files, which the next owner would have to read one by one: CheckpointIdle them
	// too. At most maxLong.
	Long []facet.Incarnation
}

// Collect removes the segments at the head of the log that nobody needs (R12):
// all entries in them are at or below the base of their facet, or cut off, or of
// a deleted facet; what promises, bases and tombstones they hold is carried to the
// end of the log first.
//
// Which records a segment holds is known once they were reported durable, and
// they are reported in the order of the log; so only segments before the one
// reported last are looked at.
func (s *Store) Collect(ctx context.Context) (Collection, error) {
	s.collect.Lock()
	defer s.collect.Unlock()
	c, err := s.collectSegments(ctx)
	if err != nil {
		return c, fmt.Errorf("collect log segments: %w", err)
	}
	return c, nil
}

func (s *Store) collectSegments(ctx context.Context) (c Collection, err error) {
	upTo := uint32(0)
	if n := s.notified.Load(); n > 0 {
		upTo = n - 1
	}
	pinned := s.pins()
	if pinned.segment <= upTo {
		upTo = pinned.segment - 1
	}
	segs := s.log.Segments()
	n, newest := 0, uint32(0)
	for _, seg := range segs[:max(len(segs)-1, 0)] {
		if seg.ID > upTo || !seg.Sealed {
			break
		}
		n, newest = n+1, seg.ID
	}
	if n > 0 {
		if c.Carried, err = s.carryFrom(ctx, newest); err != nil {
			return c, err
		}
		if err := s.log.Remove(newest); err != nil {
			return c, logError(err)
		}
		c.Removed = n
	}
	c.Size, c.Long = s.log.Size(), pinned.long
	if (c.Size > s.opts.LogBudget || s.Rotten() != 0) && len(pinned.facets) > 0 {
		c.Pins = pinned.facets
	}
	return c, nil
}

// pinned is the oldest segment that entries or images still need, and whose; and
// whose logs have become long.
type pinned struct {
	segment uint32
	facets  []facet.Incarnation
	long    []facet.Incarnation
}

func (s *Store) pins() pinned {
	p := pinned{segment: math.MaxUint32}
	s.each(func(st *state) bool {
		st.mu.Lock()
		seg, tail := st.pin(), st.tail()
		st.mu.Unlock()
		if tail >= s.opts.TailEntries && len(p.long) < maxLong {
			p.long = append(p.long, st.id)
		}
		switch {
		case seg == 0 || seg > p.segment:
			return true
		case seg < p.segment:
			p.segment, p.facets = seg, p.facets[:0]
		}
		if len(p.facets) < maxPins {
			p.facets = append(p.facets, st.id)
		}
		return true
	})
	return p
}

// tail is how many entries of a facet that nobody has open could go to its file.
// State.mu is held.
func (st *state) tail() int {
	l := st.live
	if l == nil || l.open || l.checkpointing || l.installing || l.known < l.first {
		return 0
	}
	return int(l.known - l.first + 1)
}

// pin is the oldest segment the facet needs for more than what CARRY says, 0 for
// none. State.mu is held.
func (st *state) pin() uint32 {
	l := st.live
	if l == nil {
		return 0
	}
	seg := uint32(math.MaxUint32)
	if len(l.entries) > 0 && l.entries[0].Segment != 0 {
		seg = l.entries[0].Segment
	}
	// PAGES need no pin of their own: they come behind the entries they are of, and
	// those stay until the BASE that ends both.
	if l.installing && st.baseSeg != 0 {
		// The base hangs on the INSTALL and its temporary file until it has a name.
		seg = min(seg, st.baseSeg)
	}
	if seg == math.MaxUint32 {
		return 0
	}
	return seg
}

// carryFrom writes again what segments up to upTo hold and nothing newer says,
// durably (R12). Nothing new comes to lie in them meanwhile.
func (s *Store) carryFrom(ctx context.Context, upTo uint32) (int, error) {
	n := 0
	var err error
	s.each(func(st *state) bool {
		err = s.patient(ctx, func() error {
			st.mu.Lock()
			defer st.mu.Unlock()
			old := func(seg uint32) bool { return seg != 0 && seg <= upTo }
			if !old(st.promiseSeg) && !old(st.baseSeg) || broken.Is(broken.NoCarry) {
				return nil
			}
			n++
			l := s.wake(st)
			defer l.settle()
			return l.carry()
		})
		if err == nil && n > 0 && n%carryBatch == 0 {
			err = ctx.Err()
		}
		return err == nil
	})
	if err == nil && n > 0 {
		err = s.Sync(ctx)
	}
	if err != nil {
		return n, err
	}
	return n, s.carried(upTo)
}

// carried makes sure that nothing hangs on segments up to upTo.
func (s *Store) carried(upTo uint32) error {
	var err error
	s.each(func(st *state) bool {
		st.mu.Lock()
		defer st.mu.Unlock()
		p, b, pin := st.promiseSeg, st.baseSeg, st.pin()
		if broken.Is(broken.NoCarry) {
			return true
		}
		if p != 0 && p <= upTo || b != 0 && b <= upTo || pin != 0 && pin <= upTo {
			// Invariant: R12. Removing the segment would lose a promise or data.
			err = fmt.Errorf("facet %v still needs segments %d, %d, %d of up to %d", st.id, p, b, pin, upTo)
		}
		return err == nil
	})
	return err
}
