package quorum

import (
	"fmt"
	"slices"

	"github.com/facetd/facetd/facet"
)

func (w *world) last() *simRow { return &w.rows[len(w.rows)-1] }

func (w *world) commit(change func(r *simRow)) uint64 {
	r := *w.last()
	r.index, r.took, r.settled = uint64(len(w.rows)), false, false
	change(&r)
	w.rows = append(w.rows, r)
	return r.index
}

func (w *world) elect(node int) {
	n := w.nodes[node]
	w.lead = node
	i := w.commit(func(*simRow) {})
	w.apply(n, i)
	n.round, n.wantAct = 0, nil
	n.g.Elected(n.now(), i)
	w.logf("ELECTED  node %d, index %d", node, i)
}

// acquire gives the facet to a node, with a new set or the active one.
func (w *world) acquire(node int, set []StoreID) {
	n := w.nodes[node]
	i := w.commit(func(r *simRow) {
		again := w.sim&simSameEpoch != 0 && r.owner == node && r.ownerBoot != n.boot
		r.took = r.activeEpoch == r.epoch && r.epoch != 0 && !r.recovering
		r.owner, r.ownerBoot, r.recovering = node, n.boot, true
		if set == nil {
			if set = r.active; set == nil {
				set = r.next
			}
		}
		r.next = set
		if again {
			r.activeEpoch = 0
		} else {
			r.epoch++
		}
		if r.epoch == 1 && w.p.born { // R47: made active
			r.active, r.activeEpoch, r.serving, r.recovering = set, 1, n.boot, false
			w.activations++
		}
	})
	w.logf("ACQUIRE  epoch %d -> node %d, next %v active %v", w.last().epoch, node, setString(set), setString(w.last().active))
	_ = i
	w.apply(w.nodes[w.lead], i) // it committed the entry
}

func setString(set []StoreID) string {
	s := ""
	for _, id := range set {
		s += fmt.Sprintf("%d.%d ", id[0]-1, id[1])
	}
	return s
}

// apply lets a node's placement table catch up to an index.
func (w *world) apply(n *simNode, to uint64) {
	for n.applied < to && w.err == nil {
		n.applied++
		r := n.row()
		if r.took {
			if err := n.g.Taken(simFacet, w.rows[n.applied-1].serving, r.index); err != nil {
				w.fail("taken: %v", err)
			}
		}
		if r.settled {
			n.g.Settled(simFacet)
		}
		if s := n.sess; s != nil {
			for i := range w.p.nodes {
				s.core.Registered(Member{Store: r.stores[i], Boot: r.boots[i]})
			}
			s.core.Applied(s.coreRow(r))
			s.run()
		}
		if r.owner == n.id && r.ownerBoot == n.boot && n.up && (r.recovering || r.epoch == 1) && r.epoch > n.begun {
			w.begin(n, r)
		}
	}
}

func (w *world) begin(n *simNode, r *simRow) {
	if !slices.Contains(r.next, n.replica.store) {
		return
	}
	s := &simSession{n: n, epoch: r.epoch, row: r}
	row, log := s.coreRow(r), n.replica.mem.log
	var core *Session
	var err error
	switch {
	case r.epoch == 1 && (r.active == nil || r.activeEpoch == 1) && len(log) == 0:
		w.firsts++
		core, err = Begin(row, n.replica.store, n.boot, n.now(), facet.Position{})
	case w.sim&simNoFence != 0:
		if core, err = NewSession(row, n.replica.store, n.boot); err == nil {
			core.adopt(core.self, position(log))
			core.settled = facet.Seq(len(log))
		}
	default:
		core, err = NewSession(row, n.replica.store, n.boot)
	}
	if err != nil {
		w.fail("%v", err)
		return
	}
	core.flaws |= w.core
	s.core = core
	n.sess, n.begun = s, r.epoch
	s.run()
}

func (s *simSession) coreRow(r *simRow) Row {
	row := Row{Epoch: r.epoch, Owner: r.ownerBoot, ActiveEpoch: r.activeEpoch}
	for _, id := range r.active {
		row.Active = append(row.Active, Member{Store: id, Boot: bootOf(r, id)})
	}
	for _, id := range r.next {
		row.Next = append(row.Next, Member{Store: id, Boot: bootOf(r, id)})
	}
	return row
}

// bootOf is the process life registered for a store, none if the node has another
// store now.
func bootOf(r *simRow, id StoreID) BootID {
	if node := storeNode(id); r.stores[node] == id {
		return r.boots[node]
	}
	return BootID{}
}

// activate is the placement leader's part of R21.
func (w *world) activate(n *simNode) {
	if len(n.wantAct) == 0 {
		return
	}
	w.apply(n, uint64(len(w.rows)-1))
	if n.id != w.lead {
		n.wantAct = nil // what it proposes is not committed
		return
	}
	keep := n.wantAct[:0]
	for _, m := range n.wantAct {
		r := n.row()
		current := r.epoch == m.epoch && r.ownerBoot == m.ownerBoot && r.recovering
		if !current && w.sim&simNoCAS == 0 {
			continue
		}
		if !n.g.MayActivate(simFacet, r.serving != BootID{}, n.now()) {
			keep = append(keep, m)
			continue
		}
		var set []StoreID
		for _, row := range w.rows {
			if row.epoch == m.epoch {
				set = row.next
			}
		}
		i := w.commit(func(r *simRow) {
			r.active, r.activeEpoch, r.serving, r.settled = set, m.epoch, m.ownerBoot, true
			if current {
				r.recovering = false
			}
		})
		w.logf("ACTIVATE epoch %d at index %d", m.epoch, i)
		w.activations++
		if s := w.nodes[m.from].sess; s != nil && s.epoch == m.epoch && s.core.Committed() < w.acked {
			w.fail("DURABLE: epoch %d is activated with %d entries, %d are acknowledged", s.epoch, s.core.Committed(), w.acked)
		}
		w.apply(n, i)
		if !current {
			if s := w.nodes[m.from].sess; s != nil && s.epoch == m.epoch {
				row := s.coreRow(s.row)
				row.ActiveEpoch = m.epoch
				s.core.Applied(row)
				s.run()
			}
		}
	}
	n.wantAct = keep
}

// rounds moves the placement leader's rounds of renewals on.
func (w *world) rounds(n *simNode) {
	switch {
	case n.round == 0:
		if round, ok := n.g.Tick(); ok {
			n.round, n.roundOK, n.ended = round, 0, false
			if w.core&flawReplyFirst != 0 {
				w.grant(n, n.g.early(w.out[:0]))
			}
		}
	case !n.ended:
		n.ended = true
		if n.id == w.lead {
			n.roundOK = w.commit(func(*simRow) {})
		}
	default:
		round := n.round
		n.round = 0
		if n.roundOK == 0 {
			n.g.Failed(round)
			n.g.Deposed() // that is how it notices
			return
		}
		w.apply(n, n.roundOK)
		w.grant(n, n.g.Committed(round, n.now(), w.out[:0]))
	}
}

func (w *world) grant(n *simNode, answers []Answer) {
	for _, a := range answers {
		w.logf("GRANT    by %d to boot %x stamp %d ttl %v need %d", n.id, a.Boot[:3], int64(a.Stamp)/1e6, a.TTL, a.Applied)
		w.post(msg{kind: mGrant, from: n.id, to: int(a.Boot[0]) - 1, answer: a})
	}
	w.out = answers[:0]
}
