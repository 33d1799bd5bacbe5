package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// conn is one end of a connection.
type conn struct {
	out, in *pipe
}

var _ net.Conn = (*conn)(nil)

func (c *conn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.out.write(b) }

// Close ends both directions: the peer reads what is on its way and then EOF.
func (c *conn) Close() error {
	c.out.end()
	c.in.fail(net.ErrClosed)
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return address(c.out.from) }
func (c *conn) RemoteAddr() net.Addr { return address(c.out.to) }

func (c *conn) SetDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

// maxBuffered bounds the bytes on their way in one direction: the two sockets'
// buffers.
const maxBuffered = 1 << 20

// pipe is one direction of a connection.
type pipe struct {
	net      *Network
	from, to string
	back     *pipe // the other direction; set before the pipe is used

	mu      sync.Mutex
	packets []packet      // guarded by mu, in the order they arrive
	size    int           // guarded by mu; bytes in packets
	ended   bool          // guarded by mu; the writer is done
	err     error         // guarded by mu; both ends get it
	readBy  time.Time     // guarded by mu
	writeBy time.Time     // guarded by mu
	wake    chan struct{} // guarded by mu; closed and replaced at a change
}

type packet struct {
	at   time.Time
	data []byte
}

func newPipe(n *Network, from, to string) *pipe {
	p := &pipe{net: n, from: from, to: to, wake: make(chan struct{})}
	n.mu.Lock()
	n.pipes[p] = struct{}{}
	n.mu.Unlock()
	return p
}

func (p *pipe) forget() {
	p.net.mu.Lock()
	delete(p.net.pipes, p)
	p.net.mu.Unlock()
}

func (p *pipe) poke() {
	p.mu.Lock()
	p.changed()
	p.mu.Unlock()
}

// changed is called with mu held.
func (p *pipe) changed() {
	close(p.wake)
	p.wake = make(chan struct{})
}

// fail ends the pipe for both ends at once.
func (p *pipe) fail(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
		p.packets, p.size = nil, 0
		p.changed()
	}
	p.mu.Unlock()
	p.forget()
}

// end lets the reader read what is there, and then EOF.
func (p *pipe) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended = true
		p.changed()
	}
}

func (p *pipe) setDeadline(field *time.Time, t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*field = t
	p.changed()
}

// wait gives the lock up until wake is closed or a moment comes. A zero moment
// never comes.
func (p *pipe) wait(wake <-chan struct{}, until ...time.Time) {
	p.mu.Unlock()
	var first time.Time
	for _, t := range until {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	if first.IsZero() {
		<-wake
	} else {
		t := time.NewTimer(time.Until(first))
		select {
		case <-wake:
		case <-t.C:
		}
		t.Stop()
	}
	p.mu.Lock()
}

func past(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (p *pipe) write(b []byte) (int, error) {
	latency := p.net.latency(p.from, p.to)
	p.mu.Lock()
	defer p.mu.Unlock()
	done := 0
	for {
		switch {
		case p.err != nil:
			return done, p.err
		case p.ended:
			return done, io.ErrClosedPipe
		case past(p.writeBy):
			return done, os.ErrDeadlineExceeded
		case len(b) == 0:
			return done, nil
		}
		if room := maxBuffered - p.size; room > 0 {
			k := min(room, len(b))
			at := time.Now().Add(latency)
			if n := len(p.packets); n > 0 && at.Before(p.packets[n-1].at) {
				at = p.packets[n-1].at // a stream keeps its order
			}
			p.packets = append(p.packets, packet{at, append([]byte(nil), b[:k]...)})
			if after, reset := p.net.resets(); reset {
				time.AfterFunc(time.Until(at)+after, func() {
					p.fail(errReset)
					p.back.fail(errReset)
				})
			}
			p.size += k
			done, b = done+k, b[k:]
			p.changed()
			continue
		}
		p.wait(p.wake, p.writeBy)
	}
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.err != nil:
			return 0, p.err
		case past(p.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		}
		var arrives time.Time
		wake := p.wake // of before the look at the link, or its healing could be missed
		p.mu.Unlock()
		cut := p.net.isCut(p.from, p.to)
		p.mu.Lock()
		switch {
		case cut:
		case p.err != nil:
			continue
		case len(p.packets) > 0:
			first := &p.packets[0]
			if arrives = first.at; !time.Now().Before(arrives) {
				k := copy(b, first.data)
				first.data = first.data[k:]
				p.size -= k
				if len(first.data) == 0 {
					p.packets = p.packets[1:]
				}
				p.changed()
				return k, nil
			}
		case p.ended:
			p.forget()
			return 0, io.EOF
		}
		p.wait(wake, p.readBy, arrives)
	}
}
