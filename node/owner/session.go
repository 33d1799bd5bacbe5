package owner

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/node/service"
)

// session is one ownership of one open facet: from activation in an epoch to
// hibernation or death. It belongs to its desk's goroutine except for the gate,
// which acknowledgements reach from the log.
//
// The gate: every answer waits until the commit index covers what it saw, reads
// included (rule R29), and leaves in order (I8).
type session struct {
	d       *desk
	row     Row
	replica Replica
	store   *pages.Store
	db      *engine.DB

	ckpt *pages.Checkpoint // under way

	mu        sync.Mutex
	tracker   quorum.Tracker
	committed facet.Seq
	shipped   facet.Seq
	bytes     []shippedBytes // sizes of what is shipped and not committed
	unacked   int            // their sum
	waiting   []gated
	blocked   bool // the desk waits for room in the window
	notices   []notice
	dead      error

	released []*service.Call // used by Acked only, which one goroutine calls
}

type gated struct {
	seq  facet.Seq
	call *service.Call
}

// notice is a function to call once when the commit index reaches seq or the
// session dies.
type notice struct {
	seq facet.Seq
	f   func()
}

type shippedBytes struct {
	seq facet.Seq
	n   int
}

// activate takes the facet from its row in the placement table to an open
// session: a new epoch if the row's was not issued to this process life or is
// spent (R2, R31), promise (R6), pages from base and log (R23), barrier (R20),
// activation (R21); only then may anything run (R22).
func (d *desk) activate(row Row) error {
	ctx, cancel := context.WithTimeout(d.m.ctx, openTimeout)
	defer cancel()
	if !row.Local {
		return &facet.Error{Code: facet.CodeNotOwner, Message: "the owner is node " + string(row.Owner), Owner: row.OwnerURL, Epoch: row.Epoch}
	}
	var err error
	if !row.Mine || row.Epoch == d.dead {
		if row, err = d.m.opts.Placement.Acquire(ctx, d.name, row); err != nil {
			return fmt.Errorf("acquire %s: %w", d.name, err)
		}
	}
	s := &session{d: d, row: row, replica: d.m.opts.Replica(row)}
	switch {
	case row.Active:
	case row.New && row.Members == 1:
		// The only member is this node, and its log of the facet is empty or what it
		// installed itself (an import): there
		// is nobody else to fence and nothing to fetch. The promise goes into the
		// log in front of the barrier, in the same batch (R7), and one fsync covers
		// R16, R17 and R20.
		if err := s.replica.Begin(ctx); err != nil {
			return fmt.Errorf("begin %s: %w", d.name, err)
		}
	default:
		if err := s.replica.Prepare(ctx, row); err != nil {
			return fmt.Errorf("prepare %s: %w", d.name, err)
		}
	}
	if s.store, err = s.replica.Load(ctx); err != nil {
		return fmt.Errorf("load %s: %w", d.name, err)
	}
	if err := s.begin(ctx); err != nil {
		if !row.Active {
			d.dead = row.Epoch // its barrier may be in the log: the next try takes a new epoch (R31)
		}
		return errors.Join(fmt.Errorf("activate %s: %w", d.name, err), s.replica.Release(s.store))
	}
	s.db, err = engine.Open(engine.Options{
		ID: row.Incarnation, Epoch: row.Epoch, Store: s.store,
		Commits: s.ship, Limits: d.m.opts.Limits, Now: d.m.opts.Now,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("open %s: %w", d.name, err), s.replica.Release(s.store))
	}
	d.session = s
	d.engine.Store(s.db)
	d.dead = 0
	d.pages.Store(s.store.Pages())
	d.m.active.Add(1)
	d.m.opened.Add(1)
	d.measure()
	return nil
}

// begin commits the barrier and activates the epoch, or, where that was done
// earlier in this process life, goes on from the last commit: hibernation is no
// change of epoch, and everything in the log was committed before it.
func (s *session) begin(ctx context.Context) error {
	if s.row.Active {
		pos := s.store.Position()
		var err error
		s.tracker, err = quorum.NewTracker(1, pos.Seq)
		s.committed = s.tracker.Ack(0, pos.Seq)
		s.shipped = pos.Seq
		return err
	}
	barrier := s.store.Barrier(s.row.Incarnation, s.row.Epoch)
	var err error
	if s.tracker, err = quorum.NewTracker(1, barrier.Seq); err != nil {
		return err
	}
	if err := s.ship(&barrier); err != nil {
		return err
	}
	committed := make(chan struct{})
	s.onCommitted(func() { close(committed) })
	select {
	case <-committed:
	case <-ctx.Done():
		s.die(ctx.Err())
		return facet.Errorf(facet.CodeUnavailable, "the barrier of epoch %v was not committed in time", s.row.Epoch)
	}
	if err := s.d.m.opts.Placement.Activate(ctx, s.row); err != nil {
		return err
	}
	s.row.Active = true
	return nil
}

