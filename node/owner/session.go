package owner

import (
	"slices"
	"sync"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/node/service"
)

// session is one ownership of one open facet: from activation in an epoch to
// hibernation or death. It is the shell of a quorum.Session: inputs come in from
// the engine, from this node's log, from peers and from the placement table, each
// changes the core under mu, and then run carries out what the core wants.
//
// The engine, the pages and the checkpoint belong to the desk's goroutine. All
// else is guarded by mu.
//
// The gate: every answer waits until the commit index covers what it saw, reads
// included (rule R29), and reads wait for the lease or a quorum as well (R33, R34).
type session struct {
	d     *desk
	row   Row
	own   replica.Replica
	store *pages.Store
	db    *engine.DB

	ckpt *pages.Checkpoint // under way

	turn chan struct{} // holds a token: the desk's goroutine has something to look at while it activates

	mu      sync.Mutex
	core    *quorum.Session
	members []member // by slot of the core
	acts    []quorum.Action
	batch   []*entry // what run ships; of whoever runs
	running bool     // somebody carries out actions; who comes now leaves the rest to him
	stopped bool     // closed: nothing is carried out any more

	recent      recent
	ownMoved    quorum.Instant // when this node's own log last took something of it, or was first given something
	waiting     []gated        // for the commit index, by what they saw
	unconfirmed []gated        // reads that wait for a round of CHECK (rule R34)
	released    []gated        // of whoever runs
	blocked     bool           // the desk waits for room in the window
	filling     chan struct{}  // closed when the learners are full, or with unfilled set
	unfilled    bool           // the session ended first
	let         uint64         // answers that waited and were let go
	letThen     uint64         // let when forsaken looked last
	quiet       int            // times in a row that forsaken saw nothing move

	timer   *time.Timer
	timerAt quorum.Instant // when it fires at the latest; zero when it is not set

	adopt      *quorum.Action // the log the core chose, for the desk's goroutine
	fetched    []facet.Commit // entries of it that the own copy lacks
	serving    bool
	held       bool           // the barrier is shipped with the first commit, or when somebody waits for it
	activating bool           // an ACTIVATE is on its way
	betterAt   cluster.NodeID // holds a log that this node cannot get: it should be the owner
}

// member is what the shell knows of a slot's store.
type member struct {
	Member
	learner  bool // no member yet: it is being filled
	asking   bool // a PREPARE is on its way
	checking bool // a CHECK is on its way
	sending  bool // a snapshot is on its way
	ahead    bool // its damaged copy was brought further to its file than the copy here

	// Entries that are no longer in memory are read from the log and sent by a
	// goroutine of their own, which everything for the member waits behind.
	catching         bool
	catchAt, catchTo facet.Seq
}

// gated is an answer that waits, or a function that is told when one could leave.
type gated struct {
	gate  quorum.ReadGate
	wrote bool // it was a transaction that changed something: no lease is needed (R28)
	ask   bool // the lease is not enough for who asked (R34, R41)
	early bool // the lease was tested before (broken.CheckBefore)
	call  *service.Call
	f     func(error)
}

func (g *gated) finish(err error) {
	if g.f != nil {
		g.f(err)
		return
	}
	if err != nil {
		g.call.Err = err
	}
	g.call.OnInterrupt(nil)
	g.call.Finish()
}

func (s *session) ownFrom() quorum.From { return s.fromSlot(s.core.Self()) }

// fromSlot is the sender of an answer that came from the store a slot stands for.
func (s *session) fromSlot(slot int) quorum.From {
	m := &s.members[slot]
	return quorum.From{Slot: slot, Store: quorum.StoreID(m.Store), Boot: quorum.BootID(m.Boot)}
}

// from finds the slot of who answered; the core checks store and process life (R3).
// A learner that was started anew is taken as it comes: the row does not name it,
// and it is not counted. mu is held.
func (s *session) from(r peer.Remote) (quorum.From, bool) {
	for i := range s.members {
		if m := &s.members[i]; m.Store == r.Store {
			if m.learner && m.Boot != r.Boot {
				m.Boot = r.Boot
				s.core.Registered(m.core())
			}
			return quorum.From{Slot: i, Store: quorum.StoreID(r.Store), Boot: quorum.BootID(r.Boot)}, true
		}
	}
	return quorum.From{}, false
}

// ship hands a commit to the replicas. The engine calls it inside SQLite's commit
// (rule R26). After an error the session is dead: the commit may be anywhere.
func (s *session) ship(c *facet.Commit) error {
	s.mu.Lock()
	if err := s.core.Appended(s.d.m.now(), c.Seq, len(c.Pages)); err != nil {
		s.core.Die(err)
		s.run()
		return err
	}
	s.remember(c)
	s.run()
	return nil
}

