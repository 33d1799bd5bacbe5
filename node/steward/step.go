package steward

import (
	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/placement"
)

// step is the next thing to do on the way from a row to its plan.
type step struct {
	kind    stepKind
	why     string            // stepStuck
	acquire placement.Acquire // stepAcquire
	to      cluster.NodeID    // stepOrder: who is asked
	order   Order
}

type stepKind uint8

const (
	stepDone    stepKind = iota
	stepStuck            // it cannot go on now
	stepAcquire          // an epoch is issued by the steward: nobody serves the facet
	stepOrder            // the owner is asked
	stepFinish           // the row is deleted or retired and has to end
)

// next is the first step towards a plan. One change of a row is under way at a time
// (rule R43): a change of the set somebody began is completed first, or taken back
// if it never can be.
func (v *view) next(f *placement.Facet, p plan) step {
	switch {
	case p.need == nothing:
		return step{}
	case p.need == stuck:
		return step{kind: stepStuck, why: p.why}
	case !live(f):
		return step{kind: stepFinish}
	case f.Owner.IsZero() || v.ownerGone(f) || pending(f) && !v.majority(f.Next):
		a, ok := v.appoint(f)
		if !ok {
			return step{kind: stepStuck, why: whyMajority}
		}
		return step{kind: stepAcquire, acquire: a}
	case !v.majority(base(f)):
		return step{kind: stepStuck, why: whyMajority}
	case !f.Bound:
		return step{kind: stepStuck, why: whyNameless}
	}
	o := Order{Kind: Move, Incarnation: f.Incarnation, Epoch: f.Epoch, Owner: p.owner, Set: p.set}
	switch {
	case pending(f):
		o = Order{Kind: Wake, Incarnation: f.Incarnation, Epoch: f.Epoch} // a wake names nobody: it is given to the owner
	case o.Set.Equal(f.Next):
		o.Set = placement.Set{}
	}
	return step{kind: stepOrder, to: f.Owner.Node, order: o}
}
