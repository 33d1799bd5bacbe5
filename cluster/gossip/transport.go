package gossip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport carries the library's datagrams and streams over a Network. Unlike
// the library's own it keeps no 64 KiB per datagram, counts, bounds streams and
// what is read from them, and lets go of everything when it is shut down.
//
// Two goroutines read datagrams and accept streams; Shutdown waits for them.
type transport struct {
	network   Network
	packetsIn net.PacketConn
	listener  net.Listener
	advertise netip.AddrPort
	label     string // header of what is ours
	report    *reporter

	packets chan *memberlist.Packet
	streams chan net.Conn

	ctx    context.Context // ends when the transport is shut down
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[*stream]struct{} // guarded by mu; nil once shut down

	sentPackets, sentBytes         atomic.Uint64
	receivedPackets, receivedBytes atomic.Uint64
	streamCount, streamBytes       atomic.Uint64
	foreignPackets, refusedStreams atomic.Uint64
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// newTransport owns pc and ln from now on. label is not empty.
func newTransport(n Network, pc net.PacketConn, ln net.Listener, advertise netip.AddrPort, label string, r *reporter) (*transport, error) {
	header, err := memberlist.AddLabelHeaderToPacket(nil, label)
	if err != nil {
		return nil, err
	}
	t := &transport{
		network: n, packetsIn: pc, listener: ln, advertise: advertise, label: string(header), report: r,
		packets: make(chan *memberlist.Packet, packetQueue),
		streams: make(chan net.Conn, streamQueue),
		conns:   make(map[*stream]struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.wg.Go(t.readPackets)
	t.wg.Go(t.acceptStreams)
	return t, nil
}

func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IP(t.advertise.Addr().AsSlice()), int(t.advertise.Port()), nil
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("send datagram: %w", err)
	}
	if _, err = t.packetsIn.WriteTo(b, net.UDPAddrFromAddrPort(to)); err == nil {
		t.sentPackets.Add(1)
		t.sentBytes.Add(uint64(len(b)))
	}
	return time.Now(), err
}

func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial gossip: %w", err)
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	conn, err := t.network.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	s := t.track(conn)
	if s == nil {
		return nil, fmt.Errorf("dial gossip %s: %w", to, net.ErrClosed)
	}
	return s, nil
}

func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// Shutdown closes everything and waits for the two readers. The library calls
// it while it still takes what they hand over.
func (t *transport) Shutdown() error {
	t.hangUp()
	err := errors.Join(t.packetsIn.Close(), t.listener.Close())
	t.wg.Wait()
	return err
}

// hangUp ends all streams and dials, and has none begin. Datagrams go on until
// Shutdown.
func (t *transport) hangUp() {
	t.mu.Lock()
	conns := t.conns
	t.conns = nil
	t.mu.Unlock()
	t.cancel()
	for s := range conns {
		s.Conn.Close()
	}
}

func (t *transport) readPackets() {
	buf := make([]byte, maxReadDatagram)
	for {
		n, from, err := t.packetsIn.ReadFrom(buf)
		now := time.Now()
		if err != nil {
			if !t.pause(err, "read gossip datagrams") {
				return
			}
			continue
		}
		t.receivedPackets.Add(1)
		t.receivedBytes.Add(uint64(n))
		if n == 0 {
			continue
		}
		if !strings.HasPrefix(string(buf[:n]), t.label) {
			t.foreignPackets.Add(1)
			t.report.alarm(Alarm{Kind: AlarmForeignLabel, Addr: addrPort(from)})
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: now}
		select {
		case t.packets <- p:
		case <-t.ctx.Done():
			return
		}
	}
}

func (t *transport) acceptStreams() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			if !t.pause(err, "accept gossip streams") {
				return
			}
			continue
		}
		s := t.track(conn)
		if s == nil {
			continue
		}
		select {
		case t.streams <- s:
		case <-t.ctx.Done():
			s.Close()
			return
		}
	}
}

// pause reports whether to go on after err, and waits a little.
func (t *transport) pause(err error, what string) bool {
	if t.ctx.Err() != nil {
		return false
	}
	t.report.line(levelWarn, what, "error", err)
	select {
	case <-time.After(readErrorPause):
		return true
	case <-t.ctx.Done():
		return false
	}
}

// track counts conn among the open streams, or closes it and returns nil.
func (t *transport) track(conn net.Conn) *stream {
	s := &stream{Conn: conn, t: t, left: maxStreamBytes}
	t.mu.Lock()
	room := t.conns != nil && len(t.conns) < maxStreams
	if room {
		t.conns[s] = struct{}{}
	}
	t.mu.Unlock()
	if !room {
		t.refusedStreams.Add(1)
		conn.Close()
		return nil
	}
	t.streamCount.Add(1)
	return s
}

// stream is an open stream. One goroutine of the library reads it, so left
// needs no lock.
type stream struct {
	net.Conn
	t    *transport
	left int
}

func (s *stream) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, fmt.Errorf("read gossip stream: more than %d bytes: %w", maxStreamBytes, io.ErrUnexpectedEOF)
	}
	n, err := s.Conn.Read(b[:min(len(b), s.left)])
	s.left -= n
	s.t.streamBytes.Add(uint64(n))
	return n, err
}

func (s *stream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	s.t.streamBytes.Add(uint64(n))
	return n, err
}

func (s *stream) Close() error {
	s.t.mu.Lock()
	delete(s.t.conns, s)
	s.t.mu.Unlock()
	return s.Conn.Close()
}

// addrPort is the address in a, zero if it holds none.
func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	case *net.TCPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// machine is the network of this machine.
type machine struct{}

func (machine) Listen(addr netip.AddrPort) (net.PacketConn, net.Listener, error) {
	var ip net.IP // nil is every address, whichever families the machine has
	if addr.Addr() != netip.IPv6Unspecified() {
		ip = addr.Addr().AsSlice()
	}
	for try := 1; ; try++ {
		ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: ip, Port: int(addr.Port())})
		if err != nil {
			return nil, nil, err
		}
		port := ln.Addr().(*net.TCPAddr).Port
		pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip, Port: port})
		if err == nil {
			return pc, ln, nil
		}
		ln.Close()
		// The kernel chose a port free for TCP; for UDP it may be taken.
		if addr.Port() != 0 || try == maxPortTries {
			return nil, nil, err
		}
	}
}

func (machine) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr.String())
}
