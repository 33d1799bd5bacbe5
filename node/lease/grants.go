package lease

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

// Log is the placement log as a leader uses it; *consensus.Node is one.
type Log interface {
	// Leadership tells what this node is, and a channel closed when that changes.
	Leadership() (now consensus.Leadership, changed <-chan struct{})
	// Leader tells who leads as far as this node knows.
	Leader() (id cluster.NodeID, address string, ok bool)
	// ProposeAs brings commands into the log as one entry if this node leads in
	// the term, and gives their results, applied here, if it did until then.
	ProposeAs(ctx context.Context, term uint64, commands ...[]byte) ([][]byte, error)
}

// GrantsOptions are the settings of a Grants. Zero values are the defaults.
type GrantsOptions struct {
	Log   Log              // required
	Table *placement.Table // required: the one Log applies to
	Node  cluster.NodeID   // required: this node
	Store cluster.StoreID  // required: its store

	// Alone says that this node is the only voter: the lock on its directory
	// proves that nobody else decides, and that the earlier process lives of its
	// store are gone. It must not block. Nil is never.
	Alone func() bool

	// Answered reports whether a node has answered this one as the leader of the log
	// since a time. One that has not answered a leader that has just been elected is
	// dead as soon as its lease is over, others get the time to renew it. It must not
	// block. Nil is always.
	Answered func(node cluster.NodeID, since time.Time) bool

	// Connected reports whether there is a connection to a node. A silent one is waited
	// for half as long where there is none: a process that ended closed it. It must not
	// block. Nil is always.
	Connected func(node cluster.NodeID) bool

	// TTL and Margin are those of quorum.Granter.
	TTL, Margin time.Duration
	Clock       Clock        // default BootTime
	Logger      *slog.Logger // default slog.Default()
}

// Grants is the placement leader's side of leases. Every node has one; it does
// something while its node leads. It grants leases, judges the commands that need
// a lease to be over, and tells which nodes are dead.
//
// One goroutine drives it: it follows the leadership and the table, begins rounds
// and batches, and takes in what became of them. Callers put things in and are
// called back.
type Grants struct {
	opts   GrantsOptions
	log    *slog.Logger
	wait   time.Duration // TTL and margin
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	kick   chan struct{} // holds at most one token: there is something to do

	mu      sync.Mutex
	open    bool   // somebody is there to answer what is asked
	term    uint64 // zero while this node grants nothing
	granter *quorum.Granter
	taken   map[facet.Incarnation]activation // rows the granter was told were taken
	rounds  rounds
	court   court
	nodes   registry
}

// activation names the one time somebody was activated for a facet.
type activation struct {
	holder placement.Owner
	epoch  facet.Epoch
}

// NewGrants makes a Grants and begins to follow the leadership.
func NewGrants(opts GrantsOptions) (*Grants, error) {
	if opts.Log == nil || opts.Table == nil || opts.Node.IsZero() || opts.Store.IsZero() {
		return nil, errors.New("lease grants options: Log, Table, Node and Store are required")
	}
	if opts.Alone == nil {
		opts.Alone = func() bool { return false }
	}
	if opts.Connected == nil {
		opts.Connected = func(cluster.NodeID) bool { return true }
	}
	if opts.Answered == nil {
		opts.Answered = func(cluster.NodeID, time.Time) bool { return true }
	}
	if opts.TTL <= 0 {
		opts.TTL = quorum.LeaseTTL
	}
	if opts.Margin <= 0 {
		opts.Margin = quorum.Margin(opts.TTL)
	}
	if opts.Clock == nil {
		opts.Clock = BootTime
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	g := &Grants{opts: opts, log: opts.Logger, wait: opts.TTL + opts.Margin, kick: make(chan struct{}, 1),
		granter: quorum.NewGranter(opts.TTL, opts.Margin), taken: make(map[facet.Incarnation]activation)}
	g.rounds.init()
	g.court.init()
	g.nodes.init()
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.wg.Go(g.run)
	return g, nil
}

// Close answers what waits and ends. The log may be closed before or after it. It
// may be called twice.
func (g *Grants) Close() error {
	g.cancel()
	g.wg.Wait()
	return nil
}

// notLeader is the answer of a node that does not lead.
func (g *Grants) notLeader() error {
	id, address, _ := g.opts.Log.Leader()
	if id == g.opts.Node {
		id, address = "", ""
	}
	return &consensus.NotLeaderError{Leader: id, Address: address}
}

func (g *Grants) poke() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// run follows the leadership.
func (g *Grants) run() {
	for g.ctx.Err() == nil {
		now, changed := g.opts.Log.Leadership()
		if now.Leading {
			g.lead(now)
			continue
		}
		g.flush()
		select {
		case <-changed:
		case <-g.kick: // somebody asked when it looked as if this node led
		case <-g.ctx.Done():
		}
	}
	g.flush()
}

// lead is one term.
func (g *Grants) lead(won consensus.Leadership) {
	term := won.Term
	// Watched first: what is applied from here on is told, what was applied before
	// is covered by the index the term begins with.
	w := g.opts.Table.Watch()
	defer w.Close()
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	g.mu.Lock()
	g.open = true
	// The clock of the times given stands still while the machine is suspended, so
	// what has passed since is not less than it says.
	now := g.opts.Clock()
	g.nodes.won = won.Since
	g.begin(term, now-quorum.Instant(max(time.Since(won.Heard), 0)), now)
	g.mu.Unlock()
	defer g.flush()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now, changed := g.opts.Log.Leadership()
		if !now.Leading || now.Term != term || g.ctx.Err() != nil {
			return
		}
		if wait := g.step(ctx, w); wait >= 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-changed:
		case <-w.Wake():
		case <-g.kick:
		case <-timer.C:
		case <-g.ctx.Done():
		}
	}
}

