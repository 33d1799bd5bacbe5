package steward

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/placement"
)

// Kind is what an operation does.
type Kind string

const (
	// Drain moves every facet a node owns to another member of its set.
	Drain Kind = "drain"
	// Undrain lets a node take facets again; it ends a drain or a decommission.
	Undrain Kind = "undrain"
	// Decommission is a drain that also moves every copy off the node. The node may
	// be dead.
	Decommission Kind = "decommission"
	// Remove takes a decommissioned node, which no row names any more, out of the
	// cluster.
	Remove Kind = "remove"
	// Repair gives a successor to every member of a set that does not live, and
	// lets sets grow to the replication factor.
	Repair Kind = "repair"
	// Rebalance brings owners and sets to where the planner puts them now.
	Rebalance Kind = "rebalance"
)

// Status is what became of an operation.
type Status string

const (
	Running   Status = "running"
	Completed Status = "done"
	// Failed: what could be done was done, and Failed facets remain. Drains,
	// decommissions and repairs are taken up again after a minute.
	Failed    Status = "failed"
	Cancelled Status = "canceled"
	// Interrupted: this node ceased to lead. The next leader goes on with drains
	// and decommissions, and begins its own repairs.
	Interrupted Status = "interrupted"
)

// Operation is one operation, as it is now.
type Operation struct {
	ID     string // never used again in the cluster
	Kind   Kind
	Node   cluster.NodeID // zero when it is about all of them
	Status Status
	// Auto: nobody asked for it. DryRun: it only counts.
	Auto   bool
	DryRun bool
	Rate   int // moves of facets begun a second, at most
	// Done, Total and Failed count moves of facets. Total grows when more turn up;
	// Failed ones are not tried again before the operation has ended.
	Done    int
	Total   int
	Failed  int
	Message string
	Started time.Time
	Ended   time.Time // zero while it runs
}

// Request asks for an operation.
type Request struct {
	Kind Kind
	Node cluster.NodeID // of Drain, Undrain, Decommission and Remove
	// DryRun counts what there is to do, in Total, and does nothing.
	DryRun bool
	// Rate is how many moves to begin a second, at most MaxRate; zero is that of
	// Config.
	Rate int
	// Force removes a node that still lives, and decommissions one without which
	// facets have fewer copies than they should, down to one. A later leader does
	// not know of it and stops where facets would have too few.
	Force bool
}

// operation is an Operation and what its leader needs to run it. All of it is
// guarded by Steward.mu.
type operation struct {
	Operation
	force  bool
	cancel context.CancelCauseFunc // of the run under way
	over   chan struct{}           // closed when that run ended
}

func (o *operation) is(r Request) bool {
	return o.Kind == r.Kind && o.Node == r.Node && o.DryRun == r.DryRun
}

// states are the node states that stand for operations.
var states = map[Kind]placement.NodeState{
	Drain:        placement.NodeDraining,
	Undrain:      placement.NodeActive,
	Decommission: placement.NodeDecommissioning,
}

// Start begins an operation, and returns it. While one like it runs that one is
// returned, so a request may be repeated; a repair that somebody asks for takes the
// place of one that began by itself.
//
// Drain, Undrain and Decommission are in the table when Start returns. The error
// is ErrNotLeading, ErrTooMany, ErrInvalid, ErrNoNode, ErrConflict, ErrTooFewNodes,
// ErrInUse, ErrAlive, that of the proposal or that of ctx.
func (s *Steward) Start(ctx context.Context, r Request) (Operation, error) {
	t := s.leading()
	if t == nil {
		return Operation{}, fmt.Errorf("start %s: %w", r.Kind, ErrNotLeading)
	}
	err := t.check(r)
	if errors.Is(err, ErrAlive) && t.awaitDeath(ctx, r.Node) {
		err = t.check(r)
	}
	if err != nil {
		return Operation{}, fmt.Errorf("start %s: %w", r.Kind, err)
	}
	if state, ok := states[r.Kind]; ok && !r.DryRun {
		defer s.reserve(r.Node)()
		if err := t.setNode(ctx, r.Node, state); err != nil {
			return Operation{}, fmt.Errorf("start %s of %s: %w", r.Kind, r.Node, err)
		}
		err := t.end(ctx, func(o *operation) bool { return o.Node == r.Node && !o.is(r) }, errSuperseded)
		if err != nil {
			return Operation{}, err
		}
	}
	if r.Kind == Repair && !r.DryRun { // make way for what was asked for
		if err := t.end(ctx, func(o *operation) bool { return o.Kind == Repair && o.Auto }, errRequested); err != nil {
			return Operation{}, err
		}
	}
	o, err := t.begin(r, false)
	if err != nil {
		return Operation{}, fmt.Errorf("start %s: %w", r.Kind, err)
	}
	return o, nil
}

