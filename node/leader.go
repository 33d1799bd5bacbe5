package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/lease"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

// The ways of a command into the placement log. Most go through consensus, which
// batches them and forwards them to whoever leads. Those that only the leader may
// judge (an ACTIVATE waits for a lease to be over, rule R21; a tombstone, R47, and a
// registration too, R3) go to the leader's Judge, here or over the peer port.

// propose brings one command into the log and returns its result as the leader
// gave it.
func (n *Node) propose(ctx context.Context, c placement.Command) (placement.Result, error) {
	switch c.Kind() {
	case placement.KindCreate, placement.KindAcquire, placement.KindDelete, placement.KindBind:
		// What issues an epoch waits until epochs lie above all that were issued
		// before the log was recovered by force (rule R2).
		if _, due, err := generationDue(n.table, n.consensus().Generation()); due || err != nil {
			return placement.Result{}, facet.Errorf(facet.CodeUnavailable, "the cluster was recovered and is being put in order; try again")
		}
	}
	encoded := placement.AppendCommand(make([]byte, 0, 192), c)
	if lease.Judged(encoded) {
		return n.proposeJudged(ctx, encoded)
	}
	out, err := n.consensus().Propose(ctx, encoded)
	if err != nil {
		return placement.Result{}, err
	}
	res, err := placement.DecodeResult(out)
	if err != nil {
		return res, err
	}
	return res, res.Err()
}

// proposeJudged asks whoever leads, again while nobody does. The commands may be
// proposed twice, so a lost answer is asked for again.
func (n *Node) proposeJudged(ctx context.Context, encoded []byte) (placement.Result, error) {
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
	if now, _ := n.consensus().Leadership(); now.Leading {
		out, err := n.grants.Judge(ctx, command)
		if err != nil {
			return placement.Result{}, err
		}
		return placement.DecodeResult(out)
	}
	leader, ok := n.leaderElsewhere()
	if !ok {
		return placement.Result{}, fmt.Errorf("propose: %w", consensus.ErrNotLeader)
	}
	out, err := leader.Propose(ctx, [][]byte{command})
	if err == nil {
		err = out[0].Err
	}
	if err != nil {
		return placement.Result{}, err
	}
	return placement.DecodeResult(out[0].Result)
}

// leaderElsewhere is the other node that leads placement, as far as this one knows.
func (n *Node) leaderElsewhere() (*peer.Peer, bool) {
	leader, _, ok := n.consensus().Leader()
	if !ok || leader == n.dir.Node || n.peers == nil {
		return nil, false
	}
	return n.peers.Peer(leader), true
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
