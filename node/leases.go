package node

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/lease"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/node/steward"
	"github.com/facetd/facetd/placement"
)

// connected reports whether there is a connection to a node.
func (n *Node) connected(id cluster.NodeID) bool {
	return n.peers == nil || n.peers.Peer(id).Status().Connected
}

// openLeases starts this node's part in leases, and what it does when it leads
// placement.
func (n *Node) openLeases() (err error) {
	raft := n.consensus()
	if n.grants, err = lease.NewGrants(lease.GrantsOptions{
		Log: raft, Table: n.table, Node: n.dir.Node, Store: n.dir.store, Alone: n.onlyVoter, Answered: raft.Answered, Connected: n.connected, Clock: n.cfg.Platform.Clock, Logger: n.log,
	}); err != nil {
		return err
	}
	n.court = lease.NewServer(n.grants, raft.Accept)
	n.door.Store(n.court)
	if n.holder, err = lease.NewHolder(lease.HolderOptions{
		Send: n.sendRenewal, Told: n.told, Needed: n.needsLease,
		Clock: n.cfg.Platform.Clock, Clocks: n.cfg.Platform.Clocks, Logger: n.log,
	}); err != nil {
		return err
	}
	if n.steward, err = steward.New(steward.Config{
		Table: n.table, Propose: n.proposeAs, Lives: n.grants, Orders: ordersTo{n},
		Finish:       n.forget,
		RemoveMember: n.removeMember,
		Hints:        n.tableHints,
		Replicas:     n.cfg.Replicas, RepairAfter: n.cfg.RepairAfter, Logger: n.log,
	}); err != nil {
		return err
	}
	n.wg.Go(n.lead)
	return nil
}

// onlyVoter reports whether nobody but this node decides about the log.
func (n *Node) onlyVoter() bool {
	if n.peers == nil {
		return true
	}
	self, others := false, 0
	for _, m := range n.consensus().Members() {
		switch {
		case m.ID == n.dir.Node:
			self = m.Votes
		case m.Votes:
			others++
		}
	}
	return self && others == 0
}

// needsLease reports whether a lease is of use. In a cluster of several nodes it is
// the sign of life as well.
func (n *Node) needsLease() bool {
	if n.table.Counts().Nodes > 1 {
		return true
	}
	owners := n.acks.owners.Load()
	return owners != nil && owners.Sessions() > 0
}

// led reports whether this node knows who leads placement.
func (n *Node) led() bool {
	_, _, ok := n.consensus().Leader()
	return ok
}

// sendRenewal brings a RENEW to whoever leads.
func (n *Node) sendRenewal(ctx context.Context, r peer.RenewRequest) (peer.Grant, error) {
	if now, _ := n.consensus().Leadership(); now.Leading {
		return n.grants.Renew(ctx, n.boot, r)
	}
	leader, ok := n.leaderElsewhere()
	if !ok {
		return peer.Grant{}, &peer.NotLeaderError{}
	}
	return leader.Renew(ctx, r)
}

// lead follows the leadership of the placement log.
func (n *Node) lead() {
	raft := n.consensus()
	for {
		now, changed := raft.Leadership()
		if now.Leading {
			n.raiseGeneration(now.Term)
			n.steward.Lead(now.Term)
		} else {
			n.steward.Stop()
		}
		select {
		case <-changed:
		case <-n.ctx.Done():
			return
		}
	}
}

// raiseGeneration lifts the epochs to come above all that were issued before the log
// was recovered by force (rule R2).
func (n *Node) raiseGeneration(term uint64) {
	c, due, err := generationDue(n.table, n.consensus().Generation())
	if err != nil {
		n.fail(err)
		return
	}
	if !due {
		return
	}
	for {
		ctx, cancel := context.WithTimeout(n.ctx, registerTry)
		_, err := n.proposeAs(ctx, term, c)
		cancel()
		if now, _ := n.consensus().Leadership(); err == nil || n.ctx.Err() != nil || !now.Leading || now.Term != term {
			return
		}
		n.log.Warn("raise the generation of the placement table", "generation", c.Generation, "error", err)
	}
}

// proposeAs brings commands into the log as one entry of this leader's term.
func (n *Node) proposeAs(ctx context.Context, term uint64, cmds ...placement.Command) ([]placement.Result, error) {
	encoded := make([][]byte, len(cmds))
	for i, c := range cmds {
		encoded[i] = placement.AppendCommand(nil, c)
	}
	out, err := n.consensus().ProposeAs(ctx, term, encoded...)
	if err != nil {
		return nil, err
	}
	results := make([]placement.Result, len(out))
	for i, b := range out {
		if results[i], err = placement.DecodeResult(b); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// removeMember lets a node go for good that no row names any more: out of the table,
// so that it stops when it sees that, then out of the log's members.
func (n *Node) removeMember(ctx context.Context, id cluster.NodeID) error {
	if id == n.dir.Node {
		// Another node has to lead to the end of it.
		if err := n.consensus().TransferLeadership(ctx, ""); err != nil {
			return fmt.Errorf("hand the placement log over: %w", err)
		}
		return facet.Errorf(facet.CodeUnavailable, "node %s led placement; another node leads now: ask again", id)
	}
	res, err := n.rows.do(ctx, placement.RemoveNode{Node: id})
	if err != nil && !errors.Is(err, placement.RefusedNode) {
		return fmt.Errorf("remove node %s from the table: %w", id, err)
	}
	n.removed.Store(id, true)
	n.refreshView()
	n.waitMatch(ctx, id, res.Index)
	if err := n.consensus().Remove(ctx, id); err != nil && !errors.Is(err, consensus.ErrNoMember) {
		return fmt.Errorf("remove node %s from the placement log: %w", id, err)
	}
	return nil
}

// farewell bounds how long a node that is removed is waited for to see it.
const farewell = 2 * time.Second

// waitMatch waits until a member's log holds the entry at index.
func (n *Node) waitMatch(ctx context.Context, id cluster.NodeID, index uint64) {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, m := range n.consensus().Members() {
			if m.ID == id && m.Match >= index {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ordersTo reaches the owners of facets for the steward.
type ordersTo struct{ n *Node }

// Order implements steward.Orders.
func (o ordersTo) Order(ctx context.Context, to cluster.NodeID, order steward.Order) error {
	return o.n.order(ctx, to, order)
}

// door lets other nodes in to the placement leader, once there is one to ask.
type door struct{ server atomic.Pointer[lease.Server] }

func (d *door) Store(s *lease.Server) { d.server.Store(s) }

// Renew implements peer.Placement.
func (d *door) Renew(from *peer.Caller, r peer.RenewRequest, reply func(peer.Grant, error)) {
	if s := d.server.Load(); s != nil {
		s.Renew(from, r, reply)
		return
	}
	reply(peer.Grant{}, &peer.NotLeaderError{})
}

// Propose implements peer.Placement.
func (d *door) Propose(from *peer.Caller, commands [][]byte, reply func(int, []byte, error)) {
	if s := d.server.Load(); s != nil {
		s.Propose(from, commands, reply)
		return
	}
	for i := range commands {
		reply(i, nil, &peer.NotLeaderError{})
	}
}
