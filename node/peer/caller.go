package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/wire"
)

// Handler serves what other nodes ask of the replicas of this one. All but Fetch
// are called by the one goroutine that reads the caller's connection, in the order
// of the messages, and must not block: the next message, and the sign of life the
// caller waits for, come behind.
type Handler interface {
	// Append takes one entry. It is answered by from.Acked or from.Nacked, from
	// any goroutine, now or later; many appends may wait for one fsync. The item,
	// its entry and the pages are good until Append returns. Caller is a
	// replica.Acker.
	Append(from *Caller, a *AppendItem)
	// Known hears what a session has committed. The item is good until it returns.
	Known(from *Caller, k *KnownItem)
	// Prepare asks for a promise. reply is called once, from any goroutine, after
	// the promise is durable.
	Prepare(from *Caller, s Session, reply func(replica.Promise, error))
	// Check reports whether the session's epoch is the one promised last.
	Check(from *Caller, s Session) bool
	// Fetch writes the entries asked for to out, until it says that it is enough.
	// Each call has a goroutine of its own and ends with ctx.
	Fetch(ctx context.Context, from *Caller, r FetchRequest, out *EntryWriter) error
}

// Inspector tells other nodes what is kept here.
type Inspector interface {
	// Inspect tells of one copy, as a PREPARE would, and promises nothing. It is called
	// by the reader of the caller's connection and must not block.
	Inspect(from *Caller, s Session) (replica.Promise, error)
}

// Placement serves what other nodes ask of the placement leader. Both are called
// by the reader of the caller's connection and must not block.
type Placement interface {
	// Renew asks for a lease. reply is called once, from any goroutine; its error
	// may be ErrRefused or a *NotLeaderError.
	Renew(from *Caller, r RenewRequest, reply func(Grant, error))
	// Propose proposes commands. reply is called once for each, by its number,
	// from any goroutine. The commands belong to the handler.
	Propose(from *Caller, commands [][]byte, reply func(i int, result []byte, err error))
}

// Caller is one connection over which another node asks. Its methods may be
// called from any goroutine, also when the connection is over: then nobody hears.
type Caller struct {
	t        *Transport
	remote   Remote
	conn     *wire.Conn
	ctx      context.Context // ends with the connection
	out      outbox
	ackMem   *ackMemory // guarded by out.mu
	mem      *memory    // reader only
	it       item       // reader only
	append   func(*item)
	fetching atomic.Int32
	ordered  atomic.Int32
	metering atomic.Int32
	// A COMPARE is being answered.
	comparing atomic.Bool
	entries   sync.Mutex // held to add one fetched entry, and to wait until there is room
}

// Remote is the node that asks.
func (c *Caller) Remote() Remote { return c.remote }

// Acked answers Append: this store durably holds the session's log up to seq. It
// implements replica.Acker and does not block.
func (c *Caller) Acked(id facet.Incarnation, epoch facet.Epoch, seq facet.Seq) {
	c.ack(Session{id, epoch}, seq, nil)
}

// Nacked answers Append: the entry at seq was refused. err is told in the words of
// package replica; others travel as text.
func (c *Caller) Nacked(id facet.Incarnation, epoch facet.Epoch, seq facet.Seq, err error) {
	if err == nil {
		err = ErrRefused
	}
	c.ack(Session{id, epoch}, seq, err)
}

func (c *Caller) ack(s Session, seq facet.Seq, err error) {
	o := &c.out
	o.mu.Lock()
	if o.dead {
		o.mu.Unlock()
		return
	}
	if over := o.overfull(maxReplies); over != nil {
		o.mu.Unlock()
		c.conn.Close(over)
		return
	}
	o.begin(typeAck, 0, maxAck)
	o.cur = c.ackMem.append(o.cur, s, seq, err)
	o.release()
}

