package quorum

import (
	"slices"

	"github.com/facetd/facetd/facet"
)

// entry of the one facet of a simulation. Its place in the log is its seq. Entries
// are compared by epoch and seq only, as the model does: no checksum helps.
type entry struct {
	epoch   facet.Epoch
	val     uint32 // unique in a run
	barrier bool
}

func position(log []entry) facet.Position {
	if len(log) == 0 {
		return facet.Position{}
	}
	return facet.Position{Epoch: log[len(log)-1].epoch, Seq: facet.Seq(len(log))}
}

// simReplica is the naive replica: rules R5 to R10, R19's health and R44 without
// files. Its log is the whole history; base says which part of it can no longer
// be sent as entries.
type simReplica struct {
	store   StoreID
	mem     copyOf
	disk    copyOf
	dirty   bool
	replies []msg // to be sent once mem is on the disk (R6, R9)
}

type copyOf struct {
	promised facet.Epoch
	boot     BootID
	log      []entry
	base     facet.Seq
	known    facet.Seq
	health   Health
	since    facet.Epoch // promised when the health was lost
}

func (c *copyOf) clone() copyOf {
	d := *c
	d.log = slices.Clone(c.log)
	return d
}

func (r *simReplica) sync() {
	if r.dirty {
		r.disk, r.dirty = r.mem.clone(), false
	}
}

// crash loses what was not synced.
func (r *simReplica) crash() {
	r.mem, r.dirty, r.replies = r.disk.clone(), false, nil
}

// fence is R6 and R7: it reports a refusal, or raises the promise.
func (r *simReplica) fence(n *simNode, m *msg, flaws simFlaw) (nack NackKind) {
	c := &r.mem
	switch {
	case m.epoch < c.promised:
		if flaws&simNoEpochCheck != 0 && m.kind == mAppend {
			return 0
		}
		return NackEpoch
	case m.epoch == c.promised && m.ownerBoot != c.boot && flaws&simSameEpoch == 0:
		return NackTwoLives
	case m.epoch > c.promised:
		if n.row().epoch < m.epoch {
			return NackBusy // R6: placement has not told us of that epoch
		}
		c.promised, c.boot, r.dirty = m.epoch, m.ownerBoot, true
	}
	return 0
}

// append is R7 to R10. It gives the last seq matched.
func (r *simReplica) append(n *simNode, m *msg, w *world) (matched facet.Seq, nack NackKind) {
	if k := r.fence(n, m, w.sim); k != 0 {
		return 0, k
	}
	c := &r.mem
	if c.health == Broken {
		return 0, NackDamaged
	}
	prev := m.prev
	for i, e := range m.entries {
		seq := m.seq + facet.Seq(i)
		last := facet.Seq(len(c.log))
		switch {
		case seq > last+1:
			return 0, NackGap
		case seq >= 2 && c.log[seq-2].epoch != prev && seq > c.base+1 && w.sim&simNoPrev == 0:
			return 0, NackGap
		case seq == c.base+1 && seq >= 2 && c.log[seq-2].epoch != prev && w.sim&simNoPrev == 0:
			w.fail("r%d: entry %d expects epoch %v before it, the base is of %v", n.id, seq, prev, c.log[seq-2].epoch)
		case seq <= c.base:
			if c.log[seq-1].epoch != e.epoch {
				w.fail("r%d: entry %d/%d differs from what is below the base", n.id, e.epoch, seq)
			}
		case seq <= last && c.log[seq-1].epoch == e.epoch: // R8
			if w.sim&simTruncOnDup != 0 {
				c.log, r.dirty = c.log[:seq], true
			}
		default:
			if seq <= last && seq <= max(c.known, c.base) {
				w.fail("r%d: entry %d/%d would cut what is committed up to %d", n.id, e.epoch, seq, c.known)
			}
			c.log, r.dirty = append(c.log[:seq-1], e), true
			if e.epoch == m.epoch || w.sim&simEarlyHeal != 0 {
				r.heal(m.epoch)
			}
		}
		prev = e.epoch
	}
	matched = m.seq + facet.Seq(len(m.entries)) - 1
	c.known = max(c.known, min(m.commit, matched)) // R10
	return matched, 0
}

// heal ends the uncertainty: an entry stamped with the epoch of its own session
// has a whole adopted log before it.
func (r *simReplica) heal(e facet.Epoch) {
	if r.mem.health == Uncertain && e > r.mem.since {
		r.mem.health, r.dirty = Sound, true
	}
}

// install is R44.
func (r *simReplica) install(n *simNode, m *msg, w *world) NackKind {
	if k := r.fence(n, m, w.sim); k != 0 {
		return k
	}
	c := &r.mem
	s := facet.Seq(len(m.entries))
	switch {
	case c.health == Broken && s < c.base:
		return NackBusy
	case c.health != Broken && (s <= c.base || s <= facet.Seq(len(c.log)) && c.log[s-1].epoch == m.entries[s-1].epoch):
		return 0
	case s <= c.known && c.health != Broken:
		w.fail("r%d: snapshot at %d differs from what is committed up to %d", n.id, s, c.known)
	}
	if c.health == Broken {
		// It may have acknowledged more than the snapshot has.
		c.health = Uncertain
		if w.sim&simSnapHeals != 0 {
			c.health = Sound
		}
	}
	c.log, c.base, c.known, r.dirty = slices.Clone(m.entries), s, s, true
	if m.entries[s-1].epoch == m.epoch {
		r.heal(m.epoch)
	}
	return 0
}
