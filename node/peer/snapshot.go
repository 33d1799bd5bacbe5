package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
)

// Installer receives snapshots.
type Installer interface {
	// Install takes one snapshot (rule R44) and returns the facet's base. source
	// gives offer.Pages whole pages and then io.EOF; its Read waits while the
	// sender is away, and fails when it stays away. ctx ends when nobody wants the
	// snapshot any more. Install may return before it has read everything: the
	// snapshot was not needed, or cannot be had.
	Install(ctx context.Context, from Remote, offer SnapshotOffer, source io.Reader) (facet.Position, error)
}

// PageSource is a snapshot to be sent; pages.Snapshot is one. Pages are numbered
// from 1. One goroutine at a time reads.
type PageSource interface {
	ReadPage(pgno uint32, dst []byte) error
}

// SendSnapshot sends a snapshot over a connection of its own, beside the appends,
// and returns the base of the facet over there once it is durable, and who has it
// (rule R3). When the connection is lost it goes on, with a new one, from the first
// page that did not arrive, as long as ctx allows and pages arrive. Errors of
// package replica are the receiver's.
func (p *Peer) SendSnapshot(ctx context.Context, offer SnapshotOffer, src PageSource) (Remote, facet.Position, error) {
	at, base, err := p.sendSnapshot(ctx, &offer, src)
	if err != nil {
		return at, base, fmt.Errorf("send snapshot of %v at %v to %v: %w", offer.Incarnation, offer.Position, p.node, err)
	}
	return at, base, nil
}

func (p *Peer) sendSnapshot(ctx context.Context, offer *SnapshotOffer, src PageSource) (at Remote, base facet.Position, err error) {
	if err := offer.check(); err != nil {
		return at, base, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(ErrClosed) })()
	wait := time.Duration(0)
	var taken uint32
	for fruitless := 0; ; fruitless++ {
		s := &sending{offer: offer, src: src}
		s.ctx, s.cancel = context.WithCancelCause(ctx)
		err := p.sendOnce(s)
		s.cancel(nil)
		switch {
		case s.settled:
			return s.to, s.base, s.answer
		case s.srcErr != nil:
			return at, base, s.srcErr
		case ctx.Err() != nil:
			return at, base, context.Cause(ctx)
		}
		if s.resumed > taken {
			taken, fruitless, wait = s.resumed, 0, 0
		}
		if fruitless >= maxFruitless {
			return at, base, err
		}
		wait = min(max(2*wait, backoffFirst), backoffLast)
		if !sleep(ctx, wait) {
			return at, base, context.Cause(ctx)
		}
	}
}

// sendOnce sends what is left of a snapshot over one connection.
func (p *Peer) sendOnce(s *sending) error {
	nc, to, err := p.t.openNode(s.ctx, kindSnapshot, p.node)
	if err != nil {
		return err
	}
	s.to = to.remote()
	conn := p.t.conn(nc)
	defer context.AfterFunc(s.ctx, func() { conn.Close(context.Cause(s.ctx)) })()
	body := func(dst []byte) []byte { return appendOffer(dst, s.offer) }
	if err := conn.Send(frame(typeOffer, body)); err != nil {
		return err
	}
	s.conn = conn
	return conn.Run(s.handle)
}

func frame(t wire.Type, body func([]byte) []byte) []byte {
	dst, at := wire.BeginFrame(nil, t, 0, 0)
	return wire.EndFrame(body(dst), at)
}

// sending is one connection of a snapshot on its way out. It is the wire.Stream
// its pages are taken from, frame by frame, as fast as the socket takes them.
type sending struct {
	offer  *SnapshotOffer
	src    PageSource
	ctx    context.Context
	cancel context.CancelCauseFunc
	conn   *wire.Conn
	to     Remote

	sent   uint32 // pages; of the writer
	srcErr error  // of the writer, read when the connection is over

	begun   bool
	resumed uint32 // pages the receiver had
	settled bool   // answer and base count
	answer  error
	base    facet.Position
}

var errSettled = errors.New("snapshot settled")

func (s *sending) handle(f wire.Frame) error {
	switch f.Type {
	case typeResume:
		before, answer, err := decodeResume(f.Body)
		switch {
		case err != nil:
			return err
		case errors.Is(answer, ErrBusy):
			return answer // try again
		case answer != nil:
			return s.settle(answer)
		case before > s.offer.Pages || s.begun:
			return fmt.Errorf("%w: resume at page %d of %d", ErrMalformed, before, s.offer.Pages)
		}
		s.begun, s.resumed, s.sent = true, before, before
		if before < s.offer.Pages {
			return s.conn.Stream(s)
		}
		return nil
	case typeInstalled:
		base, answer, err := decodeInstalled(f.Body)
		if err != nil {
			return err
		}
		s.base = base
		return s.settle(answer)
	case wire.TypePong:
		return nil
	}
	return fmt.Errorf("%w: frame of %v in answer to a snapshot", ErrMalformed, f.Type)
}

