package owner

import (
	"errors"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/quota"
	"github.com/facetd/facetd/node/service"
)

// What holds a facet to the limits of its tenant. A request is refused before anything
// of it was done: in Submit, before it waits, and for a freeze also before it runs. What
// runs already when its tenant is frozen altogether is interrupted like a request its
// caller gave up, and is rolled back; what was committed before leaves through the gate
// as ever, for it happened (R29, R31).

// enter has the tenant admit a call for the desk, nil if there is none: a request that is
// refused makes none. One that is sent on to another node is counted there, not here.
func (m *Manager) enter(call *service.Call, d *desk) error {
	if m.opts.Tenants == nil || call.Taken() {
		return nil
	}
	var t *quota.Tenant
	if d != nil {
		t = d.tenant
	} else {
		t = m.opts.Tenants.Use(call.Request.Name.Tenant)
		defer m.opts.Tenants.Unuse(t)
	}
	if d == nil || d.engine.Load() == nil {
		if row, ok := m.opts.Placement.Lookup(call.Request.Name); ok && !row.Local {
			return t.Frozen()
		}
	}
	inTx := !call.Request.Tx.IsZero()
	if err := t.Enter(inTx); err != nil {
		if inTx && d != nil {
			d.post(todoFreeze) // nothing else is refused that has a transaction
		}
		return err
	}
	call.Take(t)
	return nil
}

// mayWrite is asked before a request changes anything.
func (d *desk) mayWrite() error {
	if err := d.tenant.MayWrite(); err != nil {
		return err
	}
	if d.m.opts.Admit == nil {
		return nil
	}
	return d.m.opts.Admit()
}

// freeze ends the interactive transaction if the tenant is frozen.
func (d *desk) freeze() {
	if d.tx != nil && d.tenant.MayWrite() != nil {
		d.rollbackTx("the tenant was frozen")
	}
}

// setLimits tells the engine the limits of the tenant when they are others than it was
// told last.
func (d *desk) setLimits(s *session) {
	if d.tenant == nil {
		return
	}
	if r := d.tenant.Rules(); r != d.rules {
		d.rules = r
		s.db.SetLimits(r.FacetBytes, r.StatementTime, r.MemoryBytes)
	}
}

// count books what a request did, and tells one that a freeze interrupted why it was.
func (d *desk) count(call *service.Call, rows int64) {
	if d.tenant == nil {
		return
	}
	d.tenant.Rows(rows)
	d.tenant.Worked(call.Phases.Wrote, call.Bytes(), call.Phases.Executed-call.Phases.Started)
	if call.Err != nil && !call.Canceled() && errors.Is(call.Err, facet.ErrCanceled) {
		if err := d.tenant.Frozen(); err != nil {
			call.Err = err
		}
	}
}

// mayGrow is asked before the facet grows.
func (d *desk) mayGrow(bytes int64) error {
	taken, err := d.tenant.Grow(bytes, d.worker.aside)
	d.taken += taken
	return err
}

// resize notes the size of the facet after a request.
func (d *desk) resize(s *session) {
	before, now := d.pages.Load(), s.store.Pages()
	if before != now {
		d.pages.Store(now)
	}
	if d.taken == 0 && now >= before || d.tx != nil {
		return
	}
	d.tenant.Grown(d.taken, (int64(now)-int64(before))*facet.PageSize, true)
	d.taken = 0
}

// TenantsChanged has what runs for tenants that are frozen now end: it is called when
// settings have changed. New requests need no word, they look for themselves.
func (m *Manager) TenantsChanged() {
	if m.opts.Tenants == nil {
		return
	}
	m.each(func(d *desk) {
		r := d.tenant.Rules()
		if r == nil || r.Freeze == facet.NotFrozen || d.engine.Load() == nil {
			return
		}
		if db := d.engine.Load(); db != nil && r.Freeze == facet.FreezeAll {
			db.Interrupt()
		}
		d.post(todoFreeze)
	})
}
