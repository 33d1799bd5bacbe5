package replica

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
)

// dbFile is a database file. Its Datasync shares one sync with the files of other
// checkpoints that end at the same time, and covers the file's name.
type dbFile struct {
	disk.File
	s     *Store
	id    facet.Incarnation
	fresh bool // the name may not be durable yet
}

// openDB opens the database file of a facet, making it if create is set.
func (s *Store) openDB(id facet.Incarnation, create bool) (*dbFile, error) {
	flag := os.O_RDWR
	if create {
		flag |= os.O_CREATE
	}
	f, err := s.fs.OpenFile(s.dbName(id), flag, 0o600)
	if err != nil {
		return nil, &openError{err}
	}
	return &dbFile{File: f, s: s, id: id, fresh: create}, nil
}

// openDirect opens it for reading what the device holds.
func (s *Store) openDirect(id facet.Incarnation) (*dbFile, error) {
	f, err := s.fs.OpenFile(s.dbName(id), os.O_RDONLY|disk.Direct, 0)
	if err != nil {
		return nil, &openError{err}
	}
	return &dbFile{File: f, s: s, id: id}, nil
}

// openError tells that a file could not be opened: nothing on the disk is in doubt.
type openError struct{ err error }

func (e *openError) Error() string { return e.err.Error() }
func (e *openError) Unwrap() error { return e.err }

// ReadAt implements pages.File.
func (f *dbFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = &readError{err}
	}
	return n, err
}

// WriteAt implements pages.File.
func (f *dbFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	f.s.written.Add(int64(n))
	return n, err
}

// Written is how many bytes were written into database files since the store was
// opened, by checkpoints and as snapshots. What the log got is in its own Stats.
func (s *Store) Written() int64 { return s.written.Load() }

// readError tells that a part of one file cannot be read: that costs the facet, not
// the node.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// Datasync implements pages.File.
func (f *dbFile) Datasync() error {
	if err := f.s.files.sync(f); err != nil {
		return err
	}
	f.fresh = false
	return nil
}

// syncer makes database files durable in batches: while one batch is being synced
// the next one gathers. A large batch costs one sync of the file system, a small
// one a sync of each file and each directory with a new name. The first of a batch
// does the work for all of it and then wakes the first of the next: there is no
// goroutine while nobody syncs.
type syncer struct {
	s    *Store
	tree disk.Tree // nil where the file system cannot sync as a whole

	mu     sync.Mutex
	busy   bool
	queue  []*syncRequest
	syncs  uint64 // batches so far
	synced uint64 // files so far
}

type syncRequest struct {
	f    *dbFile
	lead chan bool // true: do the batch; false: err says how it went
	err  error
}

func (y *syncer) init(s *Store) { y.s = s }

// open is called once the directories exist. An error of a write that happens
// before is not this store's.
func (y *syncer) open() error {
	if t, ok := y.s.fs.(disk.TreeFS); ok {
		tree, err := t.OpenTree()
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return err
		}
		y.tree = tree
	}
	return nil
}

func (y *syncer) close() error {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.tree == nil {
		return nil
	}
	t := y.tree
	y.tree = nil
	return t.Close()
}

func (y *syncer) sync(f *dbFile) error {
	r := &syncRequest{f: f, lead: make(chan bool, 1)}
	y.mu.Lock()
	y.queue = append(y.queue, r)
	if y.busy {
		y.mu.Unlock()
		if !<-r.lead {
			return r.err
		}
		y.mu.Lock()
	}
	y.busy = true
	batch, tree := y.queue, y.tree
	y.queue = nil
	y.syncs++
	y.synced += uint64(len(batch))
	y.mu.Unlock()

	err := y.batch(batch, tree)
	for _, o := range batch {
		if o != r {
			o.err = err
			o.lead <- false
		}
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	if len(y.queue) > 0 {
		y.queue[0].lead <- true
	} else {
		y.busy = false
	}
	return err
}

// batch makes the files of a batch durable. One failure is the failure of all:
// the store ends (R13).
func (y *syncer) batch(batch []*syncRequest, tree disk.Tree) error {
	if tree != nil && len(batch) >= minTreeSync {
		if err := tree.Sync(); err != nil {
			return fmt.Errorf("sync the file system: %w", err)
		}
		return nil
	}
	work := make(chan *syncRequest, len(batch))
	errs := make(chan error, len(batch))
	dirs := make(map[string]bool)
	for _, r := range batch {
		work <- r
		if r.f.fresh {
			dirs[y.s.shard(r.f.id)] = true
		}
	}
	close(work)
	syncSome := func() {
		for r := range work {
			errs <- r.f.File.Datasync()
		}
	}
	var wg sync.WaitGroup
	for range min(syncWorkers, len(batch)) - 1 {
		wg.Go(syncSome)
	}
	syncSome()
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return fmt.Errorf("sync database file: %w", err)
		}
	}
	for d := range dirs {
		if err := y.s.fs.SyncDir(d); err != nil {
			return fmt.Errorf("sync directory: %w", err)
		}
	}
	return nil
}
