package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/owner"
)

// ownCopy is this node's copy of one facet as its owner on this node uses it. The
// owner's copy is an ordinary replica: the same promise check, the same fsync, the
// same acknowledgement (rule R27).
type ownCopy struct {
	store *replica.Store
	boot  replica.Boot
	id    facet.Incarnation
	epoch facet.Epoch
	r     replica.Replica // valid after Prepare or Load
}

func (n *Node) ownCopy(row owner.Row) owner.Replica {
	return &ownCopy{store: n.replicas, boot: replica.Boot(n.boot), id: row.Incarnation, epoch: row.Epoch}
}

// patient does what may find the commit log behind, again until it is not.
func (c *ownCopy) patient(ctx context.Context, size int, f func() error) error {
	err := f()
	if !errors.Is(err, replica.ErrBusy) {
		return copyError(err)
	}
	ctx, cancel := context.WithTimeout(ctx, busyTimeout)
	defer cancel()
	for errors.Is(err, replica.ErrBusy) {
		if werr := c.store.Wait(ctx, size); werr != nil {
			return copyError(errors.Join(err, werr))
		}
		err = f()
	}
	return copyError(err)
}

// busyTimeout is how long a commit waits for a commit log that is behind before
// the session gives up with an unknown outcome.
const busyTimeout = 30 * time.Second

// Begin implements owner.Replica.
func (c *ownCopy) Begin(ctx context.Context) error {
	return c.patient(ctx, 0, func() (err error) {
		c.r, err = c.store.Create(c.id)
		return err
	})
}

// find finds the copy.
func (c *ownCopy) find() (err error) {
	c.r, err = c.store.Replica(c.id)
	return copyError(err)
}

// Prepare implements owner.Replica.
func (c *ownCopy) Prepare(ctx context.Context, row owner.Row) error {
	begin := c.find
	if row.New {
		begin = func() error { return c.Begin(ctx) }
	}
	if err := begin(); err != nil {
		return err
	}
	_, err := c.store.Prepare(ctx, c.id, c.epoch, c.boot)
	return copyError(err)
}

// Load implements owner.Replica.
func (c *ownCopy) Load(ctx context.Context) (*pages.Store, error) {
	if err := c.find(); err != nil {
		return nil, err
	}
	s, err := c.r.Open(ctx, true)
	return s, copyError(err)
}

// Release implements owner.Replica.
func (c *ownCopy) Release(s *pages.Store) error { return c.r.Close(s) }

// Append implements owner.Replica. A commit log that is behind makes it wait: the
// commit is inside SQLite and cannot be put off.
func (c *ownCopy) Append(e *facet.Commit, known facet.Seq, ack owner.Acker) error {
	return c.patient(context.Background(), e.EncodedLen(), func() error {
		return c.r.Append(c.epoch, c.boot, e, known, ack)
	})
}

// Checkpoint implements owner.Replica.
func (c *ownCopy) Checkpoint(ctx context.Context, ck *pages.Checkpoint, known facet.Position) error {
	if err := c.r.Known(c.epoch, c.boot, known); err != nil {
		return copyError(err)
	}
	return copyError(c.r.Checkpoint(ctx, ck))
}

// Install implements owner.Replica. The replica store takes its own copy of the
// file and compares its checksum with base.
func (c *ownCopy) Install(ctx context.Context, base pages.Base, path string) error {
	if err := c.Begin(ctx); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return facet.Errorf(facet.CodeInternal, "read the converted file: %v", err)
	}
	defer f.Close()
	_, err = c.r.Install(ctx, replica.Snapshot{
		Epoch: c.epoch, Boot: c.boot, Position: base.Position, Source: f, MaxPages: base.Pages,
	})
	return copyError(err)
}

// Tomb implements owner.Replica. A facet that never came to this store is gone
// already.
func (c *ownCopy) Tomb(ctx context.Context) error {
	err := c.find()
	if err == nil {
		err = copyError(c.r.Tomb(ctx, time.Now()))
	}
	if errors.Is(err, facet.ErrNotFound) || !c.store.Has(c.id) {
		return nil
	}
	return err
}

// copyError turns what a replica says into what a client may be told.
func copyError(err error) error {
	var fe *facet.Error
	switch {
	case err == nil || errors.As(err, &fe):
		return err
	case errors.Is(err, replica.ErrFull):
		return facet.Errorf(facet.CodeDiskFull, "the node has no room for writes: %v", err)
	case errors.Is(err, replica.ErrBusy):
		return facet.Errorf(facet.CodeOverloaded, "the node's commit log is behind: %v", err)
	case errors.Is(err, replica.ErrDamaged), errors.Is(err, replica.ErrDiverged), errors.Is(err, pages.ErrDiverged), errors.Is(err, pages.ErrMalformed):
		return facet.Errorf(facet.CodeCorrupt, "the facet's data failed a check and it is out of service; restore it from a backup or an export (%v)", err)
	case errors.Is(err, replica.ErrUnknown):
		return facet.Errorf(facet.CodeCorrupt, "the placement table says that this node keeps the facet, but its data are not there; restore it from a backup or an export (%v)", err)
	case errors.Is(err, replica.ErrDeleted):
		return facet.Errorf(facet.CodeNotFound, "the facet was deleted")
	case errors.Is(err, pages.ErrSnapshotTooOld):
		return facet.Errorf(facet.CodeUnavailable, "%v; try again", err)
	}
	return facet.Errorf(facet.CodeUnavailable, "%v; try again", fmt.Errorf("this node's copy: %w", err))
}
