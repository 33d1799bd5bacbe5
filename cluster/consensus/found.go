package consensus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/facetd/facetd/cluster"
)

// How nodes that start together become one cluster.
//
// The simple version: each node asks all it sees who they are. When the N with
// the lowest ids all say "no cluster yet, expect N, and I see the same N", the
// lowest of them draws a cluster id and asks the others to pledge themselves to
// that founding: that id, these N nodes, with these logs. A pledge is on disk
// before it is told. When all N have pledged, the founding is complete: each of
// them takes the cluster id for good and begins its log with the same first
// entry, the N nodes as voters. A node that sees a member of a cluster joins it
// instead.
//
// What may go wrong: nodes start at different times, see different sets, or
// restart in the middle. The pledge is what makes that safe.
//
// Invariant: a node is pledged to one founding at a time, and a founding is
// complete only if all its N nodes were pledged to it at some moment. So two
// complete ones share no node.
//
// Invariant: a node that refuses a founding raises its round to that
// founding's, on disk, and pledges itself only to higher rounds: what it
// refused it never pledges. So when one member of a founding refuses it, it can
// never complete, and those pledged to it are free again. The first to refuse
// was not pledged before, or it would not be free.
//
// A node that went down while pledged asks again when it is back; any of the N
// can complete the founding. If one of them lost its disk in between, nobody
// can know whether it had pledged: the others wait, and say for whom. They
// never served anything, so the operator can empty their directories.
//
// Rejected: each node beginning the log by itself as soon as it sees N nodes.
// Two nodes that see different sets of N then begin two clusters, and a node
// that belongs to both sets decides by chance.

// MaxExpect bounds the nodes that begin a cluster together: the voters of the
// largest cluster, and a few.
const MaxExpect = 9

// founders is a founding: the cluster and the nodes that begin it.
//
// Invariant: Members is sorted by node, each node once.
type founders struct {
	Cluster cluster.ID
	Round   uint32
	Members []founder
}

type founder struct {
	Node    cluster.NodeID
	Log     LogID
	Address string
}

func (f *founders) equal(o *founders) bool {
	return f != nil && o != nil && f.Cluster == o.Cluster && f.Round == o.Round && slices.Equal(f.Members, o.Members)
}

func (f *founders) servers() []raft.Server {
	out := make([]raft.Server, len(f.Members))
	for i, m := range f.Members {
		out[i] = raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(m.Node), Address: raft.ServerAddress(place{m.Address, m.Log}.String())}
	}
	return out
}

// pledgeVerdict is what became of a founding that was proposed to a node.
type pledgeVerdict uint8

const (
	pledgeNone    pledgeVerdict = 0 // none was proposed
	pledgeGiven   pledgeVerdict = 1 // it is pledged
	pledgeRefused pledgeVerdict = 2 // it never will be
	pledgeMember  pledgeVerdict = 3 // it belongs to a cluster, see there
)

// founding is this node's part in it.
type founding struct {
	stores  *stores
	id      *identity
	expect  int
	cluster cluster.ID // the only one it would found; zero for any

	// mu is held through a write of the stable store, which happens a handful
	// of times in a node's life and before it has served anything.
	mu     sync.Mutex
	round  uint32           // guarded by mu; highest round met, on disk
	pledge *founders        // guarded by mu; on disk
	sees   []cluster.NodeID // guarded by mu; whom it would found with
}

// openFounding reads the pledge.
func (s *stores) openFounding(id *identity, expect int, want cluster.ID) (*founding, error) {
	f := &founding{stores: s, id: id, expect: expect, cluster: want}
	b, err := s.get(keyPledge)
	if err != nil || b == nil {
		return f, err
	}
	f.round, f.pledge, err = decodePledge(b)
	return f, err
}

func (f *founding) pledged() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pledge != nil
}

// save is called with mu held. On error nothing changed.
func (f *founding) save(round uint32, pledge *founders) error {
	if err := f.stores.set(keyPledge, encodePledge(round, pledge)); err != nil {
		return err
	}
	f.round, f.pledge = round, pledge
	return nil
}

