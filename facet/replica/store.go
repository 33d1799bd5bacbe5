package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"sync"
	"sync/atomic"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/internal/disk"
)

// Options are the settings of a Store. Zero values are the defaults.
type Options struct {
	FS      disk.FS  // required; Dir is a directory in it
	Dir     string   // made if missing; "" is the root
	StoreID [16]byte // required: the id of the data directory (rule R3)

	// Log settings; FS, Dir, Store, Fatal and Logger are filled in.
	Log commitlog.Options

	// SingleNode says that no facet here has another replica: what is durable is
	// committed (rule R50).
	SingleNode bool

	// Checkpoints bounds how many facets are written at once, 512 by default.
	// Each holds a file open; few make hibernating many facets slow.
	Checkpoints int
	// LogBudget is the size of the log above which Collect names facets to be
	// checkpointed, 512 MiB by default.
	LogBudget int64
	// TailEntries is the number of committed entries above its file at which Collect
	// names a facet as long, 32,768 by default.
	TailEntries int

	// Fatal is called once when the disk fails (rule R13). The real one exits the
	// process at once. One that returns must not call Close itself.
	Fatal  func(error) // required
	Logger *slog.Logger
}

func (o *Options) validate() error {
	if o.FS == nil || o.Fatal == nil || o.StoreID == [16]byte{} {
		return errors.New("replica options: FS, StoreID and Fatal are required")
	}
	if o.Dir == "" {
		o.Dir = "."
	}
	if o.Checkpoints <= 0 {
		o.Checkpoints = DefaultCheckpoints
	}
	if o.LogBudget <= 0 {
		o.LogBudget = DefaultLogBudget
	}
	if o.TailEntries <= 0 {
		o.TailEntries = DefaultTailEntries
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return nil
}

// Store is everything one data directory holds. See the package comment.
type Store struct {
	opts   Options
	fs     disk.FS
	logger *slog.Logger
	log    *commitlog.Log
	files  syncer
	boots  boots

	mu    sync.RWMutex
	table table

	lost lost

	written  atomic.Int64  // see Written
	rotten   atomic.Uint32 // newest segment of the log that was found damaged, see ScrubLog
	notified atomic.Uint32 // segment of the latest record reported durable
	buffers  sync.Pool     // of *[]byte, for encoding
	slots    chan struct{} // one for each checkpoint that is writing
	collect  sync.Mutex    // held by Collect

	dead     chan struct{} // closed when the store has failed or is closed
	failOnce sync.Once
	fatal    atomic.Pointer[error]
}

// Report is what Open found and did.
type Report struct {
	Log         commitlog.Report
	Facets      int // kept here, tombstones not counted
	Tombs       int
	Checkpoints int // interrupted ones that were finished
	Installs    int // snapshots put in place
	Holed       int // facets that must be replaced by a snapshot
	Uncertain   int
}

// Open reads the log in the data directory and finishes what a crash interrupted.
func Open(opts Options) (*Store, Report, error) {
	var report Report
	if err := opts.validate(); err != nil {
		return nil, report, err
	}
	s := &Store{
		opts: opts, fs: opts.FS, logger: opts.Logger, table: newTable(),
		slots: make(chan struct{}, opts.Checkpoints), dead: make(chan struct{}),
	}
	s.buffers.New = func() any { return new([]byte) }
	s.files.init(s)
	if err := s.makeDirs(); err != nil {
		return nil, report, fmt.Errorf("make directories: %w", err)
	}
	if err := s.files.open(); err != nil {
		return nil, report, fmt.Errorf("open data directory: %w", err)
	}
	lo := opts.Log
	lo.FS, lo.Dir, lo.Store, lo.Fatal, lo.Logger = opts.FS, s.path("log"), opts.StoreID, s.fail, opts.Logger
	re := replay{s: s, damages: make(map[damageID]bool), newest: make(map[*state]commitlog.Loc)}
	var err error
	if s.log, report.Log, err = commitlog.Open(lo, re.record); err != nil {
		return nil, report, errors.Join(fmt.Errorf("open commit log: %w", err), s.files.close())
	}
	s.notified.Store(re.segment)
	if err := re.finish(&report); err != nil {
		s.fail(nil)
		return nil, report, errors.Join(err, s.log.Close(), s.files.close())
	}
	return s, report, nil
}

// Close waits for the log and closes it. Whoever uses the store must have stopped.
// It may be called twice.
func (s *Store) Close() error {
	err := s.log.Close()
	s.failOnce.Do(func() { close(s.dead) })
	return errors.Join(err, s.files.close())
}

// fail ends the store (rule R13): nothing is acknowledged any more. A nil error
// ends it without calling Fatal.
func (s *Store) fail(err error) {
	if broken.Is(broken.FileErrorPasses) {
		return
	}
	s.failOnce.Do(func() {
		if err != nil {
			s.fatal.Store(&err)
		}
		close(s.dead)
		if err != nil {
			s.opts.Fatal(err)
		}
	})
}

// alive returns why nothing can be done any more, or nil.
func (s *Store) alive() error {
	if err := s.fatal.Load(); err != nil {
		return fmt.Errorf("%w: %w", ErrClosed, *err)
	}
	select {
	case <-s.dead:
		return ErrClosed
	default:
		return nil
	}
}

// logError tells the errors of the commit log in the words of this package.
func logError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, commitlog.ErrFull):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, commitlog.ErrBusy):
		return ErrBusy
	case errors.Is(err, commitlog.ErrClosed), errors.Is(err, commitlog.ErrFailed):
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return err
}

