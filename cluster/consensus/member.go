package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/facetd/facetd/cluster"
)

// Member is one node of the configuration, as this node knows it.
type Member struct {
	ID      cluster.NodeID
	Address string
	Log     LogID // zero when any will do
	Votes   bool
	// Match and Contact are the leader's: the newest entry the member is known
	// to have, and when it answered last. Zero elsewhere.
	Match   uint64
	Contact time.Time
}

// Members lists the members in the newest configuration of this node's log.
func (n *Node) Members() []Member {
	var out []Member
	for _, s := range n.configuration().Servers {
		at := parsePlace(s.Address)
		m := Member{ID: cluster.NodeID(s.ID), Address: at.address, Log: at.log, Votes: s.Suffrage == raft.Voter}
		if n.peers != nil && n.leading.Load() {
			m.Match, _, m.Contact = n.peers.progress(s.ID, s.Address)
		}
		out = append(out, m)
	}
	return out
}

// Answered reports whether a member has answered this node as the leader since a time.
func (n *Node) Answered(id cluster.NodeID, since time.Time) bool {
	return n.peers != nil && n.peers.answered(raft.ServerID(id), since)
}

// AddNonvoter takes a node in as a member that follows and does not vote. Its
// process must run and belong to this cluster or to none.
//
// This and the other changes are made by the leader, one at a time (rule R43);
// an ErrUnknownOutcome may have happened, and all are safe to repeat.
func (n *Node) AddNonvoter(ctx context.Context, id cluster.NodeID, address string) error {
	if n.peers == nil {
		return ErrNeedsStream
	}
	a, err := n.ask(question{from: n.cfg.ID}, address)
	if err != nil {
		return fmt.Errorf("add member %s: ask it: %w", id, err)
	}
	mine, generation := n.id.get()
	if a.node != id || !a.cluster.IsZero() && (a.cluster != mine || a.generation != generation) {
		return fmt.Errorf("add member %s: node %s of cluster %v answers at %s: %w", id, a.node, a.cluster, address, ErrOtherCluster)
	}
	return n.change(ctx, change{do: doAdd, target: id, place: place{address, a.log}, why: "asked for"})
}

// Promote lets a member vote.
func (n *Node) Promote(ctx context.Context, id cluster.NodeID) error {
	return n.change(ctx, change{do: doPromote, target: id, why: "asked for"})
}

// Demote takes a member's vote. A leader gives up leadership first.
func (n *Node) Demote(ctx context.Context, id cluster.NodeID) error {
	return n.change(ctx, change{do: doDemote, target: id, why: "asked for"})
}

// Remove ends a membership. The node must not be in the View any more, or it is
// taken in again. A leader that is to remove itself transfers leadership and
// answers ErrNotLeader: the next leader removes it.
func (n *Node) Remove(ctx context.Context, id cluster.NodeID) error {
	return n.change(ctx, change{do: doRemove, target: id, why: "asked for"})
}

// TransferLeadership makes a voter lead in this node's place, any voter when to
// is zero. It returns once this node has given leadership up, or with the error
// that kept it.
func (n *Node) TransferLeadership(ctx context.Context, to cluster.NodeID) error {
	if !n.leading.Load() {
		return n.notLeader()
	}
	if n.peers == nil {
		return ErrQuorum
	}
	if to == n.cfg.ID {
		return nil
	}
	voters := n.otherVoters()
	for _, s := range voters {
		if to.IsZero() || s.ID == raft.ServerID(to) {
			return n.await(ctx, "transfer leadership", n.raft.LeadershipTransferToServer(s.ID, s.Address))
		}
	}
	if to.IsZero() {
		return fmt.Errorf("transfer leadership: %w", ErrQuorum)
	}
	return fmt.Errorf("transfer leadership to %s: %w, or it does not vote", to, ErrNoMember)
}