// settle ends the connection at once: pages still to be sent are not wanted.
func (s *sending) settle(answer error) error {
	s.settled, s.answer = true, answer
	s.conn.Close(errSettled)
	return errSettled
}

// Next implements wire.Stream: one frame of pages.
func (s *sending) Next(dst []byte) ([]byte, bool) {
	n := min(snapshotPages, s.offer.Pages-s.sent)
	whole := len(dst)
	dst, at := wire.BeginFrame(dst, typePages, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, s.sent)
	for i := range n {
		from := len(dst)
		dst = append(dst, zeroPage[:]...)
		if err := s.src.ReadPage(s.sent+i+1, dst[from:]); err != nil {
			s.srcErr = fmt.Errorf("read page %d: %w", s.sent+i+1, err)
			s.cancel(s.srcErr) // ends the connection, from another goroutine
			return dst[:whole], false
		}
	}
	s.sent += n
	return wire.EndFrame(dst, at), s.sent < s.offer.Pages
}

var zeroPage [facet.PageSize]byte

// Pending implements wire.Stream: nothing waits in memory.
func (s *sending) Pending() int { return 0 }

// Close implements wire.Stream.
func (s *sending) Close() {}

// transfers are the snapshots being received.
type transfers struct {
	mu sync.Mutex
	of map[facet.Incarnation]*transfer
}

func (ts *transfers) init() { ts.of = make(map[facet.Incarnation]*transfer) }

// transfer is one snapshot being received. It outlives the connections that bring
// it: an Install runs beside them and reads what they bring, in order.
//
// Invariant: one connection at a time is attached, and pages are fed in order,
// each once.
type transfer struct {
	from   Remote
	offer  SnapshotOffer
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when Install has returned; base and err are set
	base   facet.Position
	err    error

	feed chan []byte   // pages for Install; the feeder waits for took
	took chan struct{} // Install has read what was fed

	// Of Install's goroutine.
	cur  []byte
	left uint32 // pages not yet fed

	mu       sync.Mutex
	attached *arriving // nil when the sender is away
	timer    *time.Timer
	taken    uint32 // pages fed and read
}

// arriving is one connection a snapshot comes in by.
type arriving struct {
	t    *Transport
	conn *wire.Conn
	from Remote
	tr   *transfer
	gone chan struct{} // closed when it feeds no more
}

// serveSnapshot serves one snapshot connection to its end.
func (t *Transport) serveSnapshot(conn *wire.Conn, from Remote) {
	a := &arriving{t: t, conn: conn, from: from, gone: make(chan struct{})}
	stop := context.AfterFunc(t.ctx, func() { conn.Close(ErrClosed) })
	conn.Run(a.handle) // why it ended is the sender's to know
	stop()
	close(a.gone)
	if a.tr != nil {
		a.tr.detach(a)
	}
}

func (a *arriving) handle(f wire.Frame) error {
	switch {
	case f.Type == typeOffer && a.tr == nil:
		o, err := decodeOffer(f.Body)
		if err != nil {
			return err
		}
		return a.offered(o)
	case f.Type == typePages && a.tr != nil:
		before, content, err := decodePages(f.Body, a.tr.offer.Pages)
		if err != nil {
			return err
		}
		return a.pages(before, content)
	case f.Type == wire.TypePong:
		return nil
	}
	return fmt.Errorf("%w: frame of %v from the sender of a snapshot", ErrMalformed, f.Type)
}

// offered finds or begins the transfer and tells where to go on.
func (a *arriving) offered(o SnapshotOffer) error {
	tr, err := a.t.attach(a, o)
	before := uint32(0)
	if err == nil {
		a.tr = tr
		tr.mu.Lock()
		before = tr.taken
		tr.mu.Unlock()
	}
	body := func(dst []byte) []byte {
		return binary.BigEndian.AppendUint32(appendOutcome(dst, err), before)
	}
	if serr := a.conn.Send(frame(typeResume, body)); serr != nil {
		return serr
	}
	if err != nil {
		return err
	}
	a.t.wg.Go(a.report)
	return nil
}

// report tells the sender what came of the snapshot, if it is still there.
func (a *arriving) report() {
	select {
	case <-a.tr.done:
	case <-a.gone:
		return
	}
	body := func(dst []byte) []byte { return a.tr.base.AppendBinary(appendOutcome(dst, a.tr.err)) }
	// An error means that the sender is gone; it will ask again.
	_ = a.conn.Send(frame(typeInstalled, body))
}