// again begins the term anew after something was missed. What was granted in it until
// now is waited out too. Mu is held.
func (g *Grants) again() {
	now := g.opts.Clock()
	g.begin(g.term, now, now)
}

// begin begins a term: all that was applied is covered by the index, and leases on
// renewals sent before from are waited out (R39). Mu is held.
func (g *Grants) begin(term uint64, from, now quorum.Instant) {
	g.term = term
	g.granter.Elected(from, g.opts.Table.Applied())
	clear(g.taken)
	g.rounds.abort()
	g.nodes.begin(now, g.opts.Table.Nodes())
	g.court.again = true
	g.poke()
}

// step does what is due and tells how long until something is, negative for never.
func (g *Grants) step(ctx context.Context, w *placement.Watcher) time.Duration {
	g.mu.Lock()
	// What came back was applied before, so the changes taken after it cover it.
	rounds, batches := g.rounds.landed(), g.court.landed()
	changes := w.Take()
	g.follow(changes)
	g.endRounds(rounds, changes.Index)
	g.endBatches(batches)
	next := min(g.beginRound(ctx), g.judge(ctx, changes.Rows), g.nodes.look(g))
	now := g.opts.Clock()
	answers := g.court.answers
	g.court.answers = nil
	replies := g.rounds.answers
	g.rounds.answers = nil
	g.mu.Unlock()
	for _, f := range replies {
		f()
	}
	for _, f := range answers {
		f()
	}
	if next == quorum.Never {
		return -1
	}
	return time.Duration(max(next-now, 0))
}

// follow tells the granter what the table changed. Mu is held.
func (g *Grants) follow(c placement.Changes) {
	if c.All {
		g.log.Warn("more changed in the placement table than was followed: leases granted so far are waited out")
		g.again()
		return
	}
	if c.Nodes {
		g.nodes.follow(g)
		g.court.again = true
	}
	for _, id := range c.Rows {
		row, ok := g.opts.Table.ByIncarnation(id)
		if !ok {
			g.settled(id)
			continue
		}
		if !g.feed(&row) {
			return
		}
	}
}

// feed tells the granter what a row says: whether somebody may still serve reads of
// the facet who does not own it any more. It is false when the term had to begin
// anew. Mu is held.
//
// Several changes may show as one row, the last. So what is told is bound to the
// activation that was revoked: if there was another one since, the first revocation
// was settled, and this is a new one.
func (g *Grants) feed(row *placement.Facet) bool {
	id := row.Incarnation
	if row.Holder.IsZero() || row.State == placement.Active && row.Owner == row.Holder {
		g.settled(id)
		return true
	}
	a := activation{row.Holder, row.ActiveEpoch}
	if old, ok := g.taken[id]; ok && old != a {
		g.granter.Settled(id)
	}
	g.taken[id] = a
	if err := g.granter.Taken(id, quorum.BootID(row.Holder.Boot), row.Index); err != nil {
		// Nobody has that many process lives; but a revocation that is not
		// remembered must not be forgotten.
		g.log.Error("lease holders do not fit: leases granted so far are waited out", "error", err)
		g.again()
		return false
	}
	return true
}

func (g *Grants) settled(id facet.Incarnation) {
	g.granter.Settled(id)
	delete(g.taken, id)
}

// flush answers everything that waits: this node does not lead.
func (g *Grants) flush() {
	err := g.notLeader()
	g.mu.Lock()
	g.open, g.term = false, 0
	g.granter.Deposed()
	clear(g.taken)
	g.rounds.flush(peerError(err))
	g.court.flush(err)
	g.nodes.end()
	answers := append(g.rounds.answers, g.court.answers...)
	g.rounds.answers, g.court.answers = nil, nil
	g.mu.Unlock()
	for _, f := range answers {
		f()
	}
}

// accepting reports whether what is asked now will be answered by the goroutine.
// Mu is held.
func (g *Grants) accepting() bool {
	if g.open {
		return true
	}
	now, _ := g.opts.Log.Leadership()
	return now.Leading && g.ctx.Err() == nil
}

// peerError is an error of the log in the words of the peer protocol.
func peerError(err error) error {
	var nl *consensus.NotLeaderError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &nl):
		return &peer.NotLeaderError{Leader: nl.Leader}
	case errors.Is(err, consensus.ErrNotLeader), errors.Is(err, consensus.ErrClosed):
		return &peer.NotLeaderError{}
	case errors.Is(err, consensus.ErrInvalid):
		return peer.ErrInvalid
	case errors.Is(err, consensus.ErrFull):
		return peer.ErrBusy // nothing was done; another node will lead
	case errors.Is(err, peer.ErrBusy), errors.Is(err, peer.ErrRefused):
		return err
	case errors.Is(err, consensus.ErrUnknownOutcome), errors.Is(err, consensus.ErrFailed):
		return peer.ErrUnknownOutcome
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return peer.ErrBusy // of a caller that gave up before anything was done
	}
	return peer.ErrUnknownOutcome
}
