package e2e

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// weather is what happens to packets on a cable, in either direction. The kernel's
// netem does the same and is not in every kernel, so they are carried by hand.
type weather struct {
	loss, twice, flipped float64       // shares of the packets that are lost, doubled, damaged
	delay, jitter        time.Duration // jitter alone changes no order
	early                float64       // share that is not delayed, and so overtakes
	rate                 int           // bytes a second, 0 for no limit
	peers                bool          // only between nodes; clients see nothing of it
}

// shaper carries the frames of one node by hand: its cable ends at a bridge of its own,
// and from there they go through this process to the bridge of all.
type shaper struct {
	near, far *os.File // TAP devices at the two bridges
	bridge    string
	wg        sync.WaitGroup
}

// shape has a weather on the cable of a node until heal.
func (w *wires) shape(host string, c weather) {
	w.t.Helper()
	k := w.number(host)
	if w.shapers[k] != nil {
		w.unshape(k)
	}
	s := &shaper{bridge: w.name(k) + "b"}
	w.ip("link", "add", s.bridge, "type", "bridge")
	w.ip("link", "set", s.bridge, "up")
	var err error
	if s.near, err = openTAP(w.name(k) + "i"); err == nil {
		s.far, err = openTAP(w.name(k) + "o")
	}
	if err != nil {
		w.t.Fatal("make a TAP device: ", err)
	}
	w.ip("link", "set", w.name(k)+"i", "master", s.bridge, "up")
	w.ip("link", "set", w.name(k)+"o", "master", w.bridge(), "up")
	w.ip("link", "set", w.name(k), "master", s.bridge)
	if w.shapers == nil {
		w.shapers = make(map[int]*shaper)
	}
	w.shapers[k] = s
	seed := rand.Uint64()
	s.wg.Go(func() { carry(s.near, s.far, c, rand.New(rand.NewPCG(seed, 1)), w.isPeers) })
	s.wg.Go(func() { carry(s.far, s.near, c, rand.New(rand.NewPCG(seed, 2)), w.isPeers) })
}

// unshape plugs the cable of node k into the bridge of all again.
func (w *wires) unshape(k int) {
	s := w.shapers[k]
	if s == nil {
		return
	}
	delete(w.shapers, k)
	w.ip("link", "set", w.name(k), "master", w.bridge())
	s.near.Close()
	s.far.Close()
	s.wg.Wait()
	w.ip("link", "del", s.bridge)
}

// isPeers reports whether a frame goes from one node to another.
func (w *wires) isPeers(frame []byte) bool {
	const ipv4, from, to, last = 12, 26, 30, 3
	return len(frame) >= to+4 && frame[ipv4] == 8 && frame[ipv4+1] == 0 && frame[from+last] != outside && frame[to+last] != outside
}

// openTAP makes a TAP device, which goes with its file.
func openTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var req struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:], name)
	req.flags = unix.IFF_TAP | unix.IFF_NO_PI
	if _, _, no := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req))); no != 0 {
		unix.Close(fd)
		return nil, fmt.Errorf("TUNSETIFF %s: %w", name, no)
	}
	return os.NewFile(uintptr(fd), name), nil
}

const (
	maxFrame = 64 << 10
	// queueLen is how many frames are on their way at most, and queueTime how long a
	// slow line lets them wait; what is more is dropped, as a router does.
	queueLen  = 4096
	queueTime = 500 * time.Millisecond
)

// frameDue is a frame on its way.
type frameDue struct {
	at    time.Time
	n     int // breaks ties in the order of arrival
	bytes []byte
}

type frameQueue []frameDue

func (q frameQueue) Len() int { return len(q) }
func (q frameQueue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].n < q[j].n
}
func (q frameQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *frameQueue) Push(x any)   { *q = append(*q, x.(frameDue)) }
func (q *frameQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

// carry carries frames one way until a device is closed.
func carry(from, to *os.File, c weather, rng *rand.Rand, peers func([]byte) bool) {
	frames := make(chan []byte, queueLen)
	var wg sync.WaitGroup
	wg.Go(func() { deliver(frames, to, c, rng, peers) })
	defer wg.Wait()
	defer close(frames)
	buf := make([]byte, maxFrame)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		select {
		case frames <- append([]byte(nil), buf[:n]...):
		default: // the queue is full
		}
	}
}

// deliver writes frames when they are due.
func deliver(frames <-chan []byte, to *os.File, c weather, rng *rand.Rand, peers func([]byte) bool) {
	var q frameQueue
	var free, last time.Time // when the line is free; when the last frame in order is due
	n := 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		for len(q) > 0 && !q[0].at.After(time.Now()) {
			// A device that is down loses frames, as any.
			_, _ = to.Write(heap.Pop(&q).(frameDue).bytes)
		}
		if len(q) > 0 {
			timer.Reset(time.Until(q[0].at))
		} else {
			timer.Reset(time.Hour)
		}
		select {
		case <-timer.C:
		case f, ok := <-frames:
			if !ok {
				return
			}
			n++
			now := time.Now()
			at := now
			if hit := !c.peers || peers(f); hit {
				if c.rate > 0 {
					if free.Before(now) {
						free = now
					}
					if free.Sub(now) > queueTime {
						continue
					}
					free = free.Add(time.Duration(len(f)) * time.Second / time.Duration(c.rate))
					at = free
				}
				if rng.Float64() < c.loss || len(q) >= queueLen {
					continue
				}
				if rng.Float64() < c.flipped && len(f) > 14 {
					f[14+rng.IntN(len(f)-14)] ^= 1 << rng.IntN(8)
				}
				if c.delay > 0 && rng.Float64() >= c.early {
					at = at.Add(c.delay)
					if c.jitter > 0 {
						at = at.Add(time.Duration(rng.Int64N(int64(c.jitter))))
					}
					if at.Before(last) {
						at = last
					}
					last = at
				}
				if rng.Float64() < c.twice {
					heap.Push(&q, frameDue{at, n, f})
				}
			}
			heap.Push(&q, frameDue{at, n, f})
		}
	}
}
