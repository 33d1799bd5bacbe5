package wire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ConnConfig bounds a Conn. The zero value is the default.
type ConnConfig struct {
	// PingInterval is how long the peer may be silent before it is asked for a
	// sign of life; after three of them it is gone. Default 5 s. It is also the
	// precision of the check. A peer that takes what waits for it is not silent.
	PingInterval time.Duration
	// WriteTimeout bounds one write to the socket: a peer that takes nothing for
	// so long is gone. Default 15 s.
	WriteTimeout time.Duration
	// MaxPending bounds the bytes queued for the peer. Going over it closes the
	// connection with ErrSlowReader. Default 64 MiB.
	MaxPending int
	// MaxFrame is the longest body accepted until SetMaxFrame. Default MaxHello.
	MaxFrame int
	// Farewell makes the last frame for a peer that sent something that is no frame, or
	// one that is too long. nil sends none.
	Farewell func(cause error) []byte
}

func (cfg *ConnConfig) setDefaults() {
	if cfg.PingInterval <= 0 {
		cfg.PingInterval = DefaultPingInterval
	}
	if cfg.WriteTimeout <= 0 {
		cfg.WriteTimeout = DefaultWriteTimeout
	}
	if cfg.MaxPending <= 0 {
		cfg.MaxPending = DefaultMaxPending
	}
	if cfg.MaxFrame <= 0 {
		cfg.MaxFrame = MaxHello
	}
}

// Stream is an answer too long for one frame. Next appends its next frame and
// tells whether more follow; Pending is what is left; Close is called once, when
// the last frame was taken or the connection is over. All calls come from the
// connection, one at a time. A Stream may keep an empty dst for itself and return
// a buffer of its own instead, which then belongs to the connection.
type Stream interface {
	Next(dst []byte) (out []byte, more bool)
	Pending() int
	Close()
}

// Conn carries frames over a socket, many per system call in both directions.
//
// Run's goroutine reads: it decodes every frame a read brought and hands them to
// the handler in order. One more goroutine, started by Run, writes: whatever
// frames were queued while its last write ran leave in the next one. This is
// where the speed comes from: under load a system call is shared by dozens of
// frames, and when idle a frame waits for nobody. While the reader works through
// a batch the writer is held back (corked), so that answers given inline leave
// together.
//
// Long answers are Streams: the writer takes one chunk of each in turn, between
// the small frames, so none keeps the others waiting.
//
// Run is called once. Begin, End, Stream, Close, Finish and the queries may be
// called from any goroutine.
//
// Invariant: frames queued through Begin and End leave in the order of their End.
type Conn struct {
	nc       net.Conn
	cfg      ConnConfig
	maxFrame int    // reader only
	early    []byte // bytes read from the socket before it was ours; reader only

	wrote atomic.Uint64 // pieces the socket took

	wake chan struct{} // holds at most one token, sent by whoever takes parked back
	done chan struct{} // closed once the connection is over
	wgW  sync.WaitGroup

	mu        sync.Mutex
	out       []byte   // frames queued
	streams   []Stream // long answers under way
	streaming int      // bytes of them not yet taken
	writing   int      // bytes of the write under way
	parked    bool     // the writer waits on wake
	corked    bool     // the reader holds the writer back
	finish    error    // close with this cause once everything queued is written
	err       error    // why the connection is over
	drained   chan struct{}
}