// ship hands a commit to the replicas. The engine calls it inside SQLite's commit
// (rule R26). After an error the session is dead: the commit may be anywhere.
func (s *session) ship(c *facet.Commit) error {
	s.mu.Lock()
	if s.dead != nil {
		s.mu.Unlock()
		return s.dead
	}
	s.shipped = c.Seq
	s.unacked += len(c.Pages)
	s.bytes = append(s.bytes, shippedBytes{c.Seq, len(c.Pages)})
	known := s.committed
	s.mu.Unlock()
	if err := s.replica.Append(c, known, s); err != nil {
		s.die(err)
		return err
	}
	return nil
}

// Acked is told by this node's replica that it holds the log up to seq. It opens
// the gate for what is now committed.
func (s *session) Acked(_ facet.Incarnation, epoch facet.Epoch, seq facet.Seq) {
	if epoch != s.row.Epoch {
		return // meant for an earlier session of this process life
	}
	s.mu.Lock()
	s.committed = s.tracker.Ack(0, seq)
	i := 0
	for ; i < len(s.waiting) && s.waiting[i].seq <= s.committed; i++ {
		s.released = append(s.released, s.waiting[i].call)
	}
	s.waiting = drop(s.waiting, i)
	for i = 0; i < len(s.bytes) && s.bytes[i].seq <= s.committed; i++ {
		s.unacked -= s.bytes[i].n
	}
	s.bytes = drop(s.bytes, i)
	unblock := s.blocked && len(s.bytes) <= maxWindow/2 && s.unacked <= maxWindowBytes/2
	if unblock {
		s.blocked = false
	}
	var due []notice
	for i = 0; i < len(s.notices) && s.notices[i].seq <= s.committed; i++ {
		due = append(due, s.notices[i])
	}
	s.notices = drop(s.notices, i)
	s.mu.Unlock()
	for i, c := range s.released {
		c.OnInterrupt(nil)
		c.Done(c)
		s.released[i] = nil
	}
	s.released = s.released[:0]
	if unblock {
		s.d.post(todoResume)
	}
	for _, n := range due {
		n.f()
	}
}

// drop removes the first n elements and keeps the array.
func drop[T any](s []T, n int) []T {
	if n == 0 {
		return s
	}
	k := copy(s, s[n:])
	clear(s[k:])
	return s[:k]
}

// gate answers a call that ran, now or when what it saw is committed.
func (s *session) gate(call *service.Call) {
	seq := s.store.Position().Seq
	s.mu.Lock()
	switch {
	case s.dead != nil:
		// The call may have shipped a commit, or have seen one that nobody can
		// vouch for now: its answer must not leave.
		call.Err = unknown(s.dead)
	case seq > s.committed:
		s.waiting = append(s.waiting, gated{seq, call})
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	call.OnInterrupt(nil)
	call.Done(call)
}

// full reports whether the window is full, and if so makes sure that the desk is
// started again when it is not.
func (s *session) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead != nil || len(s.bytes) < maxWindow && s.unacked < maxWindowBytes {
		return false
	}
	s.blocked = true
	return true
}

// idle reports whether everything shipped is committed.
func (s *session) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.committed >= s.shipped && len(s.waiting) == 0
}

// onCommitted calls f once when everything shipped so far is committed, at once if
// it is, or when the session dies. f must not block.
func (s *session) onCommitted(f func()) {
	s.mu.Lock()
	if s.dead == nil && s.committed < s.shipped {
		s.notices = append(s.notices, notice{s.shipped, f})
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	f()
}

func (s *session) isDead() bool { return s.whyDead() != nil }

// die ends the session for good (rule R24): everything that waits for a commit is
// answered with "outcome unknown". The desk takes the session away.
func (s *session) die(why error) {
	s.mu.Lock()
	if s.dead != nil {
		s.mu.Unlock()
		return
	}
	s.dead = why
	waiting := s.waiting
	s.waiting = nil
	due := s.notices
	s.notices = nil
	s.mu.Unlock()
	s.d.m.log.Warn("facet session ended", "facet", s.d.name.String(), "epoch", uint64(s.row.Epoch), "reason", why.Error())
	for _, g := range waiting {
		g.call.Err = unknown(why)
		g.call.OnInterrupt(nil)
		g.call.Done(g.call)
	}
	for _, n := range due {
		n.f()
	}
	s.d.post(todoDie)
}

func unknown(why error) error {
	return facet.Errorf(facet.CodeUnknownOutcome, "the owner lost the facet before the answer was certain (%v); read to find out, or use an idempotency key to retry safely", why)
}

func (s *session) close() {
	if err := s.db.Close(); err != nil {
		s.d.m.log.Warn("close engine", "facet", s.d.name.String(), "error", err)
	}
	if err := s.replica.Release(s.store); err != nil {
		s.d.m.log.Warn("close database file", "facet", s.d.name.String(), "error", err)
	}
}

// whyDead is the reason the session died, nil while it lives.
func (s *session) whyDead() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}
