package hrana

import (
	"container/list"
	"crypto/rand"
	"sync"
	"time"

	"github.com/facetd/facetd/facet"
)

// stream is what a client may come back to with a baton.
//
// Invariant: a stream is used by one request at a time; the table's lock guards
// only what says so.
type stream struct {
	id   streamID
	name facet.Name

	tx       facet.TxID // the open transaction, zero if none
	readOnly bool       // it began with READONLY
	aborted  bool       // the service ended it and the client has not ended it too yet
	closed   bool
	texts    map[int32][]byte
	stored   int // bytes of texts

	// Guarded by the table's lock.
	seq  uint64 // number of the next request
	busy bool
	left time.Time // when it was last used
	in   *list.List
	elem *list.Element
}

// empty reports whether nothing would be lost if the stream were forgotten.
func (s *stream) empty() bool {
	return s.tx.IsZero() && !s.aborted && !s.closed && len(s.texts) == 0
}

// table holds the streams that have been given a baton, the closed ones too for
// as long as there is room, so that a used baton is known to be used.
//
// It has no goroutine and no timer. When it is full the stream unused for the
// longest time goes: an empty one comes back with its baton, one with stored
// texts is gone, and one in a transaction stays until the service must have
// ended that.
type table struct {
	max    int
	maxSQL int
	now    func() time.Time

	mu   sync.Mutex
	byID map[streamID]*stream
	// Streams not in use, longest unused first, by what forgetting them costs:
	// nothing, stored texts, an open transaction.
	bare, texts, inTx list.List
	stored            int // bytes of stored texts, of streams without a baton too
}

func newTable(limit int, now func() time.Time) *table {
	return &table{max: limit, maxSQL: MaxStoredTotal, now: now, byID: map[streamID]*stream{}}
}

// take finds the stream of a baton and keeps others from it until give.
func (t *table) take(b baton, name facet.Name) (*stream, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byID[b.id]
	switch {
	case s == nil && !b.empty:
		return nil, errExpired
	case s == nil:
		// Forgotten, or of a life before this one; nothing was lost.
		s = &stream{id: b.id, name: name, seq: b.seq}
		if err := t.insert(s); err != nil {
			return nil, err
		}
	case !s.busy && b.seq > s.seq:
		// It went on at another node, and what is here is of before.
		t.unlink(s)
		t.forget(s)
		if !b.empty {
			return nil, errExpired
		}
		s = &stream{id: b.id, name: name, seq: b.seq}
		if err := t.insert(s); err != nil {
			return nil, err
		}
	case s.busy || s.seq != b.seq || s.closed:
		return nil, errUsed
	default:
		t.unlink(s)
	}
	s.busy = true
	s.seq++
	return s, nil
}

// give ends the use of a stream and returns its next baton, or ok false when it
// is closed or the table has no room for it. The caller must not touch s again
// when ok.
func (t *table) give(s *stream) (b baton, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.closed {
		t.stored -= s.stored
		s.texts, s.stored = nil, 0
	}
	if t.byID[s.id] != s {
		if s.closed {
			return b, false // it never had a baton
		}
		rand.Read(s.id[:])
		if t.insert(s) != nil {
			t.stored -= s.stored
			s.texts, s.stored = nil, 0
			return b, false
		}
	}
	s.busy, s.left = false, t.now()
	switch {
	case !s.tx.IsZero():
		s.in = &t.inTx
	case s.stored > 0:
		s.in = &t.texts
	default:
		s.in = &t.bare
	}
	s.elem = s.in.PushBack(s)
	return baton{id: s.id, seq: s.seq, empty: s.empty()}, !s.closed
}

// drop ends the use of a stream that goes on at another node, or begins there.
func (t *table) drop(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(s)
}

// forget takes a stream that is in no list out of the table, with its texts. The
// lock is held.
func (t *table) forget(s *stream) {
	t.stored -= s.stored
	s.texts, s.stored = nil, 0
	if t.byID[s.id] == s {
		delete(t.byID, s.id)
	}
}

// holds reports whether the stream of a baton is here with a transaction, open or
// to be told that it is over.
func (t *table) holds(b baton) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byID[b.id]
	return s != nil && b.seq <= s.seq && (s.busy || s.closed || !s.tx.IsZero() || s.aborted)
}

// reserve makes room for n bytes of stored text.
func (t *table) reserve(n int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.stored+n > t.maxSQL {
		if !t.evict(&t.texts) {
			return errTextsFull
		}
	}
	t.stored += n
	return nil
}

// release gives back what reserve took.
func (t *table) release(n int) {
	t.mu.Lock()
	t.stored -= n
	t.mu.Unlock()
}

func (t *table) insert(s *stream) error {
	for len(t.byID) >= t.max {
		if t.evict(&t.bare) || t.evict(&t.texts) {
			continue
		}
		e := t.inTx.Front()
		if e == nil || t.now().Sub(e.Value.(*stream).left) < abandonedTx {
			return errTableFull
		}
		t.evict(&t.inTx)
	}
	t.byID[s.id] = s
	return nil
}

// evict forgets the stream of l unused for the longest time.
func (t *table) evict(l *list.List) bool {
	e := l.Front()
	if e == nil {
		return false
	}
	s := e.Value.(*stream)
	t.unlink(s)
	t.forget(s)
	return true
}

func (t *table) unlink(s *stream) {
	s.in.Remove(s.elem)
	s.in, s.elem = nil, nil
}

// len is the number of streams in the table.
func (t *table) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}
