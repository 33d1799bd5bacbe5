package steward

import (
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// loop is what goes on by itself in a term: failover, the scans of the table, the
// operations that nobody has to ask for. One goroutine runs it.
//
// It walks as little as it can. Rows that changed are looked at one by one, as the
// table tells them. When a node died, or came back, the rows owned by nodes that
// are dead are walked. The whole table is scanned when the nodes changed, when a
// member has been dead for long enough, and every ScanEvery if anything changed.
type loop struct {
	t     *term
	watch *placement.Watcher

	recent  map[facet.Incarnation]takeover // takeovers of the last seconds
	recheck time.Time                      // when to walk the dead nodes' rows again; zero: not
	pause   time.Duration                  // before the next walk after a failure

	moved  time.Time // when the nodes changed last
	scanAt time.Time
	dirty  bool      // a scan would see what the last one did not
	ripe   time.Time // when a member becomes lost by time alone; zero: none will

	deletions deletions
}

func newLoop(t *term) *loop {
	return &loop{t: t, recent: map[facet.Incarnation]takeover{}, deletions: newDeletions(t)}
}

func (l *loop) run() {
	l.watch = l.t.s.cfg.Table.Watch()
	defer l.watch.Close()
	l.scanAt = time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	old := &view{} // of before the term: every node is new
	rows := false  // woken by the table alone
	var dead <-chan struct{}
	for {
		changes := l.watch.Take()
		v := old
		if !rows || changes.Nodes || changes.All || time.Since(v.now) > viewAge {
			v, dead = l.t.look()
		}
		l.round(old, v, changes)
		old, rows = v, false
		timer.Reset(time.Until(l.due(v)))
		select {
		case <-l.t.ctx.Done():
			return
		case <-dead:
		case <-l.watch.Wake():
			rows = true
		case id := <-l.deletions.ended:
			l.deletions.end(id)
		case <-timer.C:
		}
	}
}

// due is when the next round is to be without being woken.
func (l *loop) due(v *view) time.Time {
	at := l.scanAt
	if !l.recheck.IsZero() && l.recheck.Before(at) {
		at = l.recheck
	}
	if d, ok := l.deletions.due(); ok && d.Before(at) {
		at = d
	}
	return at
}

func (l *loop) round(old, v *view, changes placement.Changes) {
	moved := v.differs(old)
	again := changes.All || !l.recheck.IsZero() && !v.now.Before(l.recheck)
	l.dirty = l.dirty || moved || again || len(changes.Rows) > 0
	f := &failover{l: l, v: v}
	if moved {
		l.moved = v.now
		for _, n := range v.list {
			if before := old.nodes[n.ID]; !n.alive || before != nil && before.Store != n.Store {
				f.walk(l.t.s.cfg.Table.OwnedBy(n.ID))
			}
		}
		l.scanSoon(v.now.Add(scanPause))
		l.resume(v, false)
	}
	for _, id := range changes.Rows {
		if row, ok := l.t.s.cfg.Table.ByIncarnation(id); ok {
			f.consider(&row)
			l.deletions.see(&row, v.now)
		}
	}
	scan := !v.now.Before(l.scanAt)
	if again {
		l.recheck = time.Time{}
		if !scan { // it looks at them all
			f.walk(l.t.s.cfg.Table.Facets())
		}
	}
	f.flush() // first what clients wait for
	if scan {
		l.scan(f)
		l.resume(v, true)
	}
	f.end()
	l.deletions.start()
}

func (l *loop) scanSoon(at time.Time) {
	if at.Before(l.scanAt) {
		l.scanAt = at
	}
}

// scan looks at the whole table.
func (l *loop) scan(f *failover) {
	v, s := f.v, l.t.s
	l.scanAt = v.now.Add(s.cfg.ScanEvery)
	l.dirty = l.dirty || !l.ripe.IsZero() && !v.now.Before(l.ripe)
	l.ripe = time.Time{}
	if at, ok := v.ripens(); ok {
		l.ripe = at
		l.scanSoon(at)
	}
	for id, m := range l.recent {
		if v.now.Sub(m.at) >= hold {
			delete(l.recent, id)
		}
	}
	if !l.dirty {
		return // the last one saw what this one would
	}
	s.scans.Add(1)
	var now found
	for _, n := range v.list {
		if !n.alive {
			now.dead++
		}
	}
	settled := s.running() == 0 // else changes under way are somebody's
	for row := range s.cfg.Table.Facets() {
		if f.consider(&row) == unavailable {
			now.unavailable++
		}
		l.deletions.see(&row, v.now)
		switch p := v.repair(&row, false); {
		case p.need == stuck:
			now.unrepaired++
		case p.need == wanted && (settled || !pending(&row)):
			now.repairing++
		}
		if l.t.ctx.Err() != nil {
			return
		}
	}
	l.dirty = now.unavailable+now.unrepaired+now.repairing > 0
	s.mu.Lock()
	s.found = now
	s.mu.Unlock()
	if now.repairing > 0 {
		l.goOn(v, Request{Kind: Repair})
	}
}

// resume sees that what the table says of the nodes is being done: drains and
// decommissions of an earlier leader, or whose work came back.
func (l *loop) resume(v *view, scanned bool) {
	for _, n := range v.list {
		var r Request
		switch n.State {
		case placement.NodeDraining:
			r = Request{Kind: Drain, Node: n.ID}
		case placement.NodeDecommissioning:
			r = Request{Kind: Decommission, Node: n.ID}
		default:
			continue
		}
		last, known := l.t.s.latest(r)
		if !known || last.Status == Interrupted || scanned && l.t.left(v, r) {
			l.goOn(v, r)
		}
	}
}

// left reports whether a node has something that should have gone.
func (t *term) left(v *view, r Request) bool {
	if r.Kind == Decommission {
		for range t.s.cfg.Table.HeldBy(r.Node) {
			return true
		}
		return false
	}
	for f := range t.s.cfg.Table.OwnedBy(r.Node) {
		if v.leave(&f, r.Node).need != nothing {
			return true
		}
	}
	return false
}

// goOn begins an operation that nobody asked for. One that did not get to its end
// rests and is taken up again; so is a drain whose work came back.
func (l *loop) goOn(v *view, r Request) {
	s := l.t.s
	last, known := s.latest(r)
	repaired := r.Kind == Repair && last.Status == Completed
	rested := v.now.Sub(last.Ended) >= resumeAfter || !last.Ended.After(l.moved) // it may do better now
	switch {
	case known && last.Status == Running, s.reserved(r.Node):
		return
	case known && !repaired && !rested && last.Status != Interrupted:
		return
	case known && !repaired && last.Status != Cancelled && (last.Auto || r.Kind != Repair):
		l.t.resume(last.ID)
		return
	}
	if _, err := l.t.begin(r, true); err != nil && l.t.ctx.Err() == nil {
		s.log.Warn("begin operation", "kind", string(r.Kind), "node", string(r.Node), "error", err)
	}
}

// differs reports whether the nodes are not what they were in an older view, as far
// as decisions go.
func (v *view) differs(old *view) bool {
	if len(v.list) != len(old.list) {
		return true
	}
	for _, n := range v.list {
		o := old.nodes[n.ID]
		if o == nil || o.alive != n.alive || o.Store != n.Store || o.Boot != n.Boot || o.State != n.State || o.Zone != n.Zone {
			return true
		}
	}
	return false
}
