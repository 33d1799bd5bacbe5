package owner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node/peer"
)

// activate takes the facet from its row in the placement table to an open session:
// a new epoch if the row's was not issued to this process life or is spent (R2,
// R31), promises, the log to adopt, barrier and activation (R16 to R23); only then
// may anything run (R22).
func (d *desk) activate(row Row) error {
	err := d.activateOnce(row)
	if !errors.Is(err, facet.ErrCorrupt) || !d.m.quarantined(&row) {
		return err
	}
	// The copy here was found to be damaged, perhaps only now. The others have the facet:
	// the next try recovers it from them, in an epoch of its own, and nobody need hear of
	// it.
	again, ok := d.m.opts.Placement.ByIncarnation(row.Incarnation)
	if !ok {
		return err
	}
	return d.activateOnce(again)
}

func (d *desk) activateOnce(row Row) error {
	if !row.Local {
		return NotOwner(&row)
	}
	spent := !row.Mine || row.Epoch == d.dead && !broken.Is(broken.SpentEpoch) || d.m.lacks(&row) || d.m.quarantined(&row)
	from := d.m.opening
	if spent || !row.Active || !d.m.connected(row.Set()) { // else it needs nobody but its members
		from = d.m.outlook.context()
	}
	ctx, cancel := context.WithTimeout(from, openTimeout)
	defer cancel()
	if err := unasked(ctx, ctx.Err()); err != nil {
		return fmt.Errorf("activate %s: %w", d.name, err)
	}
	var err error
	if spent {
		if row, err = d.m.opts.Placement.Acquire(ctx, row, d.m.next(&row)); err != nil {
			return fmt.Errorf("acquire %s: %w", d.name, unasked(ctx, err))
		}
		if !row.Mine {
			return NotOwner(&row)
		}
	}
	s, err := d.newSession(ctx, row)
	if err != nil {
		d.dead = row.Epoch // what was left of it does not fit: the next try recovers
		return fmt.Errorf("activate %s: %w", d.name, err)
	}
	if err := s.recover(ctx); err != nil {
		s.close()
		d.dead = row.Epoch // its barrier may be in a log: the next try takes a new epoch (R31)
		return d.notActivated(s, err)
	}
	if err := s.openEngine(); err != nil {
		if !s.idle() {
			d.dead = row.Epoch // there is a barrier that is not committed: Resume is not for it
		}
		s.close()
		return err
	}
	d.session = s
	d.engine.Store(s.db)
	d.dead = 0
	d.pages.Store(s.store.Pages())
	d.m.active.Add(1)
	d.m.opened.Add(1)
	d.measure()
	return nil
}

// next says who is to own a facet whose epoch is spent: this process, unless its copy
// is of none of those that count. It was to bring the facet to another set then, and
// did not: the change is taken back, and one of the active set goes on (R43). A member
// that never got a copy, because the others were enough, is no owner either; it gets
// one from the next.
func (m *Manager) next(row *Row) (t Transfer) {
	for _, x := range row.Set() {
		switch {
		case x.Store == m.opts.Self.Store:
			if !m.lacks(row) {
				return Transfer{}
			}
		case x.Boot.IsZero() || x.Node == m.opts.Self.Node:
		case t.Owner == "" || m.opts.Peers != nil && m.opts.Peers.Peer(x.Node).Status().Connected:
			t.Owner = x.Node
		}
	}
	return t
}

// lacks reports whether this node is a member that never got a copy.
func (m *Manager) lacks(row *Row) bool {
	return m.counts(row) && !m.opts.Store.Has(row.Incarnation) && !broken.Is(broken.LostCopy)
}

// quarantined reports whether this node's copy is out of service and others keep the
// facet too: then a session does not go on from it, but recovers what the others have in
// a new epoch (R19, R51).
func (m *Manager) quarantined(row *Row) bool {
	r, err := m.opts.Store.Replica(row.Incarnation)
	return err == nil && r.Meta().Health >= replica.Holed && len(row.Set()) > 1
}

// counts reports whether this node is a member whose copy may hold what was
// acknowledged: one that is not there was lost, or never came.
func (m *Manager) counts(row *Row) bool {
	return !row.New && slices.ContainsFunc(row.ActiveSet, func(x Member) bool { return x.Store == m.opts.Self.Store })
}

