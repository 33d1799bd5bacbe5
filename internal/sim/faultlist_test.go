package sim

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node/service"
)

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
		loss := n.loss()
		n.later(n.upTo(2*time.Second), func() {
			l.kill("crash after a write", loss)
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
		n.w.net.gossip.SetJitter(2 * delay)
		n.later(n.upTo(6*time.Second), n.w.fast)
	}},
	{"resets", func(n *nemesis) {
		// Connections end behind what they brought: who asked tries again what was done.
		part := 0.002 + 0.02*n.rng.Float64()
		n.w.tell("connections are reset after one packet in %.0f", 1/part)
		n.w.net.peers.Resets(part)
		n.later(n.upTo(5*time.Second), func() { n.w.net.peers.Resets(0) })
	}},
	{"repeated gossip", func(n *nemesis) {
		n.w.tell("datagrams come twice and in any order, and some do not")
		n.w.net.gossip.SetRepeat(0.5)
		n.w.net.gossip.SetJitter(n.upTo(2 * time.Second))
		n.w.net.gossip.SetLoss(0.2)
		n.later(n.upTo(8*time.Second), n.w.fast)
	}},
	{"lost answers", func(n *nemesis) {
		// Of clients: what they asked for is done, and they do not hear of it.
		part := int64(5 + n.rng.IntN(40))
		n.w.tell("%d %% of all answers do not reach their clients", part)
		n.w.forgetful.Store(part)
		n.later(n.upTo(6*time.Second), func() { n.w.forgetful.Store(0) })
	}},
	{"pause", func(n *nemesis) {
		n.pauseFor(n.victim(), "", n.upTo(7*time.Second))
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
	{"transfer", func(n *nemesis) {
		if l := n.w.leader(); l != nil {
			n.wg.Go(func() {
				ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
				defer cancel()
				err := l.node.StepAside(ctx)
				n.w.tell("%s is to lead no more: %v", l.name, err)
				if err == nil {
					n.w.note("leader stepped aside")
				}
			})
		}
	}},
	{"stalled placement log", func(n *nemesis) {
		l := n.w.leader()
		if l == nil || n.rng.IntN(3) == 0 {
			l = n.victim()
		}
		if l != nil {
			l.m.mu.Lock()
			log := l.m.log
			l.m.mu.Unlock()
			d := n.upTo(6 * time.Second)
			n.w.tell("the placement log of %s hangs for %v", l.name, d)
			n.later(d, log.Stall())
		}
	}},
	{"full placement log", func(n *nemesis) {
		if l := n.victim(); l != nil {
			l.m.mu.Lock()
			log := l.m.log
			l.m.mu.Unlock()
			d := n.upTo(6 * time.Second)
			n.w.tell("the placement log of %s has no room for %v", l.name, d)
			n.later(d, log.Fill())
		}
	}},
	{"clock", func(n *nemesis) { n.badClock() }},
	{"moment", func(n *nemesis) { n.moment() }},
	{"lease edge", func(n *nemesis) { n.leaseEdge() }},
	{"rot", func(n *nemesis) { n.rot() }},
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
		if l == nil || n.parted || n.wiped || n.rotten != nil || len(n.w.all()) < 4 || !n.w.spare() {
			return
		}
		n.parted = true
		n.w.leave.Go(func() { n.w.part(l.m) })
	}},
	{"wipe", func(n *nemesis) {
		// Once in a run: two disks lost before the copies of the first are made again
		// are a lost majority.
		l := n.victim()
		if l == nil || n.wiped || n.parted || n.rotten != nil || !n.w.spare() {
			return
		}
		n.wiped = true
		l.kill("its disk is lost", disk.LoseAll)
		l.m.wipe()
		n.later(n.downtime(), func() { l.m.start() })
	}},
}