// reserve keeps the loop from beginning an operation about a node until the function
// it returns is called.
func (s *Steward) reserve(node cluster.NodeID) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun[node]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.begun[node]--; s.begun[node] == 0 {
			delete(s.begun, node)
		}
	}
}

func (s *Steward) reserved(node cluster.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun[node] > 0
}

// check tells whether a request can be begun.
func (t *term) check(r Request) error {
	_, about := states[r.Kind]
	about = about || r.Kind == Remove
	switch {
	case !about && r.Kind != Repair && r.Kind != Rebalance:
		return fmt.Errorf("%w: kind %.40q", ErrInvalid, r.Kind)
	case !about && r.Node != "", about && r.Node == "", (r.Kind == Undrain || r.Kind == Remove) && r.DryRun:
		return fmt.Errorf("%w: node %.80q, dry run %v", ErrInvalid, r.Node, r.DryRun)
	case r.Rate < 0 || r.Rate > MaxRate:
		return fmt.Errorf("%w: rate %d", ErrInvalid, r.Rate)
	case !about:
		return nil
	}
	n, ok := t.s.cfg.Table.Node(r.Node)
	switch {
	case !ok:
		return fmt.Errorf("%w: %s", ErrNoNode, r.Node)
	case r.Kind == Drain && n.State == placement.NodeDecommissioning:
		return fmt.Errorf("%w: %s", ErrConflict, r.Node)
	case r.Kind == Remove:
		return t.mayRemove(n, r.Force)
	case r.Kind != Decommission || r.Force:
		return nil
	}
	left := 0
	for _, n := range t.s.cfg.Table.Nodes() {
		if n.ID != r.Node && n.State != placement.NodeDecommissioning {
			left++
		}
	}
	// Rule R43: never below three copies because a node leaves.
	if least := min(t.s.cfg.Replicas, 3); left < least {
		return fmt.Errorf("%w: %d of the %d that every facet needs; add a node first", ErrTooFewNodes, left, least)
	}
	return nil
}

// mayRemove tells whether a node may go: nothing is on it, and it was meant to go.
func (t *term) mayRemove(n placement.Node, force bool) error {
	switch {
	case t.s.cfg.RemoveMember == nil:
		return fmt.Errorf("%w: nodes cannot be removed here", ErrInvalid)
	case n.State != placement.NodeDecommissioning:
		return fmt.Errorf("%w: %s is %v; decommission it first", ErrInUse, n.ID, n.State)
	case !force && !t.dead(n.ID):
		return fmt.Errorf("%w: %s; stop it first", ErrAlive, n.ID)
	}
	for f := range t.s.cfg.Table.HeldBy(n.ID) {
		return fmt.Errorf("%w: %s keeps %v", ErrInUse, n.ID, f.Incarnation)
	}
	return nil
}

// awaitDeath waits until a node is dead, which one that was stopped a moment ago is
// when its lease is over, and reports whether it is. It gives up after dyingFor.
func (t *term) awaitDeath(ctx context.Context, node cluster.NodeID) bool {
	timer := time.NewTimer(dyingFor)
	defer timer.Stop()
	for {
		dead, changed := t.s.cfg.Lives.Dead()
		if slices.Contains(dead, node) {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		case <-t.ctx.Done():
			return false
		}
	}
}

func (t *term) dead(node cluster.NodeID) bool {
	dead, _ := t.s.cfg.Lives.Dead()
	return slices.Contains(dead, node)
}

// setNode brings the state wanted of a node into the table.
func (t *term) setNode(ctx context.Context, node cluster.NodeID, state placement.NodeState) error {
	res, err := t.propose(ctx, placement.SetNode{Node: node, State: state})
	if err != nil {
		return err
	}
	return res[0].Err()
}

// List gives the operations known here, the newest first. It is empty on a node
// that never led.
func (s *Steward) List() []Operation {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Operation, 0, len(s.ops))
	for i := len(s.ops) - 1; i >= 0; i-- {
		out = append(out, s.ops[i].Operation)
	}
	return out
}