// notActivated says what an activation that failed means for those who wait. A
// facet whose log only another member can adopt is given to that one.
func (d *desk) notActivated(s *session, err error) error {
	s.mu.Lock()
	better := s.betterAt
	s.mu.Unlock()
	if better != "" && d.m.outlook.context().Err() == nil {
		ctx, cancel := context.WithTimeout(d.m.ctx, openTimeout)
		defer cancel()
		if row, err := d.m.opts.Placement.Acquire(ctx, s.row, Transfer{Owner: better}); err == nil {
			return NotOwner(&row)
		}
	}
	if row, ok := d.m.opts.Placement.Lookup(d.name); ok && !row.Local {
		return NotOwner(&row)
	}
	var fe *facet.Error
	switch {
	case errors.As(err, &fe) && fe.Code == facet.CodeCorrupt && len(s.row.ActiveSet) > 1:
		// The next session goes on from what the other members hold (R51).
		return facet.Errorf(facet.CodeUnavailable, "%s cannot be activated in epoch %v by this node's copy, which the other members replace: %v; try again", d.name, s.row.Epoch, err)
	case errors.As(err, &fe):
		return fmt.Errorf("activate %s: %w", d.name, err)
	}
	return facet.Errorf(facet.CodeUnavailable, "%s cannot be activated in epoch %v now: %v; try again", d.name, s.row.Epoch, err)
}

// newSession begins the ownership that row describes.
func (d *desk) newSession(ctx context.Context, row Row) (*session, error) {
	own, err := d.ownCopy(ctx, &row)
	if err != nil {
		return nil, err
	}
	s := &session{d: d, row: row, own: own, turn: make(chan struct{}, 1)}
	last, base := own.Position(), own.Meta().Base
	self, boot, now := quorum.StoreID(d.m.opts.Self.Store), quorum.BootID(d.m.opts.Self.Boot), d.m.now()
	switch {
	case row.Active && (!row.First || last.Epoch == row.Epoch):
		s.core, err = quorum.Resume(row.core(), self, boot, now, base.Seq+1, last)
	case row.First:
		s.core, err = quorum.Begin(row.core(), self, boot, now, last)
	default:
		s.core, err = quorum.NewSession(row.core(), self, boot)
	}
	if err != nil {
		return nil, facet.Errorf(facet.CodeInternal, "%v", err)
	}
	s.members = make([]member, s.core.Slots(), quorum.MaxSlots)
	for i := range s.members {
		store := s.core.Store(i)
		for _, set := range [][]Member{row.ActiveSet, row.NextSet} {
			for _, m := range set {
				if quorum.StoreID(m.Store) == store {
					s.members[i].Member = m
				}
			}
		}
	}
	d.m.sessions.add(s)
	d.m.lease.Wake()
	// The row may have changed before the session could be told of changes.
	s.lookAtRow()
	return s, nil
}

// ownCopy finds this node's copy, or makes it: for a facet whose members hold
// nothing yet (R47), and where this store comes in with the next set (R42).
func (d *desk) ownCopy(ctx context.Context, row *Row) (replica.Replica, error) {
	st := d.m.opts.Store
	r, err := st.Replica(row.Incarnation)
	if err == nil || d.m.counts(row) && !broken.Is(broken.LostCopy) || !errors.Is(err, replica.ErrUnknown) {
		// One that is lost is not made anew (M: AMNESIA).
		return r, copyError(err)
	}
	return d.m.createOwn(ctx, row.Incarnation)
}

// createOwn makes this node's copy of a facet, and waits where the log has no room
// at the moment.
func (m *Manager) createOwn(ctx context.Context, id facet.Incarnation) (replica.Replica, error) {
	st := m.opts.Store
	r, err := st.Create(id)
	for errors.Is(err, replica.ErrBusy) {
		if werr := st.Wait(ctx, 0); werr != nil && !errors.Is(werr, replica.ErrBusy) {
			return r, copyError(werr)
		}
		r, err = st.Create(id)
	}
	return r, copyError(err)
}

// recover runs the session until it may serve. The desk's goroutine waits here; it
// is needed where pages are built from the adopted log.
func (s *session) recover(ctx context.Context) error {
	s.mu.Lock()
	s.run()
	for {
		s.mu.Lock()
		why, adopt, serving, activating := s.core.Err(), s.adopt, s.serving, s.activating
		s.adopt = nil
		s.mu.Unlock()
		switch {
		case why != nil:
			return why
		case adopt != nil:
			if err := s.build(ctx, adopt); err != nil {
				s.die(err)
				return err
			}
			continue
		case serving:
			if s.store != nil {
				return nil
			}
			return s.load(ctx) // resumed
		}
		// Nothing runs before the session serves (R22), but while a lease runs out the
		// engine can be opened: the pages are those of the adopted log. One facet at a
		// time, so that the others' way here is not held up.
		var prepare chan<- struct{}
		if activating && s.store != nil && s.db == nil {
			prepare = s.d.m.preparing
		}
		select {
		case <-s.turn:
		case prepare <- struct{}{}:
			err := s.openEngine()
			<-s.d.m.preparing
			if err != nil {
				s.die(err)
				return err
			}
		case <-ctx.Done(): // R25
			err := unasked(ctx, facet.Errorf(facet.CodeUnavailable, "no majority of %s's replicas answered in time; the facet serves again when one does", s.d.name))
			s.die(err)
			return err
		}
	}
}