// remember keeps an entry until this node's own log can give it back. mu is held.
func (s *session) remember(c *facet.Commit) {
	if len(s.recent.entries) == 0 {
		s.ownMoved = s.d.m.now()
	}
	s.recent.push(c)
}

// gate answers a call that ran, now or when what it saw may leave. wrote says that
// the call changed something.
func (s *session) gate(call *service.Call, wrote bool) {
	s.hold(gated{
		gate: quorum.ReadGate{Seen: s.store.Position().Seq}, wrote: wrote,
		ask: call.Request.Read == facet.ReadQuorum, call: call,
	})
}

// mark puts the bookmark of what an answer reflects into it. The answer leaves when all
// of that is committed (R29), so the bookmark names what is.
func (s *session) mark(resp *facet.Response) {
	if p := resp.Position; p.Seq != 0 {
		resp.Bookmark = facet.Bookmark{Facet: s.row.Incarnation, Epoch: p.Epoch, Seq: p.Seq}
	}
}

// reaches says what is wrong with a bookmark, as far as this session knows. The owner
// holds everything that was ever committed, so one that it does not reach names nothing
// of this facet (R35).
func (s *session) reaches(b facet.Bookmark) error {
	switch {
	case b.Facet != s.row.Incarnation:
		return facet.Errorf(facet.CodeBookmark, "the bookmark is not of this %s: of another facet, or of one of that name that was deleted or replaced; go on without it", s.d.name)
	case !b.Covered(s.store.Position()):
		return facet.Errorf(facet.CodeBookmark, "%s was never at the bookmark's position, %v.%v; go on without it", s.d.name, b.Epoch, b.Seq)
	}
	return nil
}

// hold finishes g when what it saw is committed and, unless it wrote, when this is
// still the owner (R33, R34). It is called when the snapshot of g has been taken,
// never before.
func (s *session) hold(g gated) {
	s.mu.Lock()
	if broken.Is(broken.CheckBefore) {
		g.early = s.d.m.lease.Valid()
	}
	switch v := s.verdict(&g); {
	case v == quorum.Unknown:
		err := unknown(s.core.Err())
		s.mu.Unlock()
		g.finish(err)
	case v == quorum.Send && len(s.waiting) == 0: // I8: in order
		s.mu.Unlock()
		g.finish(nil)
	case v == quorum.Confirm && len(s.waiting) == 0:
		g.gate.Ticket = s.core.Join()
		s.unconfirmed = append(s.unconfirmed, g)
		s.run()
	default:
		s.waiting = append(s.waiting, g)
		if s.held {
			s.run()
			return
		}
		s.mu.Unlock()
	}
}

// verdict says what may happen to g. The lease is tested last (R33), and not at all
// for a read that wants a majority (R34). mu is held.
func (s *session) verdict(g *gated) quorum.Verdict {
	if g.wrote {
		if broken.Is(broken.LeaseForWrites) && !s.d.m.lease.Valid() {
			return quorum.Hold
		}
		return s.core.Write(g.gate.Seen)
	}
	v := s.core.Read(quorum.ReadGate{Seen: g.gate.Seen}, 0, 0)
	switch {
	case v != quorum.Confirm:
		return v
	case (!g.ask || broken.Is(broken.LeaseWillDo)) && (s.d.m.lease.Valid() || broken.Is(broken.NoLease) || broken.Is(broken.CheckBefore) && g.early):
		return quorum.Send
	}
	return s.core.Read(g.gate, 0, 0)
}

// open collects what may leave now in released. mu is held.
func (s *session) open() {
	defer func() { s.let += uint64(len(s.released)) }()
	i := 0
	for ; i < len(s.waiting); i++ {
		g := &s.waiting[i]
		switch s.verdict(g) {
		case quorum.Send:
			s.released = append(s.released, *g)
			continue
		case quorum.Confirm:
			g.gate.Ticket = s.core.Join()
			s.unconfirmed = append(s.unconfirmed, *g)
			continue
		}
		break
	}
	s.waiting = drop(s.waiting, i)
	if broken.Is(broken.OutOfOrder) {
		slices.Reverse(s.released)
	}
	if len(s.unconfirmed) == 0 {
		return
	}
	kept := s.unconfirmed[:0]
	for _, g := range s.unconfirmed {
		if s.verdict(&g) == quorum.Send {
			s.released = append(s.released, g)
		} else {
			kept = append(kept, g)
		}
	}
	clear(s.unconfirmed[len(kept):])
	s.unconfirmed = kept
}

// full reports whether the window is full, and if so makes sure that the desk is
// started again when it is not (rule R32). What the others have committed counts as
// long as this node's own log lags behind with it: it is kept in memory.
func (s *session) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	room := s.core.Room() && len(s.recent.entries) < quorum.MaxWindow && s.recent.bytes < quorum.MaxWindowBytes
	if s.core.State() != quorum.Active || room || broken.Is(broken.NoWindow) {
		return false
	}
	s.blocked = true
	return true
}

