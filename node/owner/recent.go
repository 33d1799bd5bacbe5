package owner

import "github.com/facetd/facetd/facet"

// recent keeps the newest entries of a session's log, those that this node's own
// log may not be able to give back yet. What is older is read from there.
//
// Invariant: entries are dense, the first one has the sequence number first. An
// entry does not change while it is here; its memory is used again for a later one
// after trim, which nobody calls while entries are being shipped.
type recent struct {
	first   facet.Seq
	entries []*entry // a queue: the oldest first
	bytes   int      // of their pages
	spare   []*entry
}

type entry struct{ commit facet.Commit }

// push puts a copy of c, whose pages are the caller's, at the end.
func (r *recent) push(c *facet.Commit) {
	var e *entry
	if n := len(r.spare); n > 0 {
		e, r.spare = r.spare[n-1], r.spare[:n-1]
	} else {
		e = new(entry)
	}
	buf := e.commit.Pages
	e.commit = *c
	e.commit.Pages = append(buf[:0], c.Pages...)
	if len(r.entries) == 0 {
		r.first = c.Seq
	}
	r.entries = append(r.entries, e)
	r.bytes += len(c.Pages)
}

// from appends the entries seq to to, or what there is of them, to dst. It is
// false when seq is older than all of them.
func (r *recent) from(dst []*entry, seq, to facet.Seq) ([]*entry, bool) {
	if len(r.entries) == 0 || seq < r.first {
		return dst, false
	}
	i := int(seq - r.first)
	j := min(int(to-r.first)+1, len(r.entries))
	if i < j {
		dst = append(dst, r.entries[i:j]...)
	}
	return dst, true
}

// trim lets entries up to seq go.
func (r *recent) trim(seq facet.Seq) {
	if len(r.entries) == 0 || seq < r.first {
		return
	}
	n := min(int(seq-r.first)+1, len(r.entries))
	for _, e := range r.entries[:n] {
		r.bytes -= len(e.commit.Pages)
		if len(r.spare) < spareEntries && cap(e.commit.Pages) <= spareBytes {
			r.spare = append(r.spare, e)
		}
	}
	r.entries = drop(r.entries, n)
	r.first += facet.Seq(n)
}

// drop removes the first n elements and keeps the array.
func drop[T any](s []T, n int) []T {
	if n == 0 {
		return s
	}
	k := copy(s, s[n:])
	clear(s[k:])
	return s[:k]
}
