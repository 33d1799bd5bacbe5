package pages

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
)

// Checkpoint copies the overlay, as it was when the checkpoint was taken, into the
// database file.
//
// The simple version writes the pages and syncs. It fails when the machine stops
// half-way: a page of the file may then be old, new, or torn, while the log holds
// only byte ranges relative to the old page. So the order is:
//
//  1. Store.Checkpoint freezes the overlay (the owner's goroutine).
//  2. The caller waits until everything up to Position is known committed (R11).
//  3. Overwritten gives the full new content of every page of the old base that is
//     about to be overwritten; the caller makes it durable in its log. After a
//     crash from here on it writes them again (Restore, Finish) before it reads
//     the file.
//  4. Write writes pages, syncs the file and verifies the checksum.
//  5. The caller records the new Base durably, then calls Done, and only then may
//     the log entries at or below it go.
//
// Steps 2 to 4 may run on any goroutine while the store goes on. A store has at
// most one checkpoint at a time.
type Checkpoint struct {
	store  *Store
	shared *shared
	from   Base
	to     Base
	frames []*frame // ascending
}

// Checkpoint freezes the newest committed state for a checkpoint. It returns nil
// when the file already has it.
func (s *Store) Checkpoint() *Checkpoint {
	if s.pos == s.base.Position {
		return nil
	}
	c := &Checkpoint{
		store: s, shared: s.shared, from: s.base,
		to:     Base{Position: s.pos, Pages: s.pages},
		frames: make([]*frame, 0, len(s.overlay)),
	}
	for _, f := range s.overlay {
		c.frames = append(c.frames, f)
	}
	// Pages cut off and regrown without being written since are zeros, but the
	// file may still have their old content.
	for p := s.fileLimit + 1; p <= min(s.pages, s.shared.length(s.base)); p++ {
		if s.overlay[p] == nil {
			c.frames = append(c.frames, &frame{pgno: p})
		}
	}
	slices.SortFunc(c.frames, func(a, b *frame) int { return int(int64(a.pgno) - int64(b.pgno)) })
	s.cutSince = s.pages
	s.shared.frozen.Add(1)
	return c
}

// Base is the state of the file once the checkpoint is done.
func (c *Checkpoint) Base() Base { return c.to }

// Unchanged reports that only the position moved (a barrier): the file is right
// already, and neither Overwritten nor Write is needed.
func (c *Checkpoint) Unchanged() bool { return len(c.frames) == 0 && c.from.Pages == c.to.Pages }

// Overwritten appends to dst, in the encoding of a commit relative to zeros, the
// new content of pages of the old base, beginning with the first one above after,
// until limit bytes are reached. It returns the last page appended and whether
// more follow.
func (c *Checkpoint) Overwritten(dst []byte, after uint32, limit int) (enc []byte, last uint32, more bool) {
	var zero [Size]byte
	start := len(dst)
	prev := uint32(0)
	for _, f := range c.frames {
		if f.pgno <= after {
			continue
		}
		if f.pgno > c.from.Pages {
			break
		}
		if len(dst)-start+Size+16 > limit {
			return dst, last, true
		}
		if isZero(f.data[:]) {
			dst = appendWhole(dst, prev, f.pgno, f.data[:])
		} else {
			dst = appendDelta(dst, prev, f.pgno, zero[:], f.data[:], nextDiff(zero[:], f.data[:], 0))
		}
		prev, last = f.pgno, f.pgno
	}
	return dst, last, false
}

// Replaced lists the pages of the old base that Write overwrites or cuts off, some
// perhaps twice: whoever reads the file as it was keeps them first.
func (c *Checkpoint) Replaced() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for _, f := range c.frames {
			if f.pgno > c.from.Pages {
				break
			}
			if !yield(f.pgno) {
				return
			}
		}
		for p := c.to.Pages + 1; p <= c.from.Pages; p++ {
			if !yield(p) {
				return
			}
		}
	}
}

// Write copies the frozen pages into the file, syncs it and checks that the file
// then has the checksum of the new base: the pages read before they are
// overwritten and the pages written must account for the whole difference. This
// also finds pages of the file that rotted since the last checkpoint.
func (c *Checkpoint) Write() error {
	f, err := c.shared.open(c.store.openFile, c.from)
	if err != nil {
		return fmt.Errorf("open database file: %w", err)
	}
	sum := c.from.Position.Sum
	var old [Size]byte
	minus := func(p uint32) error {
		if err := readFull(f, old[:], int64(p-1)*Size, p); err != nil {
			return err
		}
		sum = sum.Sub(Hash(p, old[:]))
		return nil
	}
	for _, fr := range c.frames {
		if fr.pgno <= c.from.Pages {
			if err := minus(fr.pgno); err != nil {
				return err
			}
		}
		if err := c.writePage(f, fr); err != nil {
			return err
		}
		sum = sum.Add(fr.sum)
	}
	for p := c.to.Pages + 1; p <= c.from.Pages; p++ {
		if err := minus(p); err != nil {
			return err
		}
	}
	if sum != c.to.Position.Sum && !broken.Is(broken.FileUnchecked) {
		return fmt.Errorf("checkpoint at %v: file sums to %v, want %v: %w", c.to.Position, sum, c.to.Position.Sum, ErrDiverged)
	}
	if err := c.resize(f); err != nil {
		return err
	}
	if broken.Is(broken.FileNotSynced) {
		return nil
	}
	if err := f.Datasync(); err != nil {
		return fmt.Errorf("sync database file: %w", err)
	}
	return nil
}

