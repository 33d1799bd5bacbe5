package owner

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/broken"
)

// Move gives the facet to another owner, another replica set, or both. New members
// of the set are filled while the facet goes on serving (rule R42); then, between
// two requests, everything is committed, the session ends, and one entry of the
// placement log issues the next epoch and gives this process's lease of the facet
// up. Requests that wait are sent to the new owner.
//
// It is safe to repeat; where nothing is to be changed it changes nothing. An
// interactive transaction is waited for.
func (m *Manager) Move(ctx context.Context, name facet.Name, t Transfer) error {
	if t.Owner == "" {
		t.Owner = m.opts.Self.Node
	}
	if err := m.move(ctx, name, t); err != nil {
		return fmt.Errorf("move %s to %s: %w", name, t.Owner, err)
	}
	return nil
}

func (m *Manager) move(ctx context.Context, name facet.Name, t Transfer) error {
	row, ok := m.opts.Placement.Lookup(name)
	switch {
	case !ok:
		return facet.NoSuchFacet(name)
	case len(t.Set) == 0:
		t.Set = row.Set()
	}
	if !slices.ContainsFunc(t.Set, func(x Member) bool { return x.Node == t.Owner }) {
		return facet.Errorf(facet.CodeBadRequest, "node %s keeps no replica of %s; name one of its replica set, or change the set", t.Owner, name)
	}
	if sameSet(t.Set, row.ActiveSet) {
		if row.Local && t.Owner == m.opts.Self.Node && row.Active && row.Mine {
			return nil
		}
	} else if broken.Is(broken.Unfilled) {
		// and on
	} else if err := m.fill(ctx, name, t.Set); err != nil {
		return err
	}
	m.warm(ctx, &row, t.Owner)
	var moved Row
	err := m.do(ctx, name, job{closed: true, fenced: true}, func(*session) error {
		now, err := m.give(ctx, name, t)
		if err != nil {
			return err
		}
		moved = now
		if !now.Local && m.opts.Warm != nil {
			ctx, cancel := context.WithTimeout(ctx, awakeTimeout)
			defer cancel()
			m.opts.Warm(ctx, now, now.Owner)
		}
		return nil
	})
	if err == nil && !moved.Local && m.opts.Awake != nil {
		ctx, cancel := context.WithTimeout(ctx, awakeTimeout)
		defer cancel()
		m.opts.Awake(ctx, moved)
	}
	return err
}

// give issues the next epoch of a facet whose session here was closed, by a job that
// holds its desk.
func (m *Manager) give(ctx context.Context, name facet.Name, t Transfer) (Row, error) {
	row, ok := m.opts.Placement.Lookup(name)
	if !ok {
		return row, facet.NoSuchFacet(name)
	}
	if !row.Mine {
		return row, NotOwner(&row)
	}
	t.Released = true
	now, err := m.opts.Placement.Acquire(ctx, row, t)
	if d := m.lookup(name); err != nil && d != nil {
		d.dead = row.Epoch // nobody knows what became of it: this epoch is spent
	}
	return now, err
}

// Heal opens the facet in an epoch above since, in which a copy was found to be
// damaged, and has its members brought what they lack. Only the barrier of a new epoch
// proves that such a copy has all that it ever acknowledged. Where a member cannot be
// reached the epoch stays, for a new one may need its answer (R19), and the copy only
// gets what is missing.
func (m *Manager) Heal(ctx context.Context, name facet.Name, since facet.Epoch) error {
	row, ok := m.opts.Placement.Lookup(name)
	if !ok {
		return facet.NoSuchFacet(name)
	}
	all := !slices.ContainsFunc(row.Set(), func(x Member) bool { return !m.reaches(x.Node) })
	if row.Mine && row.Epoch <= since && all {
		if err := m.do(ctx, name, job{closed: true, fenced: true}, func(*session) error {
			_, err := m.give(ctx, name, Transfer{})
			return err
		}); err != nil {
			return fmt.Errorf("heal %s: %w", name, err)
		}
	}
	return m.Wake(ctx, name)
}

