package client

import (
	"sync"

	"github.com/facetd/facetd/facet"
)

// Bookmark holds how far in the life of one facet a program has seen. Facet.Bookmarked
// uses and moves it. It is safe for concurrent use; the zero value has seen nothing.
//
// Its text may be kept and given to another program, which then sees at least what
// this one saw. Texts of one facet sort by age.
type Bookmark struct {
	mu sync.Mutex
	at facet.Bookmark
}

// String is the text of the bookmark, empty while it has seen nothing.
func (b *Bookmark) String() string { return b.get().String() }

// Set takes over a text that String gave; an empty one forgets what was seen. What is
// no bookmark is facet.ErrBookmark.
func (b *Bookmark) Set(text string) error {
	var at facet.Bookmark
	if text != "" {
		var err error
		if at, err = facet.ParseBookmark(text); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at = at
	return nil
}

func (b *Bookmark) get() facet.Bookmark {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at
}

// advance takes in the bookmark of an answer. Answers come in any order: it never goes
// back. One of another facet is not taken in: a request with this one was refused, or
// was sent before it was set.
func (b *Bookmark) advance(at facet.Bookmark) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at.IsZero() || b.at.Facet == at.Facet && at.Seq > b.at.Seq {
		b.at = at
	}
}

// Bookmarked is the same facet, whose requests see everything that b has seen, and
// whose answers move b on. So whoever uses one Bookmark reads what he wrote, and never
// goes back in time, whichever node answers. The owner of a facet promises that anyway;
// it is for answers of other nodes, and for telling another program what to wait for.
//
// The rows of a query move b on when they have been read to their end. A bookmark of
// another facet, or of one that was deleted or replaced since, is facet.ErrBookmark:
// nothing was done.
func (f *Facet) Bookmarked(b *Bookmark) *Facet {
	g := *f
	g.bookmark = b
	return &g
}

// follow has the call carry the bookmark, and bring one back.
func (k *call) follow(b *Bookmark) {
	if b != nil {
		k.bookmark, k.req.Bookmark, k.req.After = b, true, b.get()
	}
}

// moved takes in the bookmark of the answer, which has come whole.
func (k *call) moved() {
	if k.bookmark == nil {
		return
	}
	k.conn.mu.Lock()
	at := k.seen
	k.conn.mu.Unlock()
	if !at.IsZero() {
		k.bookmark.advance(at)
	}
}
