package peer

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
)

// link is one connection to a peer, dialled from here: what this node asks goes
// out, the answers come in. It lives from the greeting to the end of the
// connection and is never used again.
type link struct {
	cfg    *Config
	remote Remote
	conn   *wire.Conn
	out    outbox

	mem  *memory // guarded by out.mu
	busy bool    // guarded by out.mu: an Append was refused and Ready is owed

	// Of the reader alone.
	ackMem *ackMemory
	acks   []Ack

	mu    sync.Mutex
	calls map[uint32]*call // nil once the connection is over
	last  uint32           // id of the newest call
}

// idRoom is the id of the ping that tells that the queue was read by the peer;
// ids of calls are above it.
const idRoom = 1

func newLink(cfg *Config, conn *wire.Conn, remote Remote) *link {
	l := &link{cfg: cfg, remote: remote, conn: conn, mem: new(memory), ackMem: new(ackMemory),
		calls: make(map[uint32]*call), last: idRoom}
	l.out.conn = conn
	return l
}

// admit says whether n more bytes may wait. A refusal is followed by Ready. mu of
// the outbox is held.
func (l *link) admit(n int) error {
	o := &l.out
	if o.dead {
		return ErrDown
	}
	if q := o.queued(); o.items < l.cfg.QueueItems && (q == 0 || q+n <= l.cfg.QueueBytes) {
		return nil
	}
	if !l.busy {
		l.busy = true
		o.place(wire.HeaderLen)
		o.cur = wire.AppendPing(o.cur, wire.TypePing, idRoom, nil)
	}
	return ErrBusy
}

func (l *link) append(a *AppendItem) error {
	n := maxItemHead + len(a.Entry.Pages)
	o := &l.out
	o.mu.Lock()
	if err := l.admit(n); err != nil {
		o.release()
		return err
	}
	o.begin(typeAppend, 0, n)
	o.cur = l.mem.appendItem(o.cur, a)
	o.items++
	o.curItems++
	o.release()
	return nil
}

func (l *link) known(k *KnownItem) error {
	o := &l.out
	o.mu.Lock()
	if err := l.admit(maxItemHead); err != nil {
		o.release()
		return err
	}
	o.begin(typeAppend, 0, maxItemHead)
	o.cur = l.mem.appendKnown(o.cur, k)
	o.items++
	o.curItems++
	o.release()
	return nil
}

// handle takes in one frame, in the reader's goroutine.
func (l *link) handle(f wire.Frame) error {
	switch f.Type {
	case typeAck:
		acks, err := l.ackMem.decode(f.Body, l.acks[:0])
		l.acks = acks
		if err != nil {
			return err
		}
		if len(acks) > 0 {
			l.cfg.Acks.Acked(l.remote, acks)
		}
		return nil
	case wire.TypePong:
		if f.ID == idRoom {
			l.out.mu.Lock()
			l.busy = false
			l.out.mu.Unlock()
			l.cfg.Acks.Ready(l.remote)
			return nil
		}
	case typePromise, typeEntries, typeChecked, typeGrant, typeResult, typeDone, typeCopy, typeCompared, typeUsed:
	default:
		return fmt.Errorf("%w: frame of %v from the answering side", ErrMalformed, f.Type)
	}
	return l.answer(f)
}

// call is one question under way.
type call struct {
	want wire.Type
	over chan error // gets one value

	mu   sync.Mutex
	gone bool // the caller has given up
	take func(wire.Frame) (done bool, err error)
}