// Damaged ends the session of a facet whose copy here was found to be damaged: what it
// has read, or would read, may be wrong (R51).
func (m *Manager) Damaged(id facet.Incarnation) {
	if s := m.sessions.find(id); s != nil {
		s.die(fmt.Errorf("this node's copy: %w", replica.ErrDamaged))
	}
}

// warm has the next owner bring its copy to its file while this node serves on. What
// it has to read of the log when it takes the facet over keeps callers waiting, and a
// member in use reads all since its last checkpoint, which only a log that is short of
// room makes it do. Where a member is behind nobody's log is cut short for that.
func (m *Manager) warm(ctx context.Context, row *Row, to cluster.NodeID) {
	if m.opts.Warm == nil || to == m.opts.Self.Node {
		return
	}
	if s := m.sessions.find(row.Incarnation); s == nil || s.lagging() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, warmTimeout)
	defer cancel()
	m.opts.Warm(ctx, *row, to)
}

func sameSet(a, b []Member) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !slices.ContainsFunc(b, func(x Member) bool { return x.Store == a[i].Store }) {
			return false
		}
	}
	return true
}

// fill has every member of set that is not one yet filled as a learner, and returns
// when all hold what is committed.
func (m *Manager) fill(ctx context.Context, name facet.Name, set []Member) error {
	ctx, cancel := context.WithTimeout(ctx, fillTimeout)
	defer cancel()
	var of *session
	var filled chan struct{}
	err := m.do(ctx, name, job{}, func(s *session) error {
		s.mu.Lock()
		of = s
		for _, x := range set {
			if err := s.learn(x); err != nil {
				s.mu.Unlock()
				return err
			}
		}
		switch {
		case s.learned():
			s.mu.Unlock()
			return nil
		case s.filling == nil:
			s.filling = make(chan struct{})
		}
		filled = s.filling
		s.run()
		return nil
	})
	if err != nil || filled == nil {
		return err
	}
	select {
	case <-filled:
		of.mu.Lock()
		defer of.mu.Unlock()
		if of.unfilled || of.core.Err() != nil {
			return facet.Errorf(facet.CodeUnavailable, "%s went to another session meanwhile; try again", name)
		}
		return nil
	case <-ctx.Done():
		of.forgetLearners()
		return facet.Errorf(facet.CodeUnavailable, "the new members of %s's replica set were not filled in time", name)
	}
}

// learn begins to fill a store. mu is held.
func (s *session) learn(x Member) error {
	for i := range s.members {
		if s.members[i].Store == x.Store {
			return nil
		}
	}
	slot, err := s.core.AddLearner(x.core())
	if err != nil {
		return facet.Errorf(facet.CodeUnavailable, "fill %s: %v; try again", x.Node, err)
	}
	if slot == len(s.members) {
		s.members = append(s.members, member{})
	}
	s.members[slot] = member{Member: x, learner: true}
	return nil
}

// learned reports whether every learner holds what is committed. mu is held.
func (s *session) learned() bool {
	for i := range s.members {
		if s.members[i].learner && s.core.Lacking(i) {
			return false
		}
	}
	return true
}

// fills reports whether a change of the set waits for learners.
func (s *session) fills() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.filling != nil
}

// forgetLearners ends the filling of stores that are no members.
func (s *session) forgetLearners() {
	s.mu.Lock()
	for i := range s.members {
		if s.members[i].learner {
			s.core.RemoveLearner(i)
			s.members[i] = member{}
		}
	}
	s.run()
}

// Leave hands every open facet to another member of its set, which choose names. It
// returns when all are gone or ctx ends; what could not be moved stays here.
func (m *Manager) Leave(ctx context.Context, choose func([]Member) (cluster.NodeID, bool)) {
	var g sync.WaitGroup
	room := make(chan struct{}, leaveAtOnce)
	m.sessions.each(func(s *session) {
		to, ok := choose(s.row.Set())
		if !ok || ctx.Err() != nil {
			return
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		g.Go(func() {
			defer func() { <-room }()
			if err := m.Move(ctx, s.d.name, Transfer{Owner: to}); err != nil {
				m.log.Debug("hand over before stopping", "facet", s.d.name.String(), "error", err)
			}
		})
	})
	g.Wait()
}