// NewConn makes a connection of a socket. early holds what was read from it
// already.
func NewConn(nc net.Conn, early []byte, cfg ConnConfig) *Conn {
	cfg.setDefaults()
	return &Conn{
		nc: nc, cfg: cfg, maxFrame: cfg.MaxFrame, early: early,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// SetMaxFrame changes the longest body accepted. Only the handler may call it.
func (c *Conn) SetMaxFrame(n int) { c.maxFrame = n }

// RemoteAddr is the address of the peer.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Done is closed when the connection is over; Err then tells why.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err tells why the connection is over, nil while it is not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Begin locks the write queue and returns the buffer to append whole frames to.
// End must follow at once, with the result: nothing that blocks may happen
// between.
func (c *Conn) Begin() []byte {
	c.mu.Lock()
	return c.out
}

// End queues what was appended since Begin. It never blocks; it fails when the
// connection is over, and ends it when the peer lets too much pile up.
func (c *Conn) End(out []byte) error {
	if c.err != nil {
		err := c.err
		c.mu.Unlock()
		return err
	}
	c.out = out
	if n := c.pending(); n > c.cfg.MaxPending {
		c.closeLocked(fmt.Errorf("%w: %d bytes wait for it, limit %d", ErrSlowReader, n, c.cfg.MaxPending))
		err := c.err
		c.mu.Unlock()
		return err
	}
	c.unlockAndWake(c.corked && len(out) < corkLen)
	return nil
}

// Send queues one encoded frame.
func (c *Conn) Send(frame []byte) error {
	return c.End(append(c.Begin(), frame...))
}

// Stream queues a long answer. s is closed in any case.
func (c *Conn) Stream(s Stream) error {
	c.mu.Lock()
	if c.err != nil {
		err := c.err
		c.mu.Unlock()
		s.Close()
		return err
	}
	c.streams = append(c.streams, s)
	c.streaming += s.Pending()
	if n := c.pending(); n > c.cfg.MaxPending {
		c.closeLocked(fmt.Errorf("%w: %d bytes wait for it, limit %d", ErrSlowReader, n, c.cfg.MaxPending))
		err := c.err
		c.mu.Unlock() // the writer closes s
		return err
	}
	c.unlockAndWake(false)
	return nil
}

// unlockAndWake releases the lock and wakes the writer if it waits, unless it is
// to be held back.
func (c *Conn) unlockAndWake(hold bool) {
	w := c.parked && !hold
	if w {
		c.parked = false
	}
	c.mu.Unlock()
	if w {
		c.wake <- struct{}{}
	}
}

// taken reports whether the peer took a part of what waits for it since the pieces
// were counted last.
func (c *Conn) taken(last *uint64) bool {
	c.mu.Lock()
	waiting := c.writing > 0
	c.mu.Unlock()
	n := c.wrote.Load()
	more := n != *last
	*last = n
	return waiting && more
}

func (c *Conn) pending() int { return len(c.out) + c.writing + c.streaming }

// Pending is the number of bytes queued and not yet taken by the socket.
func (c *Conn) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending()
}

// WaitPending blocks until at most limit bytes are queued, the connection is
// over, or ctx ends. The handler may call it to slow a peer down that does not
// read.
func (c *Conn) WaitPending(ctx context.Context, limit int) error {
	for {
		c.mu.Lock()
		if c.err != nil || c.pending() <= limit {
			err := c.err
			c.mu.Unlock()
			return err
		}
		if c.drained == nil {
			c.drained = make(chan struct{})
		}
		d := c.drained
		c.corked = false // the caller may be the reader, which holds the writer back
		c.unlockAndWake(false)
		select {
		case <-d:
		case <-c.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close ends the connection at once; the first cause stays.
func (c *Conn) Close(cause error) {
	c.mu.Lock()
	c.closeLocked(cause)
	c.mu.Unlock()
}

// Finish ends the connection once everything queued is written; the first cause
// stays.
func (c *Conn) Finish(cause error) {
	c.mu.Lock()
	if c.finish == nil {
		c.finish = cmp.Or(cause, ErrClosed)
	}
	c.unlockAndWake(false)
}

func (c *Conn) closeLocked(cause error) {
	if c.err != nil {
		return
	}
	if cause == nil {
		cause = ErrClosed
	}
	c.err = cause
	c.out = nil
	close(c.done)
	// A deadline in the past frees the reader and a write that is stuck, at once
	// and without blocking; Run then closes the socket, which may block under TLS.
	// Invariant: whoever sets a later deadline looks at done afterwards.
	c.nc.SetDeadline(past)
}

var past = time.Unix(1, 0)

func (c *Conn) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Run serves the connection until it is over and returns why. It closes the
// socket. The handler gets every frame but keepalives, in order, from this
// goroutine; an error of it ends the connection after what is queued was
// written.
func (c *Conn) Run(handle func(Frame) error) error {
	c.wgW.Add(1)
	go c.writeLoop()
	err := c.readLoop(handle)
	var h handlerError
	if errors.As(err, &h) {
		c.mu.Lock()
		c.corked = false
		c.mu.Unlock()
		err = h.error
		c.Finish(err)
		c.wgW.Wait()
	}
	if c.cfg.Farewell != nil && (errors.Is(err, ErrFrameTooLong) || errors.Is(err, ErrChecksum) || errors.Is(err, ErrProtocol)) {
		c.mu.Lock()
		c.corked = false
		c.mu.Unlock()
		if c.Send(c.cfg.Farewell(err)) == nil {
			c.Finish(err)
			c.wgW.Wait()
		}
	}
	c.Close(err)
	c.wgW.Wait()
	c.nc.Close()
	return c.Err()
}

// handlerError tells an error of the handler from one of the socket.
type handlerError struct{ error }

func (c *Conn) cork() {
	c.mu.Lock()
	c.corked = true
	c.mu.Unlock()
}

func (c *Conn) uncork() {
	c.mu.Lock()
	c.corked = false
	c.unlockAndWake(len(c.out) == 0 && len(c.streams) == 0)
}
