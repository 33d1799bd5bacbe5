// Package servicetest is a cluster on paper: a service.Operator for tests of the
// faces, the SDK and the commands.
//
// It owns nodes, pins and operations as an operator sees them, and moves nothing
// but numbers. It refuses to run SQL or to know what a facet holds; nobody but
// tests may use it. An Operator is safe for concurrent use.
package servicetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/service"
)

// epoch is when everything in this cluster happens, so that tests can show it.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Operator is a cluster on paper. Make it with New.
type Operator struct {
	mu    sync.Mutex
	nodes []service.Node // sorted by id
	sheet service.Cluster
	// placed holds the facets that were moved or pinned.
	placed map[facet.Name]place
	forced map[facet.Name]facet.Lineage // of those that were recovered by force
	ops    []service.Operation          // newest first
	step   int
	err    error
}

type place struct {
	owner  cluster.NodeID // empty: where it was
	pinned bool
}

// New makes a cluster of nodes with these ids, of which the first leads. Each
// owns 100 facets and keeps 200.
func New(ids ...cluster.NodeID) *Operator {
	o := &Operator{placed: make(map[facet.Name]place), forced: make(map[facet.Name]facet.Lineage)}
	slices.Sort(ids)
	for i, id := range ids {
		o.nodes = append(o.nodes, service.Node{
			ID: id, API: fmt.Sprintf("10.0.0.%d:7400", i+1), Peer: fmt.Sprintf("10.0.0.%d:7401", i+1),
			Zone: fmt.Sprintf("z%d", i+1), Version: "test", State: service.NodeAlive, Voter: i < 5,
			Boot: fmt.Sprintf("b%031d", i+1), Store: fmt.Sprintf("5%031d", i+1),
			LeaseAge: 100 * time.Millisecond, Owned: 100, Held: 200,
		})
	}
	o.sheet = service.Cluster{ID: "c1", Self: ids[0], Leader: ids[0], Term: 3, Applied: 42, Facets: 100 * len(ids), Replicas: min(3, len(ids))}
	return o
}

// Step makes operations take time: each look at them moves n facets. With 0, as
// at first, they are done at once.
func (o *Operator) Step(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.step = n
}

// Fail makes every call answer err until it is nil again.
func (o *Operator) Fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
}

// Forget drops all operations, as a new leader does.
func (o *Operator) Forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ops = nil
}

// SetState changes what a node is.
func (o *Operator) SetState(id cluster.NodeID, s service.NodeState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.node(id).State = s
}

// Cluster is what service.Service tells of this cluster.
func (o *Operator) Cluster() service.Cluster {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.sheet
	c.Nodes = slices.Clone(o.nodes)
	return c
}

// Placed changes what a facet's Info tells to where the facet is now.
func (o *Operator) Placed(info service.Info) service.Info {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.placed[info.Name]
	info.Lineage = o.forced[info.Name]
	if info.Pinned = p.pinned; p.owner != "" {
		info.Owner = p.owner
		info.OwnerURL = "http://" + o.node(p.owner).API
		info.Epoch++
		if !slices.Contains(info.Replicas, p.owner) {
			info.Replicas = append(slices.Clone(info.Replicas), p.owner)
		}
	}
	return info
}

func (o *Operator) node(id cluster.NodeID) *service.Node {
	i := slices.IndexFunc(o.nodes, func(n service.Node) bool { return n.ID == id })
	if i < 0 {
		return nil
	}
	return &o.nodes[i]
}

func (o *Operator) noNode(id cluster.NodeID) error {
	var names []string
	for _, n := range o.nodes {
		names = append(names, string(n.ID))
	}
	return facet.Errorf(facet.CodeNotFound, "there is no node %s in this cluster; the nodes are %s", id, strings.Join(names, ", "))
}

// Start implements service.Operator.
func (o *Operator) Start(_ context.Context, req service.OperationRequest) (service.Operation, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return service.Operation{}, o.err
	}
	n := o.node(req.Node)
	if req.Kind.NeedsNode() && n == nil {
		return service.Operation{}, o.noNode(req.Node)
	}
	for i := range o.ops {
		if op := &o.ops[i]; op.Kind == req.Kind && op.Node == req.Node && op.State == service.StateRunning {
			return *op, nil
		}
	}
	op := service.Operation{
		ID: fmt.Sprintf("op-%d", len(o.ops)+1), Kind: req.Kind, Node: req.Node, Rate: req.Rate,
		State: service.StateRunning, Started: epoch,
	}
	if op.Rate == 0 {
		op.Rate = 50
	}
	switch req.Kind {
	case service.OpDrain:
		op.Total, n.State = n.Owned, service.NodeDraining
	case service.OpDecommission:
		op.Total, n.State = n.Held, service.NodeDecommissioning
	case service.OpUndrain:
		n.State = service.NodeAlive
		for i := range o.ops {
			if o.ops[i].Node == req.Node {
				o.cancel(&o.ops[i])
			}
		}
	case service.OpRemove:
		if n.State != service.NodeDecommissioning || n.Held > 0 {
			return op, facet.Errorf(facet.CodeBadRequest, "node %s keeps %d facets; decommission it first", n.ID, n.Held)
		}
		o.nodes = slices.DeleteFunc(o.nodes, func(n service.Node) bool { return n.ID == req.Node })
	}
	if op.Total == 0 || o.step == 0 {
		o.move(&op, op.Total)
	}
	o.ops = slices.Insert(o.ops, 0, op)
	return op, nil
}