func isBusy(err error) bool { return errors.Is(err, ErrBusy) || errors.Is(err, commitlog.ErrBusy) }

// lookup finds the state of a facet and makes one if add is set.
func (s *Store) lookup(id facet.Incarnation, add bool) *state {
	s.mu.RLock()
	st := s.table.find(id)
	s.mu.RUnlock()
	if st != nil || !add {
		return st
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.table.find(id); st != nil {
		return st
	}
	return s.table.add(id)
}

// each calls f for every facet, tombstones included, until f returns false.
func (s *Store) each(f func(*state) bool) {
	s.mu.RLock()
	chunks, n := s.table.chunks, s.table.n
	s.mu.RUnlock()
	for i := range n {
		if !f(&chunks[i/chunkLen][i%chunkLen]) {
			return
		}
	}
}

// Replica returns the handle of a facet that is kept here.
func (s *Store) Replica(id facet.Incarnation) (Replica, error) {
	st := s.lookup(id, false)
	if st == nil {
		return Replica{}, fmt.Errorf("facet %v: %w", id, ErrUnknown)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.gone(); err != nil {
		return Replica{}, fmt.Errorf("facet %v: %w", id, err)
	}
	return Replica{s, st}, nil
}

// Has reports whether the facet is kept here.
func (s *Store) Has(id facet.Incarnation) bool {
	_, err := s.Replica(id)
	return err == nil
}

// Facets calls f for every facet kept here until it returns false. Facets created
// meanwhile may be missed.
func (s *Store) Facets(f func(Meta) bool) {
	s.each(func(st *state) bool {
		m, ok := Replica{s, st}.meta()
		return !ok || f(m)
	})
}

// Meta is what a store knows of a facet.
type Meta struct {
	ID          facet.Incarnation
	Promised    facet.Epoch
	Boot        Boot
	Last        facet.Position // end of the log, durable or not
	Durable     facet.Seq      // up to here it is
	CommitKnown facet.Seq
	BasePages   uint32 // size of the database file
	Base        facet.Position
	Entries     int // in the log above the base
	Health      Health
	Open        bool
}

// Meta tells what the store knows of the facet.
func (r Replica) Meta() Meta {
	m, _ := r.meta()
	return m
}

// Promised is the highest epoch promised here and to whom, durable or not; zero
// for none. It is cheap: whoever checks epochs at the door asks it first.
func (r Replica) Promised() (facet.Epoch, Boot) {
	r.st.mu.Lock()
	defer r.st.mu.Unlock()
	if r.st.promised == 0 {
		return 0, Boot{}
	}
	return r.st.promised, r.s.boots.id(r.st.boot)
}

// Position is the end of the facet's log, durable or not.
func (r Replica) Position() facet.Position {
	r.st.mu.Lock()
	defer r.st.mu.Unlock()
	return r.st.last()
}

func (r Replica) meta() (Meta, bool) {
	st := r.st
	st.mu.Lock()
	defer st.mu.Unlock()
	m := Meta{
		ID: st.id, Promised: st.promised, Last: st.last(), Durable: st.basePos.Seq, CommitKnown: st.basePos.Seq,
		Base: st.basePos, BasePages: st.basePages, Health: st.health,
	}
	if st.promised != 0 {
		m.Boot = r.s.boots.id(st.boot)
	}
	if l := st.live; l != nil {
		m.Durable, m.CommitKnown, m.Entries, m.Open = l.durable, l.commitKnown(), len(l.entries), l.open
	}
	return m, st.gone() == nil
}

// Admit says whether an entry of n bytes would be taken now; for asking before a
// transaction runs (R15).
func (s *Store) Admit(n int) error { return logError(s.log.Admit(n)) }

// Wait returns when Admit(n) says yes, or with its error when that is not ErrBusy.
func (s *Store) Wait(ctx context.Context, n int) error { return logError(s.log.Wait(ctx, n)) }

// Sync waits until everything placed before is durable and acknowledged.
func (s *Store) Sync(ctx context.Context) error {
	err := logError(s.log.Sync(ctx))
	if err == nil && s.fatal.Load() != nil {
		// What the log made durable before the disk failed it may have told us after:
		// then it was not acknowledged, and never will be (R13).
		err = s.alive()
	}
	return err
}

// Log gives access to the sizes and counters of the commit log.
func (s *Store) Log() *commitlog.Log { return s.log }

// path is the name of something in the data directory.
func (s *Store) path(elem ...string) string {
	return path.Join(append([]string{s.opts.Dir}, elem...)...)
}

func shardName(b byte) string { return fmt.Sprintf("%02x", b) }

// shard is the directory of a facet's database file.
func (s *Store) shard(id facet.Incarnation) string { return s.path("facets", shardName(id[0])) }

func (s *Store) dbName(id facet.Incarnation) string {
	return path.Join(s.shard(id), id.String()+".db")
}

// makeDirs makes all directories before the first use, durably. The last one made
// tells that all are there.
func (s *Store) makeDirs() error {
	if _, err := s.fs.Stat(s.path("trash")); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := disk.MkdirAllSync(s.fs, s.path("facets"), 0o700); err != nil {
		return err
	}
	for i := range 256 {
		if err := s.fs.MkdirAll(s.path("facets", shardName(byte(i))), 0o700); err != nil {
			return err
		}
	}
	if err := s.fs.SyncDir(s.path("facets")); err != nil {
		return err
	}
	if err := disk.MkdirAllSync(s.fs, s.path("tmp"), 0o700); err != nil {
		return err
	}
	return disk.MkdirAllSync(s.fs, s.path("trash"), 0o700)
}
