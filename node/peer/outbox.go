package peer

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/facetd/facetd/internal/wire"
)

// outbox is what waits to be written to one connection. Items of one type are
// gathered in one frame as long as it is not full and nobody else came between;
// frames are gathered in chunks, each of which becomes one write.
//
// It is a wire.Stream: while there is anything in it the connection's writer
// comes for a chunk in every round, and gets the chunk itself, not a copy. What is
// put in while a write runs leaves with the next one.
//
// Invariant: frames leave in the order they were begun, items in the order they
// were added. Invariant: an open frame is the end of cur.
//
// Lock order: the connection's lock, outbox.mu. Whoever holds outbox.mu does not
// call the connection.
type outbox struct {
	conn *wire.Conn

	mu       sync.Mutex
	cur      []byte   // the chunk being filled
	full     [][]byte // chunks before it
	free     [][]byte // chunks that have been written
	fullLen  int      // bytes in full
	items    int      // counted by the caller of begin, in all chunks
	curItems int      // of them in cur
	fullItem []int    // of them in each chunk of full
	open     openFrame
	listed   bool          // the connection knows that there is something
	dead     bool          // the connection is over
	room     chan struct{} // closed when a chunk is taken; nil when nobody waits
}

// openFrame is the frame items are being added to.
type openFrame struct {
	at    int // offset in cur
	typ   wire.Type
	id    uint32
	items int
	ok    bool
}

// begin makes room for an item of at most n bytes in a frame of the type and id;
// the caller appends it to cur. mu is held.
func (o *outbox) begin(t wire.Type, id uint32, n int) {
	f := &o.open
	if f.ok && f.typ == t && f.id == id && f.items < MaxItems && len(o.cur)-f.at+n <= batchBody {
		f.items++
		return
	}
	o.place(n + wire.HeaderLen)
	f.typ, f.id, f.items, f.ok = t, id, 1, true
	o.cur, f.at = wire.BeginFrame(o.cur, t, 0, id)
}

// place closes the open frame and makes room for n bytes in cur. mu is held.
func (o *outbox) place(n int) {
	o.seal()
	if len(o.cur) > 0 && len(o.cur)+n > chunkLen {
		o.full = append(o.full, o.cur)
		o.fullItem = append(o.fullItem, o.curItems)
		o.fullLen += len(o.cur)
		o.cur, o.curItems = nil, 0
	}
	if o.cur == nil {
		o.cur = o.chunk()
	}
	if n > chunkLen {
		o.cur = slices.Grow(o.cur, n) // one step, not twenty
	}
}

func (o *outbox) chunk() []byte {
	if n := len(o.free); n > 0 {
		c := o.free[n-1]
		o.free = o.free[:n-1]
		return c
	}
	return make([]byte, 0, 4<<10) // grows once, then stays
}

func (o *outbox) keep(c []byte) {
	if cap(c) > 0 && cap(c) <= 2*chunkLen && len(o.free) < freeChunks {
		o.free = append(o.free, c[:0])
	}
}

func (o *outbox) seal() {
	if o.open.ok {
		o.cur = wire.EndFrame(o.cur, o.open.at)
		o.open.ok = false
	}
}

// queued is the number of bytes waiting. mu is held.
func (o *outbox) queued() int { return o.fullLen + len(o.cur) }

// release unlocks and tells the connection when there is something new.
func (o *outbox) release() {
	tell := !o.listed && !o.dead
	if tell {
		o.listed = true
	}
	o.mu.Unlock()
	if tell {
		// An error means that the connection is over, which whoever runs it sees.
		_ = o.conn.Stream(o)
	}
}

// frame adds one whole frame, made by build from its empty body.
func (o *outbox) frame(t wire.Type, fl wire.Flags, id uint32, n int, build func([]byte) []byte) error {
	o.mu.Lock()
	if o.dead {
		o.mu.Unlock()
		return ErrLost
	}
	o.place(n + wire.HeaderLen)
	at := 0
	o.cur, at = wire.BeginFrame(o.cur, t, fl, id)
	if build != nil {
		o.cur = build(o.cur)
	}
	o.cur = wire.EndFrame(o.cur, at)
	o.release()
	return nil
}

// overfull says whether the peer leaves too many answers unread. mu is held.
func (o *outbox) overfull(limit int) error {
	if n := o.queued(); n > limit {
		return fmt.Errorf("%w: %d bytes of answers wait for it, limit %d", wire.ErrSlowReader, n, limit)
	}
	return nil
}

// wait returns once at most limit bytes wait, or with the reason why they will
// not.
func (o *outbox) wait(ctx context.Context, limit int) error {
	for {
		o.mu.Lock()
		if o.dead {
			o.mu.Unlock()
			return ErrLost
		}
		if o.queued() <= limit {
			o.mu.Unlock()
			return nil
		}
		if o.room == nil {
			o.room = make(chan struct{})
		}
		room := o.room
		o.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// close drops everything and takes nothing any more.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.dead = true
	o.cur, o.full, o.free, o.fullItem = nil, nil, nil, nil
	o.fullLen, o.items = 0, 0
	o.open.ok = false
	o.wake()
}

func (o *outbox) wake() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// Next implements wire.Stream: it gives the oldest chunk.
func (o *outbox) Next(dst []byte) ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wake()
	var c []byte
	if n := len(o.full); n > 0 {
		c = o.full[0]
		o.items -= o.fullItem[0]
		copy(o.full, o.full[1:])
		copy(o.fullItem, o.fullItem[1:])
		o.full[n-1] = nil
		o.full, o.fullItem = o.full[:n-1], o.fullItem[:n-1]
		o.fullLen -= len(c)
	} else {
		o.seal()
		c = o.cur
		o.items -= o.curItems
		o.cur, o.curItems = nil, 0
	}
	if len(dst) == 0 {
		dst, c = c, dst // the connection's empty buffer for ours
	} else {
		dst = append(dst, c...)
	}
	o.keep(c)
	more := len(o.full) > 0 || len(o.cur) > 0
	o.listed = more
	return dst, more
}

// Pending implements wire.Stream. What waits is bounded here.
func (o *outbox) Pending() int { return 0 }

// Close implements wire.Stream.
func (o *outbox) Close() {}
