package owner

import (
	"fmt"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/node/service"
)

// How a desk comes by its facet, and lets go of it. All of it is done by the goroutine that
// serves the desk.

// open makes the facet ready for call. A facet that does not exist is created if
// the call would write; otherwise the call is answered as by an empty database,
// and empty is true.
func (d *desk) open(call *service.Call) (empty bool, err error) {
	row, ok := d.m.opts.Placement.Lookup(d.name)
	if ok {
		return false, d.activate(row)
	}
	if !call.Request.After.IsZero() { // nothing is made because of it
		if row, ok, err = d.m.confirm(d.name); err == nil && !ok {
			err = facet.Errorf(facet.CodeBookmark, "the facet of the bookmark was deleted; there is none named %s", d.name)
		}
		if err != nil {
			return false, err
		}
		return false, d.activate(row)
	}
	base := len(call.Response.Result)
	d.current.Store(call)
	writes, answer := d.m.scratch.Try(&call.Request, &call.Response, engine.RunOptions{Canceled: d.canceled})
	d.current.Store(nil)
	if writes {
		if err = d.tenant.MayWrite(); err != nil {
			return false, err
		}
		ctx, cancel := d.m.asking(openTimeout)
		defer cancel()
		if row, err = d.m.opts.Placement.Create(ctx, d.name); err != nil {
			return false, fmt.Errorf("create %s: %w", d.name, unasked(ctx, err))
		}
		d.m.created.Add(1)
		return false, d.activate(row)
	}
	// It may have been made elsewhere, and written to, a moment ago: the answer from
	// an empty database counts only if it was not.
	if row, ok, err = d.m.confirm(d.name); err != nil {
		return false, err
	}
	if !ok {
		d.answer(call, answer)
		return true, nil
	}
	call.Response = facet.Response{Result: call.Response.Result[:base]}
	return false, d.activate(row)
}

// confirm looks the facet up in a table that is no older than the call.
func (m *Manager) confirm(name facet.Name) (Row, bool, error) {
	ctx, cancel := m.asking(confirmTimeout)
	defer cancel()
	row, ok, err := m.opts.Placement.Confirm(ctx, name)
	if err != nil {
		return Row{}, false, fmt.Errorf("look %s up: %w", name, unasked(ctx, err))
	}
	return row, ok, nil
}

// existing gives the row of a facet that exists. A table that knows none may not have
// heard yet that it was made elsewhere, and is brought up to date before it says so.
func (m *Manager) existing(name facet.Name) (Row, error) {
	row, ok := m.opts.Placement.Lookup(name)
	if !ok {
		var err error
		if row, ok, err = m.confirm(name); err != nil {
			return Row{}, err
		}
	}
	if !ok {
		return Row{}, facet.NoSuchFacet(name)
	}
	return row, nil
}

func (d *desk) openExisting() error {
	row, err := d.m.existing(d.name)
	if err != nil {
		return err
	}
	if err := d.activate(row); err != nil {
		return err
	}
	d.session.release()
	return nil
}

// bury takes a dead session away. Its epoch is never used again (rule R31).
func (d *desk) bury() {
	s := d.session
	if s == nil || !s.isDead() || s.ckpt != nil {
		return // with a checkpoint under way nobody else may open the file; todoDone comes
	}
	d.dead = s.row.Epoch
	if d.tx != nil {
		d.endTx("its owner lost the facet")
	}
	d.closeSession()
}

// closeSession closes the engine and the files.
func (d *desk) closeSession() {
	s := d.session
	d.session = nil
	d.engine.Store(nil)
	d.hot.Store(nil)
	d.rules = nil
	d.tenant.Grown(d.taken, 0, false)
	d.taken = 0
	s.close()
	d.m.active.Add(-1)
	d.m.grew(-d.memory.Swap(0))
}

// leave takes an idle desk out of its shard. It reports false when there is new
// work.
func (d *desk) leave() bool {
	d.mu.Lock()
	if len(d.line)+len(d.txLine)+len(d.jobs) > 0 || d.next < len(d.batch) || d.todo.Load()&^(todoHibernate|todoSweep) != 0 {
		d.mu.Unlock()
		return false
	}
	// A desk whose last session died stays until its epoch was replaced: leaving
	// would forget that the epoch is spent.
	if d.dead != 0 {
		if row, ok := d.m.opts.Placement.Lookup(d.name); ok && row.Epoch == d.dead {
			d.mu.Unlock()
			return false
		}
	}
	d.gone = true
	d.mu.Unlock()
	d.remove()
	return true
}

func (d *desk) remove() {
	if d.sh == nil {
		return // of a facet without a name: nobody looks for it
	}
	d.sh.mu.Lock()
	if d.sh.desks[d.name] == d {
		delete(d.sh.desks, d.name)
	}
	d.sh.mu.Unlock()
	d.m.opts.Tenants.Unuse(d.tenant)
	d.m.crew.leave(d)
	d.returnToken()
	d.m.desks.Done()
}

// hibernate checkpoints and closes the facet if nothing is going on. It reports
// true when the desk is gone.
func (d *desk) hibernate() bool {
	if d.tx != nil || d.next < len(d.batch) {
		return false
	}
	s := d.session
	if s == nil {
		return d.leave()
	}
	if s.isDead() {
		return false // todoDie comes
	}
	if !s.idle() || s.ckpt != nil || s.store.Snapshots() > 0 {
		return false // the sweeper comes again
	}
	if idle := d.m.clock.Load() - d.lastUsed.Load(); !s.caught() && idle < restAnyway*int64(d.m.opts.IdleAfter) {
		return false // somebody is being filled
	}
	if s.fills() {
		return false // for a change of the set, which has a limit of its own
	}
	if !d.checkpointNow() {
		return false
	}
	s.rest()
	d.closeSession()
	return d.leave()
}

// close answers everybody, checkpoints and goes, because the node closes.
func (d *desk) close() bool {
	if d.tx != nil {
		d.rollbackTx("the node is shutting down")
	}
	d.mu.Lock()
	rest := append(d.line, d.txLine...)
	jobs := append(d.jobs, d.jobsAfterCheckpoint...)
	d.line, d.txLine, d.jobs, d.jobsAfterCheckpoint = nil, nil, nil, nil
	d.mu.Unlock()
	for _, c := range append(d.batch[d.next:], rest...) {
		d.answer(c, errClosing)
	}
	d.batch, d.next = nil, 0
	for _, j := range jobs {
		j.f(nil, errClosing)
	}
	if s := d.session; s != nil {
		if s.ckpt != nil {
			d.closing = true // todoDone comes back here
			return false
		}
		if !s.isDead() && !s.idle() {
			// Behind reads that ask a majority it must ask one too: a lease would let it pass
			// at once, and this desk would come back here without end.
			s.hold(gated{gate: quorum.ReadGate{Seen: s.store.Position().Seq}, ask: s.confirming(), f: func(error) { d.post(todoClose) }})
			return false
		}
		if !s.isDead() && d.m.ctx.Err() == nil {
			d.checkpointNow()
			s.rest()
		}
		if d.session != nil {
			d.closeSession()
		}
	}
	d.mu.Lock()
	if len(d.line)+len(d.txLine)+len(d.jobs) > 0 {
		d.mu.Unlock()
		d.todo.Or(todoClose)
		return false
	}
	d.gone = true
	d.mu.Unlock()
	d.remove()
	return true
}
