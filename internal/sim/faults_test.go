package sim

import (
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/internal/disk"
)

// fault is one way to break a cluster. do begins it and returns; what it began ends
// by later.
type fault struct {
	name string
	do   func(n *nemesis)
}

// harms reports whether a fault leaves a disk that is not believed for a while: what it
// has of the last batch of its log may be gone (R19). With a disk that is lost or rots
// that is one too many for three copies: the facet waits for an operator then, rightly
// (R25). Crashes harm no disk in such a run, see plan.loss.
func (f fault) harms() bool { return strings.HasSuffix(f.name, "error") }

// spoils reports whether a fault takes away what a disk had synced.
func (f fault) spoils() bool { return f.name == "wipe" || f.name == "rot" }

// nemesis breaks things, one after the other and several at a time. Only the goroutine
// of run draws from rng: what it began must not, or the seed decides nothing.
type nemesis struct {
	w    *world
	rng  *rand.Rand
	stop chan struct{}
	wg   sync.WaitGroup

	wiped, parted bool
	rotten        *machine // the one disk of the run that rots, once one does

	mu   sync.Mutex
	over bool // guarded by mu; the faults are
}

// run breaks things until length is over, and mends everything then.
func (n *nemesis) run(length time.Duration) {
	end := time.Now().Add(length)
	for range n.w.plan.grow {
		// Somewhere in the first half, so that there is something to move.
		n.wg.Go(func(d time.Duration) func() {
			return func() {
				time.Sleep(d)
				n.w.grow()
			}
		}(n.upTo(length / 2)))
	}
	for time.Now().Before(end) && len(n.w.plan.faults) > 0 {
		time.Sleep(n.upTo(2 * n.w.plan.pause))
		f := n.w.plan.faults[n.rng.IntN(len(n.w.plan.faults))]
		n.w.note(noteFault + f.name)
		f.do(n)
	}
	n.w.moments.disarm()
	n.mu.Lock()
	n.over = true
	n.mu.Unlock()
	close(n.stop)
	n.wg.Wait()
	n.w.mend()
}

func (n *nemesis) upTo(d time.Duration) time.Duration {
	return time.Duration(n.rng.Int64N(int64(d))) + time.Millisecond
}

// later does f after d, or when the faults are over.
func (n *nemesis) later(d time.Duration, f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.over { // a moment that came late
		n.w.wg.Go(f)
		return
	}
	n.wg.Go(func() {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-n.stop:
		}
		f()
	})
}

// victim is a process that runs, nil if none does.
func (n *nemesis) victim() *life {
	list := n.w.running()
	if len(list) == 0 {
		return nil
	}
	return list[n.rng.IntN(len(list))]
}

// crash kills a process, and starts the machine again after a while.
func (n *nemesis) crash(l *life, why string) { n.crashFor(l, why, n.downtime(), n.loss()) }

func (n *nemesis) crashFor(l *life, why string, down time.Duration, loss disk.Loss) {
	if l == nil {
		return
	}
	l.kill(why, loss)
	n.later(down, func() { l.m.start() })
}

// loss is what a crash does to the disk.
func (n *nemesis) loss() disk.Loss { return n.w.plan.loss(n.rng) }

// pauseFor has a process not run for a while: nobody hears of it, and it hears of
// nobody. Its connections stay, and what is on its way waits.
func (n *nemesis) pauseFor(l *life, why string, d time.Duration) {
	if l != nil {
		l.pause.hold()
		n.cut(l.name+" is paused"+why, d, touching(l.m.id), l.pause.release)
	}
}

// downtime is short or long.
func (n *nemesis) downtime() time.Duration {
	if n.rng.IntN(2) == 0 {
		return n.upTo(200 * time.Millisecond)
	}
	return n.upTo(6 * time.Second)
}

// cut parts nodes for a while.
func (n *nemesis) cut(what string, d time.Duration, f func(from, to cluster.NodeID) bool, undo ...func()) {
	n.w.tell("%s, for %v", what, d)
	n.w.net.also(true, f)
	n.later(d, func() {
		n.w.tell("no more: %s", what)
		n.w.net.also(false, f)
		for _, u := range undo {
			u()
		}
	})
}

func touching(id cluster.NodeID) func(from, to cluster.NodeID) bool {
	return func(from, to cluster.NodeID) bool { return from == id || to == id }
}

// sabotage breaks the disk of some process for a while.
func (n *nemesis) sabotage(what string, d time.Duration, f disk.Fault) {
	if l := n.victim(); l != nil {
		n.sabotageAt(l, what, d, f)
	}
}

func (n *nemesis) sabotageAt(l *life, what string, d time.Duration, f disk.Fault) {
	l.m.mu.Lock()
	on := l.m.disk
	l.m.mu.Unlock()
	n.w.tell("%s at %s for %v (%v after %d, %d times)", what, l.name, d, f.Delay, f.After, f.Times)
	n.later(d, on.Inject(f))
}

// breaks says that the process on m may stop by itself from now on.
func (m *machine) breaks() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.breaking = true
}

// fast is the network without fault.
func (w *world) fast() {
	w.net.peers.Latency(200*time.Microsecond, 300*time.Microsecond, 0)
	w.net.peers.Resets(0)
	w.net.gossip.SetLoss(0)
	w.net.gossip.SetRepeat(0)
	w.net.gossip.SetJitter(0)
	w.forgetful.Store(0)
}

// mend ends all faults: every path is open, every machine runs.
func (w *world) mend() {
	w.net.set(none)
	w.fast()
	w.tell("everything is mended")
	for _, m := range w.all() {
		m.clocks.sound()
		if l := m.start(); l != nil {
			l.pause.release()
		}
	}
}

// supervise starts machines again whose process stopped by itself, as a service
// manager does, until the run ends.
func (w *world) supervise(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(700 * time.Millisecond):
		}
		for _, m := range w.all() {
			m.mu.Lock()
			failed := m.life == nil && m.fell
			m.fell = false
			m.mu.Unlock()
			if failed {
				m.start()
			}
		}
	}
}