// Cancel ends an operation; facets that are on their way arrive. Cancelling a drain
// or a decommission makes the node active again: the state in the table is what is
// wanted, and would begin the operation anew. Cancelling one that has ended does
// nothing. The error is ErrNotLeading, ErrNoOperation or that of the proposal.
func (s *Steward) Cancel(ctx context.Context, id string) error {
	t := s.leading()
	if t == nil {
		return fmt.Errorf("cancel operation %.40q: %w", id, ErrNotLeading)
	}
	s.mu.Lock()
	var found *operation
	for _, o := range s.ops {
		if o.ID == id {
			found = o
		}
	}
	if found == nil {
		s.mu.Unlock()
		return fmt.Errorf("cancel operation %.40q: %w", id, ErrNoOperation)
	}
	op := found.Operation // a copy
	s.mu.Unlock()
	if op.Status != Running {
		return nil
	}
	if err := t.end(ctx, func(o *operation) bool { return o.ID == id }, errCancelled); err != nil {
		return err
	}
	if _, about := states[op.Kind]; about && !op.DryRun {
		if err := t.setNode(ctx, op.Node, placement.NodeActive); err != nil {
			return fmt.Errorf("cancel %s of %s: %w", op.Kind, op.Node, err)
		}
		t.edit(found, func(o *Operation) {
			if o.Status == Cancelled {
				o.Message = fmt.Sprintf("canceled; node %s is active again, what was moved stays where it is", op.Node)
			}
		})
	}
	return nil
}

// begin runs an operation, unless one like it runs: then it is that one.
func (t *term) begin(r Request, auto bool) (Operation, error) {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term != t {
		return Operation{}, ErrNotLeading
	}
	running := 0
	for _, o := range s.ops {
		if o.Status != Running {
			continue
		}
		if o.is(r) {
			o.Auto = o.Auto && auto
			return o.Operation, nil
		}
		running++
	}
	if running >= MaxRunning {
		return Operation{}, ErrTooMany
	}
	s.drawn++
	o := &operation{Operation: Operation{
		ID:   strconv.FormatUint(t.number, 10) + "-" + strconv.Itoa(s.drawn),
		Kind: r.Kind, Node: r.Node, DryRun: r.DryRun, Auto: auto, Rate: r.Rate,
	}, force: r.Force}
	switch {
	case r.Rate > 0:
	case auto && r.Kind == Repair:
		o.Rate = s.cfg.RepairRate
	default:
		o.Rate = s.cfg.Rate
	}
	s.ops = append(s.ops, o)
	s.forget()
	t.runLocked(o)
	return o.Operation, nil
}

// forget drops the oldest operations that ended, beyond the number remembered.
// Steward.mu is held.
func (s *Steward) forget() {
	for i := 0; len(s.ops) > MaxOperations && i < len(s.ops); {
		if s.ops[i].Status == Running || s.ops[i].Status == "" {
			i++
			continue
		}
		s.ops = append(s.ops[:i], s.ops[i+1:]...)
	}
}

// resume takes an operation up again that ended with work left over.
func (t *term) resume(id string) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if t.s.term != t {
		return
	}
	for _, o := range t.s.ops {
		if o.ID == id && o.Status != Running {
			o.Failed = 0
			t.runLocked(o)
		}
	}
}

// runLocked starts the goroutine of an operation. Steward.mu is held and t is the
// term that leads, so the term's group is not waited for yet.
func (t *term) runLocked(o *operation) {
	ctx, cancel := context.WithCancelCause(t.ctx)
	o.Status, o.Ended, o.Message = Running, time.Time{}, ""
	if o.Started.IsZero() {
		o.Started = time.Now()
	}
	o.cancel, o.over = cancel, make(chan struct{})
	over := o.over
	t.group.Go(func() {
		defer close(over)
		defer cancel(nil)
		t.run(ctx, o)
	})
}

// latest is the operation of a kind that began last.
func (s *Steward) latest(r Request) (Operation, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.ops) - 1; i >= 0; i-- {
		if s.ops[i].is(r) {
			return s.ops[i].Operation, true
		}
	}
	return Operation{}, false
}

// running is how many operations are under way.
func (s *Steward) running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, o := range s.ops {
		if o.Status == Running {
			n++
		}
	}
	return n
}

// end cancels the running operations that which says, and waits for them.
func (t *term) end(ctx context.Context, which func(*operation) bool, why error) error {
	t.s.mu.Lock()
	var over []chan struct{}
	for _, o := range t.s.ops {
		if o.Status == Running && which(o) {
			o.cancel(why)
			over = append(over, o.over)
		}
	}
	t.s.mu.Unlock()
	for _, c := range over {
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// edit changes the counts of an operation under way.
func (t *term) edit(o *operation, change func(*Operation)) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	change(&o.Operation)
	if len(o.Message) > maxMessage {
		o.Message = o.Message[:maxMessage]
	}
}