// idle reports whether everything shipped is committed and answered.
func (s *session) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.Committed() >= s.core.Last() && len(s.waiting) == 0 && len(s.unconfirmed) == 0
}

// confirming reports whether reads wait for a majority to confirm them.
func (s *session) confirming() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.unconfirmed) > 0
}

// caught reports whether every member that can be reached holds everything.
func (s *session) caught() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.Caught()
}

// lagging reports whether a checkpoint would take entries from the log that a member
// is about to need.
func (s *session) lagging() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.Lagging()
}

// rest tells the members what is committed, so that their copies can rest as well,
// and remembers the facet if one of them lacks something.
func (s *session) rest() {
	s.mu.Lock()
	lacking := false
	for i := range s.members {
		lacking = lacking || s.core.Lacking(i)
	}
	s.core.FlushCommit()
	s.run()
	if lacking {
		s.d.m.lacking.note(s.d.name)
	}
}

// onCommitted calls f once when everything shipped so far is committed, at once if
// it is, or with an error when the session dies. f must not block.
func (s *session) onCommitted(f func(error)) {
	s.hold(gated{gate: quorum.ReadGate{Seen: s.store.Position().Seq}, wrote: true, f: f})
}

// settle waits until everything shipped is committed and every answer has left, which
// takes milliseconds unless a majority is gone. Then what is not committed is an
// error, and the session goes on; reads that wait are not waited for any longer.
func (s *session) settle() error {
	done := make(chan error, 1)
	// As a read it is behind all that wait, for the commit index or a round.
	s.hold(gated{gate: quorum.ReadGate{Seen: s.store.Position().Seq}, f: func(err error) { done <- err }})
	timer := time.NewTimer(settleTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.core.Err() == nil && s.core.Committed() < s.core.Last() {
		return facet.Errorf(facet.CodeUnavailable, "no majority of %s's replicas confirms its last commit; try again when one can be reached", s.d.name)
	}
	return s.core.Err()
}

func (s *session) isDead() bool { return s.whyDead() != nil }

// whyDead is the reason the session died, nil while it lives.
func (s *session) whyDead() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.Err()
}

// die ends the session for good (rule R24).
func (s *session) die(why error) {
	s.mu.Lock()
	s.core.Die(why)
	s.run()
}

// died answers everything that waits for a commit with "outcome unknown" (R24,
// R30). The desk takes the session away.
func (s *session) died() {
	s.mu.Lock()
	why := s.core.Err()
	rest := s.takeHeld()
	s.mu.Unlock()
	s.d.m.log.Info("facet session ended", "facet", s.d.name.String(), "epoch", uint64(s.row.Epoch), "reason", why.Error())
	for i := range rest {
		rest[i].finish(unknown(why))
	}
	s.wakeDesk()
	s.d.post(todoDie)
}

// takeHeld takes all answers that wait. mu is held.
func (s *session) takeHeld() []gated {
	rest := append(s.waiting, s.unconfirmed...)
	s.waiting, s.unconfirmed = nil, nil
	return rest
}

func unknown(why error) error {
	if broken.Is(broken.Definite) {
		return errClosed
	}
	return facet.Errorf(facet.CodeUnknownOutcome, "the owner lost the facet before the answer was certain (%v); read to find out, or use an idempotency key to retry safely", why)
}

// close gives everything back. Nothing is carried out for the session afterwards.
func (s *session) close() {
	s.stop()
	if s.db != nil {
		if err := s.db.Close(); err != nil {
			s.d.m.log.Warn("close engine", "facet", s.d.name.String(), "error", err)
		}
	}
	if s.store != nil {
		if err := s.own.Close(s.store); err != nil {
			s.d.m.log.Warn("close database file", "facet", s.d.name.String(), "error", err)
		}
	}
}

// stop answers what still waits: nobody else will. What changed something may have
// taken effect, what did not has had none.
func (s *session) stop() {
	s.d.m.sessions.remove(s)
	s.mu.Lock()
	s.stopped = true
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.filling != nil {
		s.unfilled = true
		close(s.filling)
		s.filling = nil
	}
	why, rest := s.core.Err(), s.takeHeld()
	s.mu.Unlock()
	for i := range rest {
		switch g := &rest[i]; {
		case why != nil:
			g.finish(unknown(why))
		case g.wrote:
			g.finish(unknown(errClosed))
		default:
			g.finish(errClosed)
		}
	}
}

var errClosed = facet.Errorf(facet.CodeUnavailable, "the facet went to another session before its answer was certain; try again")

// wakeDesk has the desk's goroutine look, if it waits in recover.
func (s *session) wakeDesk() {
	select {
	case s.turn <- struct{}{}:
	default:
	}
}
