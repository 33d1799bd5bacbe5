package owner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/replica"
)

// This node's own copy of a facet, as its owner uses it. It is an ordinary replica:
// the same promise check, the same fsync, the same acknowledgement (rule R27).

// checkpointOwn does steps 3 to 5 of pages.Checkpoint but for Done. What c shows is
// committed (rule R11).
func (s *session) checkpointOwn(ctx context.Context, c *pages.Checkpoint) error {
	if err := s.own.Known(s.row.Epoch, replica.Boot(s.d.m.opts.Self.Boot), c.Base().Position); err != nil {
		return copyError(err)
	}
	if err := s.own.Checkpoint(ctx, c); err != nil {
		return copyError(err)
	}
	s.mu.Lock()
	s.core.Compacted(c.Base().Position.Seq + 1)
	s.mu.Unlock()
	return nil
}

// installFile makes the file at path, which is on the node's own disk, the content of
// a new facet at base (rule R44).
func (m *Manager) installFile(ctx context.Context, row *Row, base pages.Base, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return facet.Errorf(facet.CodeInternal, "read the converted file: %v", err)
	}
	defer f.Close()
	return m.installOwn(ctx, row, base, f)
}

// installOwn makes the pages of a database the content of a new facet at base (rule
// R44). The store writes its own file and compares its checksum with base.
func (m *Manager) installOwn(ctx context.Context, row *Row, base pages.Base, source io.Reader) error {
	r, err := m.createOwn(ctx, row.Incarnation)
	if err != nil {
		return err
	}
	_, err = r.Install(ctx, replica.Snapshot{
		Epoch: row.Epoch, Boot: replica.Boot(m.opts.Self.Boot), Position: base.Position, Source: source, MaxPages: base.Pages,
	})
	return copyError(err)
}

// tombOwn takes the own copy out of service for ever (rule R47). One that never
// came to this store is gone already.
func (m *Manager) tombOwn(ctx context.Context, id facet.Incarnation) error {
	r, err := m.opts.Store.Replica(id)
	if err == nil {
		err = r.Tomb(ctx, m.opts.Now().Round(time.Second))
	}
	if err == nil || errors.Is(err, replica.ErrUnknown) || errors.Is(err, replica.ErrDeleted) {
		return nil
	}
	return copyError(err)
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

// CopyError is copyError for the node's own use of its replicas.
func CopyError(err error) error { return copyError(err) }
