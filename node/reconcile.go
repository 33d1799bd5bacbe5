package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/steward"
	"github.com/facetd/facetd/placement"
)

const (
	// reconcileEvery is how often a node compares the table with what it holds
	// when nothing wakes it, and looks whether the commit log can be shortened.
	reconcileEvery = 2 * time.Second
	// copiesEvery is how often the copies here are compared with the table.
	copiesEvery = 15 * time.Second
	// trashEvery is how often deleted data past their grace period are removed.
	trashEvery = 10 * time.Minute
	// trashGrace is how long the files of deleted facets are kept.
	trashGrace = 24 * time.Hour
	// trimAfter is how many sessions must have closed before memory is given back;
	// trimQuiet is how few close in a round when a wave of them is over. trimFew will
	// do for a node that has none open any more.
	trimAfter = 1000
	trimQuiet = 100
	trimFew   = 64
	// trimRounds is how often it is given back then, a round apart: who closed the last
	// sessions when it began is idle by the second, and its stack free by the third.
	trimRounds = 3
	// pinnedBatch bounds the facets asked to checkpoint in one round because they
	// hold the oldest segment of the log.
	pinnedBatch = 4096
	// pinnedAtOnce is how many of them are written at a time, so that syncs are
	// shared.
	pinnedAtOnce = 64
)

// reconcile keeps the node in step with the placement table and its disk in
// bounds. It is a loop of small steps that may all be repeated: what fails is
// tried again in the next round.
func (n *Node) reconcile() {
	n.emptyImports()
	n.finishDeletes()
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	lastTrash, lastSweep, lastHints, trim := time.Time{}, time.Time{}, time.Time{}, trimming{}
	debug.FreeOSMemory() // what reading the logs needed
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		n.collect()
		n.watchDisk()
		if time.Since(lastSweep) >= copiesEvery {
			lastSweep = time.Now()
			_ = n.keeper.Sweep(n.ctx) // it ends early only with the node
		}
		if time.Since(lastHints) >= hintsEvery {
			lastHints = time.Now()
			n.tellHints()
		}
		trim = n.giveBack(trim)
		if time.Since(lastTrash) >= trashEvery {
			lastTrash = time.Now()
			if _, err := n.replicas.EmptyTrash(n.ctx, lastTrash, trashGrace); err != nil && n.ctx.Err() == nil {
				n.log.Warn("empty trash", "error", err)
			}
		}
	}
}

// trimming remembers what giveBack saw.
type trimming struct {
	given int64 // sessions closed when memory was given back last
	seen  int64 // sessions closed one round ago
	left  int   // rounds in which memory is still to be given back
}

// giveBack returns memory to the system once a wave of hibernations is over, and when
// the last facet has hibernated: the garbage collector alone, which has nothing to do
// on a node that went idle, would keep it for minutes.
func (n *Node) giveBack(t trimming) trimming {
	s := n.owners.Stats()
	closed := s.Closed
	quiet := closed-t.seen < trimQuiet
	idle := closed == t.seen && s.Active == 0
	t.seen = closed
	switch {
	case t.left > 0:
		t.left--
		n.trim() // before, so that what it let go is collected
		debug.FreeOSMemory()
	case quiet && closed-t.given >= trimAfter, idle && closed-t.given >= trimFew:
		t.given, t.left = closed, trimRounds
		n.trim()
	}
	return t
}

// trim lets go of what the parts of the node keep for the next burst.
func (n *Node) trim() {
	n.owners.Trim()
	n.replicas.Log().Trim()
	n.consensus().Trim()
}

// watchDisk stops renewing the lease while this node's own log keeps sessions
// waiting: others shall take its facets over (rule R32).
func (n *Node) watchDisk() {
	if n.owners.Stalled() {
		n.holder.Pause()
		n.stalled = true
	} else if n.stalled {
		n.holder.Unpause()
		n.stalled = false
	}
}

// emptyImports removes what imports left that a crash cut short.
func (n *Node) emptyImports() {
	if n.dir.path == "" {
		return
	}
	if err := os.RemoveAll(filepath.Join(n.dir.path, "import")); err != nil {
		n.log.Warn("remove unfinished imports", "error", err)
	}
}

