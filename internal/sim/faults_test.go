package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/placement"
)

// fault is one way to break a cluster. do begins it and returns; what it began ends
// by later.
type fault struct {
	name string
	do   func(n *nemesis)
}

// harms reports whether a fault may leave a disk that is not believed: what it has of
// the last batch of its log may be gone (R19). With a disk that is lost that is one too
// many for three copies: the facet waits for an operator then, rightly (R25).
func (f fault) harms() bool {
	return strings.HasPrefix(f.name, "crash") || strings.HasSuffix(f.name, "error")
}

// nemesis breaks things, one after the other and several at a time. Only the goroutine
// of run draws from rng: what it began must not, or the seed decides nothing.
type nemesis struct {
	w    *world
	rng  *rand.Rand
	stop chan struct{}
	wg   sync.WaitGroup

	wiped, parted bool
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

// operator is a node's answer to operators.
func operator(l *life) service.Operator { return l.node.Service().(service.Operator) }

// operate begins an operation at whoever leads.
func (n *nemesis) operate(req service.OperationRequest) {
	n.wg.Go(func() {
		for range 20 {
			if l := n.w.leader(); l != nil {
				ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
				_, err := operator(l).Start(ctx, req)
				cancel()
				n.w.tell("%s %s at %s: %v", req.Kind, req.Node, l.name, err)
				if err == nil {
					n.w.note(string(req.Kind) + " begun")
					return
				}
			}
			time.Sleep(500 * time.Millisecond)
		}
	})
}

// grow adds a machine to the cluster.
func (w *world) grow() {
	m := w.add(0, []string{"10.0.0.1:7402", "10.0.0.2:7402", "10.0.0.3:7402"})
	w.note("grown")
	m.start()
}

// spare reports whether a disk may be lost: a majority of the voters of the placement
// log, and of every replica set, is there without it. After an orderly restart a node
// is no voter for some seconds, and there may be two of them.
func (w *world) spare() bool {
	l := w.leader()
	if l == nil || len(w.running()) != len(w.all()) || len(w.all()) < 3 {
		return false
	}
	voters := 0
	for _, n := range l.node.Service().Cluster(l.ctx).Nodes {
		if n.Voter {
			voters++
		}
	}
	for f := range l.node.Table().Facets() {
		if f.Active.Len() < 3 {
			return false
		}
	}
	return voters >= 3
}

// part takes a node out of the cluster as an operator does: its facets and copies go
// to others, it is stopped, it is removed.
func (w *world) part(m *machine) {
	m.mu.Lock()
	m.leaving = true
	m.mu.Unlock()
	w.tell("%s is to leave the cluster", m.id)
	// Asked for again until it is so, whatever happens to it or the leader meanwhile.
	order := func(kind service.OperationKind, done func(*placement.Table) bool) bool {
		var err error
		ok := w.until(leavesWithin, func() bool {
			l := w.leader()
			if l == nil || done(l.node.Table()) {
				return l != nil
			}
			ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
			defer cancel()
			_, err = operator(l).Start(ctx, service.OperationRequest{Kind: kind, Node: m.id})
			time.Sleep(time.Second)
			return false
		})
		if !ok {
			w.problem("%s of %s does not end within %v: %v", kind, m.id, leavesWithin, err)
		}
		return ok
	}
	if !order(service.OpDecommission, func(t *placement.Table) bool {
		n, ok := t.Node(m.id)
		if !ok || n.State != placement.NodeDecommissioning {
			return false
		}
		for row := range t.Facets() {
			if row.Owner.Node == m.id || row.Active.Has(m.id) || row.Next.Has(m.id) {
				return false
			}
		}
		return true
	}) {
		return
	}
	m.mu.Lock()
	m.out = true
	l := m.life
	m.mu.Unlock()
	if l != nil {
		l.stop(15 * time.Second)
	}
	if order(service.OpRemove, func(t *placement.Table) bool { _, ok := t.Node(m.id); return !ok }) {
		w.tell("%s has left the cluster", m.id)
		w.note("left")
	}
}

// fast is the network without fault.
func (w *world) fast() {
	w.net.peers.Latency(200*time.Microsecond, 300*time.Microsecond, 0)
	w.net.gossip.SetLoss(0)
}

// mend ends all faults: every path is open, every machine runs.
func (w *world) mend() {
	w.net.set(none)
	w.fast()
	w.tell("everything is mended")
	for _, m := range w.all() {
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
		n.later(n.upTo(2*time.Second), func() {
			l.kill("crash after a write", disk.LossAny)
			l.m.start()
		})
	}},
	{"partition", func(n *nemesis) {
		// One part is a side of any size.
		side := map[cluster.NodeID]bool{}
		for _, m := range n.w.all() {
			side[m.id] = n.rng.IntN(2) == 0
		}
		n.cut("partition", n.upTo(8*time.Second), func(a, b cluster.NodeID) bool { return side[a] != side[b] })
	}},
	{"isolate one", func(n *nemesis) {
		if l := n.victim(); l != nil {
			n.cut(l.name+" is alone", n.upTo(8*time.Second), touching(l.m.id))
		}
	}},
	{"isolate leader", func(n *nemesis) {
		if l := n.w.leader(); l != nil {
			n.cut(l.name+" is alone and led", n.upTo(8*time.Second), touching(l.m.id))
		}
	}},
	{"one way", func(n *nemesis) {
		from, to := n.victim(), n.victim()
		if from != nil && to != nil && from != to {
			a, b := from.m.id, to.m.id
			n.cut(fmt.Sprintf("nothing goes from %s to %s", a, b), n.upTo(8*time.Second), func(x, y cluster.NodeID) bool { return x == a && y == b })
		}
	}},
	{"deaf", func(n *nemesis) {
		if l := n.victim(); l != nil {
			n.cut(l.name+" hears nothing", n.upTo(6*time.Second), func(_, to cluster.NodeID) bool { return to == l.m.id })
		}
	}},
	{"cut from leader", func(n *nemesis) {
		l, lead := n.victim(), n.w.leader()
		if l != nil && lead != nil && l != lead {
			a, b := l.m.id, lead.m.id
			n.cut(fmt.Sprintf("%s and the leader %s do not reach each other", a, b), n.upTo(8*time.Second), func(x, y cluster.NodeID) bool {
				return x == a && y == b || x == b && y == a
			})
		}
	}},
	{"slow network", func(n *nemesis) {
		delay := n.upTo(80 * time.Millisecond)
		n.w.tell("every packet takes %v", delay)
		n.w.net.peers.Latency(delay, delay, 0.02)
		n.w.net.gossip.SetLoss(0.05)
		n.later(n.upTo(6*time.Second), n.w.fast)
	}},
	{"pause", func(n *nemesis) {
		// A process that does not run: nobody hears of it, and it hears of nobody. Its
		// connections stay, and what is on its way waits.
		l := n.victim()
		if l == nil {
			return
		}
		l.pause.hold()
		n.cut(l.name+" is paused", n.upTo(7*time.Second), touching(l.m.id), l.pause.release)
	}},
	{"slow disk", func(n *nemesis) {
		n.sabotage("slow disk", n.upTo(8*time.Second), disk.Fault{Ops: disk.OpDatasync, Delay: n.upTo(300 * time.Millisecond)})
	}},
	{"stalled fsync", func(n *nemesis) {
		n.sabotage("stalled fsync", n.upTo(8*time.Second), disk.Fault{Ops: disk.OpDatasync, Delay: n.upTo(12 * time.Second), Times: 1 + n.rng.IntN(3)})
	}},
	{"fsync error", func(n *nemesis) {
		if l := n.victim(); l != nil {
			l.m.breaks()
			n.sabotageAt(l, "fsync error", n.upTo(5*time.Second), disk.Fault{Ops: disk.OpDatasync, Path: "*.seg", Err: syscall.EIO, After: n.rng.IntN(10), Times: 1})
		}
	}},
	{"write error", func(n *nemesis) {
		if l := n.victim(); l != nil {
			l.m.breaks()
			n.sabotageAt(l, "write error", n.upTo(5*time.Second), disk.Fault{Ops: disk.OpWrite, Err: syscall.EIO, After: n.rng.IntN(20), Times: 1})
		}
	}},
	{"disk full", func(n *nemesis) {
		l := n.victim()
		if l == nil {
			return
		}
		l.m.mu.Lock()
		d := l.m.disk
		l.m.mu.Unlock()
		d.SetQuota(d.Used() + int64(n.rng.IntN(256<<10)))
		n.w.tell("the disk of %s is full", l.name)
		n.later(n.upTo(8*time.Second), func() {
			n.w.tell("the disk of %s has room again", l.name)
			l.m.mu.Lock()
			defer l.m.mu.Unlock()
			d.SetQuota(-1)
			l.m.disk.SetQuota(-1)
		})
	}},
	{"move", func(n *nemesis) {
		spec := n.w.names[n.rng.IntN(len(n.w.names))]
		to := n.victim()
		if to == nil {
			return
		}
		n.wg.Go(func() {
			for _, l := range n.w.running() { // whoever owns it
				ctx, cancel := context.WithTimeout(l.ctx, 20*time.Second)
				_, err := operator(l).Move(ctx, spec.name, to.m.id, service.KeepPin)
				cancel()
				n.w.tell("move %s to %s asked at %s: %v", spec.name, to.m.id, l.name, err)
				if err == nil {
					n.w.note("moved")
					return
				}
			}
		})
	}},
	{"drain", func(n *nemesis) {
		if l := n.victim(); l != nil {
			n.operate(service.OperationRequest{Kind: service.OpDrain, Node: l.m.id})
			n.later(n.upTo(6*time.Second), func() {
				n.operate(service.OperationRequest{Kind: service.OpUndrain, Node: l.m.id})
			})
		}
	}},
	{"rebalance", func(n *nemesis) { n.operate(service.OperationRequest{Kind: service.OpRebalance}) }},
	{"part", func(n *nemesis) {
		// Once in a run, from a cluster that is whole without it.
		l := n.victim()
		if l == nil || n.parted || n.wiped || len(n.w.all()) < 4 || !n.w.spare() {
			return
		}
		n.parted = true
		n.w.leave.Go(func() { n.w.part(l.m) })
	}},
	{"wipe", func(n *nemesis) {
		// Once in a run: two disks lost before the copies of the first are made again
		// are a lost majority.
		l := n.victim()
		if l == nil || n.wiped || n.parted || !n.w.spare() {
			return
		}
		n.wiped = true
		l.kill("its disk is lost", disk.LoseAll)
		l.m.wipe()
		n.later(n.downtime(), func() { l.m.start() })
	}},
}
