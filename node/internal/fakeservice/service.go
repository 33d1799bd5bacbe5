package fakeservice

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/sqlite"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/node/service/servicetest"
)

// NodeID and URL are what the fake calls the node it is.
const (
	NodeID = cluster.NodeID("n1")
	URL    = "http://127.0.0.1:7400"
)

// Service is a node made of SQLite files in one directory.
type Service struct {
	// Hook sees every call first; true means that it answered the call. It is set
	// before the service is used.
	Hook func(*service.Call) bool
	// NotReady is the failing check of Ready, nil when all is well.
	NotReady error
	// Nodes is the cluster the service tells of. Its own node is the first.
	Nodes *servicetest.Operator

	dir    string
	calls  sync.WaitGroup
	mu     sync.Mutex
	files  int
	facets map[facet.Name]*database
}

// database is one facet. conn and tx are guarded by mu, which is held while a
// request runs.
type database struct {
	mu   sync.Mutex
	name facet.Name
	id   facet.Incarnation
	path string
	conn *sqlite.Conn
	tx   facet.TxID
	seq  facet.Seq
	keys map[facet.Key]facet.Response
}

// New makes a service whose files live in dir.
func New(dir string) *Service {
	return &Service{dir: dir, facets: map[facet.Name]*database{}, Nodes: servicetest.New(NodeID, "n2", "n3")}
}

// Close waits for what runs and closes every database.
func (s *Service) Close() error {
	s.calls.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var first error
	for name, db := range s.facets {
		if err := db.conn.Close(); err != nil && first == nil {
			first = err
		}
		delete(s.facets, name)
	}
	return first
}

// ExpireTx ends the open transaction of a facet, as a limit would.
func (s *Service) ExpireTx(name facet.Name) {
	if db := s.lookup(name); db != nil {
		db.mu.Lock()
		defer db.mu.Unlock()
		db.rollback()
	}
}

