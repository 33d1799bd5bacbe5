package replica

import (
	"context"
	"fmt"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/broken"
)

// Boot is the id of one process life of a node (rule R2).
type Boot = [16]byte

// Promise is the answer to PREPARE.
type Promise struct {
	Incarnation facet.Incarnation
	Epoch       facet.Epoch
	Last        facet.Position // end of the log when the promise was placed (R5)
	Base        pages.Base
	CommitKnown facet.Seq
	Health      Health
}

// AsPromise is what a promise would have told, made by nobody: for who looks at a copy
// without fencing it. It may be other the moment after.
func (m *Meta) AsPromise() Promise {
	return Promise{
		Incarnation: m.ID, Last: m.Last, Base: pages.Base{Position: m.Base, Pages: m.BasePages},
		CommitKnown: m.CommitKnown, Health: m.Health,
	}
}

// fence compares a session with what was promised. raise says that its epoch is
// new here: a promise must be placed before anything else of the session.
func (s *Store) fence(st *state, epoch facet.Epoch, boot Boot) (raise bool, err error) {
	switch {
	case s.fatal.Load() != nil:
		return false, s.alive() // R13
	case st.gone() != nil:
		return false, st.gone()
	case epoch < st.promised && !broken.Is(broken.NoEpochCheck): // R6, R7
		return false, &EpochError{st.promised}
	case epoch > st.promised:
		return true, nil
	case s.boots.id(st.boot) != boot && !broken.Is(broken.SameEpoch):
		s.logger.Error("two process lives act in one epoch", "facet", st.id, "epoch", uint64(epoch),
			"promised_to", fmt.Sprintf("%x", s.boots.id(st.boot)), "claimed_by", fmt.Sprintf("%x", boot))
		return false, ErrBoot // R6
	}
	return false, nil
}

// Create makes an empty facet at position zero, the genesis base of rule R47. It
// is durable when anything done to the facet later is. Creating a facet that is
// here changes nothing. One that was dropped here begins anew, with the promise it
// gave (R6); ErrBusy says that its old file is still on its way to the trash.
// ErrFull and ErrBusy are otherwise as for Append: a new facet does not use the
// reserve of a full disk.
func (s *Store) Create(id facet.Incarnation) (Replica, error) {
	st := s.lookup(id, true)
	r := Replica{s, st}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.tomb() && !broken.Is(broken.NoTomb) {
		return r, fmt.Errorf("create %v: %w", id, ErrDeleted)
	}
	if st.flags&flagCreated != 0 {
		return r, nil
	}
	if st.flags&(flagDropped|flagFiled) == flagDropped {
		return r, fmt.Errorf("create %v: its old file is being moved away: %w", id, ErrBusy)
	}
	if err := s.Admit(carryLen); err != nil { // R15
		return r, fmt.Errorf("create %v: %w", id, err)
	}
	was := st.flags
	st.flags = flagCreated
	l := s.wake(st)
	if err := l.carry(); err != nil {
		st.flags = was
		l.settle()
		return r, fmt.Errorf("create %v: %w", id, err)
	}
	return r, nil
}

// Prepare promises the session (epoch, boot) that no lower epoch will be accepted
// any more, durably, and tells what this store has (R6). The caller has checked
// that placement issued the epoch to that owner.
func (s *Store) Prepare(ctx context.Context, id facet.Incarnation, epoch facet.Epoch, boot Boot) (Promise, error) {
	done := make(chan Promise, 1)
	err := s.patient(ctx, func() error {
		return s.PrepareFunc(id, epoch, boot, func(p Promise) { done <- p })
	})
	if err != nil {
		return Promise{}, err
	}
	select {
	case p := <-done:
		return p, nil
	case <-s.dead:
		return Promise{}, s.alive()
	case <-ctx.Done():
		return Promise{}, ctx.Err()
	}
}

// PrepareFunc is Prepare for many facets at once: it returns when the promise has
// its place in the log, and done is called once it is durable, from the log
// of the log or from here. Done must not block. On an error it is not called.
func (s *Store) PrepareFunc(id facet.Incarnation, epoch facet.Epoch, boot Boot, done func(Promise)) error {
	st := s.lookup(id, false)
	if st == nil {
		return fmt.Errorf("prepare %v: %w", id, ErrUnknown) // R4
	}
	if epoch == 0 {
		return fmt.Errorf("prepare %v: epoch 0 is none", id)
	}
	p, waiting, err := s.placePromise(st, epoch, boot, done)
	if err != nil {
		return fmt.Errorf("prepare %v in epoch %v: %w", id, epoch, err)
	}
	if !waiting {
		done(p)
	}
	return nil
}

func (s *Store) placePromise(st *state, epoch facet.Epoch, boot Boot, done func(Promise)) (Promise, bool, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	raise, err := s.fence(st, epoch, boot)
	if err != nil {
		return Promise{}, false, err
	}
	l := s.wake(st)
	defer l.settle()
	if raise {
		if err := l.place(promiseRecord(st.id, epoch, boot, tailOf(st.last())), pending{}); err != nil {
			return Promise{}, false, err
		}
		st.promised, st.boot = epoch, s.boots.number(boot)
	}
	// R5: what was placed before the promise, and nothing else.
	p := Promise{
		Incarnation: st.id, Epoch: epoch, Last: st.last(), Base: st.base(),
		CommitKnown: l.commitKnown(), Health: st.health,
	}
	if broken.Is(broken.PromiseForgets) && l.durable < p.Last.Seq {
		p.Last = facet.Position{Epoch: l.epochAt(l.durable), Seq: l.durable}
	}
	if broken.Is(broken.NoPromiseDurable) {
		return p, false, nil
	}
	// The same epoch and boot again: the same answer, and no sooner than the first.
	return p, l.when(func() { done(p) }), nil
}