// answer hands a frame to the call it belongs to.
func (l *link) answer(f wire.Frame) error {
	l.mu.Lock()
	c := l.calls[f.ID]
	l.mu.Unlock()
	if c == nil {
		return nil // whoever asked has given up
	}
	if c.want != f.Type {
		return fmt.Errorf("%w: %v in answer to a question for %v", ErrMalformed, f.Type, c.want)
	}
	c.mu.Lock()
	var done bool
	var err error
	if !c.gone {
		done, err = c.take(f)
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if done {
		l.forget(f.ID)
		c.over <- nil
	}
	return nil
}

func (l *link) forget(id uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.calls[id]
	delete(l.calls, id)
	return ok
}

// ask sends one frame and waits until take has seen the whole answer. take is
// called by the reader, one frame at a time, and never after ask has returned.
func (l *link) ask(ctx context.Context, t, want wire.Type, n int, build func([]byte) []byte, take func(wire.Frame) (bool, error)) error {
	c := &call{want: want, over: make(chan error, 1), take: take}
	l.out.mu.Lock()
	full := l.out.queued() > 2*l.cfg.QueueBytes
	l.out.mu.Unlock()
	l.mu.Lock()
	if l.calls == nil {
		l.mu.Unlock()
		return ErrDown
	}
	if full || len(l.calls) >= maxCalls {
		l.mu.Unlock()
		return ErrBusy
	}
	for l.last++; l.last <= idRoom || l.calls[l.last] != nil; l.last++ {
	}
	id := l.last
	l.calls[id] = c
	l.mu.Unlock()
	if err := l.out.frame(t, 0, id, n, build); err != nil {
		if l.forget(id) {
			return ErrDown // nothing was sent
		}
		return <-c.over
	}
	select {
	case err := <-c.over:
		return err
	case <-ctx.Done():
	}
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	l.forget(id)
	return context.Cause(ctx)
}

// run reads until the connection is over. Whatever was accepted for sending
// before it returns belongs to this connection; nothing is accepted afterwards.
func (l *link) run() error {
	cause := l.conn.Run(closing(l.conn, l.handle))
	l.out.close()
	l.mu.Lock()
	calls := l.calls
	l.calls = nil
	l.mu.Unlock()
	for _, c := range calls {
		c.over <- fmt.Errorf("%w: %w", ErrLost, cause)
	}
	if errors.Is(cause, ErrClosed) {
		return ErrClosed
	}
	return cause
}

// closing makes an error of handle end the connection at once. Package wire would
// first write what is queued, and while others keep queueing that never ends.
func closing(conn *wire.Conn, handle func(wire.Frame) error) func(wire.Frame) error {
	return func(f wire.Frame) error {
		err := handle(f)
		if err != nil {
			conn.Close(err)
		}
		return err
	}
}

// prepare asks for promises. Answers come one by one, in any order.
func (l *link) prepare(ctx context.Context, list []Session) ([]PrepareResult, error) {
	return l.promises(ctx, typePrepare, typePromise, list)
}

// inspect asks what is kept, which promises nothing and is told in the same form.
func (l *link) inspect(ctx context.Context, list []Session) ([]InspectResult, error) {
	return l.promises(ctx, typeInspect, typeCopy, list)
}

func (l *link) promises(ctx context.Context, t, want wire.Type, list []Session) ([]PrepareResult, error) {
	out := make([]PrepareResult, len(list))
	left := pending(len(list))
	err := l.ask(ctx, t, want, len(list)*sessionLen,
		func(dst []byte) []byte { return appendSessions(dst, list) },
		func(f wire.Frame) (bool, error) {
			err := decodePromises(f.Body, list, out, left.take)
			return left.n == 0, err
		})
	for i := range out {
		out[i].From = l.remote
	}
	return out, err
}

// waiting counts the items of a call that are not answered yet.
type waiting struct {
	n    int
	seen []bool
}

func pending(n int) *waiting { return &waiting{n: n, seen: make([]bool, n)} }

func (w *waiting) take(i int) {
	if !w.seen[i] {
		w.seen[i] = true
		w.n--
	}
}

func (l *link) check(ctx context.Context, list []Session) ([]bool, error) {
	out := make([]bool, len(list))
	err := l.ask(ctx, typeCheck, typeChecked, len(list)*sessionLen,
		func(dst []byte) []byte { return appendSessions(dst, list) },
		func(f wire.Frame) (bool, error) {
			if len(f.Body) != len(out) {
				return false, fmt.Errorf("%w: %d answers to %d checks", ErrMalformed, len(f.Body), len(out))
			}
			for i, b := range f.Body {
				if b > 1 {
					return false, fmt.Errorf("%w: answer %d to a check", ErrMalformed, b)
				}
				out[i] = b == 1
			}
			return true, nil
		})
	return out, err
}

func (l *link) fetch(ctx context.Context, r *FetchRequest) (res FetchResult, err error) {
	var answer error
	got := 0
	err = l.ask(ctx, typeFetch, typeEntries, fetchLen,
		func(dst []byte) []byte { return appendFetch(dst, r) },
		func(f wire.Frame) (bool, error) {
			if f.Flags&flagLast != 0 {
				d := decoder{src: f.Body}
				more := d.u8("more")
				res.More = more == 1
				answer = d.outcome()
				return true, d.end("end of entries")
			}
			if got += len(f.Body); got > int(r.MaxBytes)+maxFrame {
				return false, fmt.Errorf("%w: more entries than asked for", ErrMalformed)
			}
			var err error
			res.Entries, err = decodeEntries(f.Body, r.Incarnation, r.From+facet.Seq(len(res.Entries)), res.Entries)
			return false, err
		})
	if err != nil {
		return FetchResult{}, err
	}
	return res, answer
}

func (l *link) renew(ctx context.Context, r *RenewRequest) (g Grant, err error) {
	var answer error
	err = l.ask(ctx, typeRenew, typeGrant, renewLen,
		func(dst []byte) []byte { return appendRenew(dst, r) },
		func(f wire.Frame) (bool, error) {
			var err error
			g, answer, err = decodeGrant(f.Body)
			return true, err
		})
	if err != nil {
		return Grant{}, err
	}
	g.Granter = l.remote.Boot
	return g, answer
}

func (l *link) propose(ctx context.Context, cmds [][]byte) ([]ProposeResult, error) {
	n := 0
	for _, c := range cmds {
		n += len(c) + 3
	}
	out := make([]ProposeResult, len(cmds))
	left := pending(len(cmds))
	err := l.ask(ctx, typePropose, typeResult, n,
		func(dst []byte) []byte { return appendCommands(dst, cmds) },
		func(f wire.Frame) (bool, error) {
			err := decodeResults(f.Body, out, left.take)
			return left.n == 0, err
		})
	return out, err
}

func (l *link) ping(ctx context.Context) error {
	return l.ask(ctx, wire.TypePing, wire.TypePong, 0, nil, func(wire.Frame) (bool, error) { return true, nil })
}
