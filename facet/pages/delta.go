package pages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/facetd/facetd/facet"
)

// A commit's pages are encoded in ascending page order, each as
//
//	uvarint  page number minus the number before it (the first: its number)
//	uvarint  n, number of changed byte ranges; 0 means the whole page follows
//	n × ( uvarint gap since the end of the range before, uvarint length-1, bytes )
//
// Ranges are relative to the page's content before the commit; a page beyond the
// old end of the database counts as zeros.

// ErrMalformed marks encoded pages that cannot be read. They are never applied in
// part.
var ErrMalformed = errors.New("malformed page changes")

// joinGap is the longest run of equal bytes kept inside a range: a new range costs
// two or three bytes of its own.
const joinGap = 4

// appendDelta appends the change from old to new of the page to dst. last is the
// number of the page encoded before it, zero for the first; first is the index of
// the first byte that differs, and there is one.
func appendDelta(dst []byte, last, pgno uint32, old, new []byte, first int) []byte {
	dst = binary.AppendUvarint(dst, uint64(pgno-last))
	head := len(dst)
	dst = append(dst, 0) // number of ranges; at most 127 fit, more become a whole page
	n, end := 0, 0       // end of the last range within the page
	for i := first; i < Size; i = nextDiff(old, new, i) {
		// Grow the range until joinGap equal bytes follow it.
		j := i + 1
		for j < Size {
			k := nextDiff(old, new, j)
			if k == Size || k-j > joinGap {
				break
			}
			j = sameFrom(old, new, k+1)
		}
		n++
		if n > 127 || len(dst)-head+(j-i)+6 > Size {
			dst = append(dst[:head], 0)
			return append(dst, new[:Size]...)
		}
		dst = binary.AppendUvarint(dst, uint64(i-end))
		dst = binary.AppendUvarint(dst, uint64(j-i-1))
		dst = append(dst, new[i:j]...)
		end, i = j, j
	}
	dst[head] = byte(n)
	return dst
}

// nextDiff is the first index at or after i where the pages differ, Size if none.
func nextDiff(a, b []byte, i int) int {
	a, b = a[:Size], b[:Size]
	for ; i < Size && i&7 != 0; i++ {
		if a[i] != b[i] {
			return i
		}
	}
	for ; i < Size; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	return Size
}

// sameFrom is the first index at or after i where the pages agree, Size if none.
func sameFrom(a, b []byte, i int) int {
	for i < Size && a[i] != b[i] {
		i++
	}
	return i
}

// decoder walks over encoded pages.
type decoder struct {
	src   []byte
	last  uint32
	limit uint32 // highest page number allowed
}

// next reads the head of the next page. ranges is zero for a whole page.
func (d *decoder) next() (pgno uint32, ranges int, err error) {
	step, k := binary.Uvarint(d.src)
	if k <= 0 || step == 0 || step > uint64(d.limit) || uint64(d.last)+step > uint64(d.limit) {
		return 0, 0, fmt.Errorf("%w: bad page number after %d, limit %d", ErrMalformed, d.last, d.limit)
	}
	d.last += uint32(step)
	d.src = d.src[k:]
	if len(d.src) == 0 || d.src[0] > 127 {
		return 0, 0, fmt.Errorf("%w: bad range count of page %d", ErrMalformed, d.last)
	}
	ranges, d.src = int(d.src[0]), d.src[1:]
	return d.last, ranges, nil
}

// patch applies the body of the page just announced to page, in place. page may
// be nil to skip the body.
func (d *decoder) patch(ranges int, page []byte) error {
	if ranges == 0 {
		if len(d.src) < Size {
			return fmt.Errorf("%w: page %d cut short", ErrMalformed, d.last)
		}
		if page != nil {
			copy(page, d.src[:Size])
		}
		d.src = d.src[Size:]
		return nil
	}
	at := uint64(0)
	for range ranges {
		gap, k := binary.Uvarint(d.src)
		if k <= 0 || gap > Size {
			return fmt.Errorf("%w: bad range of page %d", ErrMalformed, d.last)
		}
		n, m := binary.Uvarint(d.src[k:])
		if m <= 0 || n >= Size || at+gap+n+1 > Size {
			return fmt.Errorf("%w: bad range of page %d", ErrMalformed, d.last)
		}
		n, at, d.src = n+1, at+gap, d.src[k+m:]
		if uint64(len(d.src)) < n {
			return fmt.Errorf("%w: page %d cut short", ErrMalformed, d.last)
		}
		if page != nil {
			copy(page[at:at+n], d.src[:n])
		}
		at, d.src = at+n, d.src[n:]
	}
	return nil
}

// Check reads through the encoded pages of c without applying them, so that a
// replica never stores what it could not apply.
func Check(c *facet.Commit) error {
	d := decoder{src: c.Pages, limit: c.DBPages}
	for len(d.src) > 0 {
		_, ranges, err := d.next()
		if err == nil {
			err = d.patch(ranges, nil)
		}
		if err != nil {
			return fmt.Errorf("check commit %v: %w", c.Position(), err)
		}
	}
	return nil
}
