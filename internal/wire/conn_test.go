package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcpPair gives two ends of a loopback connection.
func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			close(accepted)
			return
		}
		accepted <- c
	}()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	b, ok := <-accepted
	if !ok {
		t.Fatal("accept")
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// run serves c until the test ends or it is over; the channel tells why.
func run(t testing.TB, c *Conn, handle func(Frame) error) <-chan error {
	over := make(chan error, 1)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		over <- c.Run(handle)
	}()
	t.Cleanup(func() { c.Close(nil); <-stopped })
	return over
}

func wait[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func nothing(Frame) error { return nil }

func TestConnOrderAndLongFrames(t *testing.T) {
	a, b := tcpPair(t)
	const frames = 200
	sizes := func(i int) int { return (i * i * 7) % (3 * readBufMax) }
	got := make(chan error, 1)
	next := 0
	server := NewConn(b, nil, ConnConfig{MaxFrame: MaxFrame})
	run(t, server, func(f Frame) error {
		want := bytes.Repeat([]byte{byte(next)}, sizes(next))
		if f.ID != uint32(next) || !bytes.Equal(f.Body, want) {
			got <- fmt.Errorf("frame %d: id %d, %d bytes", next, f.ID, len(f.Body))
		}
		if f.Owned != (HeaderLen+len(f.Body) > readBufMax) {
			got <- fmt.Errorf("frame %d of %d bytes: owned %v", next, len(f.Body), f.Owned)
		}
		if next++; next == frames {
			got <- nil
		}
		return nil
	})
	client := NewConn(a, nil, ConnConfig{})
	run(t, client, nothing)
	for i := range frames {
		dst, at := BeginFrame(client.Begin(), TypeRequest, 0, uint32(i))
		dst = append(dst, bytes.Repeat([]byte{byte(i)}, sizes(i))...)
		if err := client.End(EndFrame(dst, at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := wait(t, got); err != nil {
		t.Fatal(err)
	}
}

// TestConnTornReads feeds a stream byte by byte in every possible first cut.
func TestConnTornReads(t *testing.T) {
	var stream []byte
	for i := range 5 {
		stream = AppendPing(stream, TypePong, uint32(i+1), bytes.Repeat([]byte("x"), 20*i))
	}
	for cut := 1; cut < len(stream); cut += 3 {
		near, far := net.Pipe()
		c := NewConn(far, nil, ConnConfig{})
		n := 0
		over := make(chan error, 1)
		go func() {
			over <- c.Run(func(f Frame) error {
				if n++; f.ID != uint32(n) || len(f.Body) != 20*(n-1) {
					return fmt.Errorf("frame %d: id %d, %d bytes", n, f.ID, len(f.Body))
				}
				return nil
			})
		}()
		near.Write(stream[:cut])
		near.Write(stream[cut:])
		near.Close()
		if err := wait(t, over); !errors.Is(err, ErrClosed) || n != 5 {
			t.Fatalf("cut %d: %d frames, %v", cut, n, err)
		}
	}
}

func TestConnRefuses(t *testing.T) {
	good := AppendPing(nil, TypePong, 1, []byte("payload"))
	flip := func(at int) []byte {
		f := bytes.Clone(good)
		f[at] ^= 0x40
		return f
	}
	long, at := BeginFrame(nil, TypeRequest, 0, 1)
	long = EndFrame(append(long, make([]byte, MaxHello+1)...), at)
	for _, tc := range []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"body bit", flip(HeaderLen), ErrChecksum},
		{"sum bit", flip(0), ErrChecksum},
		{"id bit", flip(9), ErrChecksum},
		{"length bit", flip(4), ErrFrameTooLong},
		{"reserved", flip(14), ErrProtocol},
		{"too long", long, ErrFrameTooLong},
		{"long ping", AppendPing(nil, TypePing, 1, make([]byte, MaxPing+1)), ErrProtocol},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b := tcpPair(t)
			c := NewConn(b, nil, ConnConfig{})
			over := run(t, c, nothing)
			if _, err := a.Write(tc.bytes); err != nil {
				t.Fatal(err)
			}
			if err := wait(t, over); !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// A peer behind a slow link answers nothing while it takes a large request, and is
// not silent.
func TestConnSlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		const size = 8 << 20
		c := NewConn(near, nil, ConnConfig{PingInterval: 600 * time.Millisecond})
		over := make(chan error, 1)
		go func() { over <- c.Run(func(Frame) error { return nil }) }()
		begin := time.Now()
		if err := c.Send(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 16<<10)
		for got := 0; got < size; {
			time.Sleep(40 * time.Millisecond)
			n, err := far.Read(buf)
			if err != nil {
				t.Fatalf("after %v and %d bytes: %v", time.Since(begin), got, <-over)
			}
			got += n
		}
		// And then it vanishes.
		begin = time.Now()
		go io.Copy(io.Discard, far)
		if err := <-over; !errors.Is(err, ErrPeerSilent) || time.Since(begin) > 5*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		far.Close()
	})
}

func TestConnPeerSilent(t *testing.T) {
	a, b := tcpPair(t)
	c := NewConn(b, nil, ConnConfig{PingInterval: 20 * time.Millisecond})
	over := run(t, c, nothing)
	if err := wait(t, over); !errors.Is(err, ErrPeerSilent) {
		t.Fatalf("got %v", err)
	}
	// It asked for a sign of life first.
	sent, err := io.ReadAll(a)
	if err != nil {
		t.Fatal(err)
	}
	f, _, err := DecodeFrame(sent, MaxHello)
	if err != nil || f.Type != TypePing {
		t.Fatalf("sent %+v, %v", f, err)
	}
}

func TestConnKeepsQuietPeer(t *testing.T) {
	a, b := tcpPair(t)
	ca, cb := NewConn(a, nil, ConnConfig{PingInterval: time.Hour}), NewConn(b, nil, ConnConfig{PingInterval: 10 * time.Millisecond})
	overA, overB := run(t, ca, nothing), run(t, cb, nothing)
	select {
	case err := <-overA:
		t.Fatalf("a: %v", err)
	case err := <-overB:
		t.Fatalf("b: %v", err)
	case <-time.After(200 * time.Millisecond): // twenty intervals of silence above the keepalive
	}
}

func TestConnSlowReader(t *testing.T) {
	_, b := tcpPair(t) // nobody reads the other end
	c := NewConn(b, nil, ConnConfig{MaxPending: 1 << 20})
	over := run(t, c, nothing)
	payload := make([]byte, MaxPing)
	var err error
	for range 1 << 20 {
		if err = c.End(AppendPing(c.Begin(), TypePong, 1, payload)); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrSlowReader) || !errors.Is(wait(t, over), ErrSlowReader) {
		t.Fatalf("got %v", err)
	}
}

func TestConnWriteTimeout(t *testing.T) {
	_, b := tcpPair(t)
	c := NewConn(b, nil, ConnConfig{WriteTimeout: 50 * time.Millisecond})
	over := run(t, c, nothing)
	for range 8 {
		dst, at := BeginFrame(c.Begin(), TypeResponse, 0, 1)
		if c.End(EndFrame(append(dst, make([]byte, 4<<20)...), at)) != nil {
			break
		}
	}
	if err := wait(t, over); !errors.Is(err, ErrSlowReader) {
		t.Fatalf("got %v", err)
	}
}

func TestConnWaitPending(t *testing.T) {
	a, b := tcpPair(t)
	c := NewConn(b, nil, ConnConfig{})
	run(t, c, nothing)
	dst, at := BeginFrame(c.Begin(), TypeResponse, 0, 1)
	if err := c.End(EndFrame(append(dst, make([]byte, 16<<20)...), at)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := c.WaitPending(ctx, 1<<10); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("nobody reads, yet %v", err)
	}
	go io.Copy(io.Discard, a)
	if err := c.WaitPending(t.Context(), 1<<10); err != nil {
		t.Fatal(err)
	}
	if n := c.Pending(); n > 1<<10 {
		t.Fatalf("%d bytes pending", n)
	}
	c.Close(nil)
	if err := c.WaitPending(t.Context(), 0); !errors.Is(err, ErrClosed) {
		t.Fatalf("closed, yet %v", err)
	}
}

// countdown is a stream of n frames of size bytes.
type countdown struct {
	id      uint32
	n, size int
	closed  *sync.WaitGroup
}

func (s *countdown) Next(dst []byte) ([]byte, bool) {
	s.n--
	dst, at := BeginFrame(dst, TypeResponse, 0, s.id)
	return EndFrame(append(dst, make([]byte, s.size)...), at), s.n > 0
}
func (s *countdown) Pending() int { return s.n * s.size }
func (s *countdown) Close()       { s.closed.Done() }

func TestConnStreamsShare(t *testing.T) {
	a, b := tcpPair(t)
	server, client := NewConn(b, nil, ConnConfig{}), NewConn(a, nil, ConnConfig{MaxFrame: MaxFrame})
	const streams, chunks = 4, 50
	var closed sync.WaitGroup
	closed.Add(streams + 1)
	ids := make(chan uint32, streams*chunks)
	for id := range streams {
		if err := server.Stream(&countdown{id: uint32(id + 1), n: chunks, size: 32 << 10, closed: &closed}); err != nil {
			t.Fatal(err)
		}
	}
	run(t, server, nothing) // begins to write with all of them there
	run(t, client, func(f Frame) error { ids <- f.ID; return nil })
	last := map[uint32]int{}
	for i := range streams * chunks {
		last[wait(t, ids)] = i
	}
	for id, at := range last {
		if at < streams*chunks*3/4 {
			t.Errorf("stream %d ended at %d of %d: streams do not take turns", id, at, streams*chunks)
		}
	}
	if err := server.WaitPending(t.Context(), 0); err != nil {
		t.Errorf("bytes still counted as pending: %v", err)
	}
	server.Close(nil)
	if err := server.Stream(&countdown{n: 1, closed: &closed}); !errors.Is(err, ErrClosed) {
		t.Errorf("stream on a closed connection: %v", err)
	}
	closed.Wait()
}

func TestConnFinishFlushes(t *testing.T) {
	a, b := tcpPair(t)
	c := NewConn(b, nil, ConnConfig{})
	run(t, c, nothing)
	dst, at := BeginFrame(c.Begin(), TypeResponse, 0, 1)
	if err := c.End(EndFrame(append(dst, make([]byte, 8<<20)...), at)); err != nil {
		t.Fatal(err)
	}
	c.Finish(nil)
	got, err := io.ReadAll(a)
	if err != nil || len(got) != HeaderLen+8<<20 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestConnHandlerErrorIsAnswered(t *testing.T) {
	a, b := tcpPair(t)
	c := NewConn(b, nil, ConnConfig{})
	boom := errors.New("boom")
	over := run(t, c, func(f Frame) error {
		c.End(AppendEmpty(c.Begin(), TypeGoAway, 7))
		return boom
	})
	a.Write(AppendEmpty(nil, TypeCancel, 1))
	got, err := io.ReadAll(a)
	if err != nil {
		t.Fatal(err)
	}
	if f, n, err := DecodeFrame(got, MaxHello); err != nil || n != len(got) || f.ID != 7 {
		t.Fatalf("%+v %v", f, err)
	}
	if err := wait(t, over); !errors.Is(err, boom) {
		t.Fatal(err)
	}
}