// move brings an operation n facets on.
func (o *Operator) move(op *service.Operation, n int) {
	if op.State != service.StateRunning {
		return
	}
	op.Done = min(op.Total, op.Done+n)
	if at := o.node(op.Node); at != nil && op.Kind == service.OpDrain {
		at.Owned = op.Total - op.Done
	} else if at != nil && op.Kind == service.OpDecommission {
		at.Owned, at.Held = 0, op.Total-op.Done
	}
	if op.Done == op.Total {
		op.State, op.Ended = service.StateDone, epoch.Add(2*time.Second)
	}
}

func (o *Operator) cancel(op *service.Operation) {
	if op.State == service.StateRunning {
		op.State, op.Message, op.Ended = service.StateCanceled, "canceled by an operator", epoch.Add(time.Second)
	}
}

// Operations implements service.Operator.
func (o *Operator) Operations(context.Context) ([]service.Operation, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return nil, o.err
	}
	for i := range o.ops {
		o.move(&o.ops[i], o.step)
	}
	return slices.Clone(o.ops), nil
}

// Cancel implements service.Operator.
func (o *Operator) Cancel(_ context.Context, id string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	i := slices.IndexFunc(o.ops, func(op service.Operation) bool { return op.ID == id })
	if i < 0 {
		return facet.Errorf(facet.CodeNotFound, "there is no operation %s", id)
	}
	o.cancel(&o.ops[i])
	return nil
}

// Mover gives the operator its Move: stat tells about a facet, or that it does
// not exist, as if it had never been moved.
func (o *Operator) Mover(stat func(context.Context, facet.Name) (service.Info, error)) service.Operator {
	return &mover{o, stat}
}

// mover is a service.Operator over facets that somebody else holds.
type mover struct {
	*Operator
	stat func(context.Context, facet.Name) (service.Info, error)
}

// Move implements service.Operator.
func (m *mover) Move(ctx context.Context, name facet.Name, to cluster.NodeID, pin service.Pin) (service.Info, error) {
	info, err := m.stat(ctx, name)
	if err != nil {
		return info, err
	}
	if err := m.move(name, to, pin); err != nil {
		return info, err
	}
	return m.Placed(info), nil
}

// Recover implements service.Operator: while at least two nodes of three are not gone it
// refuses.
func (m *mover) Recover(ctx context.Context, name facet.Name, req service.RecoverRequest) (service.Recovery, error) {
	info, err := m.stat(ctx, name)
	if err != nil {
		return service.Recovery{}, err
	}
	rec, err := m.recovery(info, req)
	if err == nil && rec.Refused == "" && !req.DryRun {
		info = m.Placed(info)
		rec.Recovered = &info
	}
	return rec, err
}

func (m *mover) recovery(info service.Info, req service.RecoverRequest) (service.Recovery, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return service.Recovery{}, m.err
	}
	if m.node(req.From) == nil {
		return service.Recovery{}, m.noNode(req.From)
	}
	at := facet.Position{Epoch: 1, Seq: 42}
	rec := service.Recovery{
		Name: info.Name, Incarnation: info.Incarnation, From: req.From, Position: at, Committed: 41,
		SizeBytes: info.SizeBytes, LastOwner: info.Owner, Replicas: 3,
	}
	alive := 0
	for _, n := range m.nodes {
		c := service.RecoveryCopy{Node: n.ID, Position: at, Committed: 41, Health: "ok"}
		if n.State == service.NodeGone {
			c = service.RecoveryCopy{Node: n.ID, Problem: "does not answer"}
		} else {
			alive++
		}
		rec.Copies = append(rec.Copies, c)
	}
	switch {
	case alive > len(m.nodes)/2:
		rec.Refused = "enough copies answer"
		if !req.DryRun {
			return rec, facet.Errorf(facet.CodeBadRequest, "%s", rec.Refused)
		}
	case !req.DryRun:
		m.forced[info.Name] = facet.Lineage{Source: info.Incarnation, At: at, Lossy: true}
	}
	return rec, nil
}

func (m *mover) move(name facet.Name, to cluster.NodeID, pin service.Pin) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	p := m.placed[name]
	if to != "" {
		if m.node(to) == nil {
			return m.noNode(to)
		}
		p.owner = to
	}
	if pin != service.KeepPin {
		p.pinned = pin == service.SetPin
	}
	m.placed[name] = p
	return nil
}
