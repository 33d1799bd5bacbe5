package owner

import (
	"context"
	"sync"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/quorum"
)

// errCutOff is what requests hear that would have to wait for the rest of the
// cluster. They were not begun.
var errCutOff = facet.Errorf(facet.CodeUnavailable, "this node is cut off: it has no lease and knows no placement leader; ask another node")

// outlook is whether this node has the rest of the cluster to ask. What needs the
// placement log (a new epoch, ACTIVATE, a creation, a name that is not known) waits in
// a context of it, which ends when the node is found to be cut off, and has ended as
// long as it is: callers turn to another node then, instead of waiting for openTimeout.
type outlook struct {
	parent context.Context
	mu     sync.Mutex
	alone  int // sweeps in a row that found neither lease nor leader
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (o *outlook) init(parent context.Context) {
	o.parent = parent
	o.ctx, o.cancel = context.WithCancelCause(parent)
}

// look takes in what a sweep found.
func (o *outlook) look(connected bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !connected:
		if o.alone++; o.alone == cutOffAfter {
			o.cancel(errCutOff)
		}
	case o.alone >= cutOffAfter:
		o.alone = 0
		o.ctx, o.cancel = context.WithCancelCause(o.parent)
	default:
		o.alone = 0
	}
}

func (o *outlook) context() context.Context {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ctx
}

// lookOut sees whether this node is cut off. The sweeper calls it every sweepEvery.
func (m *Manager) lookOut() {
	m.outlook.look(m.lease.Valid() || m.opts.Led == nil || m.opts.Led())
}

// asking is the context of a request that needs the rest of the cluster.
func (m *Manager) asking(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(m.outlook.context(), limit)
}

// unasked gives the reason of an error that came with ctx, one of asking: that the node
// is cut off, or shuts down, if it does.
func unasked(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && (cause == errCutOff || cause == errClosing) {
		return cause
	}
	return err
}

// connected reports whether a majority of a set can be reached, as it seems.
func (m *Manager) connected(set []Member) bool {
	n := 0
	for i := range set {
		if m.reaches(set[i].Node) {
			n++
		}
	}
	return n >= quorum.Majority(len(set))
}

// reaches reports whether a node is this one or connected.
func (m *Manager) reaches(node cluster.NodeID) bool {
	return node == m.opts.Self.Node || m.opts.Peers != nil && m.opts.Peers.Peer(node).Status().Connected
}