// build makes the pages from base and adopted log, and the barrier behind it (R20,
// R23).
func (s *session) build(ctx context.Context, adopt *quorum.Action) error {
	s.mu.Lock()
	fetched, commit := s.fetched, facet.Seq(0)
	s.fetched = nil
	s.mu.Unlock()
	if adopt.Slot != s.core.Self() {
		for i := range fetched {
			if err := s.appendOwn(ctx, &fetched[i], commit); err != nil {
				return fmt.Errorf("adopt entry %v: %w", fetched[i].Position(), err)
			}
		}
	}
	if err := s.load(ctx); err != nil {
		return err
	}
	if at := s.store.Position(); at != adopt.Position {
		if adopt.Slot != s.core.Self() {
			// A log of a store that does not count may go on behind the one to adopt.
			s.mu.Lock()
			s.betterAt = s.members[adopt.Slot].Node
			s.mu.Unlock()
		}
		return facet.Errorf(facet.CodeCorrupt, "this node's copy ends at %v, the log to adopt at %v", at, adopt.Position)
	}
	first := s.store.Base().Position.Seq + 1
	barrier := s.store.Barrier(s.row.Incarnation, s.row.Epoch)
	s.mu.Lock()
	s.remember(&barrier)
	if err := s.core.Barrier(s.d.m.now(), first, barrier.Seq, barrier.EncodedLen()); err != nil {
		s.mu.Unlock()
		return fmt.Errorf("barrier of epoch %v: %w", s.row.Epoch, err)
	}
	if s.connected() && s.core.Early() {
		// Nobody waits for the barrier alone: it is shipped with what comes next.
		s.serving, s.held = true, true
		s.mu.Unlock()
		return nil
	}
	s.run()
	return nil
}

// openEngine opens the engine, once. The pages are there.
func (s *session) openEngine() (err error) {
	if s.db != nil {
		return nil
	}
	s.db, err = engine.Open(engine.Options{
		ID: s.row.Incarnation, Epoch: s.row.Epoch, Store: s.store,
		Commits: s.ship, Limits: s.d.m.opts.Limits, Now: s.d.m.opts.Now,
	})
	if err != nil {
		return fmt.Errorf("open %s: %w", s.d.name, err)
	}
	return nil
}

// connected reports whether a majority of the members can be reached, as it seems. mu
// is held.
func (s *session) connected() bool {
	n := 0
	for i := range s.members {
		if s.d.m.reaches(s.members[i].Node) {
			n++
		}
	}
	return n >= quorum.Majority(len(s.members))
}

// release ships a barrier that waits for company.
func (s *session) release() {
	s.mu.Lock()
	if s.held {
		s.run()
		return
	}
	s.mu.Unlock()
}

// appendOwn puts an adopted entry into the own copy, waiting while the commit log is
// behind. The acknowledgement does not count: the barrier's does (R20).
func (s *session) appendOwn(ctx context.Context, c *facet.Commit, commit facet.Seq) error {
	for {
		err := s.own.Append(s.row.Epoch, replica.Boot(s.d.m.opts.Self.Boot), c, commit, deafAcker{})
		if !errors.Is(err, replica.ErrBusy) {
			return copyError(err)
		}
		if werr := s.d.m.opts.Store.Wait(ctx, c.EncodedLen()); werr != nil && !errors.Is(werr, replica.ErrBusy) {
			return copyError(cmp.Or(ctx.Err(), werr))
		}
	}
}

// deafAcker does not count what it hears.
type deafAcker struct{}

func (deafAcker) Acked(facet.Incarnation, facet.Epoch, facet.Seq) {}

// load builds the pages. A copy that is being checkpointed because it was idle, or
// replaced by a snapshot, is waited for.
func (s *session) load(ctx context.Context) error {
	for {
		store, err := s.own.Open(ctx, true)
		if err == nil {
			s.store = store
			return nil
		}
		if !errors.Is(err, replica.ErrOpen) {
			return copyError(err)
		}
		select {
		case <-time.After(loadAgain):
		case <-ctx.Done():
			return copyError(err)
		}
	}
}

var _ peer.Acks = (*Manager)(nil)