// finishDeletes completes deletions and imports that a crash of this node cut short:
// rows that are being deleted or were retired, and rows of an earlier process life
// that never got their name. A row is deleted or retired by the process that served it
// last, after its session was closed, so nobody can acknowledge anything of it any more
// (rule R47); or by force, which gives up what others may (rule R25).
func (n *Node) finishDeletes() {
	var rows []placement.Facet
	for f := range n.table.HeldBy(n.dir.Node) {
		if gone(f) || !f.Bound && f.Owner.Node == n.dir.Node && f.Owner.Boot != n.boot {
			rows = append(rows, f)
		}
	}
	for _, f := range rows {
		if err := n.forget(n.ctx, f); err != nil {
			n.log.Warn("finish deletion", "incarnation", f.Incarnation.String(), "error", err)
		}
	}
}

// forget takes a row away that leads nowhere. The copies go when their nodes see the
// tombstone.
func (n *Node) forget(ctx context.Context, f placement.Facet) error {
	row := n.rows.row(f)
	if err := n.rows.Delete(ctx, row); err != nil {
		return err
	}
	return n.rows.Tomb(ctx, f.Incarnation)
}

// collect shortens the commit log: it removes segments nobody needs, and asks the
// facets that hold the oldest one to checkpoint while the log is over its budget.
func (n *Node) collect() {
	c, err := n.replicas.Collect(n.ctx)
	if err != nil {
		if n.ctx.Err() == nil {
			n.log.Warn("collect commit log", "error", err)
		}
		return
	}
	var g errgroup.Group
	g.SetLimit(pinnedAtOnce)
	for _, id := range c.Pins[:min(len(c.Pins), pinnedBatch)] {
		g.Go(func() error { n.checkpoint(id); return nil })
	}
	for _, id := range c.Long {
		g.Go(func() error { n.shorten(id); return nil })
	}
	_ = g.Wait() // they return no errors
}

// shorten brings a member's copy to its file that is in use and long, so that its next
// owner has little to read. An error is no matter: the next collection names it again.
func (n *Node) shorten(id facet.Incarnation) {
	r, err := n.replicas.Replica(id)
	if err == nil {
		err = r.CheckpointIdle(n.ctx)
	}
	if err != nil && n.ctx.Err() == nil {
		n.log.Debug("checkpoint a long copy", "incarnation", id.String(), "error", err)
	}
}

// checkpoint brings a facet's committed pages to its file: by its owner if it is
// open, else by its replica, while its desk keeps others from opening it. A copy that
// does not know what of it is committed has the owner asked, who tells when the facet
// goes to rest again.
func (n *Node) checkpoint(id facet.Incarnation) {
	r, err := n.replicas.Replica(id)
	if err != nil {
		return // deleted meanwhile
	}
	f, ok := n.table.ByIncarnation(id)
	mine := ok && f.Bound && f.Owner.Node == n.dir.Node
	switch {
	case mine && n.owners.CheckpointSoon(f.Name):
		return
	case mine:
		err = n.owners.Closed(n.ctx, f.Name, func() error { return r.CheckpointIdle(n.ctx) })
	default:
		err = r.CheckpointIdle(n.ctx)
	}
	switch {
	case errors.Is(err, facet.ErrCorrupt), errors.Is(err, replica.ErrDamaged):
		return // said loudly when it was found; it keeps its part of the log until it is replaced
	case errors.Is(err, replica.ErrOpen), errors.Is(err, facet.ErrNotOwner), err == nil, errors.Is(err, replica.ErrNotKnown):
	case n.ctx.Err() == nil:
		n.log.Warn("checkpoint facet", "incarnation", id.String(), "error", err)
		return
	}
	if ok && f.Bound && !f.Owner.IsZero() && !gone(f) && r.Meta().Entries > 0 {
		ctx, cancel := context.WithTimeout(n.ctx, wakeTimeout)
		defer cancel()
		if err := n.order(ctx, f.Owner.Node, steward.Order{Kind: steward.Wake, Incarnation: id, Epoch: f.Epoch}); err != nil {
			n.log.Debug("ask the owner what is committed", "facet", f.Name.String(), "error", err)
		}
	}
}