// reply adds one item to the answer to call id, or one that is the whole of it.
func (c *Caller) reply(t wire.Type, id uint32, n int, build func([]byte) []byte) {
	o := &c.out
	o.mu.Lock()
	if o.dead {
		o.mu.Unlock()
		return
	}
	if over := o.overfull(maxReplies); over != nil {
		o.mu.Unlock()
		c.conn.Close(over)
		return
	}
	o.begin(t, id, n)
	o.cur = build(o.cur)
	o.release()
}

// servePeer serves one peer stream to its end.
func (t *Transport) servePeer(conn *wire.Conn, remote Remote) {
	ctx, cancel := context.WithCancel(t.ctx)
	c := &Caller{t: t, remote: remote, conn: conn, ctx: ctx, mem: new(memory), ackMem: new(ackMemory)}
	c.out.conn = conn
	c.append = c.dispatch
	stop := context.AfterFunc(t.ctx, func() { conn.Close(ErrClosed) })
	cause := conn.Run(closing(conn, c.handle))
	stop()
	c.out.close()
	cancel()
	if t.ctx.Err() == nil {
		t.log.Info("peer stream ended", "from", remote.Node, "boot", remote.Boot, "cause", cause)
	}
}

func (c *Caller) dispatch(it *item) {
	if it.known {
		c.t.cfg.Handler.Known(c, &it.k)
	} else {
		c.t.cfg.Handler.Append(c, &it.a)
	}
}

// handle takes in one frame, in the reader's goroutine.
func (c *Caller) handle(f wire.Frame) error {
	switch f.Type {
	case typeAppend:
		return c.mem.decodeItems(f.Body, &c.it, c.append)
	case typePrepare:
		return c.prepare(f)
	case typeInspect:
		return c.inspect(f)
	case typeCheck:
		list, err := decodeSessions(f.Body)
		if err != nil {
			return err
		}
		answers := make([]byte, len(list))
		for i, s := range list {
			if c.t.cfg.Handler.Check(c, s) {
				answers[i] = 1
			}
		}
		c.whole(typeChecked, 0, f.ID, answers)
		return nil
	case typeFetch:
		r, err := decodeFetch(f.Body)
		if err != nil {
			return err
		}
		c.fetch(f.ID, r)
		return nil
	case typeRenew:
		r, err := decodeRenew(f.Body)
		if err != nil {
			return err
		}
		return c.renew(f.ID, r)
	case typePropose:
		cmds, err := decodeCommands(f.Body)
		if err != nil {
			return err
		}
		return c.propose(f.ID, cmds)
	case typeOrder:
		o, err := decodeOrder(f.Body)
		if err != nil {
			return err
		}
		c.order(f.ID, o)
		return nil
	case typeCompare:
		q, err := decodeCompare(f.Body)
		if err != nil {
			return err
		}
		c.compare(f.ID, &q)
		return nil
	case typeUse:
		tenant, err := decodeUse(f.Body)
		if err != nil {
			return err
		}
		c.use(f.ID, tenant)
		return nil
	case wire.TypePong:
		return nil
	}
	return fmt.Errorf("%w: frame of %v from the asking side", ErrMalformed, f.Type)
}

// whole answers a call with one frame.
func (c *Caller) whole(t wire.Type, fl wire.Flags, id uint32, body []byte) {
	// An error means that nobody is left to hear it.
	_ = c.out.frame(t, fl, id, len(body), func(dst []byte) []byte { return append(dst, body...) })
}

func (c *Caller) prepare(f wire.Frame) error {
	list, err := decodeSessions(f.Body)
	if err != nil {
		return err
	}
	id := f.ID
	for i, s := range list {
		c.t.cfg.Handler.Prepare(c, s, func(p replica.Promise, err error) {
			c.reply(typePromise, id, 2+maxOutcome+77, func(dst []byte) []byte { return appendPromise(dst, i, &p, err) })
		})
	}
	return nil
}

func (c *Caller) inspect(f wire.Frame) error {
	list, err := decodeSessions(f.Body)
	if err != nil {
		return err
	}
	for i, s := range list {
		p, err := replica.Promise{}, error(ErrRefused)
		if c.t.cfg.Inspector != nil {
			p, err = c.t.cfg.Inspector.Inspect(c, s)
		}
		c.reply(typeCopy, f.ID, 2+maxOutcome+77, func(dst []byte) []byte { return appendPromise(dst, i, &p, err) })
	}
	return nil
}

