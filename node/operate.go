package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/owner"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/node/steward"
	"github.com/facetd/facetd/placement"
)

// orders does what the placement leader asks of the owners here: peer.Orders.
type orders struct{ n *Node }

// Order implements peer.Orders.
func (o orders) Order(ctx context.Context, from *peer.Caller, order peer.Order) error {
	switch order.Kind {
	case peer.OrderTell:
		return o.n.tell(ctx, from.Remote().Node, order)
	case peer.OrderWarm:
		return o.n.getReady(ctx, steward.Order{Incarnation: order.Incarnation, Epoch: order.Epoch})
	case peer.OrderHeal:
		return o.n.heal(ctx, steward.Order{Incarnation: order.Incarnation, Epoch: order.Epoch})
	}
	return o.n.obey(ctx, steward.Order{
		Kind: steward.OrderKind(order.Kind), Incarnation: order.Incarnation, Epoch: order.Epoch, Owner: order.Owner, Set: order.Set,
	})
}

var errStarting = errors.New("the node is starting")

// obey carries out one order about a facet this node owns.
func (n *Node) obey(ctx context.Context, o steward.Order) error {
	if n.acks.owners.Load() == nil {
		return errStarting
	}
	f, err := n.rowOf(ctx, o)
	if err != nil {
		return err
	}
	if !f.Owner.IsZero() && f.Owner.Node != n.dir.Node {
		return fmt.Errorf("%s is owned by node %s in epoch %v", f.Name, f.Owner.Node, f.Epoch)
	}
	switch o.Kind {
	case steward.Wake:
		return n.owners.Wake(ctx, f.Name)
	case steward.Move:
		// A facet whose epoch was raised since may have moved already. One epoch more
		// is this node taking its own facet in a new process life.
		if own := f.Owner.Boot == n.boot && f.Epoch == o.Epoch+1; f.Epoch != o.Epoch && !own {
			return fmt.Errorf("%s is in epoch %v, the order is of epoch %v", f.Name, f.Epoch, o.Epoch)
		}
		return n.owners.Move(ctx, f.Name, owner.Transfer{Owner: o.Owner, Set: n.rows.members(o.Set)})
	}
	return fmt.Errorf("order of unknown kind %d", o.Kind)
}

// rowOf waits until the table here knows the epoch an order speaks of: a new owner
// often hears of its epoch from the old one first.
func (n *Node) rowOf(ctx context.Context, o steward.Order) (placement.Facet, error) {
	w := n.table.Watch()
	defer w.Close()
	for {
		f, ok := n.table.ByIncarnation(o.Incarnation)
		switch {
		case ok && gone(f), !ok && n.table.Tombstoned(o.Incarnation):
			return f, facet.Errorf(facet.CodeNotFound, "the facet is gone")
		case ok && f.Epoch >= o.Epoch:
			return f, nil
		}
		select {
		case <-w.Wake():
			w.Take()
		case <-ctx.Done():
			return f, fmt.Errorf("facet %v in epoch %v: the table here is behind: %w", o.Incarnation, o.Epoch, ctx.Err())
		}
	}
}

// awake is owner.Options.Awake.
func (n *Node) awake(ctx context.Context, row owner.Row) {
	if err := n.order(ctx, row.Owner, steward.Order{Kind: steward.Wake, Incarnation: row.Incarnation, Epoch: row.Epoch}); err != nil {
		n.log.Debug("wake facet at its new owner", "facet", row.Name.String(), "owner", string(row.Owner), "error", err)
	}
}

// warm is owner.Options.Warm.
func (n *Node) warm(ctx context.Context, row owner.Row, to cluster.NodeID) {
	if n.peers == nil {
		return
	}
	o := peer.Order{Kind: peer.OrderWarm, Incarnation: row.Incarnation, Epoch: row.Epoch}
	if err := n.peers.Peer(to).Order(ctx, o); err != nil {
		n.log.Debug("have the next owner make ready", "facet", row.Name.String(), "owner", string(to), "error", err)
	}
}

