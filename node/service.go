package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/node/hrana"
	"github.com/facetd/facetd/node/owner"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/placement"
)

// svc is the node as its faces see it.
type svc struct{ n *Node }

var _ service.Service = svc{}

// Submit implements service.Service.
func (s svc) Submit(call *service.Call) {
	call.Watch(s.n.requests)
	if call.Request.Read == facet.ReadFollower {
		s.n.copies.Submit(call)
		return
	}
	s.n.owners.Submit(call)
}

// Create implements service.Service.
func (s svc) Create(ctx context.Context, name facet.Name) (service.Info, bool, error) {
	if err := s.n.tenants.Check(name.Tenant, true); err != nil {
		return service.Info{}, false, err
	}
	created, err := s.n.owners.Ensure(ctx, name)
	if err != nil {
		return service.Info{}, false, err
	}
	info, err := s.Stat(ctx, name)
	return info, created, err
}

// Stat implements service.Service.
func (s svc) Stat(ctx context.Context, name facet.Name) (service.Info, error) {
	f, ok := s.n.table.Lookup(name)
	if !ok {
		// It may have been made elsewhere a moment ago.
		if _, _, err := s.n.rows.Confirm(ctx, name); err != nil {
			return service.Info{}, err
		}
		f, ok = s.n.table.Lookup(name)
	}
	if !ok || gone(f) {
		return service.Info{}, facet.NoSuchFacet(name)
	}
	info := s.info(f)
	if f.Owner.Node != "" && f.Owner.Node != s.n.dir.Node {
		info.SizeBytes = -1 // the copy here may be far behind
	}
	return info, nil
}

func (s svc) info(f placement.Facet) service.Info {
	info := service.Info{
		Name: f.Name, Incarnation: f.Incarnation, Owner: f.Owner.Node, Epoch: f.Epoch,
		State: f.State.String(), SizeBytes: -1, Pinned: f.Pinned, Lineage: f.Lineage,
	}
	set := f.Active
	if set.IsZero() {
		set = f.Next
	}
	for _, m := range set.Members() {
		info.Replicas = append(info.Replicas, m.Node)
	}
	if node, ok := s.n.table.Node(f.Owner.Node); ok {
		info.OwnerURL = apiURL(node.API)
	}
	if n, open := s.n.owners.Open(f.Name); open {
		info.Active, info.SizeBytes = true, int64(n)*pages.Size
	} else if set.Has(s.n.dir.Node) {
		info.SizeBytes = 0
		if r, err := s.n.replicas.Replica(f.Incarnation); err == nil {
			info.SizeBytes = int64(r.Meta().BasePages) * pages.Size
		}
	}
	return info
}

// List implements service.Service.
func (s svc) List(_ context.Context, tenant facet.Tenant, after string, limit int) ([]service.Info, bool, error) {
	rows := s.n.table.List(tenant, after, limit+1)
	// The table gives MaxList rows at most: where it gave that many, only the next
	// page can tell whether there are more.
	more := len(rows) > limit || len(rows) == placement.MaxList
	rows = rows[:min(len(rows), limit)]
	infos := make([]service.Info, 0, len(rows))
	for _, f := range rows {
		if !gone(f) {
			infos = append(infos, s.info(f))
		}
	}
	return infos, more, nil
}

// Delete implements service.Service.
func (s svc) Delete(ctx context.Context, name facet.Name) error {
	if err := s.n.tenants.Check(name.Tenant, true); err != nil {
		return err
	}
	err := s.n.owners.Delete(ctx, name)
	if err == nil {
		s.n.tenants.Freed(name.Tenant)
	}
	return err
}

// Export implements service.Service.
func (s svc) Export(ctx context.Context, name facet.Name) (service.Export, error) {
	if err := s.n.tenants.Check(name.Tenant, false); err != nil {
		return nil, err
	}
	return s.n.owners.Export(ctx, name)
}

