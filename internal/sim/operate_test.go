package sim

import (
	"context"
	"time"

	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/placement"
)

// operator is a node's answer to operators.
func operator(l *life) service.Operator { return l.node.Service().(service.Operator) }

// operate begins an operation at whoever leads.
func (n *nemesis) operate(req service.OperationRequest) {
	n.wg.Go(func() {
		for range 20 {
			if l := n.w.leader(); l != nil {
				ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
				_, err := operator(l).Start(ctx, req)
				cancel()
				n.w.tell("%s %s at %s: %v", req.Kind, req.Node, l.name, err)
				if err == nil {
					n.w.note(string(req.Kind) + " begun")
					return
				}
			}
			time.Sleep(500 * time.Millisecond)
		}
	})
}

// grow adds a machine to the cluster.
func (w *world) grow() {
	m := w.add(0, []string{"10.0.0.1:7402", "10.0.0.2:7402", "10.0.0.3:7402"})
	w.note("grown")
	m.start()
}

// spare reports whether a disk may be lost: a majority of the voters of the placement
// log, and of every replica set, is there without it. After an orderly restart a node
// is no voter for some seconds, and there may be two of them.
func (w *world) spare() bool {
	l := w.leader()
	if l == nil || len(w.running()) != len(w.all()) || len(w.all()) < 3 {
		return false
	}
	voters := 0
	for _, n := range l.node.Service().Cluster(l.ctx).Nodes {
		if n.Voter {
			voters++
		}
	}
	for f := range l.node.Table().Facets() {
		if f.Active.Len() < 3 {
			return false
		}
	}
	return voters >= 3
}

// part takes a node out of the cluster as an operator does: its facets and copies go
// to others, it is stopped, it is removed.
func (w *world) part(m *machine) {
	m.mu.Lock()
	m.leaving = true
	m.mu.Unlock()
	w.tell("%s is to leave the cluster", m.id)
	// Asked for again until it is so, whatever happens to it or the leader meanwhile.
	order := func(kind service.OperationKind, done func(*placement.Table) bool) bool {
		var err error
		ok := w.until(leavesWithin, func() bool {
			l := w.leader()
			if l == nil || done(l.node.Table()) {
				return l != nil
			}
			ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
			defer cancel()
			_, err = operator(l).Start(ctx, service.OperationRequest{Kind: kind, Node: m.id})
			time.Sleep(time.Second)
			return false
		})
		if !ok {
			w.problem("%s of %s does not end within %v: %v", kind, m.id, leavesWithin, err)
		}
		return ok
	}
	if !order(service.OpDecommission, func(t *placement.Table) bool {
		n, ok := t.Node(m.id)
		if !ok || n.State != placement.NodeDecommissioning {
			return false
		}
		for row := range t.Facets() {
			if row.Owner.Node == m.id || row.Active.Has(m.id) || row.Next.Has(m.id) {
				return false
			}
		}
		return true
	}) {
		return
	}
	m.mu.Lock()
	m.out = true
	l := m.life
	m.mu.Unlock()
	if l != nil {
		l.stop(15 * time.Second)
	}
	if order(service.OpRemove, func(t *placement.Table) bool { _, ok := t.Node(m.id); return !ok }) {
		w.tell("%s has left the cluster", m.id)
		w.note("left")
	}
}