// await waits for one of Raft's futures.
func (n *Node) await(ctx context.Context, what string, f raft.Future) error {
	done := make(chan error, 1)
	n.wg.Go(func() { done <- f.Error() })
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		return fmt.Errorf("%s: %w: %w", what, ErrUnknownOutcome, ctx.Err())
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%s: %w", what, n.notLeader())
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%s: %w", what, ErrBusy)
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%s: %w", what, ErrClosed)
	}
	return fmt.Errorf("%s: %w: %w", what, ErrUnknownOutcome, err)
}

// change carries one step out.
func (n *Node) change(ctx context.Context, c change) error {
	what := fmt.Sprintf("%s member %s", c.do, c.target)
	if !n.leading.Load() {
		return fmt.Errorf("%s: %w", what, n.notLeader())
	}
	if n.peers == nil {
		return fmt.Errorf("%s: %w", what, ErrNeedsStream)
	}
	if !n.changing.TryLock() {
		return fmt.Errorf("%s: %w", what, ErrBusy)
	}
	defer n.changing.Unlock()
	var now *raft.Server
	voters := 0
	servers := n.configuration().Servers
	for i := range servers {
		if servers[i].ID == raft.ServerID(c.target) {
			now = &servers[i]
		}
		if servers[i].Suffrage == raft.Voter {
			voters++
		}
	}
	votes := now != nil && now.Suffrage == raft.Voter
	var f raft.Future
	id := raft.ServerID(c.target)
	switch c.do {
	case doAdd:
		if votes && parsePlace(now.Address).log != c.place.log {
			return fmt.Errorf("%s: a voter of that name has another log: remove it first: %w", what, ErrOtherCluster)
		}
		f = n.raft.AddNonvoter(id, raft.ServerAddress(c.place.String()), 0, changeTimeout)
	case doAddress:
		if votes {
			f = n.raft.AddVoter(id, raft.ServerAddress(c.place.String()), 0, changeTimeout)
		} else {
			f = n.raft.AddNonvoter(id, raft.ServerAddress(c.place.String()), 0, changeTimeout)
		}
	case doTransfer:
		return n.TransferLeadership(ctx, c.target)
	default:
		switch {
		case now == nil && c.do == doRemove:
			return nil
		case now == nil:
			return fmt.Errorf("%s: %w", what, ErrNoMember)
		case votes && c.do == doPromote, !votes && c.do == doDemote:
			return nil
		case votes && voters == 1:
			return fmt.Errorf("%s: %w", what, ErrQuorum)
		case c.target == n.cfg.ID && c.do != doPromote:
			if err := n.TransferLeadership(ctx, ""); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return fmt.Errorf("%s: leadership was transferred: %w", what, n.notLeader())
		case votes && !n.majorityWithout(servers, id):
			return fmt.Errorf("%s: %w", what, ErrQuorum)
		}
		switch c.do {
		case doPromote:
			f = n.raft.AddVoter(id, now.Address, 0, changeTimeout)
		case doDemote:
			f = n.raft.DemoteVoter(id, 0, changeTimeout)
		case doRemove:
			f = n.raft.RemoveServer(id, 0, changeTimeout)
		}
	}
	if err := n.await(ctx, what, f); err != nil {
		return err
	}
	n.cfg.Logger.Info("membership changed", "change", c.do.String(), "member", string(c.target), "why", c.why)
	return nil
}

// majorityWithout is true if the voters that answer are a majority when one
// voter is left out.
func (n *Node) majorityWithout(servers []raft.Server, id raft.ServerID) bool {
	voters, working := 0, 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter || s.ID == id {
			continue
		}
		voters++
		_, _, contact := n.peers.progress(s.ID, s.Address)
		if s.ID == raft.ServerID(n.cfg.ID) || time.Since(contact) < n.silentAfter() {
			working++
		}
	}
	return working > voters/2
}

// silentAfter is how long a member may be silent and still count as working.
func (n *Node) silentAfter() time.Duration { return 2 * n.cfg.Heartbeat }
