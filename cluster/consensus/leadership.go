package consensus

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// leadershipLoop follows Raft's elections. A new leader decides nothing before
// its own barrier is applied: until then its table may lack what the leader
// before it decided.
func (n *Node) leadershipLoop() {
	for {
		select {
		case elected := <-n.raft.LeaderCh():
			n.leading.Store(false)
			term := n.raft.CurrentTerm()
			elected = elected && n.barrier()
			n.leading.Store(elected)
			n.setLeadership(Leadership{Leading: elected, Term: term})
		case <-n.closing:
			n.leading.Store(false)
			return
		}
	}
}

// barrier is true once everything decided before this term is applied here, and
// false when leadership ended first.
func (n *Node) barrier() bool {
	for {
		err := n.raft.Barrier(0).Error()
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return err == nil
		}
		// A transfer takes an election timeout at most, and may fail.
		select {
		case <-time.After(commitTimeout):
		case <-n.closing:
			return false
		}
	}
}

func (n *Node) setLeadership(l Leadership) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leadership == l {
		return
	}
	n.leadership = l
	close(n.changed)
	n.changed = make(chan struct{})
}

// Leadership tells what this node is, and gives a channel that is closed when
// that changes.
func (n *Node) Leadership() (now Leadership, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leadership, n.changed
}

// WaitLeader waits until this node leads.
func (n *Node) WaitLeader(ctx context.Context) error {
	for {
		now, changed := n.Leadership()
		if now.Leading {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-n.closing:
			return ErrClosed
		}
	}
}

// notLeader is the error that tells where to go.
func (n *Node) notLeader() error {
	id, address, _ := n.Leader()
	if id == n.cfg.ID {
		id, address = "", "" // elected, and not ready yet
	}
	return &NotLeaderError{Leader: id, Address: address}
}
