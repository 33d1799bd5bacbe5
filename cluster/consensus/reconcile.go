package consensus

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/facetd/facetd/cluster"
)

// reconciler is the leader's view of the members over time. It belongs to one
// goroutine and to one term.
type reconciler struct {
	n      *Node
	term   uint64
	steady map[cluster.NodeID]time.Time // since when a member keeps up
	heard  map[cluster.NodeID]time.Time // when a member was heard last, or the term began
	said   map[cluster.NodeID]string    // what was logged of a node last
}

// reconcileLoop keeps the membership in order while this node leads.
func (n *Node) reconcileLoop() {
	var r *reconciler
	for {
		now, changed := n.Leadership()
		if !now.Leading {
			r = nil
			select {
			case <-changed:
				continue
			case <-n.closing:
				return
			}
		}
		if r == nil || r.term != now.Term {
			r = &reconciler{
				n: n, term: now.Term, steady: map[cluster.NodeID]time.Time{},
				heard: map[cluster.NodeID]time.Time{}, said: map[cluster.NodeID]string{},
			}
		}
		r.step()
		t := time.NewTimer(reconcileEvery)
		select {
		case <-t.C:
		case <-n.wake:
		case <-changed:
		case <-n.closing:
			t.Stop()
			return
		}
		t.Stop()
	}
}

// step looks, plans and takes one step.
func (r *reconciler) step() {
	n := r.n
	c := plan(rules{
		maxVoters: n.cfg.MaxVoters, stableAfter: n.cfg.StableAfter, goneAfter: n.cfg.GoneAfter,
		silentAfter: n.silentAfter(), replaceAfter: replaceAfter,
	}, r.look())
	if c.do == doNothing {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, 2*changeTimeout)
	defer cancel()
	if err := n.change(ctx, c); err != nil {
		r.say(c.target, "membership change was not made; it is tried again", "change", c.do.String(), "why", c.why, "error", err.Error())
		return
	}
	delete(r.said, c.target)
	n.nudgeMembers() // there may be more to do
}

// say logs what is new about a node.
func (r *reconciler) say(id cluster.NodeID, msg string, args ...any) {
	text := msg
	for _, a := range args {
		if s, ok := a.(string); ok {
			text += " " + s
		}
	}
	if r.said[id] != text {
		r.said[id] = text
		r.n.cfg.Logger.Warn(msg, append([]any{"member", string(id)}, args...)...)
	}
}

// look gathers what is known of all members, and of those that may become one.
// It asks only those of which something has to be learned.
func (r *reconciler) look() []standing {
	n := r.n
	n.mu.Lock()
	view := n.view
	n.mu.Unlock()
	now := time.Now()
	last := n.raft.LastIndex()
	var nodes []standing
	var ask []founder
	for _, s := range n.configuration().Servers {
		id := cluster.NodeID(s.ID)
		st := standing{id: id, member: true, votes: s.Suffrage == raft.Voter, self: id == n.cfg.ID, place: parsePlace(s.Address)}
		m, known := view.Member(id)
		st.zone, st.status = m.Zone, m.Status
		switch {
		case st.self:
			st.seen = parsePlace(n.peers.LocalAddr())
		default:
			match, term, contact := n.peers.progress(s.ID, s.Address)
			if heard, ok := r.heard[id]; !ok {
				r.heard[id] = now
			} else if contact.After(heard) {
				r.heard[id] = contact
			}
			st.silent = now.Sub(r.heard[id])
			if keeps := st.silent < n.silentAfter() && term == r.term && match+maxLag >= last; !keeps {
				delete(r.steady, id)
			} else if since, ok := r.steady[id]; ok {
				st.steady = now.Sub(since)
			} else {
				r.steady[id] = now
			}
			if !known {
				st.status = cluster.StatusGone
			} else if m.Peer != "" && m.Status != cluster.StatusGone && (st.silent >= n.silentAfter() || m.Peer != st.place.address) {
				ask = append(ask, founder{Node: id, Address: m.Peer})
			}
		}
		nodes = append(nodes, st)
	}
	for _, m := range view.Members {
		if !slices.ContainsFunc(nodes, func(s standing) bool { return s.id == m.ID }) &&
			m.Peer != "" && (m.Status == cluster.StatusAlive || m.Status == cluster.StatusSuspect) {
			nodes = append(nodes, standing{id: m.ID, zone: m.Zone, status: m.Status})
			ask = append(ask, founder{Node: m.ID, Address: m.Peer})
		}
	}
	slices.SortFunc(nodes, func(a, b standing) int { return cmp.Compare(a.id, b.id) })
	r.hear(nodes, n.askAll(question{from: n.cfg.ID}, ask))
	return nodes
}

// hear notes what nodes said of themselves.
func (r *reconciler) hear(nodes []standing, answers []seen) {
	mine, generation := r.n.id.get()
	for _, a := range answers {
		id := a.answer.node
		i := slices.IndexFunc(nodes, func(s standing) bool { return s.id == id })
		switch {
		case a.err != nil:
			continue
		case a.answer.cluster.IsZero():
			continue // it will join by itself, and is asked again
		case a.answer.cluster != mine:
			r.say(id, "a node of another cluster is within reach; it is not taken in", "cluster", a.answer.cluster.String())
			continue
		case a.answer.generation > generation:
			r.n.outcast(string(id))
			return
		case a.answer.generation < generation:
			r.say(id, "a node was left behind by a forced recovery of the cluster; set its directory aside and join it anew")
			continue
		}
		nodes[i].seen = place{a.address, a.answer.log}
	}
}
