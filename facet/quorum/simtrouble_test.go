package quorum

import (
	"slices"

	"github.com/facetd/facetd/facet"
)

func (w *world) crash(n *simNode) {
	w.logf("CRASH    node %d", n.id)
	if s := n.sess; s != nil {
		n.sess = nil
	}
	if w.rng.IntN(2) == 0 {
		n.replica.sync() // durable, but nobody was told
	}
	r := &n.replica
	r.crash()
	n.up = false
	n.lease = NewLease(w.p.ttl, 0)
	n.lease.flaws |= w.core
	n.g.Deposed()
	n.round, n.wantAct = 0, nil
	w.damage(n)
}

// damage rots or wipes the disk of a crashed node, one store at a time.
func (w *world) damage(n *simNode) {
	c := &n.replica.disk
	sound := true
	for _, o := range w.nodes {
		sound = sound && o.replica.disk.health == Sound && o.replica.mem.health == Sound
	}
	switch {
	case w.calm:
	case w.p.rot && sound && facet.Seq(len(c.log)) > c.base && w.rng.IntN(2) == 0:
		w.rots++
		c.since = c.promised
		if w.rng.IntN(3) == 0 {
			w.logf("ROT      node %d is broken", n.id)
			c.health = Broken
			n.replica.mem = c.clone()
			return
		}
		keep := max(int(c.base), len(c.log)-1-w.rng.IntN(3)) // a batch
		w.logf("ROT      node %d loses %d entries behind %d and knows it", n.id, len(c.log)-keep, keep)
		c.log = c.log[:keep]
		c.known, c.health = min(c.known, facet.Seq(len(c.log))), Uncertain
		n.replica.mem = c.clone()
	case w.p.wipe && w.wipes == 0 && w.rng.IntN(2) == 0:
		w.wipes++
		w.logf("WIPE     node %d", n.id)
		n.replica = simReplica{store: n.replica.store}
		if w.sim&simAmnesia == 0 {
			n.replica.store = storeID(n.id, uint32(w.wipes))
		}
	}
}

func (w *world) restart(n *simNode) {
	n.up = true
	n.boot = w.newBoot(n.id)
	if w.sim&simSameEpoch != 0 {
		n.begun = 0
	}
	i := w.commit(func(r *simRow) { r.boots[n.id], r.stores[n.id] = n.boot, n.replica.store })
	w.logf("RESTART  node %d, index %d", n.id, i)
	if w.rng.IntN(2) == 0 || w.calm {
		w.apply(n, i)
	}
}

// trouble crashes, pauses and replaces.
func (w *world) trouble() {
	n := w.nodes[w.rng.IntN(w.p.nodes)]
	if w.chance(w.p.crash) {
		if w.p.sync1 {
			n = w.nodes[max(0, w.last().owner)]
		}
		if n.up {
			w.crash(n)
		}
	}
	if !n.up && w.chance(100) {
		w.restart(n)
	}
	if w.chance(w.p.pause) {
		n.paused = w.step + w.rng.IntN(120)
	}
	if w.chance(w.p.elect) && n.runs() && (n.id != w.lead || !n.g.leading) {
		w.elect(n.id)
	}
	split := slices.ContainsFunc(w.nodes, func(n *simNode) bool { return n.cut > w.step })
	if w.chance(w.p.acquire) && (!split || w.rng.IntN(4) == 0) {
		w.replace(n)
	}
	if !split && w.chance(w.p.cut) {
		o := w.nodes[max(0, w.last().owner)]
		if n == o {
			n = w.nodes[(o.id+1)%w.p.nodes]
		}
		o.cut = w.step + 150 + w.rng.IntN(450)
		if w.rng.IntN(3) > 0 {
			o.blind = o.cut + w.rng.IntN(100)
		}
		if o.id == w.lead && n != o && n.runs() {
			w.elect(n.id)
		}
		if o != n {
			w.replace(n)
		}
		w.logf("CUT OFF  node %d until %d, blind until %d", o.id, o.cut, o.blind)
	}
}

// replace has placement choose another owner, or the same again, and sometimes
// another set.
func (w *world) replace(n *simNode) {
	if !w.nodes[w.lead].up {
		return
	}
	r := w.last()
	set := r.active
	if set == nil {
		set = r.next
	}
	if w.p.reconf && w.rng.IntN(2) == 0 && !w.calm {
		set = []StoreID{n.replica.store}
		for _, i := range w.rng.Perm(w.p.nodes) {
			if o := w.nodes[i]; len(set) < w.p.set && o != n {
				set = append(set, o.replica.store)
			}
		}
		w.reconfs++
	}
	if !n.up || !slices.Contains(set, n.replica.store) || r.boots[n.id] != n.boot {
		return
	}
	w.acquire(n.id, set)
}

// run is one run of the simulation: trouble, then peace, in which somebody must
// come to serve and acknowledge a write.
func (w *world) run() error {
	for w.step < w.p.steps && w.err == nil {
		w.stepOnce()
	}
	if w.err != nil || w.core|flaw(w.sim) != 0 {
		return w.err
	}
	w.calm = true
	w.p.maxLog = 1 << 20
	for _, n := range w.nodes {
		n.paused, n.cut, n.blind = 0, 0, 0
		if !n.up {
			w.restart(n)
		}
	}
	if !w.nodes[w.lead].g.leading {
		w.elect(w.lead)
	}
	w.soup = slices.DeleteFunc(w.soup, func(m msg) bool { return m.from != m.to })
	for _, n := range w.nodes {
		if n.sess != nil {
			for i := range n.sess.core.Slots() {
				n.sess.core.Down(i)
				n.sess.core.Up(i)
			}
			n.sess.run()
		}
	}
	acks := w.acks
	for i := range 6000 {
		if w.err != nil || w.acks > acks && i > 200 {
			return w.err
		}
		if r := w.last(); i%100 == 0 {
			if n := w.nodes[r.owner]; n.sess == nil && (n.begun >= r.epoch || r.ownerBoot != n.boot) {
				w.replace(w.nodes[w.rng.IntN(w.p.nodes)])
			}
		}
		w.stepOnce()
	}
	w.fail("LIVE: nothing was acknowledged in peace")
	return w.err
}
