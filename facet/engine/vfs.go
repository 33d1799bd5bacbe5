package engine

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/internal/sqlite"
)

// vfsName is the name the page VFS is registered under.
const vfsName = "facetd"

// pageVFS finds the file for a name SQLite opens. Names are made by newFile and
// live only while a connection is being opened.
type pageVFS struct {
	last  atomic.Uint64
	mu    sync.Mutex
	files map[string]*file
}

var vfs = pageVFS{files: make(map[string]*file)}

var registerVFS = sync.OnceValue(func() error {
	// A page is written whole or its transaction never happened.
	return sqlite.RegisterVFS(vfsName, &vfs, sqlite.DevicePowersafeOverwrite)
})

// add gives f a name.
func (v *pageVFS) add(f *file) string {
	name := "facet-" + strconv.FormatUint(v.last.Add(1), 10)
	v.mu.Lock()
	v.files[name] = f
	v.mu.Unlock()
	return name
}

func (v *pageVFS) remove(name string) {
	v.mu.Lock()
	delete(v.files, name)
	v.mu.Unlock()
}

func (v *pageVFS) Open(name string, _ sqlite.OpenFlags) (sqlite.File, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f := v.files[name]
	if f == nil {
		return nil, fmt.Errorf("open %q: not a facet being opened", name)
	}
	return f, nil
}

// errReadOnlyCommit is the last line of defence: a request that may only read
// reached a commit.
var errReadOnlyCommit = errors.New("a read-only request would have committed")

// file is a facet's database as SQLite sees it.
//
// SQLite's commit point is CommitPhaseTwo. What it wrote before lies in the
// store's stage; there it is sealed into a commit and handed on.
//
// A write that fails dooms the transaction: SQLite rolls it back and, from its
// journal in memory, writes the old pages. Those need not be stored, for what the
// stage is dropped to is exactly the old state. So once doomed, writes are taken
// and forgotten, and reads see the committed pages, until the transaction ended
// and DB.settle clears the mark.
type file struct {
	store *pages.Store
	db    *DB
	// doomed is why the transaction under way cannot commit.
	doomed error
	// high is the most pages the database was to have since forgetReasons.
	high uint32
}

func (f *file) ReadAt(p []byte, off int64) (int, error) { return f.store.ReadAt(p, off) }

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if f.doomed != nil {
		return len(p), nil
	}
	end := uint32(min((off+int64(len(p))+pages.Size-1)/pages.Size, facet.MaxPages))
	f.high = max(f.high, end)
	err := f.db.mayGrow(end)
	if err == nil {
		err = f.store.WriteAt(p, off)
	}
	if err != nil {
		return 0, f.doom(err)
	}
	return len(p), nil
}

func (f *file) Truncate(size int64) error {
	if f.doomed != nil {
		return nil
	}
	if err := f.store.Truncate(size); err != nil {
		return f.doom(err)
	}
	return nil
}

func (f *file) doom(err error) error {
	f.doomed = err
	f.store.Discard()
	if _, quota := errors.AsType[*facet.Error](err); quota || errors.Is(err, pages.ErrFull) || errors.Is(err, pages.ErrTooLarge) {
		return sqlite.WithCode(sqlite.FULL, err)
	}
	return err
}

func (f *file) Size() (int64, error) { return int64(f.store.StagedPages()) * pages.Size, nil }

// Sync has nothing to do: durability is the log's (rule R53).
func (f *file) Sync() error { return nil }

func (f *file) Close() error { return nil }

// CommitPhaseTwo seals the transaction and hands the commit on, before SQLite
// returns to the statement (rule R26).
func (f *file) CommitPhaseTwo() error {
	if f.doomed != nil {
		return f.doomed
	}
	db := f.db
	if db.readOnly && f.store.Staged() {
		return f.doom(errReadOnlyCommit)
	}
	var changed bool
	var err error
	c := &db.commit // not a local variable: it would be allocated every time
	*c, changed, err = f.store.Seal(db.id, db.epoch)
	if err != nil {
		if errors.Is(err, pages.ErrTooLarge) {
			// Reached by no transaction that fits the stage, see pages.MaxStagedPages.
			err = sqlite.WithCode(sqlite.FULL, err)
		}
		db.breakWith(fmt.Errorf("seal the commit after %v: %w", f.store.Position(), err), false)
		return err
	}
	if !changed {
		return nil
	}
	db.commits++
	err = db.handOff(c)
	f.store.Recycle()
	if err != nil && !broken.Is(broken.HandOffLost) {
		db.breakWith(fmt.Errorf("hand on commit %v: %w", c.Position(), err), true)
		return err
	}
	return nil
}

// refuseCommits is the Commits of a DB that must not change.
func refuseCommits(*facet.Commit) error { return errReadOnlyCommit }
