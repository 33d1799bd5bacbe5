package sim

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/facetd/facetd/internal/disk"
)

// fault is one way to break a cluster. do begins it and returns; what it began ends
// by later.
type fault struct {
	name string
	do   func(n *nemesis)
}

// nemesis breaks things, one after the other and several at a time.
type nemesis struct {
	w    *world
	rng  *rand.Rand
	stop chan struct{}
	wg   sync.WaitGroup
}

// run breaks things until length is over, and mends everything then.
func (n *nemesis) run(length time.Duration) {
	end := time.Now().Add(length)
	for time.Now().Before(end) && len(n.w.plan.faults) > 0 {
		time.Sleep(n.upTo(2 * n.w.plan.pause))
		f := n.w.plan.faults[n.rng.IntN(len(n.w.plan.faults))]
		n.w.note("fault " + f.name)
		f.do(n)
	}
	close(n.stop)
	n.wg.Wait()
	n.w.mend()
}

func (n *nemesis) upTo(d time.Duration) time.Duration {
	return time.Duration(n.rng.Int64N(int64(d))) + time.Millisecond
}

// later does f after d, or when the faults are over.
func (n *nemesis) later(d time.Duration, f func()) {
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
func (n *nemesis) crash(l *life, why string) {
	if l == nil {
		return
	}
	l.kill(why, disk.LossAny)
	n.later(n.downtime(), func() { l.m.start() })
}

// downtime is short or long.
func (n *nemesis) downtime() time.Duration {
	if n.rng.IntN(2) == 0 {
		return n.upTo(200 * time.Millisecond)
	}
	return n.upTo(6 * time.Second)
}

// mend ends all faults: every path is open, every machine runs.
func (w *world) mend() {
	w.net.set(none)
	w.tell("everything is mended")
	for _, m := range w.all() {
		l := m.start()
		l.pause.release()
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

var faults = []fault{
	{"crash one", func(n *nemesis) { n.crash(n.victim(), "crash") }},
	{"crash leader", func(n *nemesis) { n.crash(n.w.leader(), "crash of the leader") }},
	{"crash two", func(n *nemesis) {
		n.crash(n.victim(), "crash")
		n.crash(n.victim(), "crash")
	}},
	{"crash all", func(n *nemesis) {
		for _, l := range n.w.running() {
			n.crash(l, "crash of all")
		}
	}},
	{"restart", func(n *nemesis) {
		l := n.victim()
		if l == nil {
			return
		}
		n.wg.Go(func() {
			n.w.tell("%s is told to stop", l.name)
			l.stop(15 * time.Second)
			l.m.start()
		})
	}},
	{"crash while writing", func(n *nemesis) {
		// At a certain write, not between two.
		l := n.victim()
		if l == nil {
			return
		}
		l.m.mu.Lock()
		d := l.m.disk
		l.m.breaking = true
		l.m.mu.Unlock()
		d.CrashAt(int64(1 + n.rng.IntN(30)))
		n.w.tell("%s will crash at a write", l.name)
		n.later(n.upTo(2*time.Second), func() { n.crash(l, "crash after a write"); l.m.start() })
	}},
}
