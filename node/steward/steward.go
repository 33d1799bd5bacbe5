package steward

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// Steward is this node's steward. It rests until Lead.
type Steward struct {
	cfg Config
	log *slog.Logger

	turn sync.Mutex // held by Lead, Stop and Close, one at a time

	mu     sync.Mutex
	term   *term        // guarded by mu; nil while this node does not lead
	closed bool         // guarded by mu
	ops    []*operation // guarded by mu; the oldest first
	drawn  int          // guarded by mu; numbers the operations of this process
	// begun counts the Starts under way about a node. The loop leaves such a node to
	// them: it would begin the same operation without what was asked for.
	begun map[cluster.NodeID]int // guarded by mu
	found found                  // guarded by mu; what the last scan saw

	takenOver, refused, finished, scans atomic.Uint64
}

// Stats is a look at the numbers. What was found is of the last scan of the table
// in this term, at most ScanEvery old.
type Stats struct {
	Leading bool
	Term    uint64
	Dead    int // registered nodes that are dead or gone
	// Unavailable facets have lost a majority of their members, and their owner
	// (rule R25).
	Unavailable int
	// Unrepaired facets have a lost member and no node to take its place.
	Unrepaired int
	// Repairing facets are waiting for a repair that is possible.
	Repairing int

	TakenOver uint64 // takeovers of this process
	Refused   uint64 // takeovers the table refused: the facet changed meanwhile
	Finished  uint64 // deletions finished
	Scans     uint64 // times the whole table was looked at
	Running   int    // operations under way
}

// found is what a scan saw.
type found struct {
	dead, unavailable, unrepaired, repairing int
}

// New makes a steward that rests.
func New(cfg Config) (*Steward, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	return &Steward{cfg: cfg, log: cfg.Logger, begun: map[cluster.NodeID]int{}}, nil
}

// Lead begins a term: this node leads placement in it and has applied everything
// that was decided before. A term that is going on already goes on; another one is
// ended first.
func (s *Steward) Lead(number uint64) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	old := s.term
	s.mu.Unlock()
	if old != nil && old.number == number {
		return
	}
	s.stop()
	ctx, cancel := context.WithCancel(context.Background())
	t := &term{s: s, number: number, ctx: ctx, cancel: cancel, claims: map[facet.Incarnation]struct{}{}}
	t.look()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		cancel()
		return
	}
	s.term, s.found = t, found{}
	t.group.Go(func() { newLoop(t).run() })
}

// Stop ends the term, if there is one, and waits until nothing of it goes on. Calls
// under way are cancelled: what they asked for may happen all the same.
func (s *Steward) Stop() {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.stop()
}

// Close is Stop for good. It may be called twice.
func (s *Steward) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.Stop()
	return nil
}

func (s *Steward) stop() {
	s.mu.Lock()
	t := s.term
	s.term = nil
	s.mu.Unlock()
	if t != nil {
		t.cancel()
		t.group.Wait()
	}
}

// leading is the term this node leads in, or nil.
func (s *Steward) leading() *term {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.term
}

// Stats looks at the numbers.
func (s *Steward) Stats() Stats {
	s.mu.Lock()
	st := Stats{Unavailable: s.found.unavailable, Unrepaired: s.found.unrepaired, Repairing: s.found.repairing, Dead: s.found.dead}
	if s.term != nil {
		st.Leading, st.Term = true, s.term.number
	} else {
		st = Stats{}
	}
	s.mu.Unlock()
	st.TakenOver, st.Refused, st.Finished, st.Scans = s.takenOver.Load(), s.refused.Load(), s.finished.Load(), s.scans.Load()
	st.Running = s.running()
	return st
}

// term is one term of leadership: what all its goroutines share.
type term struct {
	s      *Steward
	number uint64
	ctx    context.Context
	cancel context.CancelFunc
	group  sync.WaitGroup // joined by its own goroutines, or under Steward.mu while Steward.term is this

	view  atomic.Pointer[view] // the newest
	turns atomic.Uint64        // views begun

	mu     sync.Mutex
	turn   uint64                         // guarded by mu; of the newest view
	seen   sightings                      // guarded by mu
	claims map[facet.Incarnation]struct{} // guarded by mu; facets an operation moves now
}

// look makes a new view, for everybody. Of two made at a time the one begun later
// counts. The channel is closed when other nodes are dead.
func (t *term) look() (*view, <-chan struct{}) {
	turn := t.turns.Add(1)
	var hints map[cluster.NodeID]Hint
	if t.s.cfg.Hints != nil {
		hints = t.s.cfg.Hints()
	}
	gone, changed := t.s.cfg.Lives.Gone()
	nodes := t.s.cfg.Table.Nodes()
	t.mu.Lock()
	defer t.mu.Unlock()
	if turn < t.turn {
		return t.view.Load(), changed
	}
	t.turn = turn
	v := t.seen.look(time.Now(), &t.s.cfg, nodes, gone, hints)
	t.view.Store(v)
	return v, changed
}

// propose brings commands into the log as one entry.
func (t *term) propose(ctx context.Context, cmds ...placement.Command) ([]placement.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	return t.s.cfg.Propose(ctx, t.number, cmds...)
}

// claim makes a facet an operation's to move; false says that it is another's.
func (t *term) claim(id facet.Incarnation) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, taken := t.claims[id]; taken {
		return false
	}
	t.claims[id] = struct{}{}
	return true
}

func (t *term) unclaim(id facet.Incarnation) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.claims, id)
}