// Import implements service.Service. The upload goes to a file first, so that
// memory stays bounded and nothing exists until SQLite has found it sound.
func (s svc) Import(ctx context.Context, name facet.Name, r io.Reader, replace bool) (service.Info, error) {
	row, exists, err := s.n.rows.Confirm(ctx, name)
	if err == nil {
		err = s.n.mayImport(name.Tenant, exists)
	}
	switch {
	case err != nil:
		return service.Info{}, err
	case exists && !replace:
		return service.Info{}, owner.ExistsError(name)
	case exists && !row.Local: // before anything is read
		return service.Info{}, owner.NotOwner(&row)
	}
	limits := s.n.limitsOf(name.Tenant)
	tmp, err := s.n.tempDir()
	if err != nil {
		return service.Info{}, err
	}
	defer os.RemoveAll(tmp)
	upload, clean := filepath.Join(tmp, "upload.db"), filepath.Join(tmp, "clean.db")
	if err := receive(upload, r, limits.FacetBytes); err != nil {
		return service.Info{}, err
	}
	made, err := engine.ConvertImport(ctx, upload, clean, limits)
	if err != nil {
		return service.Info{}, err
	}
	if err := os.Remove(upload); err != nil {
		return service.Info{}, facet.Errorf(facet.CodeInternal, "import %s: %v", name, err)
	}
	if err := s.importFile(ctx, name, clean, made, facet.Lineage{}, replace); err != nil {
		return service.Info{}, err
	}
	return s.Stat(ctx, name)
}

// importFile makes a converted file a facet, if its tenant has room for it. What a replaced
// one leaves is counted until it is gone.
func (s svc) importFile(ctx context.Context, name facet.Name, clean string, made engine.Imported, of facet.Lineage, replace bool) error {
	done, err := s.n.importRoom(name.Tenant, made.Pages)
	if err == nil {
		err = s.n.owners.Import(ctx, name, clean, made.Pages, made.Sum, of, replace)
	}
	done(err == nil)
	return err
}

// Clone implements service.Service (rule R48). The source is exported at one committed
// position to a file of this node's own, so nothing of it has to be kept for the clone,
// and memory stays bounded. From there it is an import: the idempotency keys are removed,
// for they belong to the source.
func (s svc) Clone(ctx context.Context, name, to facet.Name) (service.Info, error) {
	row, ok, err := s.n.rows.Confirm(ctx, name)
	if err == nil {
		err = s.n.tenants.Check(name.Tenant, false)
	}
	if err == nil {
		err = s.n.mayImport(to.Tenant, false)
	}
	switch {
	case err != nil:
		return service.Info{}, err
	case !ok:
		return service.Info{}, facet.NoSuchFacet(name)
	case !row.Local: // before anything is written
		return service.Info{}, owner.NotOwner(&row)
	}
	if _, exists := s.n.rows.Lookup(to); exists {
		return service.Info{}, cloneExists(to)
	}
	tmp, err := s.n.tempDir()
	if err != nil {
		return service.Info{}, err
	}
	defer os.RemoveAll(tmp)
	clean := filepath.Join(tmp, "clean.db")
	of, made, err := s.copyOf(ctx, name, filepath.Join(tmp, "copy.db"), clean, s.n.limitsOf(to.Tenant))
	if err == nil {
		err = s.importFile(ctx, to, clean, made, of, false)
	}
	if errors.Is(err, facet.ErrExists) {
		err = cloneExists(to)
	}
	if err != nil {
		return service.Info{}, fmt.Errorf("clone %s: %w", name, err)
	}
	return s.Stat(ctx, to)
}

func cloneExists(to facet.Name) error {
	return facet.Errorf(facet.CodeExists, "facet %s exists already; delete it first, or clone to another name", to)
}

