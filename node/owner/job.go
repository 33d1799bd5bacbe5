package owner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/internal/broken"
)

// job is work on a facet between two requests, on the desk's goroutine. f is
// called once: with the open session, or without one when closed is wanted or err
// says why there is none. It must not keep the session.
type job struct {
	closed bool // the session is to be closed first
	fenced bool // and one opened before that: nobody else may serve the facet then
	forced bool // with closed: one that is open ends as it is, whatever waits for a commit
	f      func(s *session, err error)
}

// do queues a job and waits for it.
func (m *Manager) do(ctx context.Context, name facet.Name, how job, f func(s *session) error) error {
	done := make(chan error, 1)
	j := &job{closed: how.closed, fenced: how.fenced, forced: how.forced, f: func(s *session, err error) {
		if err == nil {
			err = f(s)
		}
		done <- err
	}}
	if err := m.queue(name, j); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return facet.Errorf(facet.CodeUnknownOutcome, "gave up waiting for %s: %v; look at its state before trying again", name, ctx.Err())
	}
}

// queue gives a job to the facet's desk.
func (m *Manager) queue(name facet.Name, j *job) error {
	for {
		d, err := m.desk(name)
		if err != nil || d.submitJob(j) {
			return err
		}
	}
}

// runJob gives a job what it needs.
func (d *desk) runJob(j *job) {
	d.lastUsed.Store(d.m.clock.Load())
	s := d.session
	if s != nil && s.ckpt != nil && (j.closed || s.isDead()) {
		// The file is still being written. The end of that wakes the desk.
		d.mu.Lock()
		d.jobsAfterCheckpoint = append(d.jobsAfterCheckpoint, j)
		d.mu.Unlock()
		return
	}
	if s != nil && j.forced {
		s.die(errForced)
		d.bury()
		s = d.session
	}
	switch {
	case s != nil && s.isDead():
		j.f(nil, facet.Errorf(facet.CodeUnavailable, "%s is changing its owner; try again", d.name))
		return
	case s == nil && (!j.closed || j.fenced):
		if err := d.openExisting(); err != nil {
			j.f(nil, err)
			return
		}
	}
	if j.closed && d.session != nil {
		if err := d.session.settle(); err != nil {
			d.bury()
			j.f(nil, err)
			return
		}
		if d.bury(); d.session != nil {
			d.closeSession()
		}
	}
	j.f(d.session, nil)
}

// Ensure makes the facet if it does not exist and opens it, so that its first
// request finds it ready. It tells whether it made it.
func (m *Manager) Ensure(ctx context.Context, name facet.Name) (created bool, err error) {
	if _, ok := m.opts.Placement.Lookup(name); !ok {
		if _, err := m.opts.Placement.Create(ctx, name); err != nil {
			return false, fmt.Errorf("create %s: %w", name, err)
		}
		m.created.Add(1)
		created = true
	}
	return created, m.Wake(ctx, name)
}

// Begin has a facet that exists opened soon. What is asked of it from here on waits
// for that.
func (m *Manager) Begin(name facet.Name) error {
	return m.queue(name, &job{f: func(*session, error) {}})
}

// Wake opens a facet that exists, and has it find out what its members lack.
func (m *Manager) Wake(ctx context.Context, name facet.Name) error {
	return m.do(ctx, name, job{}, func(s *session) error {
		s.mu.Lock()
		for i := range s.members {
			s.core.Doubt(i)
		}
		s.run()
		return nil
	})
}

// wakeLacking wakes the facets that went to rest while node missed something.
func (m *Manager) wakeLacking(node cluster.NodeID) {
	names := m.lacking.take(&m.wg)
	if len(names) == 0 {
		return
	}
	m.wg.Go(func() {
		defer m.wg.Done() // what take added
		for _, name := range names {
			if m.opening.Err() != nil {
				return
			}
			row, ok := m.opts.Placement.Lookup(name)
			if !ok || !row.Local {
				continue
			}
			if !slices.ContainsFunc(row.Set(), func(x Member) bool { return x.Node == node }) {
				m.lacking.note(name)
				continue
			}
			if err := m.Wake(m.opening, name); err != nil {
				m.log.Debug("wake facet for a member that is back", "facet", name.String(), "error", err)
			}
		}
	})
}

