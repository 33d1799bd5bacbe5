package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/facetd/facetd/cluster"
)

// proposal is one caller's commands on their way: one of Propose, several of
// Accept and ProposeAs, none for a barrier. They are applied together or not at
// all.
type proposal struct {
	commands [][]byte
	one      [1][]byte      // backs commands of a single one
	size     int            // of the commands within an entry
	local    bool           // not to be forwarded: it is this leader that is asked
	alone    bool           // goes out without company: in company it was refused
	from     cluster.NodeID // the node that forwarded it
	state    atomic.Uint32
	done     chan reply // gets exactly one reply if the proposal was taken
}

// A proposal goes from waiting to taken, and back if it turns out that nothing
// was done with it. Its caller may abandon it while it waits, and only then.
const (
	waiting   = 0 // in the queue; nothing has happened
	taken     = 1 // by the dispatching goroutine
	abandoned = 2 // by its caller, before it was taken
)

func (p *proposal) take() bool { return p.state.CompareAndSwap(waiting, taken) }

type reply struct {
	results [][]byte
	err     error
}

// Propose brings a command into the log and returns the state machine's result
// for it. It keeps command until the outcome is decided: the caller must not
// change it. Commands of one caller that waits for each result are applied in
// its order.
//
// With Config.Forward any node takes proposals: while another leads they go
// there, and while nobody does they wait, as long as ctx allows. The result is
// then the leader's; this node may apply the command a little later. Without
// it a node that does not lead refuses.
//
// The error is ErrNotLeader, ErrFull, ErrInvalid, ErrClosed or the context's
// (nothing was done), ErrUnknownOutcome or ErrFailed.
func (n *Node) Propose(ctx context.Context, command []byte) ([]byte, error) {
	if err := n.check(command); err != nil {
		return nil, err
	}
	p := n.proposal()
	p.one[0] = command
	p.commands = p.one[:]
	p.size = 4 + len(command)
	results, err := n.send(ctx, p)
	if err != nil {
		return nil, err
	}
	return results[0], nil
}

func (n *Node) check(command []byte) error {
	if len(command) == 0 || len(command) > MaxCommandLen {
		return fmt.Errorf("propose: %w: %d bytes, limit %d", ErrInvalid, len(command), MaxCommandLen)
	}
	if err := n.cfg.StateMachine.Check(command); err != nil {
		return fmt.Errorf("propose: %w: %w", ErrInvalid, err)
	}
	return nil
}

// Accept is the leader's end of Config.Forward: it brings commands another node
// forwarded into the log as one, and returns their results. It keeps commands
// until the outcome is decided. A node that does not lead refuses: what was
// forwarded once is not forwarded again.
func (n *Node) Accept(ctx context.Context, from cluster.NodeID, commands [][]byte) ([][]byte, error) {
	return n.together(ctx, from, commands)
}

// ProposeAs brings commands into the log as one entry if this node leads in the
// given term, and returns their results if it led in that term until they were
// committed. A lease is granted on such a result (rule R36): what a deposed
// leader believes of itself does not count. When leadership went meanwhile the
// error is ErrUnknownOutcome.
func (n *Node) ProposeAs(ctx context.Context, term uint64, commands ...[]byte) ([][]byte, error) {
	if !n.leads(term) {
		return nil, n.notLeader()
	}
	results, err := n.together(ctx, "", commands)
	if err == nil && !n.leads(term) {
		return nil, fmt.Errorf("propose in term %d: %w: leadership went meanwhile", term, ErrUnknownOutcome)
	}
	return results, err
}

// leads is true if every entry this node committed just now was committed in
// the term: it leads in it, and no later one has begun.
func (n *Node) leads(term uint64) bool {
	now, _ := n.Leadership()
	return now.Leading && now.Term == term && n.raft.CurrentTerm() == term
}

func (n *Node) together(ctx context.Context, from cluster.NodeID, commands [][]byte) ([][]byte, error) {
	if len(commands) == 0 || len(commands) > MaxBatch {
		return nil, fmt.Errorf("propose: %w: %d commands, limit %d", ErrInvalid, len(commands), MaxBatch)
	}
	size := 0
	for _, c := range commands {
		if err := n.check(c); err != nil {
			return nil, err
		}
		if size += 4 + len(c); size > MaxEntryBytes {
			return nil, fmt.Errorf("propose: %w: %d commands of more than %d bytes", ErrInvalid, len(commands), MaxEntryBytes)
		}
	}
	p := n.proposal()
	p.commands, p.size, p.local, p.from = commands, size, true, from
	return n.send(ctx, p)
}

