package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

// court is where commands wait that may only be proposed once a lease is over:
// ACTIVATE (R21), the tombstone of a facet (R47), the end of one that its successor
// never served (R25), and a new process life of a node (R3). A command that is asked for by several callers waits once.
//
// A command is judged when it comes in, when its row changes, when a round of
// grants has ended, when nodes changed, and when its lease is over at the latest.
// What may go is proposed in batches; while one is on its way the next gathers, so
// a burst of a thousand costs a few entries.
//
// All fields are guarded by Grants.mu.
type court struct {
	cases   map[placement.Command]*suit
	waiting map[*suit]struct{}            // judged, and not yet
	byFacet map[facet.Incarnation][]*suit // those of waiting about facets
	fresh   []*suit                       // not yet judged
	ready   []*suit                       // to be proposed
	busy    map[cluster.NodeID]bool       // a RegisterNode of it is on its way
	askers  int                           // in all of them
	batches int                           // under way
	ended   []batchEnd
	again   bool           // judge all that wait
	due     quorum.Instant // when the first of waiting may go at the latest
	answers []func()       // to be called without the lock
}

// suit is one command.
type suit struct {
	command placement.Command
	askers  []*asker
	at      quorum.Instant // when it may go at the latest, of waiting
}

// asker is one caller.
type asker struct {
	suit  *suit
	reply func([]byte, error)
	stop  func() bool // ends the watch on the caller's context
	done  bool
}

type batchEnd struct {
	suits   []*suit
	results [][]byte
	err     error
}

func (c *court) init() {
	c.cases = make(map[placement.Command]*suit)
	c.waiting = make(map[*suit]struct{})
	c.byFacet = make(map[facet.Incarnation][]*suit)
	c.busy = make(map[cluster.NodeID]bool)
	c.due = quorum.Never
}

// Judge proposes an Activate, a Tomb, a Bind that is Unserved or a RegisterNode when the lease that stands
// against it is over, and returns the encoded result. It waits as long as ctx
// allows. What the command says about leases itself does not count: the judgement
// is this node's.
//
// The error is a *consensus.NotLeaderError, consensus.ErrInvalid for another
// command, peer.ErrBusy when too many wait, the context's (nothing was done then),
// or what ProposeAs gave.
func (g *Grants) Judge(ctx context.Context, command []byte) ([]byte, error) {
	type answer struct {
		result []byte
		err    error
	}
	done := make(chan answer, 1)
	g.JudgeFunc(ctx, command, func(result []byte, err error) { done <- answer{result, err} })
	a := <-done
	return a.result, a.err
}

// JudgeFunc is Judge without a goroutine that waits: reply is called once, from any
// goroutine, and must not block.
func (g *Grants) JudgeFunc(ctx context.Context, command []byte, reply func([]byte, error)) {
	if err := g.ask(ctx, command, reply); err != nil {
		reply(nil, err)
	}
}

// Judged reports whether a command is one that has to be judged.
func Judged(command []byte) bool {
	c, err := placement.DecodeCommand(command)
	return err == nil && judged(c)
}

func judged(c placement.Command) bool {
	switch c := c.(type) {
	case placement.Bind:
		return c.Unserved && !c.Old.IsZero()
	case placement.Activate, placement.Tomb, placement.RegisterNode:
		return true
	}
	return false
}

