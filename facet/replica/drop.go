package replica

import (
	"context"
	"fmt"
	"time"

	"github.com/facetd/facetd/facet"
)

// Drop takes the facet off this store, which is no member of its replica set any
// more: the caller has seen the ACTIVATE of a set without it (rule R42). Log and
// base are forgotten, the file goes to the trash, and the facet is not kept here
// afterwards, until Create begins a new copy. What was promised stays promised
// (R6): a message of an older epoch finds no copy that would take it, neither now
// nor after that. A new copy has forgotten what the old one acknowledged, so it is
// Uncertain until it holds the barrier of a session above that promise, as a store
// that becomes a member again does. Nobody may have the facet open: ErrOpen.
// Dropping again does nothing.
//
// Promised is what the copy had promised when the caller looked at the table. With
// another promise nothing is dropped and the error is ErrEpoch: a session came
// meanwhile that may count on this copy, of an epoch the caller's row did not show.
//
// After a crash the copy is there whole or dropped, and the file of a dropped one
// in the trash.
func (r Replica) Drop(ctx context.Context, promised facet.Epoch) error {
	var l *live
	err := r.s.patient(ctx, func() error {
		var err error
		l, err = r.placeDrop(promised)
		return err
	})
	if err == nil && l != nil {
		err = r.finishDrop(context.WithoutCancel(ctx), l)
	}
	if err != nil {
		return fmt.Errorf("drop %v: %w", r.st.id, err)
	}
	return nil
}

// finishDrop moves the file away once the drop is durable. Until then nobody can
// create the facet again, so it ends or the process does.
func (r Replica) finishDrop(ctx context.Context, l *live) error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	return r.s.fileAt(r.st, time.Now())
}

// placeDrop records that the facet is not kept here. It returns nil if it was not.
func (r Replica) placeDrop(promised facet.Epoch) (*live, error) {
	st := r.st
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case st.tomb():
		return nil, ErrDeleted
	case st.flags&flagCreated == 0:
		return nil, nil
	case st.promised != promised:
		return nil, &EpochError{st.promised}
	}
	l := r.s.wake(st)
	defer l.settle()
	if l.open || l.checkpointing || l.installing {
		return nil, ErrOpen
	}
	if err := l.place(r.s.dropped(st).record(st.id), pending{}); err != nil {
		return nil, err
	}
	l.forget()
	st.flags = flagDropped
	r.s.setHealth(st, Uncertain, st.promised)
	return l, nil
}

// dropped is the CARRY that drops a facet. State.mu is held.
func (s *Store) dropped(st *state) *carried {
	c := &carried{promised: st.promised, flags: flagDropped, health: Uncertain, since: st.promised}
	if st.promised != 0 {
		c.boot = s.boots.id(st.boot)
	}
	return c
}