// Open reports whether the facet is open for work, and its size in pages if so.
func (m *Manager) Open(name facet.Name) (pages uint32, open bool) {
	d := m.lookup(name)
	if d == nil || d.engine.Load() == nil {
		return 0, false
	}
	return d.pages.Load(), true
}

// CheckpointSoon asks an open facet to checkpoint because the log needs room. It
// reports false when the facet is not open.
func (m *Manager) CheckpointSoon(name facet.Name) bool {
	d := m.lookup(name)
	if d == nil || d.engine.Load() == nil {
		return false
	}
	d.post(todoCheckpoint)
	return true
}

// Closed runs f while nobody has the facet open: a session that is open is closed
// first, and no request runs before f returns.
func (m *Manager) Closed(ctx context.Context, name facet.Name, f func() error) error {
	return m.do(ctx, name, job{closed: true}, func(*session) error { return f() })
}

// Export is a facet at one position, for reading.
type Export struct {
	sn *pages.Snapshot
	id facet.Incarnation
}

// Export freezes the facet's newest state and waits until all of it is committed.
func (m *Manager) Export(ctx context.Context, name facet.Name) (*Export, error) {
	made, committed := make(chan *Export, 1), make(chan error, 1)
	var gone atomic.Bool // nobody waits for the job any more
	giveUp := func() {
		select {
		case e := <-made:
			e.Close() // it would keep the facet open
		default:
		}
	}
	err := m.do(ctx, name, job{}, func(s *session) error {
		sn, err := s.store.Snapshot()
		if err != nil {
			return err
		}
		made <- &Export{sn, s.row.Incarnation}
		if gone.Load() {
			giveUp()
			return nil
		}
		if broken.Is(broken.CloneUncommitted) {
			committed <- nil
			return nil
		}
		// It is a read like any other: this must still be the owner (R33, R34).
		s.hold(gated{gate: quorum.ReadGate{Seen: s.store.Position().Seq}, f: func(err error) { committed <- err }})
		return nil
	})
	if err != nil {
		gone.Store(true)
		giveUp()
		return nil, fmt.Errorf("export %s: %w", name, err)
	}
	e := <-made
	select {
	case err = <-committed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		e.Close()
		return nil, fmt.Errorf("export %s: %w", name, err)
	}
	return e, nil
}

// WriteTo writes the SQLite file.
func (e *Export) WriteTo(w io.Writer) (int64, error) { return e.sn.WriteTo(w) }

// Size is the number of bytes WriteTo writes.
func (e *Export) Size() int64 { return int64(e.sn.Pages()) * pages.Size }

// Incarnation is the facet it is of.
func (e *Export) Incarnation() facet.Incarnation { return e.id }

// Position is what the export shows.
func (e *Export) Position() facet.Position { return e.sn.Position() }

// Close lets the facet hibernate again.
func (e *Export) Close() error { return e.sn.Close() }

