package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// proposal is one caller's command on its way. A proposal without a command is
// a barrier.
type proposal struct {
	command []byte
	state   atomic.Uint32
	done    chan reply // gets exactly one reply if the proposal was taken
}

const (
	waiting   = 0 // in the queue; nothing has happened
	taken     = 1 // by the batching goroutine
	abandoned = 2 // by its caller, before it was taken
)

type reply struct {
	result []byte
	err    error
}

// Propose brings a command into the log and returns the state machine's result
// for it. It keeps command until the outcome is decided: the caller must not
// change it. Commands of one caller that waits for each result are applied in
// its order.
//
// The error is ErrNotLeader, ErrInvalid, ErrClosed or the context's (nothing
// was done), ErrUnknownOutcome or ErrFailed.
func (n *Node) Propose(ctx context.Context, command []byte) ([]byte, error) {
	if len(command) == 0 || len(command) > MaxCommandLen {
		return nil, fmt.Errorf("propose: %w: %d bytes, limit %d", ErrInvalid, len(command), MaxCommandLen)
	}
	if err := n.cfg.StateMachine.Check(command); err != nil {
		return nil, fmt.Errorf("propose: %w: %w", ErrInvalid, err)
	}
	return n.send(ctx, command)
}

// Barrier waits until everything that was committed before it is applied on
// this node, which must lead.
func (n *Node) Barrier(ctx context.Context) error {
	_, err := n.send(ctx, nil)
	return err
}

func (n *Node) send(ctx context.Context, command []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case <-n.closing:
		return nil, ErrClosed
	default:
	}
	if !n.leading.Load() {
		return nil, n.notLeader()
	}
	p, ok := n.proposals.Get().(*proposal)
	if !ok {
		p = &proposal{done: make(chan reply, 1)}
	}
	p.command = command
	p.state.Store(waiting)
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
		return nil, fmt.Errorf("propose: %w: %w", ErrUnknownOutcome, ctx.Err())
	case <-n.stopped:
		if p.state.CompareAndSwap(waiting, abandoned) {
			return nil, ErrClosed
		}
		return n.finish(p, <-p.done) // replied before stopped was closed
	}
}

// finish gives the proposal back for re-use: both sides are through with it.
func (n *Node) finish(p *proposal, r reply) ([]byte, error) {
	p.command = nil
	n.proposals.Put(p)
	return r.result, r.err
}

// batchLoop turns proposals into entries. While one entry is on its way to a
// majority's disks the next gathers in the queue, so the batch grows with the
// load and an idle node adds no delay.
func (n *Node) batchLoop() {
	defer close(n.stopped)
	var (
		batch    []*proposal
		commands [][]byte
		carry    *proposal // did not fit into the last entry
	)
	for {
		batch, commands = batch[:0], commands[:0]
		size := 0
		add := func(p *proposal) bool {
			if cost := 4 + len(p.command); size+cost > MaxEntryBytes {
				carry = p
				return false
			} else if p.command != nil {
				size += cost
				commands = append(commands, p.command)
			}
			batch = append(batch, p)
			return len(batch) < MaxBatch
		}
		if p := carry; p != nil {
			carry = nil
			add(p)
		} else {
			select {
			case p := <-n.queue:
				if !p.take() {
					continue
				}
				add(p)
			case <-n.closing:
				return
			}
		}
	gather:
		for {
			select {
			case p := <-n.queue:
				if p.take() && !add(p) {
					break gather
				}
			default:
				break gather
			}
		}
		n.commit(batch, commands)
		clear(batch)
		clear(commands)
	}
}

func (p *proposal) take() bool { return p.state.CompareAndSwap(waiting, taken) }

// commit brings one batch through Raft and tells every caller.
func (n *Node) commit(batch []*proposal, commands [][]byte) {
	if n.cfg.StallAfter > 0 {
		after := n.cfg.StallAfter
		watchdog := time.AfterFunc(after, func() { n.cfg.Stalled(after) })
		defer watchdog.Stop()
	}
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
	if err != nil {
		err = n.outcome(err)
	}
	for _, p := range batch {
		r := reply{err: err}
		if err == nil && p.command != nil {
			r.result, results = results[0], results[1:]
		}
		p.done <- r
	}
}

// outcome says what an error of Raft means for a command: refused before it
// entered the log, or nobody knows.
func (n *Node) outcome(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return n.notLeader()
	case errors.Is(err, ErrFailed):
		return err
	}
	if failed := n.machine.failure(); failed != nil {
		return fmt.Errorf("propose: %w: %w", ErrUnknownOutcome, failed)
	}
	return fmt.Errorf("propose: %w: %w", ErrUnknownOutcome, err)
}
