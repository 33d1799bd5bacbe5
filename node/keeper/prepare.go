package keeper

import (
	"fmt"
	"sync"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/peer"
)

// Prepare implements peer.Handler: it promises a session, durably, that no lower
// epoch will be accepted any more, and tells what the copy has (R6).
func (k *Keeper) Prepare(from *peer.Caller, s peer.Session, reply func(replica.Promise, error)) {
	k.prepare(from.Remote(), s, reply)
}

func (k *Keeper) prepare(from peer.Remote, s peer.Session, reply func(replica.Promise, error)) {
	k.knock(&knock{
		id:  s.Incarnation,
		try: func() error { return k.promise(from, s, reply) },
		no:  func(err error) { reply(replica.Promise{}, err) },
	})
}

// knock tries x now, and lets it wait if the table is behind.
func (k *Keeper) knock(x *knock) {
	err := x.try()
	if err == errBehind {
		err = k.park(x)
	}
	if err != nil {
		x.no(err)
	}
}

// promise places the promise. Reply is called, later, only when the error is nil.
func (k *Keeper) promise(from peer.Remote, s peer.Session, reply func(replica.Promise, error)) error {
	id, boot := s.Incarnation, replica.Boot(from.Boot)
	if r, err := k.store.Replica(id); err != nil || !promised(r, s.Epoch, boot) {
		if k.fence(id, s.Epoch) {
			boot = replica.Boot{}
		} else if err := k.door(from, id, s.Epoch); err != nil {
			return err
		}
		if _, err := k.create(id); err != nil {
			return err
		}
	}
	return k.store.PrepareFunc(id, s.Epoch, boot, func(p replica.Promise) { reply(p, nil) })
}

// knock is a PREPARE or a barrier that waits for the table.
type knock struct {
	id    facet.Incarnation
	try   func() error // errBehind: wait on; nil: the store answers
	no    func(error)
	until time.Time
	done  bool // answered; of the attendant
}

// room holds those that wait for the table to learn of their epochs. One
// goroutine, the attendant, answers them all: it looks at those of a facet when
// the table tells that its row has changed.
//
// Invariant: a knock in the room was looked at after it came in, with a watch on
// the table running, so that no change is missed.
type room struct {
	kick chan struct{} // holds at most one token: somebody came in

	mu     sync.Mutex
	closed bool
	n      int                            // in the room
	order  []*knock                       // by arrival, which is the order of until; answered ones too
	fresh  []*knock                       // not yet looked at
	of     map[facet.Incarnation][]*knock // none of them answered
}

func (r *room) init() {
	r.kick = make(chan struct{}, 1)
	r.of = make(map[facet.Incarnation][]*knock)
}

// park lets one wait.
func (k *Keeper) park(x *knock) error {
	r := &k.room
	x.until = time.Now().Add(PrepareWait)
	r.mu.Lock()
	switch {
	case r.closed:
		r.mu.Unlock()
		return replica.ErrClosed
	case r.n >= maxParked:
		r.mu.Unlock()
		return fmt.Errorf("%w: %w", replica.ErrBusy, errBehind)
	}
	r.n++
	r.order = append(r.order, x)
	r.fresh = append(r.fresh, x)
	r.of[x.id] = append(r.of[x.id], x)
	r.mu.Unlock()
	k.counts.parked.Add(1)
	select {
	case r.kick <- struct{}{}:
	default: // it comes already
	}
	return nil
}

// attend is the attendant. It watches the table only while somebody waits.
func (k *Keeper) attend() {
	for {
		select {
		case <-k.room.kick:
			k.serveRoom()
		case <-k.ctx.Done():
		}
		if k.ctx.Err() != nil {
			k.closeRoom()
			return
		}
	}
}

// serveRoom answers until nobody waits.
func (k *Keeper) serveRoom() {
	w := k.table.Watch()
	defer w.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		k.look(k.room.newcomers())
		next, empty := k.expire(time.Now())
		if empty {
			return
		}
		timer.Reset(time.Until(next))
		select {
		case <-w.Wake():
			changes := w.Take()
			if changes.All {
				k.look(k.room.everybody())
				continue
			}
			for _, id := range changes.Rows {
				k.look(k.room.at(id))
			}
		case <-k.room.kick:
		case <-timer.C:
		case <-k.ctx.Done():
			return
		}
	}
}

// look tries those given again.
func (k *Keeper) look(list []*knock) {
	for _, x := range list {
		if x.done {
			continue
		}
		if err := x.try(); err != errBehind {
			k.answer(x, err)
		}
	}
}

// answer lets x go. A nil error is answered by the store.
func (k *Keeper) answer(x *knock, err error) {
	k.room.leave(x)
	if err != nil {
		x.no(err)
	}
}

// expire answers those that have waited long enough, and tells when the next one
// will have.
func (k *Keeper) expire(now time.Time) (next time.Time, empty bool) {
	for {
		x := k.room.oldest()
		if x == nil {
			return next, true
		}
		if now.Before(x.until) {
			return x.until, false
		}
		k.counts.refused.Add(1)
		k.answer(x, fmt.Errorf("%w: %w", replica.ErrUnknown, errBehind)) // R6
	}
}

func (k *Keeper) closeRoom() {
	k.room.mu.Lock()
	k.room.closed = true
	k.room.mu.Unlock()
	for x := k.room.oldest(); x != nil; x = k.room.oldest() {
		k.answer(x, replica.ErrClosed)
	}
}

// newcomers gives those not yet looked at.
func (r *room) newcomers() []*knock {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.fresh
	r.fresh = nil
	return list
}

func (r *room) at(id facet.Incarnation) []*knock {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*knock(nil), r.of[id]...)
}

func (r *room) everybody() []*knock {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*knock(nil), r.order...)
}

// oldest is who has waited longest.
func (r *room) oldest() *knock {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.order) > 0 && r.order[0].done {
		r.order[0] = nil
		r.order = r.order[1:]
	}
	if len(r.order) == 0 {
		r.order = nil
		return nil
	}
	return r.order[0]
}

func (r *room) leave(x *knock) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x.done = true
	r.n--
	list := r.of[x.id]
	for i, y := range list {
		if y == x {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(r.of, x.id)
	} else {
		r.of[x.id] = list
	}
}
