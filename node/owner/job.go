package owner

import (
	"context"
	"fmt"
	"io"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
)

// job is work on a facet between two requests, on the desk's goroutine. f is
// called once: with the open session, or without one when closed is wanted or err
// says why there is none. It must not keep the session.
type job struct {
	closed bool // the session is to be closed first
	f      func(s *session, err error)
}

// do queues a job and waits for it.
func (m *Manager) do(ctx context.Context, name facet.Name, closed bool, f func(s *session) error) error {
	done := make(chan error, 1)
	j := &job{closed: closed, f: func(s *session, err error) {
		if err == nil {
			err = f(s)
		}
		done <- err
	}}
	for {
		d, err := m.desk(name)
		if err != nil {
			return err
		}
		if d.submitJob(j) {
			break
		}
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return facet.Errorf(facet.CodeUnknownOutcome, "gave up waiting for %s: %v; look at its state before trying again", name, ctx.Err())
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
	switch {
	case j.closed && s != nil:
		committed := make(chan struct{})
		s.onCommitted(func() { close(committed) })
		<-committed // milliseconds; or the session died
		if d.bury(); d.session != nil {
			d.closeSession()
		}
	case !j.closed && s == nil:
		if err := d.openExisting(); err != nil {
			j.f(nil, err)
			return
		}
	case s != nil && s.isDead():
		j.f(nil, facet.Errorf(facet.CodeUnavailable, "%s is changing its owner; try again", d.name))
		return
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
	return created, m.do(ctx, name, false, func(*session) error { return nil })
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
	return m.do(ctx, name, true, func(*session) error { return f() })
}

// Export is a facet at one position, for reading.
type Export struct{ sn *pages.Snapshot }

// Export freezes the facet's newest state and waits until all of it is committed.
func (m *Manager) Export(ctx context.Context, name facet.Name) (*Export, error) {
	var sn *pages.Snapshot
	committed := make(chan error, 1)
	err := m.do(ctx, name, false, func(s *session) (err error) {
		if sn, err = s.store.Snapshot(); err == nil {
			s.onCommitted(func() { committed <- s.whyDead() })
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("export %s: %w", name, err)
	}
	select {
	case err = <-committed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		sn.Close()
		return nil, fmt.Errorf("export %s: %w", name, err)
	}
	return &Export{sn}, nil
}

// WriteTo writes the SQLite file.
func (e *Export) WriteTo(w io.Writer) (int64, error) { return e.sn.WriteTo(w) }

// Size is the number of bytes WriteTo writes.
func (e *Export) Size() int64 { return int64(e.sn.Pages()) * pages.Size }

// Position is what the export shows.
func (e *Export) Position() facet.Position { return e.sn.Position() }

// Close lets the facet hibernate again.
func (e *Export) Close() error { return e.sn.Close() }

// Import makes the database file at path, which was checked and has n pages of the
// given checksum, the facet's content. The file must be on the node's own disk and
// is moved. The data get an incarnation of their own and the name is led to it in
// one step, so a reader sees the old database or the new one (rule R49).
func (m *Manager) Import(ctx context.Context, name facet.Name, path string, n uint32, sum facet.Sum, replace bool) error {
	if _, ok := m.opts.Placement.Lookup(name); ok && !replace {
		return ExistsError(name)
	}
	row, err := m.opts.Placement.CreateDetached(ctx, name)
	if err != nil {
		return fmt.Errorf("import %s: %w", name, err)
	}
	base := pages.Base{Position: facet.Position{Epoch: row.Epoch, Seq: 1, Sum: sum}, Pages: n}
	if err := m.opts.Replica(row).Install(ctx, base, path); err != nil {
		m.forget(ctx, row)
		return fmt.Errorf("import %s: %w", name, err)
	}
	err = m.do(ctx, name, true, func(*session) error {
		old, ok := m.opts.Placement.Lookup(name)
		if ok && !replace {
			return ExistsError(name)
		}
		if err := m.opts.Placement.Bind(ctx, name, old, row); err != nil {
			return err
		}
		if ok {
			m.forget(ctx, old)
		}
		return nil
	})
	if err != nil {
		if now, ok := m.opts.Placement.Lookup(name); !ok || now.Incarnation != row.Incarnation {
			m.forget(ctx, row)
		}
		return fmt.Errorf("import %s: %w", name, err)
	}
	m.created.Add(1)
	_, err = m.Ensure(ctx, name)
	return err
}

// ExistsError tells that an import would hit a facet that is there.
func ExistsError(name facet.Name) error {
	return facet.Errorf(facet.CodeExists, "facet %s exists already; delete it first, or import with replace to exchange its whole content", name)
}

// Delete removes the facet.
func (m *Manager) Delete(ctx context.Context, name facet.Name) error {
	return m.do(ctx, name, true, func(*session) error {
		row, ok := m.opts.Placement.Lookup(name)
		if !ok {
			return facet.Errorf(facet.CodeNotFound, "facet %s does not exist", name)
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
		err = m.opts.Replica(row).Tomb(ctx)
	}
	if err == nil {
		err = m.opts.Placement.Tomb(ctx, row.Incarnation)
	}
	if err != nil {
		m.log.Warn("forget facet", "incarnation", row.Incarnation.String(), "error", err)
	}
}