// warmEntries is how many entries a new owner may as well read from the log: they
// take about a millisecond.
const warmEntries = 256

// getReady makes ready for a facet that this node is to own, or owns since the epoch
// of the order.
func (n *Node) getReady(ctx context.Context, o steward.Order) error {
	if n.acks.owners.Load() == nil {
		return errStarting
	}
	f, err := n.rowOf(ctx, o)
	switch {
	case err != nil:
		return err
	case f.Owner.Node == n.dir.Node:
		return n.owners.Begin(f.Name)
	}
	r, err := n.replicas.Replica(o.Incarnation)
	if err != nil {
		return err
	}
	if m := r.Meta(); m.Open || m.Entries < warmEntries {
		return nil
	}
	return r.CheckpointIdle(ctx) // as far as it is known to be committed (rule R11)
}

// tell has the session of a facet this node owns tell a member what is committed.
func (n *Node) tell(ctx context.Context, to cluster.NodeID, o peer.Order) error {
	if n.acks.owners.Load() == nil {
		return errStarting
	}
	return n.owners.Tell(ctx, o.Incarnation, to)
}

// askOwner is follower.Options.Tell.
func (n *Node) askOwner(ctx context.Context, to cluster.NodeID, id facet.Incarnation, epoch facet.Epoch) error {
	if n.peers == nil {
		return fmt.Errorf("node %s cannot be reached: this node is alone", to)
	}
	return n.peers.Peer(to).Order(ctx, peer.Order{Kind: peer.OrderTell, Incarnation: id, Epoch: epoch})
}

const wakeTimeout = 10 * time.Second

// order has an owner, here or elsewhere, do something.
func (n *Node) order(ctx context.Context, to cluster.NodeID, o steward.Order) error {
	if to == n.dir.Node {
		return n.obey(ctx, o)
	}
	if n.peers == nil {
		return fmt.Errorf("node %s cannot be reached: this node is alone", to)
	}
	return n.peers.Peer(to).Order(ctx, peer.Order{
		Kind: peer.OrderKind(o.Kind), Incarnation: o.Incarnation, Epoch: o.Epoch, Owner: o.Owner, Set: o.Set,
	})
}

// leave hands the facets in use to other members of their sets before the node
// stops, so that nobody waits for its lease to run out.
func (n *Node) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	n.owners.Leave(ctx, func(set []owner.Member) (cluster.NodeID, bool) {
		for _, m := range set {
			if node, ok := n.table.Node(m.Node); ok && m.Node != n.dir.Node && !m.Boot.IsZero() &&
				node.State == placement.NodeActive && n.seen(m.Node) == cluster.StatusAlive {
				return m.Node, true
			}
		}
		return "", false
	})
	if raft := n.consensus(); raft.Stats().Voters > 1 {
		if now, _ := raft.Leadership(); now.Leading {
			// Nobody has to notice that the leader is gone.
			if err := raft.TransferLeadership(ctx, ""); err != nil {
				n.log.Info("the placement log was not handed over", "reason", err)
			}
		}
	}
}

// toLeader sends an operator's request to the node that leads placement.
func (n *Node) toLeader() error {
	raft := n.consensus()
	if now, _ := raft.Leadership(); now.Leading && n.steward.Stats().Leading {
		return nil
	}
	leader, _, ok := raft.Leader()
	if node, known := n.table.Node(leader); ok && known && leader != n.dir.Node {
		return &facet.Error{Code: facet.CodeNotOwner, Message: "the placement leader is node " + string(leader), Owner: apiURL(node.API)}
	}
	return facet.Errorf(facet.CodeUnavailable, "no node leads placement now; try again")
}

var _ service.Operator = svc{}

// Start implements service.Operator.
func (s svc) Start(ctx context.Context, req service.OperationRequest) (service.Operation, error) {
	if err := s.n.toLeader(); err != nil {
		return service.Operation{}, err
	}
	op, err := s.n.steward.Start(ctx, steward.Request{
		Kind: steward.Kind(req.Kind), Node: req.Node, Rate: req.Rate, Force: req.Force,
	})
	return operation(op), operateError(err)
}

