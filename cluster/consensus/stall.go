package consensus

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A leader whose disk hangs keeps its followers quiet, since its heartbeats do
// not touch the disk, and decides nothing. Raft's own transfer of leadership
// does not help: the goroutine that would carry it out waits for the disk. So
// the watchdog of each entry asks, beside Raft, another voter to stand for
// election, and stops this node's heartbeats meanwhile. Safety does not depend
// on it: the election is Raft's own, and the old leader gives up when it learns
// of the new term.

// stopwatch knows since when an operation is under way.
type stopwatch struct {
	mu    sync.Mutex
	since time.Time // guarded by mu; zero when none is
}

func (w *stopwatch) start() {
	w.mu.Lock()
	w.since = time.Now()
	w.mu.Unlock()
}

func (w *stopwatch) stop() {
	w.mu.Lock()
	w.since = time.Time{}
	w.mu.Unlock()
}

// running tells for how long an operation is under way, zero when none is.
func (w *stopwatch) running() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.IsZero() {
		return 0
	}
	return time.Since(w.since)
}

// entryWatch is the watchdog of one entry.
type entryWatch struct {
	mu    sync.Mutex
	timer *time.Timer // guarded by mu; nil once stopped
}

// watchEntry begins to watch the entry that is proposed now.
func (n *Node) watchEntry() *entryWatch {
	w := &entryWatch{}
	after := n.cfg.StallAfter
	if after <= 0 {
		return w
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	told := false
	w.timer = time.AfterFunc(after, func() {
		if !told {
			told = true
			n.cfg.Stalled(after)
		}
		n.stepAside(after)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.timer != nil {
			w.timer.Reset(after)
		}
	})
	return w
}

func (w *entryWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

// stepAside lets another voter take over if it is this node that holds
// everybody up: its disk, or its state machine. When the followers are slow,
// another leader would not be faster.
func (n *Node) stepAside(after time.Duration) {
	if n.peers == nil || max(n.watch.disk.running(), n.machine.applying.running()) < after {
		return
	}
	voters := n.otherVoters()
	if len(voters) == 0 || !n.peers.muted.CompareAndSwap(false, true) {
		return
	}
	n.cfg.Logger.Warn("this leader's disk or state machine is stalled; another voter is asked to lead", "after", after)
	n.leading.Store(false)
	n.setLeadership(Leadership{Term: n.raft.CurrentTerm()})
	n.asides.Add(1)
	for _, v := range voters {
		args := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.cfg.ID), Addr: []byte(n.peers.LocalAddr()),
		}}
		if n.peers.TimeoutNow(v.ID, v.Address, &args, new(raft.TimeoutNowResponse)) == nil {
			break
		}
	}
	time.AfterFunc(asideFor, func() {
		n.peers.muted.Store(false)
		select {
		case n.resume <- struct{}{}: // it may lead still: nobody else could
		default:
		}
	})
}

// otherVoters lists the voters beside this node, the one that is furthest
// first.
func (n *Node) otherVoters() []raft.Server {
	var out []raft.Server
	for _, s := range n.configuration().Servers {
		if s.Suffrage == raft.Voter && s.ID != raft.ServerID(n.cfg.ID) {
			out = append(out, s)
		}
	}
	n.peers.furthestFirst(out)
	return out
}
