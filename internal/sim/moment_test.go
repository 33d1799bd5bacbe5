package sim

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/internal/wire"
)

// moments are things to be done just before or just behind a message between nodes.
// Faults that come at any time meet the few microseconds seldom in which two messages
// of one protocol are on their way.
type moments struct {
	mu    sync.Mutex
	armed []*moment
}

type moment struct {
	kind wire.Type
	from cluster.NodeID // who sends it; empty: anybody
	late bool           // behind the message
	skip int            // how many of them pass first
	do   func(from, to cluster.NodeID)
}

func (m *moments) arm(x *moment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.armed = append(m.armed, x)
}

func (m *moments) disarm() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.armed = nil
}

func (m *moments) before(kind wire.Type, from, to cluster.NodeID) { m.come(kind, from, to, false) }
func (m *moments) after(kind wire.Type, from, to cluster.NodeID)  { m.come(kind, from, to, true) }

func (m *moments) come(kind wire.Type, from, to cluster.NodeID, late bool) {
	m.mu.Lock()
	var due *moment
	for i, x := range m.armed {
		if x.kind != kind || x.late != late || x.from != "" && x.from != from {
			continue
		}
		if x.skip--; x.skip < 0 {
			due, m.armed = x, slices.Delete(m.armed, i, i+1)
			break
		}
	}
	m.mu.Unlock()
	if due != nil {
		due.do(from, to)
	}
}

// lifeOf is the process that runs on a machine, nil if none does.
func (w *world) lifeOf(id cluster.NodeID) *life {
	if m := w.machine(id); m != nil {
		if l := m.current(); l != nil && l.isReady() {
			return l
		}
	}
	return nil
}

// moment breaks something at a message of a kind that is drawn.
func (n *nemesis) moment() {
	kinds := []wire.Type{framePrepare, framePrepare, frameAppend, frameFetch, frameCheck, frameRenew, framePropose, framePropose, frameOrder, frameOffer}
	x := &moment{kind: kinds[n.rng.IntN(len(kinds))], late: n.rng.IntN(2) == 0, skip: n.rng.IntN(4)}
	what, sender, d, loss := n.rng.IntN(4), n.rng.IntN(2) == 0, n.downtime(), n.loss()
	x.do = func(from, to cluster.NodeID) {
		at := "before"
		if x.late {
			at = "behind"
		}
		why := fmt.Sprintf(", %s a message %q from %s to %s", at, frameNames[x.kind], from, to)
		id := to
		if sender {
			id = from
		}
		n.w.note("moment met")
		switch what {
		case 0:
			n.crashFor(n.w.lifeOf(id), "crash"+why, d, loss)
		case 1:
			n.pauseFor(n.w.lifeOf(id), why, d)
		case 2:
			n.w.tell("reset%s", why)
			n.w.net.peers.Reset(string(from), string(to))
		case 3:
			n.cut("cut"+why, d, func(x, y cluster.NodeID) bool { return x == from && y == to || x == to && y == from })
		}
	}
	n.w.moments.arm(x)
}

// leaseEdge pauses a node, around a renewal of its lease or a recovery, for about as
// long as somebody waits for the lease to be over.
func (n *nemesis) leaseEdge() {
	l := n.victim()
	if l == nil {
		return
	}
	edges := []time.Duration{quorum.LeaseTTL, quorum.LeaseTTL + quorum.Margin(quorum.LeaseTTL)}
	d := edges[n.rng.IntN(2)] + n.upTo(300*time.Millisecond) - 150*time.Millisecond
	x := &moment{kind: frameRenew, from: l.m.id, late: n.rng.IntN(2) == 0}
	if n.rng.IntN(3) == 0 {
		// The new owner, just behind the entry that took the facet from another, or the
		// one it was taken from.
		x.kind, x.from = framePrepare, ""
	}
	owner := n.rng.IntN(2) == 0
	x.do = func(from, to cluster.NodeID) {
		id := from
		if x.kind == framePrepare && !owner {
			id = to
		}
		n.w.note("lease edge met")
		n.pauseFor(n.w.lifeOf(id), ", at the edge of a lease", d)
	}
	n.w.moments.arm(x)
}
