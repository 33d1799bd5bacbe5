package node

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/audit"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/node/scrub"
	"github.com/facetd/facetd/node/steward"
	"github.com/facetd/facetd/placement"
)

const (
	// mendEvery is how often a node looks whether copies of it are damaged. It is a
	// look at an empty list.
	mendEvery = 2 * time.Second
	// mendBatch bounds the copies looked at in one round, mendAtOnce those replaced at a
	// time: each costs a snapshot, and a disk that lost everything is no hurry.
	mendBatch  = 1024
	mendAtOnce = 4
	// mendTimeout bounds one try. The owner goes on with what it began.
	mendTimeout = 30 * time.Second
	// mendPause is how long after one try the next comes. It doubles up to mendPauseMax:
	// what cannot be replaced waits for other nodes, or for an operator.
	mendPause    = 4 * time.Second
	mendPauseMax = 10 * time.Minute
)

// openScrub begins to read what is kept here again, and to compare it with what other
// nodes keep (rule R52).
func (n *Node) openScrub() (err error) {
	n.scrubber, err = scrub.New(scrub.Options{
		Store: n.replicas, FS: n.cfg.Platform.FS, File: scrubFile, Every: n.cfg.ScrubEvery, Rate: n.cfg.ScrubRate,
		Damaged: n.owners.Damaged, Logger: n.log,
	})
	if err != nil {
		return err
	}
	n.wg.Go(n.mend)
	if n.peers == nil {
		return nil
	}
	a, err := audit.New(audit.Options{
		Store: n.replicas, Table: n.table, Node: n.dir.Node, Every: n.cfg.CompareEvery,
		Peer:    func(id cluster.NodeID) audit.Peer { return n.peers.Peer(id) },
		Wake:    n.owners.Wake,
		InUse:   n.owners.InUse,
		Damaged: n.owners.Damaged, Logger: n.log,
	})
	if err != nil {
		return err
	}
	n.auditor.Store(a)
	return nil
}

// comparer is peer.Config.Comparer.
func (n *Node) comparer() peer.Comparer {
	if a := n.auditor.Load(); a != nil {
		return a
	}
	return nil
}

// scrubFile is where it is kept when what was read.
const scrubFile = "scrub"

// attempts is what mend remembers of a copy that is damaged still.
type attempts struct {
	next  time.Time
	pause time.Duration
}

// mend has the damaged copies of this node replaced, in use or not: an owner finds out
// what its members lack when it opens a facet, and nobody opens one that is idle.
func (n *Node) mend() {
	tick := time.NewTicker(mendEvery)
	defer tick.Stop()
	tried := map[facet.Incarnation]attempts{}
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		list, _ := n.replicas.Damaged(mendBatch)
		now, still := time.Now(), make(map[facet.Incarnation]attempts, len(list))
		var g errgroup.Group
		g.SetLimit(mendAtOnce)
		for _, d := range list {
			a := tried[d.ID]
			if !now.Before(a.next) {
				a.pause = min(max(2*a.pause, mendPause), mendPauseMax)
				a.next = now.Add(a.pause)
				g.Go(func() error { n.mendCopy(d); return nil })
			}
			still[d.ID] = a
		}
		_ = g.Wait() // they return no errors
		tried = still
	}
}

// mendCopy has one copy replaced by the owner of its facet, which takes what a majority
// agrees on (R51).
func (n *Node) mendCopy(d replica.Damage) {
	f, ok := n.table.ByIncarnation(d.ID)
	switch {
	case !ok || gone(f) || !f.Bound:
		return
	case !f.Active.Has(n.dir.Node) && !f.Next.Has(n.dir.Node):
		return // it is dropped soon
	case d.Health >= replica.Holed && f.Active.Len() <= 1 && f.Next.Len() <= 1:
		return // there is no other, as was said when that was found
	}
	ctx, cancel := context.WithTimeout(n.ctx, mendTimeout)
	defer cancel()
	if err := n.askToHeal(ctx, f, d.Since); err != nil {
		n.log.Debug("have a damaged copy replaced", "facet", f.Name.String(), "health", d.Health.String(), "error", err)
	}
}

// askToHeal asks the owner of a facet, or who may become it, to heal a copy here.
func (n *Node) askToHeal(ctx context.Context, f placement.Facet, since facet.Epoch) error {
	since = max(since, 1)
	row := n.rows.row(f)
	switch {
	case row.Local:
		return n.heal(ctx, steward.Order{Incarnation: f.Incarnation, Epoch: since})
	case n.peers == nil:
		return fmt.Errorf("node %s cannot be reached: this node is alone", row.Owner)
	}
	return n.peers.Peer(row.Owner).Order(ctx, peer.Order{Kind: peer.OrderHeal, Incarnation: f.Incarnation, Epoch: since})
}

// heal is OrderHeal at the owner.
func (n *Node) heal(ctx context.Context, o steward.Order) error {
	if n.acks.owners.Load() == nil {
		return errStarting
	}
	f, err := n.rowOf(ctx, o)
	if err != nil {
		return err
	}
	return n.owners.Heal(ctx, f.Name, o.Epoch)
}
