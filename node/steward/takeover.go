package steward

import (
	"iter"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// takeover is one that was done.
type takeover struct {
	at time.Time
	to placement.Owner
}

// failover gathers takeovers and brings them into the table in batches. It is of
// one round.
type failover struct {
	l     *loop
	v     *view
	cmds  []placement.Command
	again bool // something did not work that may work at once
}

// walk considers rows.
func (f *failover) walk(rows iter.Seq[placement.Facet]) {
	for row := range rows {
		f.consider(&row)
		if f.l.t.ctx.Err() != nil {
			return
		}
	}
}

// consider takes a row over if its owner is gone.
func (f *failover) consider(row *placement.Facet) verdict {
	a, what := f.v.takeover(row)
	if what != orphan {
		return what
	}
	if m, ok := f.l.recent[row.Incarnation]; ok && m.to != row.Owner {
		if free := m.at.Add(hold); f.v.now.Before(free) {
			if f.l.recheck.IsZero() || free.Before(f.l.recheck) {
				f.l.recheck = free
			}
			return what
		}
	}
	if f.cmds = append(f.cmds, a); len(f.cmds) == batch {
		f.flush()
	}
	return what
}

// flush proposes what was gathered. What is refused was decided by somebody else:
// the row has another epoch, and is told as changed.
func (f *failover) flush() {
	if len(f.cmds) == 0 {
		return
	}
	t := f.l.t
	cmds := f.cmds
	f.cmds = f.cmds[:0]
	res, err := t.propose(t.ctx, cmds...)
	if err != nil {
		f.again = true
		if t.ctx.Err() == nil {
			t.s.log.Warn("take facets of dead nodes over", "facets", len(cmds), "error", err)
		}
		return
	}
	for i := range res {
		a := cmds[i].(placement.Acquire)
		switch res[i].Outcome {
		case placement.Done:
			t.s.takenOver.Add(1)
			f.l.remember(a.Incarnation, takeover{f.v.now, a.Owner})
		case placement.RefusedBoot, placement.RefusedNode, placement.RefusedStore:
			f.again = true // the nodes changed since the view
			fallthrough
		default:
			t.s.refused.Add(1)
		}
	}
}

// remember notes a takeover for its hold.
func (l *loop) remember(id facet.Incarnation, m takeover) {
	if len(l.recent) >= maxRemembered {
		clear(l.recent)
	}
	l.recent[id] = m
}

// end proposes the rest, and has the walk repeated if something did not work.
func (f *failover) end() {
	f.flush()
	if !f.again {
		f.l.pause = 0
		return
	}
	f.l.pause = min(max(2*f.l.pause, retryAfter), maxPause)
	at := time.Now().Add(f.l.pause)
	if f.l.recheck.IsZero() || at.Before(f.l.recheck) {
		f.l.recheck = at
	}
}
