package peer

import (
	"context"
	"errors"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

type OrderKind uint8
type Order struct {
	Kind        OrderKind
	Incarnation facet.Incarnation
	Epoch       facet.Epoch
	Owner       cluster.NodeID
	Set         placement.Set
}

func (p *Peer) Order(context.Context, Order) error { return errors.New("not yet") }