// pages feeds the pages of one frame. While they wait to be read the sender, which
// hears nothing else, gets signs of life.
func (a *arriving) pages(before uint32, content []byte) error {
	tr := a.tr
	select {
	case <-tr.done:
		return nil // what is still on its way is not needed; report says why
	default:
	}
	tr.mu.Lock()
	want := tr.taken
	tr.mu.Unlock()
	if before != want {
		return fmt.Errorf("%w: page %d, want %d", ErrMalformed, before, want)
	}
	tick := time.NewTicker(signInterval)
	defer tick.Stop()
	feed, took := tr.feed, (chan struct{})(nil)
	for {
		select {
		case feed <- content:
			feed, took = nil, tr.took
		case <-took:
			tr.mu.Lock()
			tr.taken += uint32(len(content) / facet.PageSize)
			tr.mu.Unlock()
			return nil
		case <-tr.done:
			return nil
		case <-tick.C:
			// The writer is held back while this handler runs; waiting for it frees
			// it. Errors are seen by the case below.
			if a.conn.Send(sign) == nil {
				_ = a.conn.WaitPending(a.t.ctx, 0)
			}
		case <-a.conn.Done():
			if took == nil {
				return a.conn.Err()
			}
			// Install is reading this buffer: wait for it, then go.
			select {
			case <-took:
				tr.mu.Lock()
				tr.taken += uint32(len(content) / facet.PageSize)
				tr.mu.Unlock()
			case <-tr.done:
			}
			return a.conn.Err()
		}
	}
}

// attach gives the transfer an offer belongs to and makes a its connection.
func (t *Transport) attach(a *arriving, o SnapshotOffer) (*transfer, error) {
	ts := &t.places
	for {
		ts.mu.Lock()
		tr := ts.of[o.Incarnation]
		if tr == nil {
			if t.ctx.Err() != nil || len(ts.of) >= maxTransfers {
				ts.mu.Unlock()
				return nil, ErrBusy
			}
			tr = t.begin(a, o)
			ts.mu.Unlock()
			return tr, nil
		}
		ts.mu.Unlock()
		same := tr.offer == o && tr.from == a.from
		tr.mu.Lock()
		old := tr.attached
		switch {
		case old == nil && same && tr.timer.Stop():
			tr.attached = a
			tr.mu.Unlock()
			return tr, nil
		case old != nil && old.from != a.from:
			tr.mu.Unlock()
			return nil, ErrBusy // somebody else is sending
		}
		tr.mu.Unlock()
		// The sender comes anew, or with something else: what there is ends first.
		wait := tr.done
		if old != nil {
			old.conn.Close(fmt.Errorf("%w: the sender has a new connection", ErrLost))
			wait = old.gone
		}
		if !same || old == nil {
			tr.cancel(fmt.Errorf("%w: another snapshot takes its place", ErrLost))
			wait = tr.done
		}
		select {
		case <-wait:
		case <-a.conn.Done():
			return nil, ErrLost
		}
		if wait != tr.done {
			tr.detach(old)
		}
	}
}

// begin starts the Install of an offer. transfers.mu is held.
func (t *Transport) begin(a *arriving, o SnapshotOffer) *transfer {
	tr := &transfer{from: a.from, offer: o, done: make(chan struct{}), feed: make(chan []byte), took: make(chan struct{}),
		left: o.Pages, attached: a}
	tr.ctx, tr.cancel = context.WithCancelCause(t.ctx)
	tr.timer = time.AfterFunc(resumeWithin, func() {
		tr.cancel(fmt.Errorf("%w: the sender of the snapshot stayed away", ErrLost))
	})
	tr.timer.Stop()
	t.places.of[o.Incarnation] = tr
	t.wg.Go(func() {
		tr.base, tr.err = t.cfg.Snapshots.Install(tr.ctx, tr.from, tr.offer, tr)
		t.places.mu.Lock()
		delete(t.places.of, o.Incarnation)
		t.places.mu.Unlock()
		close(tr.done)
		tr.timer.Stop()
		tr.cancel(nil)
	})
	return tr
}

// detach notes that the sender is away. It may be told twice of one connection.
func (tr *transfer) detach(a *arriving) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.attached != a {
		return
	}
	tr.attached = nil
	select {
	case <-tr.done:
	default:
		tr.timer.Reset(resumeWithin) // should Install end just now, it cancels nothing
	}
}

// Read implements io.Reader for Install.
func (tr *transfer) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(tr.cur) == 0 {
		if tr.left == 0 {
			return 0, io.EOF
		}
		select {
		case tr.cur = <-tr.feed:
			tr.left -= uint32(len(tr.cur) / facet.PageSize)
		case <-tr.ctx.Done():
			return 0, context.Cause(tr.ctx)
		}
	}
	n := copy(p, tr.cur)
	if tr.cur = tr.cur[n:]; len(tr.cur) == 0 {
		tr.cur = nil
		tr.took <- struct{}{} // the feeder waits for nothing else
	}
	return n, nil
}