// Barrier waits until everything that was committed before it is applied on
// this node, which must lead.
func (n *Node) Barrier(ctx context.Context) error {
	p := n.proposal()
	p.local = true
	_, err := n.send(ctx, p)
	return err
}

func (n *Node) proposal() *proposal {
	p, ok := n.proposals.Get().(*proposal)
	if !ok {
		p = &proposal{done: make(chan reply, 1)}
	}
	p.state.Store(waiting)
	return p
}

func (n *Node) send(ctx context.Context, p *proposal) ([][]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-n.closing:
		return nil, ErrClosed
	default:
	}
	if (p.local || n.cfg.Forward == nil) && !n.leading.Load() {
		return nil, n.turnDown(p)
	}
	select {
	case n.queue <- p:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-n.closing:
		return nil, ErrClosed
	}
	select {
	case r := <-p.done:
		return n.finish(p, r)
	case <-ctx.Done():
		if p.state.CompareAndSwap(waiting, abandoned) {
			return nil, ctx.Err()
		}
		select {
		case r := <-p.done:
			return n.finish(p, r)
		default:
		}
		return nil, fmt.Errorf("propose: %w: %w", ErrUnknownOutcome, ctx.Err())
	case <-n.stopped:
		if p.state.CompareAndSwap(waiting, abandoned) {
			return nil, ErrClosed
		}
		return n.finish(p, <-p.done) // replied before stopped was closed
	}
}

// finish gives the proposal back for re-use: both sides are through with it.
func (n *Node) finish(p *proposal, r reply) ([][]byte, error) {
	*p = proposal{done: p.done}
	n.proposals.Put(p)
	return r.results, r.err
}

// commit brings one batch through Raft. It tells every caller, unless nothing
// was done and another node may be asked: those it returns, waiting again.
func (n *Node) commit(batch []*proposal, commands [][]byte) (back []*proposal) {
	watch := n.watchEntry()
	var results [][]byte
	var err error
	if len(commands) == 0 {
		err = n.raft.Barrier(0).Error()
	} else {
		size := entryHeadLen
		for _, c := range commands {
			size += 4 + len(c)
		}
		f := n.raft.Apply(appendEntry(make([]byte, 0, size), commands), 0)
		if err = f.Error(); err == nil {
			a := f.Response().(answer)
			results, err = a.results, a.err
		}
		n.batches.Add(1)
		n.taken.Add(uint64(len(commands)))
	}
	watch.stop()
	if err != nil {
		err = n.outcome(err)
	} else if n.peers != nil && len(n.queue) == 0 {
		// Nothing follows that would carry the commit index.
		n.peers.tell(batch[len(batch)-1].from)
	}
	return n.answer(batch, results, err)
}

// answer tells the callers of a batch what became of it.
func (n *Node) answer(batch []*proposal, results [][]byte, err error) (back []*proposal) {
	elsewhere := n.cfg.Forward != nil && nothingDone(err)
	for _, p := range batch {
		if elsewhere && !p.local {
			p.state.Store(waiting)
			back = append(back, p)
			continue
		}
		r := reply{err: err}
		if k := len(p.commands); err == nil && k > 0 {
			r.results, results = results[:k:k], results[k:]
		}
		p.done <- r
	}
	return back
}

// nothingDone is true for errors after which the same may be tried elsewhere.
func nothingDone(err error) bool {
	return errors.Is(err, ErrNotLeader) || errors.Is(err, ErrNotSent) || errors.Is(err, ErrFull)
}

// outcome says what an error of Raft means for a command: refused before it
// entered the log, or nobody knows.
func (n *Node) outcome(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return n.notLeader()
	case errors.Is(err, ErrFailed):
		return err
	case errors.Is(err, ErrFull):
		// Raft replicates an entry only once it is in its own log.
		return fmt.Errorf("propose: %w", err)
	}
	if failed := n.machine.failure(); failed != nil {
		return fmt.Errorf("propose: %w: %w", ErrUnknownOutcome, failed)
	}
	return fmt.Errorf("propose: %w: %w", ErrUnknownOutcome, err)
}