// copyOf writes a facet to the file clean, ready to be imported, by way of the file raw.
func (s svc) copyOf(ctx context.Context, name facet.Name, raw, clean string, limits engine.Limits) (of facet.Lineage, made engine.Imported, err error) {
	e, err := s.n.owners.Export(ctx, name)
	if err != nil {
		return of, made, err
	}
	defer e.Close() // it was only read
	of = facet.Lineage{Source: e.Incarnation(), At: e.Position()}
	if e.Size() == 0 { // it was made and never written to
		raw = clean
	}
	f, err := os.OpenFile(raw, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return of, made, facet.Errorf(facet.CodeInternal, "store the copy: %v", pathless(err))
	}
	if _, err = e.WriteTo(f); err != nil {
		err = facet.Errorf(facet.CodeDiskFull, "store the copy: %v", pathless(err))
	}
	if cerr := f.Close(); err == nil && cerr != nil {
		err = facet.Errorf(facet.CodeInternal, "store the copy: %v", pathless(cerr))
	}
	if err != nil || e.Size() == 0 {
		return of, made, err
	}
	made, err = engine.ConvertImport(ctx, raw, clean, limits)
	return of, made, err
}

// tempDir makes a directory for one import, on the data directory's own disk. All
// of them are removed when the node starts.
func (n *Node) tempDir() (string, error) {
	if n.dir.path == "" {
		return "", facet.Errorf(facet.CodeUnavailable, "this node has no directory for imports")
	}
	base := filepath.Join(n.dir.path, "import")
	err := os.MkdirAll(base, 0o700)
	if err == nil {
		var tmp string
		if tmp, err = os.MkdirTemp(base, "*"); err == nil {
			return tmp, nil
		}
	}
	return "", facet.Errorf(facet.CodeInternal, "make a directory for the import: %v", pathless(err))
}

// pathless is what went wrong with a file, without where on the server it is.
func pathless(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// receive copies an upload of at most limit bytes to path.
func receive(path string, r io.Reader, limit int64) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return facet.Errorf(facet.CodeInternal, "store the upload: %v", pathless(err))
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = facet.Errorf(facet.CodeInternal, "store the upload: %v", pathless(cerr))
		}
	}()
	buf := make([]byte, 256<<10)
	var n int64
	for {
		k, rerr := r.Read(buf)
		if n += int64(k); n > limit {
			return &facet.Error{Code: facet.CodeLimit, Limit: "facet_bytes", Message: fmt.Sprintf("the file is larger than a facet may be (limit facet_bytes, %d bytes)", limit)}
		}
		if _, err := f.Write(buf[:k]); err != nil {
			return facet.Errorf(facet.CodeDiskFull, "store the upload: %v", pathless(err))
		}
		if errors.Is(rerr, io.EOF) {
			return nil
		}
		if rerr != nil {
			return facet.Errorf(facet.CodeBadRequest, "the upload broke off after %d bytes: %v", n, rerr)
		}
	}
}

var _ hrana.Locator = svc{}

// Owner implements hrana.Locator.
func (s svc) Owner(name facet.Name) (at string, local bool, epoch facet.Epoch) {
	row, ok := s.n.rows.Lookup(name)
	switch {
	case !ok:
		return "", false, 0
	case row.Local:
		return s.n.advertised(), true, row.Epoch
	}
	return row.OwnerURL, false, row.Epoch
}

// Ready implements service.Service.
func (s svc) Ready(ctx context.Context) []service.Check {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	checks := []service.Check{
		{Name: "placement leader is reachable", Err: s.n.leaderReachable(ctx)},
		{Name: "disk has room for writes", Err: s.n.admit()},
	}
	var closing error
	if s.n.ctx.Err() != nil {
		closing = errors.New("the node is shutting down")
	}
	return append(checks, service.Check{Name: "node is serving", Err: closing})
}

func (n *Node) leaderReachable(ctx context.Context) error {
	raft := n.consensus()
	if now, _ := raft.Leadership(); now.Leading {
		return raft.Barrier(ctx)
	}
	leader, ok := n.leaderElsewhere()
	if !ok {
		return errors.New("no placement leader is known")
	}
	_, err := leader.Ping(ctx)
	return err
}