func (c *Caller) renew(id uint32, r RenewRequest) error {
	if c.t.cfg.Placement == nil {
		c.whole(typeGrant, 0, id, appendGrant(nil, new(Grant), ErrRefused))
		return nil
	}
	c.t.cfg.Placement.Renew(c, r, func(g Grant, err error) {
		c.whole(typeGrant, 0, id, appendGrant(nil, &g, err))
	})
	return nil
}

func (c *Caller) propose(id uint32, cmds [][]byte) error {
	reply := func(i int, result []byte, err error) {
		if err == nil && len(result) > MaxCommand {
			err = fmt.Errorf("%w: result of %d bytes, limit %d", ErrTooLong, len(result), MaxCommand)
		}
		c.reply(typeResult, id, 2+maxOutcome+3+len(result), func(dst []byte) []byte { return appendResult(dst, i, result, err) })
	}
	if c.t.cfg.Placement == nil {
		for i := range cmds {
			reply(i, nil, ErrRefused)
		}
		return nil
	}
	c.t.cfg.Placement.Propose(c, cmds, reply)
	return nil
}

// fetch runs one FETCH in a goroutine of the transport.
func (c *Caller) fetch(id uint32, r FetchRequest) {
	if r.MaxBytes == 0 {
		r.MaxBytes = DefaultFetch
	}
	if c.fetching.Add(1) > maxFetches {
		c.fetching.Add(-1)
		c.endOfEntries(id, false, ErrBusy)
		return
	}
	c.t.wg.Go(func() {
		defer c.fetching.Add(-1)
		w := &EntryWriter{c: c, id: id, left: int(r.MaxBytes), next: r.From, r: r}
		err := c.t.cfg.Handler.Fetch(c.ctx, c, r, w)
		if err != nil && w.sent > 0 && !errors.Is(err, ErrLost) {
			err = nil // what was sent is good; the next FETCH meets the error first
			w.more = true
		}
		c.endOfEntries(id, w.more, err)
	})
}

func (c *Caller) endOfEntries(id uint32, more bool, err error) {
	body := []byte{0}
	if more {
		body[0] = 1
	}
	c.whole(typeEntries, flagLast, id, appendOutcome(body, err))
}

// EntryWriter sends the entries one FETCH asked for.
type EntryWriter struct {
	c    *Caller
	r    FetchRequest
	id   uint32
	left int // bytes
	sent int // entries
	next facet.Seq
	more bool
}

// Write sends one entry, waiting while the peer is slow. It is false, and the
// entry not sent, when the asking side wants no more now. Entries come in order
// from the first one asked for.
func (w *EntryWriter) Write(c *facet.Commit) (bool, error) {
	if w.r.To != 0 && c.Seq > w.r.To {
		return false, nil
	}
	if c.Incarnation != w.r.Incarnation || c.Seq != w.next {
		return false, fmt.Errorf("send entry %v/%v: %w: want %v of %v", c.Incarnation, c.Seq, ErrInvalid, w.next, w.r.Incarnation)
	}
	n := binary.MaxVarintLen32 + c.EncodedLen()
	if n > maxFrame {
		return false, fmt.Errorf("send entry %v/%v: %w: %d bytes", c.Incarnation, c.Seq, ErrTooLong, n)
	}
	if w.sent > 0 && n > w.left {
		w.more = true
		return false, nil
	}
	w.c.entries.Lock()
	defer w.c.entries.Unlock()
	if err := w.c.out.wait(w.c.ctx, fetchHigh); err != nil {
		return false, fmt.Errorf("send entry %v/%v: %w", c.Incarnation, c.Seq, ErrLost)
	}
	w.c.reply(typeEntries, w.id, n, func(dst []byte) []byte { return appendEntry(dst, c) })
	w.left -= n
	w.sent++
	w.next++
	return true, nil
}
