package lease

import (
	"slices"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/placement"
)

// registry is what the leader knows of the life of the registered nodes.
//
// All fields are guarded by Grants.mu.
type registry struct {
	of      map[cluster.NodeID]*registered
	past    []cluster.BootID // replaced in this term; the granter may forget them
	again   bool             // something changed: look at all
	due     quorum.Instant   // when the next lease is over
	won     time.Time        // when the term began
	asked   time.Time        // when it was asked last who answers
	dead    []cluster.NodeID // sorted
	gone    []cluster.NodeID // the dead and the silent, sorted
	changed chan struct{}    // closed when one of the two changes
}

// registered is a node in the process life that is registered for it.
type registered struct {
	node    placement.Node
	since   quorum.Instant // when this leader learnt of it
	granted quorum.Instant // its last grant by this leader, 0 for none
	new     bool           // registered in this term
	heard   bool           // answered this leader
	silent  int            // times in a row that it was found not to have answered
}

func (r *registry) init() {
	r.of, r.changed = make(map[cluster.NodeID]*registered), make(chan struct{})
}

// begin takes all nodes for alive: they have until TTL and margin are over to show
// it, unless they are silent; see overAt.
func (r *registry) begin(now quorum.Instant, nodes []placement.Node) {
	clear(r.of)
	r.past = nil
	for _, n := range nodes {
		r.of[n.ID] = &registered{node: n, since: now}
	}
	r.again, r.asked = true, time.Now()
	r.set(nil, nil)
}

// end forgets everything: another node leads.
func (r *registry) end() {
	clear(r.of)
	r.past = nil
	r.set(nil, nil)
}

func (r *registry) set(dead, gone []cluster.NodeID) {
	if slices.Equal(r.dead, dead) && slices.Equal(r.gone, gone) {
		return
	}
	r.dead, r.gone = dead, gone
	close(r.changed)
	r.changed = make(chan struct{})
}

// follow takes in that nodes came, changed or went.
func (r *registry) follow(g *Grants) {
	now := g.opts.Clock()
	seen := make(map[cluster.NodeID]bool)
	for _, n := range g.opts.Table.Nodes() {
		seen[n.ID] = true
		old := r.of[n.ID]
		if old != nil && old.node.Boot == n.Boot {
			old.node = n
			continue
		}
		if old != nil {
			if provedGone(&old.node, &n) {
				// An error says that the granter remembers nobody more; then it is
				// over when its time is over.
				_ = g.granter.Gone(quorum.BootID(old.node.Boot))
			}
			r.past = append(r.past, old.node.Boot)
		}
		r.of[n.ID] = &registered{node: n, since: now, new: true}
	}
	for id, old := range r.of {
		if !seen[id] {
			r.past = append(r.past, old.node.Boot)
			delete(r.of, id)
		}
	}
	r.past = slices.DeleteFunc(r.past, func(b cluster.BootID) bool { return g.granter.Forget(quorum.BootID(b), now) })
	r.again = true
}

// provedGone reports whether the new boot proves that the old one's process is
// gone: it holds the lock of the same directory on the same machine (R38).
func provedGone(old, new *placement.Node) bool {
	return old.Store == new.Store && old.Machine == new.Machine && !new.Machine.IsZero()
}

func (r *registry) granted(boot cluster.BootID, now quorum.Instant) {
	for _, n := range r.of {
		if n.node.Boot == boot {
			n.granted = now
			return
		}
	}
}

// look finds out who is dead and who is gone, if that may have changed, and tells
// when it may again. Mu is held.
func (r *registry) look(g *Grants) quorum.Instant {
	now := g.opts.Clock()
	r.listen(g)
	if !r.again && now < r.due {
		return r.due
	}
	r.again, r.due = false, quorum.Never
	var dead, gone []cluster.NodeID
	for id, n := range r.of {
		at := r.overAt(g, n)
		over := now >= at
		if over {
			dead = append(dead, id)
		} else {
			r.due = min(r.due, at)
		}
		if over || n.isSilent() {
			gone = append(gone, id)
		}
		if id != g.opts.Node {
			r.due = min(r.due, now.Add(listenEvery-time.Since(r.asked)))
		}
	}
	slices.Sort(dead)
	slices.Sort(gone)
	r.set(dead, gone)
	return r.due
}

// listen finds out who has answered since it was called last. It counts how often a
// node was found silent rather than for how long: when this process stands still it
// hears nobody, and is not to take that for theirs.
func (r *registry) listen(g *Grants) {
	now := time.Now()
	if now.Sub(r.asked) < listenEvery {
		return
	}
	for id, n := range r.of {
		switch was := n.isSilent(); {
		case id == g.opts.Node || g.opts.Answered(id, r.asked):
			n.heard, n.silent = true, 0
			r.again = r.again || was
		default:
			n.silent++
			if !g.opts.Connected(id) {
				n.silent++ // nor is there a process that takes connections, as it seems
			}
			r.again = r.again || n.isSilent() != was
		}
	}
	r.asked = now
}

// isSilent reports whether a node has most likely gone: it answered none of the
// heartbeats for a while. Who has never answered a leader just elected may have gone
// with the one before, and gets less time.
func (n *registered) isSilent() bool {
	if n.heard || n.new {
		return n.silent >= silentTimes
	}
	return n.silent >= silentAtFirst
}

// overAt is when a node is dead unless it renews. This node is not: it leads. One
// that has only registered has as long as one that was granted a lease.
//
// A lease of an earlier term may be over as soon as this one begins, and no node could
// renew while there was no leader. Those that answer the new leader's heartbeats live,
// and have as long again from here. Who answers none of them within silentAfter has
// most likely gone, perhaps with the leader before, and is not waited for longer than
// its lease.
func (r *registry) overAt(g *Grants, n *registered) quorum.Instant {
	if n.node.ID == g.opts.Node {
		return quorum.Never
	}
	at, ok := g.granter.OverAt(quorum.BootID(n.node.Boot))
	if !ok {
		return quorum.Never
	}
	if !n.new && n.granted == 0 && !g.opts.Answered(n.node.ID, r.won) {
		return max(at, n.since.Add(silentAfter))
	}
	return max(at, n.since.Add(g.wait))
}

// Dead lists the registered nodes whose leases are over as far as this leader can
// know, sorted, and gives a channel that is closed when this list or that of Gone
// changes. On a node that does not lead the list is empty. The slice must not be
// changed.
//
// A node that is dead may come back to life: its renewal is granted again once it
// was told of everything that was taken from it (R40).
func (g *Grants) Dead() (dead []cluster.NodeID, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.nodes.dead, g.nodes.changed
}

// Gone is like Dead and lists with them those that have stopped to answer, most
// likely for good: their facets can be recovered elsewhere while their leases run
// out. Nobody is active in their place before (R21, R40).
func (g *Grants) Gone() (gone []cluster.NodeID, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.nodes.gone, g.nodes.changed
}

// Alive is false when this node leads and knows that the node's lease is over, or
// that there is no such node.
func (g *Grants) Alive(node cluster.NodeID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.term == 0 {
		return true
	}
	_, dead := slices.BinarySearch(g.nodes.dead, node)
	return g.nodes.of[node] != nil && !dead
}

// LeaseAge tells how long ago this leader granted the node's lease last. It is
// false when it never did.
func (g *Grants) LeaseAge(node cluster.NodeID) (time.Duration, bool) {
	now := g.opts.Clock()
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.nodes.of[node]
	if n == nil || n.granted == 0 {
		return 0, false
	}
	return time.Duration(now - n.granted), true
}