// OpenTx reports whether a transaction holds the facet.
func (s *Service) OpenTx(name facet.Name) bool {
	db := s.lookup(name)
	if db == nil {
		return false
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	return !db.tx.IsZero()
}

func (s *Service) lookup(name facet.Name) *database {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.facets[name]
}

func (s *Service) create(name facet.Name) (*database, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if db := s.facets[name]; db != nil {
		return db, false, nil
	}
	s.files++
	path := filepath.Join(s.dir, fmt.Sprintf("%d.sqlite", s.files))
	db, err := open(name, path)
	if err != nil {
		return nil, false, err
	}
	s.facets[name] = db
	return db, true, nil
}

func open(name facet.Name, path string) (*database, error) {
	conn, err := sqlite.Open(path, sqlite.Options{Exclusive: true})
	if err != nil {
		return nil, wrap(err)
	}
	return &database{name: name, id: facet.NewIncarnation(), path: path, conn: conn, keys: map[facet.Key]facet.Response{}}, nil
}

func (s *Service) Submit(call *service.Call) {
	if s.Hook != nil && s.Hook(call) {
		return
	}
	s.calls.Go(func() {
		db := s.lookup(call.Request.Name)
		if db == nil {
			var err error
			if db, _, err = s.create(call.Request.Name); err != nil {
				call.Err = err
				call.Done(call)
				return
			}
		}
		db.mu.Lock()
		db.run(call)
		db.mu.Unlock()
		call.Done(call)
	})
}

func (s *Service) Create(_ context.Context, name facet.Name) (service.Info, bool, error) {
	db, created, err := s.create(name)
	if err != nil {
		return service.Info{}, false, err
	}
	return s.Nodes.Placed(db.info()), created, nil
}

func (s *Service) Stat(_ context.Context, name facet.Name) (service.Info, error) {
	db := s.lookup(name)
	if db == nil {
		return service.Info{}, notFound(name)
	}
	return s.Nodes.Placed(db.info()), nil
}

func (s *Service) List(_ context.Context, tenant facet.Tenant, after string, limit int) ([]service.Info, bool, error) {
	s.mu.Lock()
	var found []*database
	for name, db := range s.facets {
		if name.Tenant == tenant && name.Facet > after {
			found = append(found, db)
		}
	}
	s.mu.Unlock()
	sort.Slice(found, func(i, j int) bool { return found[i].name.Facet < found[j].name.Facet })
	more := len(found) > limit
	var infos []service.Info
	for _, db := range found[:min(limit, len(found))] {
		infos = append(infos, s.Nodes.Placed(db.info()))
	}
	return infos, more, nil
}

func (s *Service) Delete(_ context.Context, name facet.Name) error {
	s.mu.Lock()
	db := s.facets[name]
	delete(s.facets, name)
	s.mu.Unlock()
	if db == nil {
		return notFound(name)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.conn.Close()
}

func (s *Service) Export(_ context.Context, name facet.Name) (service.Export, error) {
	db := s.lookup(name)
	if db == nil {
		return nil, notFound(name)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	path := db.path + ".export"
	if err := db.conn.ExecScript([]byte("VACUUM INTO '" + path + "'")); err != nil {
		return nil, wrap(err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil {
		f.Close()
		return nil, err
	}
	return &export{f, db.position()}, nil
}

type export struct {
	*os.File
	at facet.Position
}

func (e *export) Size() int64 {
	fi, err := e.Stat()
	if err != nil {
		return 0
	}
	return fi.Size()
}

func (e *export) Position() facet.Position { return e.at }

func (s *Service) Clone(ctx context.Context, name, to facet.Name) (service.Info, error) {
	e, err := s.Export(ctx, name)
	if err != nil {
		return service.Info{}, err
	}
	defer e.Close()
	if s.lookup(to) != nil {
		return service.Info{}, facet.Errorf(facet.CodeExists, "%v exists already", to)
	}
	info, err := s.Import(ctx, to, e.(*export).File, false)
	if db := s.lookup(name); err == nil && db != nil {
		info.Lineage = facet.Lineage{Source: db.info().Incarnation, At: e.Position()}
	}
	return info, err
}

func (s *Service) Import(_ context.Context, name facet.Name, file io.Reader, replace bool) (service.Info, error) {
	if !replace && s.lookup(name) != nil {
		return service.Info{}, facet.Errorf(facet.CodeExists, "%v exists already; import with replace to exchange it", name)
	}
	s.mu.Lock()
	s.files++
	path := filepath.Join(s.dir, fmt.Sprintf("%d.sqlite", s.files))
	s.mu.Unlock()
	f, err := os.Create(path)
	if err != nil {
		return service.Info{}, err
	}
	_, err = io.Copy(f, file)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return service.Info{}, facet.Errorf(facet.CodeBadRequest, "read the uploaded file: %v", err)
	}
	db, err := open(name, path)
	if err == nil {
		err = db.conn.ExecScript([]byte("PRAGMA integrity_check"))
	}
	if err != nil {
		return service.Info{}, facet.Errorf(facet.CodeNotAcceptable, "the uploaded file is not a sound SQLite database: %v", err)
	}
	s.mu.Lock()
	old := s.facets[name]
	s.facets[name] = db
	s.mu.Unlock()
	if old != nil {
		old.mu.Lock()
		defer old.mu.Unlock()
		if err := old.conn.Close(); err != nil {
			return service.Info{}, err
		}
	}
	return db.info(), nil
}

func (s *Service) Cluster(context.Context) service.Cluster {
	c := s.Nodes.Cluster()
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Facets = len(s.facets)
	return c
}

// Operator moves and pins the facets of the service, on paper.
func (s *Service) Operator() service.Operator {
	return s.Nodes.Mover(func(_ context.Context, name facet.Name) (service.Info, error) {
		db := s.lookup(name)
		if db == nil {
			return service.Info{}, notFound(name)
		}
		return db.info(), nil
	})
}

func (s *Service) Ready(context.Context) []service.Check {
	return []service.Check{{Name: "disk"}, {Name: "placement", Err: s.NotReady}}
}

func (s *Service) Metrics(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := fmt.Fprintf(w, "# TYPE facetd_facets gauge\nfacetd_facets %d\n", len(s.facets))
	return err
}

func (db *database) info() service.Info {
	size := int64(-1)
	if fi, err := os.Stat(db.path); err == nil {
		size = fi.Size()
	}
	return service.Info{
		Name: db.name, Incarnation: db.id, Owner: NodeID, OwnerURL: URL, Epoch: 1,
		Replicas: []cluster.NodeID{NodeID, "n2", "n3"}, State: "active", SizeBytes: size, Active: true,
	}
}

func (db *database) position() facet.Position { return facet.Position{Epoch: 1, Seq: db.seq} }

func notFound(name facet.Name) error {
	return facet.NoSuchFacet(name)
}