// answer says who this node is and, when asked to, pledges it to a founding.
func (f *founding) answer(q question) (identityAnswer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := identityAnswer{node: f.id.node, log: f.id.log, expect: uint8(f.expect), sees: f.sees}
	a.cluster, a.generation = f.id.get()
	switch p := q.pledge; {
	case p == nil:
	case !a.cluster.IsZero():
		a.verdict = pledgeMember
	case p.equal(f.pledge):
		a.verdict = pledgeGiven
	case f.pledge == nil && f.willing(p):
		if err := f.save(p.Round, p); err != nil {
			return identityAnswer{}, err
		}
		a.verdict = pledgeGiven
	default:
		if p.Round > f.round {
			if err := f.save(p.Round, f.pledge); err != nil {
				return identityAnswer{}, err
			}
		}
		a.verdict = pledgeRefused
	}
	a.round, a.pledged = f.round, f.pledge
	return a, nil
}

// willing is called with mu held.
func (f *founding) willing(p *founders) bool {
	return p.Round > f.round && len(p.Members) == f.expect &&
		(f.cluster.IsZero() || f.cluster == p.Cluster) &&
		slices.ContainsFunc(p.Members, func(m founder) bool { return m.Node == f.id.node && m.Log == f.id.log })
}

// withdraw takes the pledge back: the founding cannot complete.
func (f *founding) withdraw() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.save(f.round, nil)
}

// step is what to do next in founding. It is decided by decide, from answers
// alone.
type step struct {
	join       cluster.ID // be a member of this cluster from now on
	generation uint32
	propose    *founders // pledge this node to it, and ask the others
	note       string    // why nothing can be done yet
}

// seen is one node of the view and what it answered.
type seen struct {
	address string
	answer  identityAnswer
	err     error
}

// decide chooses the next step of a node that belongs to no cluster and has
// given no pledge. The answers are sorted by node id and include its own.
func decide(self cluster.NodeID, expect int, want cluster.ID, fresh cluster.ID, answers []seen) (s step, sees []cluster.NodeID) {
	var round uint32
	var known []seen
	for _, a := range answers {
		switch {
		case a.err != nil:
			// A node that is seen and silent may be one of the N: without it
			// nobody can tell who the lowest are.
			s.note = fmt.Sprintf("node %s does not answer: %v", a.answer.node, a.err)
			continue
		case !a.answer.cluster.IsZero():
			if !want.IsZero() && a.answer.cluster != want {
				continue
			}
			if !s.join.IsZero() && s.join != a.answer.cluster {
				return step{note: fmt.Sprintf("it sees members of two clusters, %v and %v (node %s), and joins neither", s.join, a.answer.cluster, a.answer.node)}, nil
			}
			s.join, s.generation = a.answer.cluster, max(s.generation, a.answer.generation)
		}
		round = max(round, a.answer.round)
		known = append(known, a)
	}
	if !s.join.IsZero() {
		return step{join: s.join, generation: s.generation}, nil
	}
	if expect < 2 {
		s.note = "no member of a cluster answers"
		return s, nil
	}
	if s.note != "" {
		return s, nil
	}
	for _, a := range known {
		if int(a.answer.expect) == expect && len(sees) < expect {
			sees = append(sees, a.answer.node)
		}
	}
	if len(sees) < expect {
		s.note = fmt.Sprintf("it expects %d nodes and sees %d that expect as many", expect, len(sees))
		return s, sees
	}
	p := &founders{Cluster: fresh, Round: round + 1}
	for _, a := range known {
		switch {
		case !slices.Contains(sees, a.answer.node):
			continue
		case a.answer.pledged != nil:
			s.note = fmt.Sprintf("node %s is pledged to begin another cluster", a.answer.node)
			return s, sees
		case !slices.Equal(a.answer.sees, sees) && a.answer.node != self:
			s.note = fmt.Sprintf("node %s sees other nodes", a.answer.node)
			return s, sees
		}
		p.Members = append(p.Members, founder{Node: a.answer.node, Log: a.answer.log, Address: a.address})
	}
	if sees[0] != self {
		s.note = fmt.Sprintf("it waits for node %s to begin", sees[0])
		return s, sees
	}
	s.propose = p
	return s, sees
}

