package owner

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node/peer"
)

// sessions finds the open sessions by incarnation, for answers of peers and changes
// of the placement table. All methods may be called from any goroutine.
type sessions struct{ shards [shards]sessionShard }

type sessionShard struct {
	mu   sync.RWMutex
	byID map[facet.Incarnation]*session
}

func (ss *sessions) shard(id facet.Incarnation) *sessionShard { return &ss.shards[id[0]%shards] }

func (ss *sessions) add(s *session) {
	sh := ss.shard(s.row.Incarnation)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.byID == nil {
		sh.byID = make(map[facet.Incarnation]*session)
	}
	sh.byID[s.row.Incarnation] = s
}

func (ss *sessions) remove(s *session) {
	sh := ss.shard(s.row.Incarnation)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.byID[s.row.Incarnation] == s {
		delete(sh.byID, s.row.Incarnation)
	}
}

func (ss *sessions) find(id facet.Incarnation) *session {
	sh := ss.shard(id)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.byID[id]
}

// each calls f for every session there is now.
func (ss *sessions) each(f func(*session)) {
	var all []*session
	for i := range ss.shards {
		sh := &ss.shards[i]
		all = all[:0]
		sh.mu.RLock()
		for _, s := range sh.byID {
			all = append(all, s)
		}
		sh.mu.RUnlock()
		for _, s := range all {
			f(s)
		}
	}
}

// The manager hears of peers (peer.Acks) and of the placement table.

// Ready implements peer.Acks: a connection is up, or has room again.
func (m *Manager) Ready(to peer.Remote) {
	m.away.back(to.Node)
	m.sessions.each(func(s *session) {
		s.reachable(func(x *member) bool { return x.Store == to.Store }, true)
	})
	m.wakeLacking(to.Node)
}

// Acked implements peer.Acks.
func (m *Manager) Acked(from peer.Remote, acks []peer.Ack) {
	for i := range acks {
		a := &acks[i]
		if s := m.sessions.find(a.Incarnation); s != nil && s.row.Epoch == a.Epoch {
			s.answered(from, a)
		}
	}
}

// Lost implements peer.Acks.
func (m *Manager) Lost(to peer.Remote, _ error) {
	m.away.note(to.Node)
	m.sessions.each(func(s *session) {
		s.reachable(func(x *member) bool { return x.Node == to.Node }, false)
	})
}

// Changed tells that the rows of these facets, or any if all is set, are not what
// they were: a replaced owner stops (rule R24). When it returns every session here
// was told (rule R40).
func (m *Manager) Changed(ids []facet.Incarnation, all bool) {
	if all {
		m.sessions.each((*session).lookAtRow)
		return
	}
	for _, id := range ids {
		if s := m.sessions.find(id); s != nil {
			s.lookAtRow()
		}
	}
}

// Sessions is the number of open sessions.
func (m *Manager) Sessions() int {
	n := 0
	for i := range m.sessions.shards {
		sh := &m.sessions.shards[i]
		sh.mu.RLock()
		n += len(sh.byID)
		sh.mu.RUnlock()
	}
	return n
}

// InUse reports whether the facet has an open session.
func (m *Manager) InUse(id facet.Incarnation) bool { return m.sessions.find(id) != nil }

// Stalled reports whether this node's own log has kept sessions waiting for longer
// than it may (rule R32): then the node should not keep its lease.
func (m *Manager) Stalled() bool {
	if broken.Is(broken.StalledKeeps) {
		return false
	}
	stalled := false
	m.sessions.each(func(s *session) { stalled = stalled || s.stalled() })
	return stalled
}

// stalled is true while the own log has taken nothing for too long of what it was
// given, whether the others have it or not.
func (s *session) stalled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.Err() == nil && !s.held && len(s.recent.entries) > 0 && s.core.Acknowledged(s.core.Self()) < s.core.Last() &&
		s.d.m.now() >= s.ownMoved.Add(quorum.StallAfter)
}

// away is the nodes that sessions cannot reach. The transport stops dialling a node
// that nobody asks for, and a session asks nothing of a member that is down: so they
// are dialled from here, for as long as somebody misses them.
type away struct {
	mu    sync.Mutex
	nodes map[cluster.NodeID]struct{}
}

func (a *away) note(node cluster.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nodes == nil {
		a.nodes = make(map[cluster.NodeID]struct{})
	}
	a.nodes[node] = struct{}{}
}

func (a *away) back(node cluster.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.nodes, node)
}

func (a *away) list() []cluster.NodeID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.nodes))
}

// redial asks for the nodes that are away, and forgets those that nobody misses.
func (m *Manager) redial() {
	nodes := m.away.list()
	if len(nodes) == 0 {
		return
	}
	missed := make(map[cluster.NodeID]bool)
	m.sessions.each(func(s *session) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range s.members {
			missed[s.members[i].Node] = true
		}
	})
	facets := m.lacking.any()
	for _, node := range nodes {
		if p := m.opts.Peers.Peer(node); (missed[node] || facets) && !p.Status().Connected {
			p.Want()
		} else {
			m.away.back(node)
		}
	}
}

// errForsaken is why a session dies that nobody answers any more.
var errForsaken = errors.New("neither a majority of its replicas nor the placement leader answers")

// forsake ends the sessions that wait for replicas in vain on a node whose lease is
// over: this node is cut off, and others own its facets, or may. Writes are not
// bound to leases (rule R41), so nobody else tells it, and callers who reach this
// node only through an open connection would wait for as long as it is cut off.
// The sweeper calls it every sweepEvery.
func (m *Manager) forsake() {
	leased := m.lease.Valid()
	m.sessions.each(func(s *session) { s.forsake(leased) })
}

func (s *session) forsake(leased bool) {
	s.mu.Lock()
	waits := len(s.waiting)+len(s.unconfirmed) > 0 &&
		s.core.Acknowledged(s.core.Self()) >= s.core.Last() // else it is the own log that is late, see stalled
	if leased || !waits || s.stopped || s.core.State() != quorum.Active || s.let != s.letThen {
		s.quiet, s.letThen = 0, s.let
		s.mu.Unlock()
		return
	}
	if s.quiet++; s.quiet < forsakenAfter {
		s.mu.Unlock()
		return
	}
	s.core.Die(errForsaken)
	s.run()
}

// lacking remembers facets that went to rest while a member could not be reached:
// they are woken when it is back, so that it gets what it lacks.
type lacking struct {
	mu     sync.Mutex
	facets map[facet.Name]struct{}
	closed bool
}

// close has nothing woken any more: peers answer for longer than there are desks.
func (l *lacking) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

// note remembers a facet. One that is not remembered is caught up when it is used.
func (l *lacking) note(name facet.Name) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.facets == nil {
		l.facets = make(map[facet.Name]struct{})
	}
	if len(l.facets) < maxLacking {
		l.facets[name] = struct{}{}
	}
}

func (l *lacking) any() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.facets) > 0
}

// take gives the facets remembered and forgets them. If there are any it adds one to
// wg, for who is going to wake them.
func (l *lacking) take(wg *sync.WaitGroup) []facet.Name {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.facets) == 0 {
		return nil
	}
	wg.Add(1)
	out := make([]facet.Name, 0, len(l.facets))
	for n := range l.facets {
		out = append(out, n)
	}
	l.facets = nil
	return out
}