func (c *Checkpoint) writePage(f File, fr *frame) error {
	c.shared.mu.Lock()
	defer c.shared.mu.Unlock()
	if err := c.shared.save(fr.pgno); err != nil {
		return err
	}
	if _, err := f.WriteAt(fr.data[:], int64(fr.pgno-1)*Size); err != nil {
		return fmt.Errorf("write page %d of database file: %w", fr.pgno, err)
	}
	c.shared.pages = max(c.shared.pages, fr.pgno)
	return nil
}

// resize makes the file as long as its pages say, so that it is a sound SQLite
// file for whoever opens a copy. While a snapshot is open a file is only made
// longer; a later checkpoint makes up for it, and reads stop at the base's end
// whatever the file's length.
func (c *Checkpoint) resize(f File) error {
	c.shared.mu.Lock()
	defer c.shared.mu.Unlock()
	if c.to.Pages == c.shared.pages || c.to.Pages < c.shared.pages && len(c.shared.snaps) > 0 {
		return nil
	}
	if err := f.Truncate(int64(c.to.Pages) * Size); err != nil {
		return fmt.Errorf("resize database file: %w", err)
	}
	c.shared.pages = c.to.Pages
	return nil
}

// Done takes the checkpoint into the store, after its Base is durably recorded.
// Called on the store's goroutine.
func (c *Checkpoint) Done() {
	s := c.store
	for _, f := range c.frames {
		if s.overlay[f.pgno] == f {
			delete(s.overlay, f.pgno)
		}
	}
	s.base = c.to
	// Pages cut off since the checkpoint was taken stay cut off.
	s.fileLimit = min(c.to.Pages, s.cutSince)
	s.shared.frozen.Add(-1)
}

// Abort forgets the checkpoint. If Write was called the file may hold a mixture;
// the store must then be dropped and the facet recovered from its log.
func (c *Checkpoint) Abort() { c.shared.frozen.Add(-1) }

// Restore writes page images made by Overwritten into f again, after a crash
// during a checkpoint. See Finish.
func Restore(f File, enc []byte) error {
	d := decoder{src: enc, limit: facet.MaxPages}
	for len(d.src) > 0 {
		pgno, ranges, err := d.next()
		if err != nil {
			return fmt.Errorf("restore pages: %w", err)
		}
		var page [Size]byte
		if err := d.patch(ranges, page[:]); err != nil {
			return fmt.Errorf("restore pages: %w", err)
		}
		if _, err := f.WriteAt(page[:], int64(pgno-1)*Size); err != nil {
			return fmt.Errorf("restore page %d: %w", pgno, err)
		}
	}
	return nil
}

// Finish completes a checkpoint from base from to base to that a crash cut short.
// The images Overwritten gave were written with Restore before; commits are the
// log's entries from.Position.Seq+1 up to to.Position.Seq, in order: pages beyond
// the old base began as zeros, so the entries tell them whole. The file is read
// through once and must have the checksum of to.
func Finish(f File, from, to Base, commits iter.Seq2[*facet.Commit, error]) error {
	if err := f.Truncate(int64(from.Pages) * Size); err != nil {
		return fmt.Errorf("resize database file: %w", err)
	}
	fresh := make(map[uint32]*[Size]byte)
	for c, err := range commits {
		if err != nil {
			return err
		}
		d := decoder{src: c.Pages, limit: c.DBPages}
		for len(d.src) > 0 {
			pgno, ranges, err := d.next()
			if err != nil {
				return fmt.Errorf("finish checkpoint at commit %v: %w", c.Position(), err)
			}
			var page *[Size]byte
			if pgno > from.Pages {
				if page = fresh[pgno]; page == nil {
					page = new([Size]byte)
					fresh[pgno] = page
				}
				err = d.patch(ranges, page[:])
			} else {
				err = d.patch(ranges, nil)
			}
			if err != nil {
				return fmt.Errorf("finish checkpoint at commit %v: %w", c.Position(), err)
			}
		}
		for p := range fresh {
			if p > c.DBPages {
				delete(fresh, p)
			}
		}
	}
	for p, page := range fresh {
		if _, err := f.WriteAt(page[:], int64(p-1)*Size); err != nil {
			return fmt.Errorf("write page %d of database file: %w", p, err)
		}
	}
	if err := f.Truncate(int64(to.Pages) * Size); err != nil {
		return fmt.Errorf("resize database file: %w", err)
	}
	if err := f.Datasync(); err != nil {
		return fmt.Errorf("sync database file: %w", err)
	}
	return Verify(f, to)
}

// verifying are buffers of Verify, which runs whenever a facet is opened.
var verifying = sync.Pool{New: func() any { return new([64 * Size]byte) }}

// Verify reads the whole file and compares it with what base says.
func Verify(f File, base Base) error {
	var sum facet.Sum
	buf := verifying.Get().(*[64 * Size]byte)
	defer verifying.Put(buf)
	for p := uint32(1); p <= base.Pages; {
		n := min(uint32(len(buf)/Size), base.Pages-p+1)
		if err := readFull(f, buf[:n*Size], int64(p-1)*Size, p); err != nil {
			return err
		}
		for i := range n {
			sum = sum.Add(Hash(p+i, buf[i*Size:(i+1)*Size]))
		}
		p += n
	}
	if sum != base.Position.Sum {
		return fmt.Errorf("database file at %v sums to %v, want %v: %w", base.Position, sum, base.Position.Sum, ErrDiverged)
	}
	return nil
}

// appendWhole appends the page in full.
func appendWhole(dst []byte, last, pgno uint32, page []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(pgno-last))
	return append(append(dst, 0), page[:Size]...)
}

// length is how many pages the file may hold, at least those of base.
func (sh *shared) length(base Base) uint32 {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return max(sh.pages, base.Pages)
}