// Operations implements service.Operator.
func (s svc) Operations(context.Context) ([]service.Operation, error) {
	if err := s.n.toLeader(); err != nil {
		return nil, err
	}
	list := s.n.steward.List()
	out := make([]service.Operation, len(list))
	for i, op := range list {
		out[i] = operation(op)
	}
	return out, nil
}

// Cancel implements service.Operator.
func (s svc) Cancel(ctx context.Context, id string) error {
	if err := s.n.toLeader(); err != nil {
		return err
	}
	return operateError(s.n.steward.Cancel(ctx, id))
}

func operation(op steward.Operation) service.Operation {
	state := map[steward.Status]service.OperationState{
		steward.Running: service.StateRunning, steward.Completed: service.StateDone, steward.Failed: service.StateFailed,
		steward.Cancelled: service.StateCanceled, steward.Interrupted: service.StateCanceled,
	}[op.Status]
	return service.Operation{
		ID: op.ID, Kind: service.OperationKind(op.Kind), Node: op.Node, Rate: op.Rate, State: state,
		Done: op.Done, Total: op.Total, Failed: op.Failed, Message: op.Message, Started: op.Started, Ended: op.Ended,
	}
}

// Move implements service.Operator.
func (s svc) Move(ctx context.Context, name facet.Name, to cluster.NodeID, pin service.Pin) (service.Info, error) {
	n := s.n
	row, ok, err := n.rows.Confirm(ctx, name)
	switch {
	case err != nil:
		return service.Info{}, err
	case !ok:
		return service.Info{}, facet.NoSuchFacet(name)
	case !row.Local:
		return service.Info{}, owner.NotOwner(&row)
	}
	if to != "" && to != n.dir.Node {
		t := owner.Transfer{Owner: to}
		if set := row.Set(); !slices.ContainsFunc(set, func(m owner.Member) bool { return m.Node == to }) {
			if t.Set, err = n.replaceMember(set, to); err != nil {
				return service.Info{}, err
			}
		}
		if err := n.owners.Move(ctx, name, t); err != nil {
			return service.Info{}, err
		}
	}
	if pin != service.KeepPin {
		if _, err := n.rows.do(ctx, placement.Pin{Incarnation: row.Incarnation, Pinned: pin == service.SetPin}); err != nil {
			return service.Info{}, err
		}
	}
	return s.Stat(ctx, name)
}

// replaceMember gives the set with a node in it that keeps nothing yet, in place of
// this one: the operator wants the facet there and not here.
func (n *Node) replaceMember(set []owner.Member, to cluster.NodeID) ([]owner.Member, error) {
	node, ok := n.table.Node(to)
	switch {
	case !ok:
		return nil, facet.Errorf(facet.CodeNotFound, "node %s is not in the cluster", to)
	case node.State != placement.NodeActive:
		return nil, facet.Errorf(facet.CodeBadRequest, "node %s is %s; undrain it first, or choose another node", to, node.State)
	}
	out := []owner.Member{{Node: node.ID, Store: node.Store, Boot: node.Boot}}
	for _, m := range set {
		if m.Node != n.dir.Node {
			out = append(out, m)
		}
	}
	return out, nil
}

// operateError tells an error of the steward to an operator.
func operateError(err error) error {
	var fe *facet.Error
	switch {
	case err == nil || errors.As(err, &fe):
		return err
	case errors.Is(err, steward.ErrNoNode), errors.Is(err, steward.ErrNoOperation):
		return facet.Errorf(facet.CodeNotFound, "%v", err)
	case errors.Is(err, steward.ErrNotLeading), errors.Is(err, consensus.ErrNotLeader):
		return facet.Errorf(facet.CodeUnavailable, "the placement leader changed; try again")
	}
	return facet.Errorf(facet.CodeBadRequest, "%v", err)
}
