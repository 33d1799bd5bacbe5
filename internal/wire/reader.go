package wire

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"
)

// readLoop owns the read buffer: frames are buf[r:w].
func (c *Conn) readLoop(handle func(Frame) error) error {
	buf := make([]byte, max(readBufMin, len(c.early)))
	r, w := 0, copy(buf, c.early)
	c.early = nil
	watch := silence{c: c}
	for {
		corked := false
		for w-r >= HeaderLen {
			f, n, err := DecodeFrame(buf[r:w], c.maxFrame)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			if !corked {
				c.cork()
				corked = true
			}
			r += n
			if err := c.dispatch(f, handle); err != nil {
				return err
			}
		}
		if corked {
			c.uncork()
		}
		if w-r >= HeaderLen {
			h, err := parseHeader(buf[r:], c.maxFrame)
			if err != nil {
				return err
			}
			if need := HeaderLen + int(h.n); need > readBufMax {
				if err := c.readLong(h, buf[r:w], &watch, handle); err != nil {
					return err
				}
				r, w = 0, 0
				continue
			} else if need > len(buf) {
				buf, r, w = grow(buf, r, w, need)
			}
		}
		if r > 0 {
			w = copy(buf, buf[r:w])
			r = 0
		}
		n, err := watch.read(buf[w:])
		if err != nil {
			return err
		}
		w += n
		if w == len(buf) && len(buf) < readBufMax {
			buf, r, w = grow(buf, r, w, 2*len(buf))
		}
	}
}

func grow(buf []byte, r, w, n int) ([]byte, int, int) {
	bigger := make([]byte, n)
	return bigger, 0, copy(bigger, buf[r:w])
}

// readLong reads a frame longer than the read buffer into memory of its own,
// which grows as the bytes arrive: a length alone costs the peer's announcement
// nothing here.
func (c *Conn) readLong(h header, have []byte, watch *silence, handle func(Frame) error) error {
	total := HeaderLen + int(h.n)
	frame := make([]byte, len(have), 4*readBufMax)
	copy(frame, have)
	for len(frame) < total {
		if len(frame) == cap(frame) {
			bigger := make([]byte, len(frame), min(2*cap(frame), total))
			copy(bigger, frame)
			frame = bigger
		}
		n, err := watch.read(frame[len(frame):min(cap(frame), total)])
		if err != nil {
			return err
		}
		frame = frame[:len(frame)+n]
	}
	if crc32.Update(0, castagnoli, frame[4:]) != h.sum {
		return fmt.Errorf("%w: %v frame of %d bytes", ErrChecksum, h.typ, h.n)
	}
	return c.dispatch(Frame{Type: h.typ, Flags: h.flags, ID: h.id, Body: frame[HeaderLen:], Owned: true}, handle)
}

func (c *Conn) dispatch(f Frame, handle func(Frame) error) error {
	switch f.Type {
	case TypePing:
		if len(f.Body) > MaxPing {
			return fmt.Errorf("%w: ping of %d bytes, limit %d", ErrProtocol, len(f.Body), MaxPing)
		}
		return c.End(AppendPing(c.Begin(), TypePong, f.ID, f.Body))
	case TypePong:
		if f.ID == 0 {
			return nil // the answer to a keepalive has done its work by arriving
		}
	}
	if err := handle(f); err != nil {
		return handlerError{err}
	}
	return nil
}

// silence reads from the socket and notices a peer that says nothing. It moves
// the read deadline once a quarter interval at most, because that costs more than
// looking at the clock.
type silence struct {
	c        *Conn
	deadline time.Time
	pings    int
	wrote    uint64
}

func (s *silence) read(p []byte) (int, error) {
	for {
		interval := s.c.cfg.PingInterval
		now := time.Now()
		if s.deadline.Sub(now) < interval {
			s.deadline = now.Add(interval + interval/4)
			if err := s.c.nc.SetReadDeadline(s.deadline); err != nil {
				return 0, err
			}
			if s.c.over() {
				return 0, ErrClosed
			}
		}
		n, err := s.c.nc.Read(p)
		if n > 0 {
			s.pings = 0
			return n, nil
		}
		switch {
		case err == nil:
			return 0, io.ErrNoProgress
		case s.c.over():
			return 0, ErrClosed
		case !errors.Is(err, os.ErrDeadlineExceeded):
			if err == io.EOF {
				err = fmt.Errorf("%w by the peer", ErrClosed)
			}
			return 0, err
		}
		if s.c.taken(&s.wrote) {
			// The ping waits behind it, and then behind what the sockets hold.
			s.pings = -silentPings
		}
		if s.pings++; s.pings >= silentPings {
			return 0, fmt.Errorf("%w: %v", ErrPeerSilent, time.Duration(silentPings)*interval)
		}
		if err := s.c.End(AppendPing(s.c.Begin(), TypePing, 0, nil)); err != nil {
			return 0, err
		}
	}
}
