package lease

import (
	"context"
	"fmt"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

// rounds are the renewals on their way to being granted: some gather, those of one
// round wait for its entry (R36).
//
// All fields are guarded by Grants.mu.
type rounds struct {
	command []byte                    // the entry of a round
	next    map[quorum.BootID]renewal // renewals for the next round
	running map[quorum.BootID]renewal // those of the round that runs
	number  uint64                    // of the round whose entry is under way, 0 for none
	began   quorum.Instant            // the latest round
	ended   []roundEnd                // entries that came back
	answers []func()                  // to be called without the lock
	scratch []quorum.Answer
}

type renewal struct {
	stamp quorum.Instant
	got   quorum.Instant // by the clock here
	reply func(peer.Grant, error)
}

// roundEnd is what became of the entry of a round.
type roundEnd struct {
	number uint64
	index  uint64
	err    error
}

func (r *rounds) init() {
	r.command = placement.AppendCommand(nil, placement.Renew{})
	r.next, r.running = make(map[quorum.BootID]renewal), make(map[quorum.BootID]renewal)
	r.began = -quorum.Never / 2
}

func (r *rounds) answer(x renewal, g peer.Grant, err error) {
	r.answers = append(r.answers, func() { x.reply(g, err) })
}

func (r *rounds) landed() []roundEnd {
	ended := r.ended
	r.ended = nil
	return ended
}

// abort gives everything that is on its way up; the senders repeat it.
func (r *rounds) abort() { r.flush(peer.ErrBusy) }

func (r *rounds) flush(err error) {
	for _, m := range []map[quorum.BootID]renewal{r.next, r.running} {
		for _, x := range m {
			r.answer(x, peer.Grant{}, err)
		}
		clear(m)
	}
	r.number = 0
}

// RenewFunc takes in the renewal of a node. reply is called once, from any
// goroutine, and must not block. Its error is ErrRefused with Grant.Apply when the
// node must be told more of the table first, ErrRefused without it when it is not
// the process life that is registered, a *peer.NotLeaderError, or ErrBusy.
func (g *Grants) RenewFunc(from cluster.NodeID, boot cluster.BootID, r peer.RenewRequest, reply func(peer.Grant, error)) {
	if err := g.renew(from, boot, r, reply); err != nil {
		reply(peer.Grant{}, err)
	}
}

// Renew is RenewFunc for the node that leads: its own renewal.
func (g *Grants) Renew(ctx context.Context, boot cluster.BootID, r peer.RenewRequest) (peer.Grant, error) {
	type answer struct {
		grant peer.Grant
		err   error
	}
	done := make(chan answer, 1)
	g.RenewFunc(g.opts.Node, boot, r, func(grant peer.Grant, err error) { done <- answer{grant, err} })
	select {
	case a := <-done:
		return a.grant, a.err
	case <-ctx.Done():
		return peer.Grant{}, ctx.Err()
	}
}

func (g *Grants) renew(from cluster.NodeID, boot cluster.BootID, r peer.RenewRequest, reply func(peer.Grant, error)) error {
	got := g.opts.Clock()
	// A process life that another one has replaced gets no lease again: whatever
	// was judged about its last one stays true (R3, R38).
	if n, ok := g.opts.Table.Node(from); !ok || n.Boot != boot {
		return fmt.Errorf("%w: not the process life registered for %v", peer.ErrRefused, from)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.term == 0 {
		if g.accepting() {
			return peer.ErrBusy // about to lead
		}
		return peerError(g.notLeader())
	}
	id, x := quorum.BootID(boot), renewal{quorum.Instant(r.Stamp), got, reply}
	err := g.granter.Renew(quorum.Renewal{Boot: id, Applied: r.Applied, Stamp: x.stamp})
	if err != nil {
		return fmt.Errorf("%w: %w", peer.ErrBusy, err)
	}
	if old, ok := g.rounds.next[id]; ok {
		if old.stamp >= x.stamp {
			old, x = x, old
		}
		g.rounds.answer(old, peer.Grant{}, peer.ErrBusy) // the later one counts
	}
	g.rounds.next[id] = x
	g.poke()
	return nil
}

// beginRound begins a round if it is time, and tells when the next one is due. Mu
// is held.
func (g *Grants) beginRound(ctx context.Context) quorum.Instant {
	r := &g.rounds
	if r.number != 0 || len(r.next) == 0 {
		return quorum.Never
	}
	now := g.opts.Clock()
	if due := r.began.Add(RoundEvery); now < due {
		return due
	}
	number, ok := g.granter.Tick()
	if !ok {
		return quorum.Never
	}
	r.next, r.running = r.running, r.next // running was empty
	r.number, r.began = number, now
	if broken.Is(broken.ReplyFirst) {
		for boot, x := range r.running {
			r.answer(x, peer.Grant{Stamp: time.Duration(x.stamp), TTL: g.opts.TTL}, nil)
			delete(r.running, boot)
		}
	}
	term := g.term
	g.wg.Go(func() {
		end := roundEnd{number: number}
		end.index, end.err = g.commitRound(ctx, term)
		g.mu.Lock()
		r.ended = append(r.ended, end)
		g.mu.Unlock()
		g.poke()
	})
	return quorum.Never
}

// commitRound commits the entry of a round.
func (g *Grants) commitRound(ctx context.Context, term uint64) (index uint64, err error) {
	if broken.Is(broken.NoVerify) {
		return g.opts.Table.Applied(), nil
	}
	results, err := g.opts.Log.ProposeAs(ctx, term, g.rounds.command)
	if err != nil {
		return 0, err
	}
	res, err := placement.DecodeResult(results[0])
	return res.Index, err
}

// endRounds takes in rounds that ended. The granter has been told everything up to
// the index drained. Mu is held.
func (g *Grants) endRounds(ended []roundEnd, drained uint64) {
	r := &g.rounds
	for _, end := range ended {
		if end.number != r.number {
			continue // of before the term began anew
		}
		r.number = 0
		if end.err != nil || drained < end.index {
			g.granter.Failed(end.number)
			err := peer.ErrBusy
			if end.err != nil {
				err = peerError(end.err)
			}
			for _, x := range r.running {
				r.answer(x, peer.Grant{}, err)
			}
			clear(r.running)
			continue
		}
		now := g.opts.Clock()
		r.scratch = g.granter.Committed(end.number, now, r.scratch[:0])
		for _, a := range r.scratch {
			x, ok := r.running[a.Boot]
			if !ok || x.stamp != a.Stamp {
				continue
			}
			delete(r.running, a.Boot)
			grant := peer.Grant{Stamp: time.Duration(a.Stamp), TTL: a.TTL, Apply: a.Applied}
			if a.TTL == 0 {
				r.answer(x, grant, peer.ErrRefused)
				continue
			}
			// The echo of this clock (R41): that the answer leaves a little later only
			// makes the network look slower.
			grant.Got, grant.Answered = time.Duration(x.got), time.Duration(now)
			r.answer(x, grant, nil)
			g.nodes.granted(cluster.BootID(a.Boot), now)
		}
		for _, x := range r.running {
			r.answer(x, peer.Grant{}, peer.ErrRefused)
		}
		clear(r.running)
		g.court.again = true // what was granted may be what somebody waits for
		g.nodes.again = true
	}
}
