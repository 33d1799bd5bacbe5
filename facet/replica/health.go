package replica

import (
	"fmt"
	"sync"

	"github.com/facetd/facetd/facet"
)

// Health says how far a store's copy of a facet can be believed.
type Health uint8

const (
	// Healthy: nothing is known against it.
	Healthy Health = iota
	// Uncertain: acknowledged entries may be lost that stood behind what is here:
	// in the last batch of the log, in a damaged copy that a snapshot has replaced,
	// or in one that was dropped before this one was begun. The copy fences and takes entries, its tail says nothing (R19).
	Uncertain
	// Holed: acknowledged records are lost. The copy fences; it is not served and
	// takes no entries until a snapshot has replaced it.
	Holed
	// Diverged: a checksum did not match (rule R51). As Holed.
	Diverged
)

func (h Health) String() string {
	switch h {
	case Healthy:
		return "ok"
	case Uncertain:
		return "uncertain"
	case Holed:
		return "holed"
	case Diverged:
		return "diverged"
	}
	return fmt.Sprintf("health %d", uint8(h))
}

// broken reports whether the copy must not be served or added to.
func (h Health) broken() bool { return h >= Holed }

// lost remembers, for each facet whose copy is not Healthy, the epoch promised
// when that was found. Few are, so it is kept beside the states.
//
// What the copy lost was acknowledged in that epoch or before. A session of a
// higher one has gathered all that was committed until then from the others, and
// writes its barrier behind it; so a copy that holds such a barrier, with all that
// is before it, is whole again. Nothing else proves it: not an entry sent again,
// and not a snapshot, which ends where the sender's base does and not where the
// acknowledgements of this copy did. So the epoch is durable, in INSTALL and CARRY,
// and a snapshot makes a damaged copy Uncertain, not Healthy.
type lost struct {
	mu    sync.Mutex
	since map[facet.Incarnation]facet.Epoch // guarded by mu
}

func (x *lost) at(id facet.Incarnation) facet.Epoch {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.since[id]
}

func (x *lost) set(id facet.Incarnation, since facet.Epoch) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.since == nil {
		x.since = make(map[facet.Incarnation]facet.Epoch)
	}
	x.since[id] = since
}

// list is all of them, in no order.
func (x *lost) list() []Damage {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := make([]Damage, 0, len(x.since))
	for id, since := range x.since {
		out = append(out, Damage{ID: id, Since: since})
	}
	return out
}

func (x *lost) clear(id facet.Incarnation) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.since, id)
}

// setHealth is the only place where a copy's health changes. since counts unless
// it is Healthy. State.mu is held, but at boot.
func (s *Store) setHealth(st *state, h Health, since facet.Epoch) {
	if st.health = h; h == Healthy {
		s.lost.clear(st.id)
	} else {
		s.lost.set(st.id, since)
	}
}

// worsen takes in damage that was found now. State.mu is held, but at boot.
func (s *Store) worsen(st *state, h Health) { s.setHealth(st, max(st.health, h), st.promised) }

// heals reports whether what ends in an entry stamped with epoch, sent whole by the
// session of that epoch, makes the copy sound. State.mu is held.
func (s *Store) heals(st *state, epoch facet.Epoch) bool {
	return st.health != Healthy && epoch > s.lost.at(st.id)
}
