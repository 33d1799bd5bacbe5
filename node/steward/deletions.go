package steward

import (
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// deletions sees that rows that are deleted or retired come to their end, when
// whoever deleted them did not see to it: a crash, a client that went away. So do rows
// that never get their name: nobody can have used what nobody can name, and the row is
// deleted in the epoch it was seen in, so an import that names it after all comes first
// or is refused. The loop owns it; finishing runs in goroutines of the term.
type deletions struct {
	t     *term
	rows  map[facet.Incarnation]*deletion
	busy  int
	ended chan finished // finishWorkers of them fit, so no worker ever waits
}

// deletion is one row that waits to be finished.
type deletion struct {
	next  time.Time // when to try
	pause time.Duration
	busy  bool
	// It is live, and waits for its name.
	nameless bool
}

type finished struct {
	id  facet.Incarnation
	err error
}

func newDeletions(t *term) deletions {
	return deletions{t: t, rows: map[facet.Incarnation]*deletion{}, ended: make(chan finished, finishWorkers)}
}

// see notes a row that has to end.
func (d *deletions) see(f *placement.Facet, now time.Time) {
	x := d.rows[f.Incarnation]
	switch {
	case d.t.s.cfg.Finish == nil:
	case live(f) && f.Bound:
		if x != nil && !x.busy {
			delete(d.rows, f.Incarnation) // it has got its name
		}
	case x != nil:
		if !live(f) && x.nameless {
			x.nameless, x.next = false, now.Add(finishAfter)
		}
	case len(d.rows) >= maxFinishing:
	case live(f):
		d.rows[f.Incarnation] = &deletion{next: now.Add(abandonedAfter), pause: finishAfter, nameless: true}
	default:
		d.rows[f.Incarnation] = &deletion{next: now.Add(finishAfter), pause: finishAfter}
	}
}

// due is when the next row should be tried.
func (d *deletions) due() (at time.Time, ok bool) {
	if d.busy == finishWorkers {
		return at, false // one that ends wakes the loop
	}
	for _, x := range d.rows {
		if !x.busy && (!ok || x.next.Before(at)) {
			at, ok = x.next, true
		}
	}
	return at, ok
}

// start tries the rows whose time has come, as many as may be.
func (d *deletions) start() {
	now := time.Now()
	for id, x := range d.rows {
		if d.busy == finishWorkers {
			return
		}
		if x.busy || now.Before(x.next) {
			continue
		}
		f, ok := d.t.s.cfg.Table.ByIncarnation(id)
		if !ok || live(&f) && f.Bound {
			delete(d.rows, id)
			continue
		}
		x.busy = true
		d.busy++
		d.t.group.Go(func() { d.ended <- finished{id, d.finish(f)} })
	}
}

func (d *deletions) finish(f placement.Facet) error {
	if live(&f) {
		d.t.s.log.Info("delete a facet that never got its name: its import was cut short", "incarnation", f.Incarnation.String(), "owner", string(f.Owner.Node))
	}
	err := d.t.finish(d.t.ctx, f)
	if err != nil && d.t.ctx.Err() == nil {
		d.t.s.log.Warn("finish deletion", "incarnation", f.Incarnation.String(), "error", err)
	}
	return err
}

// end books a try. The row is dropped at the next one if it is gone by then.
func (d *deletions) end(e finished) {
	d.busy--
	x := d.rows[e.id]
	x.busy = false
	if e.err == nil {
		delete(d.rows, e.id)
		return
	}
	x.next = time.Now().Add(x.pause)
	x.pause = min(2*x.pause, maxFinishPause)
}
