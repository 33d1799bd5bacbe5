package engine

import (
	"errors"
	"sync"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/sqlite"
)

// Scratch answers requests for facets that do not exist, as an empty database
// would, and tells when one has to be created. It holds a few databases that are
// always empty.
type Scratch struct {
	limits Limits
	slots  chan struct{} // bounds the databases in use

	mu     sync.Mutex
	idle   []*DB
	closed bool
}

// errWrites ends a request that wants to write where it must not: on a scratch
// database, or in a view. It is told apart by identity and never leaves the package.
var errWrites = &facet.Error{Code: facet.CodeInternal, Message: "a write that belongs elsewhere"}

// NewScratch makes a pool; databases are opened when needed.
func NewScratch(limits Limits) *Scratch {
	return &Scratch{limits: limits, slots: make(chan struct{}, maxScratch)}
}

// Try runs the request as on an empty database. writes reports that it came to a
// statement that writes, or would keep a transaction open: then nothing happened,
// resp is as it was, and the caller creates the facet and runs the request there.
// Otherwise resp and err are the answer, with a zero Position.
func (s *Scratch) Try(req *facet.Request, resp *facet.Response, opts RunOptions) (writes bool, err error) {
	db, err := s.take()
	if err != nil {
		return false, err
	}
	writes, err = db.TryRead(req, resp, opts)
	resp.Position = facet.Position{}
	s.give(db)
	return writes, err
}

// take gets a database, waiting for one in use if there are too many.
func (s *Scratch) take() (*DB, error) {
	wait := time.NewTimer(s.limits.withDefaults().StatementTime)
	defer wait.Stop()
	select {
	case s.slots <- struct{}{}:
	case <-wait.C:
		return nil, facet.Errorf(facet.CodeOverloaded, "too many requests for facets that do not exist")
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.slots
		return nil, ErrClosed
	}
	if n := len(s.idle); n > 0 {
		db := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return db, nil
	}
	s.mu.Unlock()
	db, err := Open(Options{
		Epoch: 1, Commits: refuseCommits, Limits: s.limits,
		Store: pages.New(pages.Base{}, func() (pages.File, error) {
			return nil, errors.New("a scratch database has no file")
		}),
	})
	if err != nil {
		<-s.slots
		return nil, err
	}
	db.elsewhere = true
	return db, nil
}

func (s *Scratch) give(db *DB) {
	db.Park()
	s.mu.Lock()
	keep := !s.closed && db.broken == nil && len(s.idle) < maxIdleScratch
	if keep {
		s.idle = append(s.idle, db)
	}
	s.mu.Unlock()
	if !keep {
		_ = db.Close() // an empty database in memory: there is nothing to lose
	}
	<-s.slots
}

// Trim closes the idle databases and gives back what SQLite keeps in the process to
// be fast: each may hold the last page of a megabyte.
func (s *Scratch) Trim() {
	s.mu.Lock()
	idle := s.idle
	s.idle = nil
	s.mu.Unlock()
	for _, db := range idle {
		_ = db.Close() // an empty database in memory: there is nothing to lose
	}
	sqlite.Trim()
}

// Close closes the idle databases; those in use close when they come back.
func (s *Scratch) Close() error {
	s.mu.Lock()
	idle := s.idle
	s.idle, s.closed = nil, true
	s.mu.Unlock()
	var errs []error
	for _, db := range idle {
		errs = append(errs, db.Close())
	}
	return errors.Join(errs...)
}
