package node

import (
	"context"
	"errors"
	"strings"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/node/owner"
	"github.com/facetd/facetd/node/service"
)

// Recover implements service.Operator: a facet that lost most of its copies for good
// goes on from the one of a node (rule R25), at that node.
func (s svc) Recover(ctx context.Context, name facet.Name, req service.RecoverRequest) (service.Recovery, error) {
	n := s.n
	row, ok, err := n.rows.Confirm(ctx, name)
	switch {
	case err != nil:
		return service.Recovery{}, err
	case !ok:
		return service.Recovery{}, facet.NoSuchFacet(name)
	case !req.Incarnation.IsZero() && req.Incarnation != row.Incarnation:
		if row.Lineage.Lossy && row.Lineage.Source == req.Incarnation {
			return s.recovered(ctx, &row, req)
		}
		return service.Recovery{}, facet.Errorf(facet.CodeExists, "%s leads to another facet than %v by now; look at it before trying again", name, req.Incarnation)
	case req.From != n.dir.Node:
		return service.Recovery{}, n.atNode(req.From)
	}
	sv := n.owners.Survey(ctx, &row)
	if req.Incarnation.IsZero() && sv.Recoverable && row.Lineage.Lossy {
		return s.recovered(ctx, &row, req)
	}
	rec := n.recovery(&row, &sv)
	if sv.Refused == nil {
		rec.Replicas, sv.Refused = n.mayKeep()
	}
	switch {
	case sv.Refused != nil && req.DryRun:
		rec.Refused = toldText(sv.Refused)
		return rec, nil
	case sv.Refused != nil:
		return rec, sv.Refused
	case req.DryRun:
		return rec, nil
	}
	n.log.Warn("a facet is to go on from one copy, by an operator's word", "facet", name.String(), "incarnation", row.Incarnation.String(),
		"position", rec.Position.String(), "committed", uint64(rec.Committed), "copies", copiesText(rec.Copies))
	made, err := n.owners.ForceRecover(ctx, row)
	if err != nil {
		n.log.Warn("the facet does not go on from one copy", "facet", name.String(), "incarnation", row.Incarnation.String(), "error", err)
		return rec, err
	}
	n.log.Warn("a facet goes on from one copy: what only the others had is lost", "facet", name.String(),
		"incarnation", row.Incarnation.String(), "now", made.Incarnation.String(), "position", rec.Position.String())
	info, err := s.Stat(ctx, name)
	rec.Recovered = &info
	return rec, err
}

// recovered is the answer to a request that was carried out before.
func (s svc) recovered(ctx context.Context, row *owner.Row, req service.RecoverRequest) (service.Recovery, error) {
	info, err := s.Stat(ctx, row.Name)
	return service.Recovery{
		Name: row.Name, Incarnation: row.Lineage.Source, From: req.From, Position: row.Lineage.At,
		Replicas: len(info.Replicas), SizeBytes: info.SizeBytes, Recovered: &info,
	}, err
}

// atNode sends a caller to a node.
func (n *Node) atNode(id cluster.NodeID) error {
	node, ok := n.table.Node(id)
	if !ok {
		return facet.Errorf(facet.CodeNotFound, "node %s is not in the cluster", id)
	}
	return &facet.Error{Code: facet.CodeNotOwner, Message: "the copy is at node " + string(id), Owner: apiURL(node.API)}
}

// recovery tells what a survey found.
func (n *Node) recovery(row *owner.Row, sv *owner.Survey) service.Recovery {
	rec := service.Recovery{
		Name: row.Name, Incarnation: row.Incarnation, From: n.dir.Node,
		Position: sv.Own.Last, Committed: sv.Own.CommitKnown, SizeBytes: int64(sv.Pages) * pages.Size,
	}
	if f, ok := n.table.ByIncarnation(row.Incarnation); ok {
		rec.LastOwner = f.Holder.Node
	}
	for _, c := range sv.Copies {
		x := service.RecoveryCopy{Node: c.Node}
		if c.Err != nil {
			x.Problem = toldText(c.Err)
		} else {
			x.Position, x.Committed, x.Health = c.Promise.Last, c.Promise.CommitKnown, c.Promise.Health.String()
		}
		rec.Copies = append(rec.Copies, x)
	}
	return rec
}

// mayKeep tells how many nodes will keep a new facet of this node, and refuses where so
// many of them are gone that it could not be activated.
func (n *Node) mayKeep() (replicas int, err error) {
	set, err := n.rows.ownSet(facet.NewIncarnation())
	if err != nil {
		return 0, err
	}
	alive := 0
	for _, m := range set.Members() {
		if m.Node == n.dir.Node || n.seen(m.Node) == cluster.StatusAlive {
			alive++
		}
	}
	if least := quorum.Majority(set.Len()); alive < least {
		return set.Len(), facet.Errorf(facet.CodeBadRequest, "the new facet is to be kept by %d nodes, and only %d live; start or add nodes until %d do", set.Len(), alive, least)
	}
	return set.Len(), nil
}

// toldText is an error without its code.
func toldText(err error) string {
	if fe, ok := errors.AsType[*facet.Error](err); ok {
		return fe.Message
	}
	return err.Error()
}

func copiesText(copies []service.RecoveryCopy) string {
	var list []string
	for _, c := range copies {
		if c.Problem != "" {
			list = append(list, string(c.Node)+": "+c.Problem)
			continue
		}
		list = append(list, string(c.Node)+" at "+c.Position.String()+", "+c.Health)
	}
	return strings.Join(list, "; ")
}