// SetView tells the node whom gossip knows, and where. It is a hint: it says
// whom to ask, never who is a member. Nodes that were removed for good must not
// be in it, or they are taken in again.
func (n *Node) SetView(v cluster.View) {
	n.mu.Lock()
	n.view = v
	n.mu.Unlock()
	n.nudgeMembers()
}

func (n *Node) nudgeMembers() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Answer is the other end of Config.Exchange.
func (n *Node) Answer(message []byte) ([]byte, error) {
	q, err := decodeQuestion(message)
	if err != nil {
		return nil, err
	}
	a, err := n.founding.answer(q)
	if err != nil {
		return nil, fmt.Errorf("answer node %s: %w", q.from, err)
	}
	return a.encode(), nil
}

// ask puts a question to the node at an address.
func (n *Node) ask(q question, address string) (identityAnswer, error) {
	ctx, cancel := context.WithTimeout(n.ctx, askTimeout)
	defer cancel()
	b, err := n.cfg.Exchange(ctx, address, q.encode())
	if err != nil {
		return identityAnswer{}, err
	}
	return decodeAnswer(b)
}

// askAll asks several nodes at once, a few at a time. The answers come in the
// order of the questions.
func (n *Node) askAll(q question, who []founder) []seen {
	out := make([]seen, len(who))
	slots := make(chan struct{}, asksAtOnce)
	var wg sync.WaitGroup
	for i, w := range who {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			out[i].address = w.Address
			if w.Node == n.cfg.ID {
				out[i].answer, out[i].err = n.founding.answer(q)
			} else if out[i].answer, out[i].err = n.ask(q, w.Address); out[i].err == nil && out[i].answer.node != w.Node {
				out[i].err = fmt.Errorf("node %s answers at %s", out[i].answer.node, w.Address)
			}
			out[i].answer.node = w.Node
		})
	}
	wg.Wait()
	return out
}

// found brings this node one step closer to belonging to a cluster. It is true
// when it does.
func (n *Node) found() (bool, error) {
	f := n.founding
	f.mu.Lock()
	pledge := f.pledge
	f.mu.Unlock()
	if pledge == nil {
		var err error
		if pledge, err = n.look(); pledge == nil || err != nil {
			belongs, _ := n.id.get()
			return !belongs.IsZero(), err
		}
	}
	return n.complete(pledge)
}

// look asks around, and joins a cluster or proposes to found one: then it
// returns what this node has just pledged itself to.
func (n *Node) look() (*founders, error) {
	n.mu.Lock()
	view := n.view
	n.mu.Unlock()
	who := []founder{{Node: n.cfg.ID, Log: n.id.log, Address: n.here()}}
	for _, m := range view.Members {
		if m.ID != n.cfg.ID && m.Peer != "" && m.Status != cluster.StatusGone && m.Status != cluster.StatusLeaving {
			who = append(who, founder{Node: m.ID, Address: m.Peer})
		}
	}
	slices.SortFunc(who, func(a, b founder) int { return cmp.Compare(a.Node, b.Node) })
	fresh := n.cfg.Cluster
	if fresh.IsZero() {
		fresh = cluster.NewID()
	}
	s, sees := decide(n.cfg.ID, n.cfg.Expect, n.cfg.Cluster, fresh, n.askAll(question{from: n.cfg.ID}, who))
	n.founding.mu.Lock()
	n.founding.sees = sees
	n.founding.mu.Unlock()
	switch {
	case !s.join.IsZero():
		return nil, n.join(s.join, s.generation)
	case s.propose == nil:
		return nil, errors.New(s.note)
	}
	a, err := n.founding.answer(question{from: n.cfg.ID, pledge: s.propose})
	if err != nil || a.verdict != pledgeGiven {
		return nil, err // another founding was first
	}
	return s.propose, nil
}

