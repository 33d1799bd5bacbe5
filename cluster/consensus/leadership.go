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
	heard := make(chan raft.Observation, 1) // one is enough: it only says "look"
	observer := raft.NewObserver(heard, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	n.raft.RegisterObserver(observer)
	defer n.raft.DeregisterObserver(observer)
	for {
		select {
		case elected := <-n.raft.LeaderCh():
			n.elected(elected)
		case <-n.resume:
			if now, _ := n.Leadership(); !now.Leading && n.raft.State() == raft.Leader {
				n.elected(true)
			}
		case <-heard:
			n.reroute()
		case <-n.closing:
			n.leading.Store(false)
			return
		}
	}
}

// elected follows one change.
func (n *Node) elected(yes bool) {
	n.leading.Store(false)
	n.reroute()
	l := Leadership{Term: n.raft.CurrentTerm()}
	if yes && n.barrier() {
		// The barrier may have been that of a later term, if leadership went and
		// came meanwhile; then its own news follows.
		now := n.raft.CurrentTerm()
		l = Leadership{Leading: now == l.Term, Term: now}
		if l.Leading {
			l.Since, l.Heard = time.Now(), n.watch.heard.before(now)
			if n.led == now {
				// It had stepped aside in this very term: what it did before counts too.
				l.Heard = l.Since
			}
			n.led = now
		}
	}
	if n.peers != nil {
		n.peers.muted.Store(false)
	}
	n.leading.Store(l.Leading)
	n.setLeadership(l)
	n.reroute()
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
		case <-time.After(transferPause):
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

// turnDown is what to say to a proposal that goes nowhere: to one made here that
// the disk is full, if that is why nobody leads.
func (n *Node) turnDown(p *proposal) error {
	if err := n.stores.log.noRoom(); err != nil && !p.local {
		return err
	}
	return n.notLeader()
}
