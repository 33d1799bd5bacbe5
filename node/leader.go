package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

// The ways of a command into the placement log. Most go through consensus, which
// batches them and forwards them to whoever leads. Those that only the leader may
// judge (an ACTIVATE waits for a lease to be over, rule R21; a registration too,
// R3) go to the leader's Judge, here or over the peer port.

// propose brings one command into the log and returns its result as the leader
// gave it.
func (n *Node) propose(ctx context.Context, c placement.Command) (placement.Result, error) {
	if judged(c.Kind()) {
		return n.proposeJudged(ctx, c)
	}
	return placement.Proposer{Propose: n.consensus().Propose}.Do(ctx, c)
}

func judged(k placement.Kind) bool {
	return k == placement.KindActivate || k == placement.KindRegisterNode
}

// proposeJudged asks whoever leads, again while nobody does. The commands may be
// proposed twice, so a lost answer is asked for again.
func (n *Node) proposeJudged(ctx context.Context, c placement.Command) (placement.Result, error) {
	encoded := placement.AppendCommand(nil, c)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 250*time.Millisecond) {
		res, err := n.askLeader(ctx, encoded)
		if err == nil {
			return res, res.Err()
		}
		if errors.Is(err, consensus.ErrInvalid) || errors.Is(err, consensus.ErrClosed) || n.ctx.Err() != nil {
			return placement.Result{}, err
		}
		select {
		case <-ctx.Done():
			return placement.Result{}, errors.Join(ctx.Err(), err)
		case <-time.After(wait):
		}
	}
}

func (n *Node) askLeader(ctx context.Context, command []byte) (placement.Result, error) {
	raft := n.consensus()
	if now, _ := raft.Leadership(); now.Leading {
		out, err := n.grants.Judge(ctx, command)
		if err != nil {
			return placement.Result{}, err
		}
		return placement.DecodeResult(out)
	}
	leader, _, ok := raft.Leader()
	if !ok || leader == n.dir.Node || n.peers == nil {
		return placement.Result{}, fmt.Errorf("propose: %w", consensus.ErrNotLeader)
	}
	out, err := n.peers.Peer(leader).Propose(ctx, [][]byte{command})
	if err == nil {
		err = out[0].Err
	}
	if err != nil {
		return placement.Result{}, err
	}
	return placement.DecodeResult(out[0].Result)
}

// forward is consensus.Config.Forward: commands go to the leader over the peer
// port.
func (n *Node) forward(ctx context.Context, leader cluster.NodeID, _ string, commands [][]byte) ([][]byte, error) {
	list, err := n.peers.Peer(leader).Propose(ctx, commands)
	switch {
	case errors.Is(err, peer.ErrDown), errors.Is(err, peer.ErrBusy), errors.Is(err, peer.ErrClosed):
		return nil, fmt.Errorf("%w: %w", consensus.ErrNotSent, err)
	case err != nil:
		return nil, err
	}
	out := make([][]byte, len(list))
	for i, r := range list {
		// The commands are one proposal: they share their fate.
		switch {
		case r.Err == nil:
			out[i] = r.Result
		case errors.Is(r.Err, peer.ErrNotLeader):
			return nil, fmt.Errorf("%w: %w", consensus.ErrNotLeader, r.Err)
		case errors.Is(r.Err, peer.ErrInvalid):
			return nil, fmt.Errorf("%w: %w", consensus.ErrInvalid, r.Err)
		case errors.Is(r.Err, peer.ErrBusy), errors.Is(r.Err, peer.ErrRefused):
			return nil, fmt.Errorf("%w: %w", consensus.ErrNotSent, r.Err)
		default:
			return nil, fmt.Errorf("%w: %w", consensus.ErrUnknownOutcome, r.Err)
		}
	}
	return out, nil
}

// leaderDoor serves what other nodes ask of the placement leader: peer.Placement.
type leaderDoor struct{ n *Node }

// Renew implements peer.Placement.
func (d leaderDoor) Renew(from *peer.Caller, r peer.RenewRequest, reply func(peer.Grant, error)) {
	if d.n.grants == nil {
		reply(peer.Grant{}, &peer.NotLeaderError{})
		return
	}
	d.n.renew(from.Remote(), r, reply)
}

// Propose implements peer.Placement. Judged commands come one by one and wait on
// their own; all others of a call are one proposal.
func (d leaderDoor) Propose(from *peer.Caller, commands [][]byte, reply func(int, []byte, error)) {
	n := d.n
	if n.grants == nil || n.consensus() == nil {
		for i := range commands {
			reply(i, nil, &peer.NotLeaderError{})
		}
		return
	}
	var plain [][]byte
	var numbers []int
	for i, c := range commands {
		if len(c) == 0 || !judged(placement.Kind(c[0])) {
			plain, numbers = append(plain, c), append(numbers, i)
			continue
		}
		n.wg.Go(func() {
			ctx, cancel := context.WithTimeout(n.ctx, judgeTimeout)
			defer cancel()
			out, err := n.grants.Judge(ctx, c)
			reply(i, out, proposeError(err))
		})
	}
	if len(plain) == 0 {
		return
	}
	n.wg.Go(func() {
		ctx, cancel := context.WithTimeout(n.ctx, judgeTimeout)
		defer cancel()
		out, err := n.consensus().Accept(ctx, from.Remote().Node, plain)
		for k, i := range numbers {
			if err != nil {
				reply(i, nil, proposeError(err))
			} else {
				reply(i, out[k], nil)
			}
		}
	})
}

// judgeTimeout bounds one proposal at the leader: a lease to wait out and an entry.
const judgeTimeout = 8 * time.Second

// proposeError tells an error of consensus in the words of the peer port.
func proposeError(err error) error {
	var not *consensus.NotLeaderError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, consensus.ErrUnknownOutcome): // first: it may wrap the end of a context
		return fmt.Errorf("%w: %w", peer.ErrUnknownOutcome, err)
	case errors.As(err, &not):
		return &peer.NotLeaderError{Leader: not.Leader}
	case errors.Is(err, consensus.ErrNotLeader):
		return &peer.NotLeaderError{}
	case errors.Is(err, consensus.ErrInvalid):
		return fmt.Errorf("%w: %w", peer.ErrInvalid, err)
	case errors.Is(err, consensus.ErrNotSent), errors.Is(err, consensus.ErrClosed), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: %w", peer.ErrBusy, err)
	}
	return fmt.Errorf("%w: %w", peer.ErrUnknownOutcome, err)
}