// join makes this node a member of a cluster that exists, unless it has pledged
// itself meanwhile.
func (n *Node) join(c cluster.ID, generation uint32) error {
	f := n.founding
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pledge != nil {
		return nil
	}
	if err := n.stores.belong(n.id, c, generation); err != nil {
		return err
	}
	n.cfg.Logger.Info("node joins a cluster", "node", string(n.cfg.ID), "cluster", c.String())
	return nil
}

// tally is what the answers of its members make of a founding.
type tally struct {
	complete   bool
	generation uint32
	refused    bool     // it can never complete
	waits      []string // for whom, and why
}

// count tallies the answers, which are in the order of the members. They need
// not be of one moment: what a node pledged it keeps until the founding is
// refused, and what it refused it never pledges.
func (f *founders) count(answers []seen) (t tally) {
	member := false
	for i, s := range answers {
		who := f.Members[i]
		switch a := s.answer; {
		case s.err != nil:
			t.waits = append(t.waits, fmt.Sprintf("%s (%v)", who.Node, s.err))
		case a.log != who.Log:
			t.waits = append(t.waits, fmt.Sprintf("%s (its directory was replaced)", who.Node))
		case a.verdict == pledgeMember && a.cluster == f.Cluster:
			member = true // it counted all pledges
			t.generation = max(t.generation, a.generation)
		case a.verdict == pledgeRefused || a.verdict == pledgeMember:
			t.refused = true
		case a.verdict != pledgeGiven:
			t.waits = append(t.waits, string(who.Node))
		}
	}
	t.complete = member || len(t.waits) == 0 && !t.refused
	return t
}

// complete asks all nodes of a founding to pledge themselves. It is true when
// all have and this node has begun.
func (n *Node) complete(p *founders) (bool, error) {
	t := p.count(n.askAll(question{from: n.cfg.ID, pledge: p}, p.Members))
	switch {
	case t.complete:
	case t.refused:
		return false, n.founding.withdraw()
	default:
		return false, fmt.Errorf("this node is pledged to begin cluster %v and waits for %s; if one of them is gone for good, empty the data directories of the others, which never served anything, and start again",
			p.Cluster, strings.Join(t.waits, ", "))
	}
	generation := t.generation
	n.founding.mu.Lock()
	err := n.stores.belong(n.id, p.Cluster, generation)
	n.founding.mu.Unlock()
	if err != nil {
		return false, err
	}
	if generation > 0 {
		return true, nil // recovered by force since: its log begins elsewhere
	}
	err = n.raft.BootstrapCluster(raft.Configuration{Servers: p.servers()}).Error()
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) { // another one of the N was quicker and leads already
		return false, fmt.Errorf("begin the log: %w", err)
	}
	n.cfg.Logger.Info("cluster begins", "node", string(n.cfg.ID), "cluster", p.Cluster.String(), "nodes", len(p.Members))
	if p.Members[0].Node == n.cfg.ID {
		return true, n.standNow()
	}
	return true, nil
}

// here is the address others reach this node at.
func (n *Node) here() string {
	if n.peers == nil {
		return ""
	}
	return parsePlace(n.peers.LocalAddr()).address
}

// memberLoop first makes this node belong to a cluster, and then, while it
// leads, keeps the membership in order.
func (n *Node) memberLoop() {
	said, saidAt := "", time.Time{}
	for {
		select {
		case <-n.belongs:
			n.reconcileLoop()
			return
		default:
		}
		belongs, err := n.found()
		if belongs {
			close(n.belongs)
			continue
		}
		if err != nil && (err.Error() != said || time.Since(saidAt) > sayAgain) {
			said, saidAt = err.Error(), time.Now()
			n.cfg.Logger.Info("node waits for a cluster", "node", string(n.cfg.ID), "why", said)
		}
		t := time.NewTimer(foundPause)
		select {
		case <-n.wake:
		case <-t.C:
		case <-n.closing:
			t.Stop()
			return
		}
		t.Stop()
	}
}