// Import makes the database file at path, which was checked and has n pages of the
// given checksum, the facet's content. The file must be on the node's own disk and
// is moved. The data get an incarnation of their own and the name is led to it in
// one step, so a reader sees the old database or the new one (rule R49). Of is the facet
// the file was made of, if one (rule R48).
func (m *Manager) Import(ctx context.Context, name facet.Name, path string, n uint32, sum facet.Sum, of facet.Lineage, replace bool) error {
	if _, ok := m.opts.Placement.Lookup(name); ok && !replace {
		return ExistsError(name)
	}
	row, err := m.opts.Placement.CreateDetached(ctx, name, of)
	if err != nil {
		return fmt.Errorf("import %s: %w", name, err)
	}
	base := pages.Base{Position: facet.Position{Epoch: row.Epoch, Seq: 1, Sum: sum}, Pages: n}
	err = m.installFile(ctx, &row, base, path)
	if err == nil {
		// Before the name leads there, a majority must hold the data and the new
		// row be activated: until then nobody would find them after a failure.
		err = m.activateDetached(&row)
	}
	if err != nil {
		m.discard(ctx, row)
		return fmt.Errorf("import %s: %w", name, err)
	}
	// Either the job leads the name there, or it never will and the new facet can go: the
	// job may begin when its caller has given up.
	var decided atomic.Bool
	err = m.do(ctx, name, job{closed: true, fenced: replace}, func(*session) error {
		if !decided.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		old, ok := m.opts.Placement.Lookup(name)
		err := error(nil)
		switch {
		case ok && !replace:
			err = ExistsError(name)
		case ok && !old.served():
			err = NotOwner(&old) // who took it may still acknowledge something (R47)
		default:
			err = m.bind(ctx, name, old, row, false)
		}
		switch {
		case err == nil && ok:
			m.forget(ctx, old)
		case err != nil && !errors.Is(err, facet.ErrUnknownOutcome):
			m.discard(ctx, row)
		}
		return err
	})
	if err != nil {
		if decided.CompareAndSwap(false, true) {
			m.discard(ctx, row)
		}
		return fmt.Errorf("import %s: %w", name, err)
	}
	m.created.Add(1)
	_, err = m.Ensure(ctx, name)
	return err
}

// bind leads the name to row instead of to old. When nobody says what became of that
// the table is asked, also when the caller has gone. What is unknown still, stays so,
// and nothing may be deleted then: the old facet may be retired by it, and the new one
// all there is. One that never gets its name is deleted by the placement leader.
func (m *Manager) bind(ctx context.Context, name facet.Name, old, row Row, unserved bool) error {
	err := m.opts.Placement.Bind(ctx, name, old, row, unserved)
	if !errors.Is(err, facet.ErrUnknownOutcome) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmTimeout)
	defer cancel()
	// That it leads elsewhere says nothing: the entry may be behind this one.
	if now, ok, cerr := m.opts.Placement.Confirm(ctx, name); cerr == nil && ok && now.Incarnation == row.Incarnation {
		return nil
	}
	return err
}

// activateDetached takes a facet without a name through its first activation, and
// leaves it closed.
func (m *Manager) activateDetached(row *Row) error {
	d := newDesk(m, nil, row.Name)
	d.serving = true // by this goroutine: what is posted starts nobody
	if err := d.activate(*row); err != nil {
		return err
	}
	err := d.session.settle()
	d.closeSession()
	return err
}

// ExistsError tells that an import would hit a facet that is there.
func ExistsError(name facet.Name) error {
	return facet.Errorf(facet.CodeExists, "facet %s exists already; delete it first, or import with replace to exchange its whole content", name)
}

// Delete removes the facet.
func (m *Manager) Delete(ctx context.Context, name facet.Name) error {
	// The one who deletes must be the one who served last: nobody else can
	// acknowledge anything then, and no fence but the epoch is needed (R47).
	return m.do(ctx, name, job{closed: true, fenced: true}, func(*session) error {
		row, err := m.existing(name) // it may have been deleted, and made again
		switch {
		case err != nil:
			return err
		case !row.served() && !broken.Is(broken.DeleteUnfenced):
			return NotOwner(&row)
		}
		if err := m.opts.Placement.Delete(ctx, row); err != nil {
			return fmt.Errorf("delete %s: %w", name, err)
		}
		m.forget(ctx, row)
		return nil
	})
}

// forget moves the data of a row that nobody can reach by name any more to the
// trash and removes the row. What fails here is done again by the node's
// reconcile loop.
func (m *Manager) forget(ctx context.Context, row Row) {
	err := m.opts.Placement.Delete(ctx, row)
	if err == nil {
		err = m.tombOwn(ctx, row.Incarnation)
	}
	if err == nil {
		err = m.opts.Placement.Tomb(ctx, row.Incarnation)
	}
	if err != nil {
		m.log.Warn("forget facet", "incarnation", row.Incarnation.String(), "error", err)
	}
}