func (g *Grants) ask(ctx context.Context, command []byte, reply func([]byte, error)) error {
	c, err := placement.DecodeCommand(command)
	if err != nil {
		return fmt.Errorf("judge: %w: %w", consensus.ErrInvalid, err)
	}
	if !judged(c) {
		return fmt.Errorf("judge: %w: command %d needs no judgement", consensus.ErrInvalid, c.Kind())
	}
	if r, ok := c.(placement.RegisterNode); ok {
		r.LeaseOver = false // only the leader can know
		c = r
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	q := &g.court
	switch {
	case !g.accepting():
		return g.notLeader()
	case q.askers >= maxAskers:
		return fmt.Errorf("judge: %w: %d callers wait", peer.ErrBusy, q.askers)
	}
	s := q.cases[c]
	if s == nil {
		s = &suit{command: c, at: quorum.Never}
		q.cases[c] = s
		q.fresh = append(q.fresh, s)
	}
	a := &asker{suit: s, reply: reply}
	s.askers = append(s.askers, a)
	q.askers++
	a.stop = context.AfterFunc(ctx, func() { g.giveUp(a, ctx.Err()) })
	g.poke()
	return nil
}

// giveUp lets one caller go whose context is over.
func (g *Grants) giveUp(a *asker, err error) {
	g.mu.Lock()
	if a.done {
		g.mu.Unlock()
		return
	}
	q, s := &g.court, a.suit
	if q.proposed(s) {
		err = fmt.Errorf("judge: %w: %w", consensus.ErrUnknownOutcome, err)
	}
	a.done = true
	q.askers--
	s.askers = slices.DeleteFunc(s.askers, func(x *asker) bool { return x == a })
	if _, ok := q.waiting[s]; ok && len(s.askers) == 0 {
		q.close(s, nil, nil)
	}
	g.mu.Unlock()
	a.reply(nil, err)
}

// proposed reports whether a suit is on its way already.
func (c *court) proposed(s *suit) bool { return s.at == onItsWay }

// onItsWay marks a suit that is in a batch.
const onItsWay = -quorum.Never

// close answers a suit.
func (c *court) close(s *suit, result []byte, err error) {
	delete(c.cases, s.command)
	c.unwait(s)
	for _, a := range s.askers {
		a.done = true
		a.stop()
		c.askers--
		c.answers = append(c.answers, func() { a.reply(result, err) })
	}
}

func (c *court) unwait(s *suit) {
	if _, ok := c.waiting[s]; !ok {
		return
	}
	delete(c.waiting, s)
	id := facetOf(s.command)
	list := c.byFacet[id]
	for i, x := range list {
		if x == s {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(c.byFacet, id)
	} else {
		c.byFacet[id] = list
	}
}

func (c *court) wait(s *suit, at quorum.Instant) {
	s.at = at
	c.due = min(c.due, at)
	if _, ok := c.waiting[s]; !ok {
		c.waiting[s] = struct{}{}
		id := facetOf(s.command)
		c.byFacet[id] = append(c.byFacet[id], s)
	}
}

// facetOf is the facet a command is about, zero for none.
func facetOf(c placement.Command) facet.Incarnation {
	switch c := c.(type) {
	case placement.Activate:
		return c.Incarnation
	case placement.Tomb:
		return c.Incarnation
	case placement.Bind:
		return c.Old
	}
	return facet.Incarnation{}
}

// flush answers everything.
func (c *court) flush(err error) {
	for _, s := range c.cases {
		e := err
		if c.proposed(s) {
			e = fmt.Errorf("judge: %w: leadership went meanwhile", consensus.ErrUnknownOutcome)
		}
		c.close(s, nil, e)
	}
	c.fresh, c.ready, c.due = nil, nil, quorum.Never
	clear(c.busy)
}

func (c *court) landed() []batchEnd {
	ended := c.ended
	c.ended = nil
	return ended
}

// endBatches answers what batches brought. Mu is held.
func (g *Grants) endBatches(ended []batchEnd) {
	q := &g.court
	for _, end := range ended {
		for i, s := range end.suits {
			if q.cases[s.command] != s {
				continue // answered when the term ended
			}
			if r, ok := s.command.(placement.RegisterNode); ok {
				delete(q.busy, r.Node)
				q.again = true
			}
			if end.err != nil {
				q.close(s, nil, end.err)
			} else {
				q.close(s, end.results[i], nil)
			}
		}
	}
}

// judge judges what has to be, proposes what may go, and tells when it is to be
// called again. Mu is held.
func (g *Grants) judge(ctx context.Context, rows []facet.Incarnation) quorum.Instant {
	q := &g.court
	fresh := q.fresh
	q.fresh = nil
	for _, s := range fresh {
		if q.cases[s.command] == s {
			g.hear(s)
		}
	}
	if q.again || g.opts.Clock() >= q.due {
		q.again, q.due = false, quorum.Never
		for s := range q.waiting {
			g.hear(s)
		}
	} else if len(q.waiting) > 0 {
		for _, id := range rows {
			for _, s := range append([]*suit(nil), q.byFacet[id]...) {
				g.hear(s)
			}
		}
	}
	for len(q.ready) > 0 && q.batches < maxBatches {
		g.propose(ctx)
	}
	return q.due
}

// hear judges one suit.
func (g *Grants) hear(s *suit) {
	q := &g.court
	if len(s.askers) == 0 { // nobody waits for it any more
		q.close(s, nil, nil)
		return
	}
	at := quorum.Never
	switch c := s.command.(type) {
	case placement.Activate:
		at = g.hearActivate(s, &c)
	case placement.Tomb:
		at = g.hearTomb(s, &c)
	case placement.Bind:
		at = g.hearBind(&c)
	case placement.RegisterNode:
		at = g.hearRegister(&c)
	}
	switch {
	case q.cases[s.command] != s: // answered
	case g.opts.Clock() >= at:
		q.unwait(s)
		s.at = onItsWay
		q.ready = append(q.ready, s)
	default:
		q.wait(s, at)
	}
}

// hearActivate judges ACTIVATE (R21): when it may be proposed, or the answer the
// table gives already.
func (g *Grants) hearActivate(s *suit, c *placement.Activate) quorum.Instant {
	row, ok := g.opts.Table.ByIncarnation(c.Incarnation)
	switch {
	case !ok && g.opts.Table.Tombstoned(c.Incarnation):
		g.answer(s, placement.RefusedTombstoned, nil)
	case !ok || row.Epoch < c.Epoch:
		// The entry that issued the epoch is not applied here yet. It may take the
		// facet from somebody, so nothing is judged before.
	case row.Epoch > c.Epoch:
		g.answer(s, placement.RefusedEpoch, &row)
	case row.Owner.Boot != c.Boot:
		g.answer(s, placement.RefusedBoot, &row)
	case row.State == placement.Active:
		g.answer(s, placement.Done, &row)
	case row.State != placement.Creating && row.State != placement.Recovering:
		g.answer(s, placement.RefusedState, &row)
	default:
		return g.freeAt(&row, !row.Holder.IsZero() && row.Holder.Boot != c.Boot && !g.ownPast(row.Holder))
	}
	return quorum.Never
}

// hearTomb judges the tombstone of a facet: until the lease of its last holder is
// over that one may answer a read of what is deleted (R47).
func (g *Grants) hearTomb(s *suit, c *placement.Tomb) quorum.Instant {
	if broken.Is(broken.TombEarly) {
		return g.opts.Clock()
	}
	row, ok := g.opts.Table.ByIncarnation(c.Incarnation)
	switch {
	case !ok && g.opts.Table.Tombstoned(c.Incarnation):
		g.answer(s, placement.Done, nil)
	case !ok || row.Epoch < c.Epoch:
	case row.Epoch > c.Epoch:
		g.answer(s, placement.RefusedEpoch, &row)
	case row.State != placement.Deleting && row.State != placement.Retired:
		g.answer(s, placement.RefusedState, &row)
	default:
		return g.freeAt(&row, !row.Holder.IsZero() && !g.ownPast(row.Holder))
	}
	return quorum.Never
}

// hearBind judges when the name of a facet may lead to another one: until the lease of
// the old one's last holder is over that one may answer a read, and would miss what the
// new one has acknowledged (R21, R25). Whatever the table will refuse may go at once.
func (g *Grants) hearBind(c *placement.Bind) quorum.Instant {
	if broken.Is(broken.ForceEarly) {
		return g.opts.Clock()
	}
	row, ok := g.opts.Table.ByIncarnation(c.Old)
	switch {
	case ok && row.Epoch < c.OldEpoch, !ok && !g.opts.Table.Tombstoned(c.Old):
		return quorum.Never // the entry that issued the epoch is not applied here yet
	case !ok || row.Epoch > c.OldEpoch || !row.Bound || row.State != placement.Recovering:
		return g.opts.Clock()
	}
	return g.freeAt(&row, !row.Holder.IsZero() && !g.ownPast(row.Holder))
}

// freeAt is when nobody serves the facet under an old lease any more. The row is
// told to the granter first, for its watcher may be behind the table.
func (g *Grants) freeAt(row *placement.Facet, serving bool) quorum.Instant {
	if serving && !g.feed(row) {
		g.court.again = true
		return quorum.Never
	}
	at, ok := g.granter.ActivateAt(row.Incarnation, serving)
	if !ok {
		return quorum.Never
	}
	return at
}

// hearRegister judges whether the process life that is registered may still hold
// its lease (R3, R38).
func (g *Grants) hearRegister(c *placement.RegisterNode) quorum.Instant {
	if broken.Is(broken.TwoLives) {
		return g.opts.Clock()
	}
	if g.court.busy[c.Node] {
		return quorum.Never // the one before decides whose lease counts
	}
	now := g.opts.Clock()
	n, ok := g.opts.Table.Node(c.Node)
	next := placement.Node{Store: c.Store, Machine: c.Machine}
	if !ok || n.Boot == c.Boot || provedGone(&n, &next) || g.own(c, &n) {
		return now
	}
	at, ok := g.granter.OverAt(quorum.BootID(n.Boot))
	if !ok {
		return quorum.Never
	}
	return at
}

// own reports whether a RegisterNode is that of this process, and nobody else can
// have granted its predecessor a lease.
func (g *Grants) own(c *placement.RegisterNode, n *placement.Node) bool {
	return c.Node == g.opts.Node && c.Store == g.opts.Store && n.Store == c.Store && g.opts.Alone()
}

// ownPast reports whether a process life is an earlier one of this node, and nobody
// else can have granted it a lease: without it the facets of a node alone would be
// away for a lease after each start.
func (g *Grants) ownPast(o placement.Owner) bool {
	if o.Node != g.opts.Node || !g.opts.Alone() {
		return false
	}
	n, ok := g.opts.Table.Node(o.Node)
	return ok && n.Store == g.opts.Store && n.Boot != o.Boot
}

// answer answers a suit by what the table says, without an entry of the log.
func (g *Grants) answer(s *suit, o placement.Outcome, row *placement.Facet) {
	r := placement.Result{Outcome: o, Index: g.opts.Table.Applied()}
	if row != nil {
		r.Facet, r.Index = *row, row.Index
	}
	g.court.close(s, r.AppendBinary(nil), nil)
}

// propose sends one batch. Mu is held.
func (g *Grants) propose(ctx context.Context) {
	q := &g.court
	var suits []*suit
	var commands [][]byte
	size := 0
	for len(q.ready) > 0 && len(suits) < batchCommands {
		s := q.ready[0]
		c := s.command
		if r, ok := c.(placement.RegisterNode); ok {
			// Of two lives of one node one goes after the other, and each is judged
			// by the one it replaces.
			if at := g.hearRegister(&r); g.opts.Clock() < at {
				q.ready = q.ready[1:]
				q.wait(s, at)
				continue
			}
			r.LeaseOver = true
			c = r
		}
		b := placement.AppendCommand(nil, c)
		if size += 4 + len(b); size > consensus.MaxEntryBytes/2 && len(suits) > 0 {
			break
		}
		if r, ok := c.(placement.RegisterNode); ok {
			q.busy[r.Node] = true
		}
		q.ready = q.ready[1:]
		suits, commands = append(suits, s), append(commands, b)
	}
	if len(q.ready) == 0 {
		q.ready = nil
	}
	if len(suits) == 0 {
		return
	}
	q.batches++
	term := g.term
	g.wg.Go(func() {
		end := batchEnd{suits: suits}
		end.results, end.err = g.opts.Log.ProposeAs(ctx, term, commands...)
		if errors.Is(end.err, context.Canceled) && g.ctx.Err() == nil {
			end.err = g.notLeader() // the term ended before it went out
		}
		g.mu.Lock()
		q.batches--
		q.ended = append(q.ended, end)
		g.mu.Unlock()
		g.poke()
	})
}
