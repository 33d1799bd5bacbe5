package quorum

import (
	"fmt"
	"slices"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
)

// Promised takes in the answer to PREPARE.
func (s *Session) Promised(from From, p Promise) {
	m := s.slot(from)
	if m == nil || p.Epoch != s.epoch || s.state != Recovering {
		return
	}
	if m.promised {
		// The same answer again (R6); only bad news about the copy is news.
		m.promise.Health = max(m.promise.Health, p.Health)
		return
	}
	m.promised, m.promise, m.waiting, m.retryAt = true, p, false, 0
}

// recover asks for promises and chooses a log.
func (s *Session) recover(now Instant, dst []Action) []Action {
	for i := range s.n {
		m := &s.slots[i]
		if now >= m.fetchAt {
			m.fetchAt = 0
		}
		// R16: PREPARE goes to the next set too; choose does not count the answer.
		if m.role&(roleActive|roleNext) == 0 || m.promised || m.down || m.waiting && now < m.retryAt {
			continue
		}
		m.waiting, m.retryAt = true, now.Add(askAgain)
		dst = append(dst, Action{Kind: ActPrepare, Slot: i})
	}
	if s.flaws&flawEarlyShip != 0 && s.slots[s.self].promised {
		dst = s.earlyShip(dst)
	}
	me := &s.slots[s.self]
	if !me.promised {
		return dst // the own copy must be fenced before anybody looks at it
	}
	best, ok := s.choose()
	if !ok {
		return dst
	}
	if me.promise.Health != Broken && me.promise.Last.Compare(best) == 0 {
		if me.promise.Last == best {
			// Equal positions are equal logs, even if the own promise does not count.
			s.adopt(s.self, best)
			return s.fence(now, dst)
		}
		me.promise.Health = Broken // outvoted (R51): nothing of it is to be used
	}
	if s.fetching >= 0 && s.fetch == best {
		return dst
	}
	for i := range s.n {
		m := &s.slots[i]
		if !s.candidate(m) || m.down || m.promise.Last != best || now < m.fetchAt {
			continue
		}
		s.fetching, s.fetch = i, best
		return append(dst, Action{Kind: ActFetch, Slot: i, Position: best, Seq: s.common(best) + 1})
	}
	s.fetching = -1 // R19: wait for a holder, never adopt less
	if broken.Is(broken.AdoptLess) && me.promise.Health != Broken {
		s.adopt(s.self, me.promise.Last)
		return s.fence(now, dst)
	}
	return dst
}

// common is how far the own copy is surely the same as the log that ends at best.
func (s *Session) common(best facet.Position) facet.Seq {
	me := &s.slots[s.self].promise
	switch {
	case me.Health == Broken:
		return 0
	case me.Last.Epoch == best.Epoch:
		return min(me.Last.Seq, best.Seq)
	}
	return min(max(me.Known, me.Base), me.Last.Seq, best.Seq)
}

// counts reports whether a member's promise counts for the fencing quorum: those
// of the active set, each store once (R16).
func (s *Session) counts(m *member) bool {
	want := roleActive
	if s.flaws&flawNewSet != 0 {
		want = roleNext
	}
	return m.promised && m.role&want != 0
}

// candidate reports whether a member's log may be adopted. That of an uncertain
// store may: what is left of it is intact, and it beats a shorter one.
func (s *Session) candidate(m *member) bool { return s.counts(m) && m.promise.Health != Broken }

// choose finds the log to adopt, once the promises allow it.
func (s *Session) choose() (best facet.Position, ok bool) {
	n := s.activeN
	if s.flaws&flawNewSet != 0 {
		n = s.nextN
	}
	promised, sound := 0, 0
	var floor facet.Seq         // known to be committed
	var reported facet.Position // by anybody, sound or not
	for i := range s.n {
		m := &s.slots[i]
		if !m.promised {
			continue
		}
		floor = max(floor, m.promise.Known, m.promise.Base)
		if !s.counts(m) {
			continue
		}
		promised++
		if m.promise.Health == Sound || m.promise.Health == Uncertain && s.flaws&flawRotTrust != 0 {
			sound++
		}
		if m.promise.Last.Compare(reported) > 0 {
			reported = m.promise.Last
		}
		if s.candidate(m) && (!ok || s.better(m.promise.Last, best)) {
			best, ok = m.promise.Last, true
		}
	}
	q := Majority(n)
	fenced, sure := q, n-q+1
	if broken.Is(broken.MinorityFence) {
		fenced, sure = fenced-1, sure-1
	}
	switch {
	case !ok || promised < fenced: // R16
		return best, false
	case sound >= sure:
		// R19: every majority has one of these, so what was acknowledged is in one
		// of their logs; the tails of the others say nothing.
	case promised < n || best.Compare(reported) < 0:
		// R19: without enough sound answers all must answer, and nothing shorter
		// than what was reported will do.
		return best, false
	}
	if best.Seq < floor {
		return best, false // somebody knows of more that is committed
	}
	return s.agreed(best, promised == n)
}

// agreed settles which content a position has, where stores differ: the copy that
// most of them hold, once all have answered (R51).
func (s *Session) agreed(best facet.Position, all bool) (facet.Position, bool) {
	var votes [MaxSlots]int
	first, tie, differ := -1, false, false
	for i := range s.n {
		m := &s.slots[i]
		if !s.candidate(m) || m.promise.Last.Compare(best) != 0 {
			continue
		}
		for j := range s.n {
			if o := &s.slots[j]; s.candidate(o) && o.promise.Last == m.promise.Last {
				votes[i]++
			}
		}
		switch {
		case first < 0:
			first = i
		case m.promise.Last.Sum == s.slots[first].promise.Last.Sum:
		case broken.Is(broken.NoVote):
		case votes[i] > votes[first]:
			first, differ, tie = i, true, false
		default:
			differ, tie = true, tie || votes[i] == votes[first]
		}
	}
	if differ && (tie || !all) {
		return best, false
	}
	best = s.slots[first].promise.Last
	for i := range s.n {
		if m := &s.slots[i]; differ && s.candidate(m) && m.promise.Last.Compare(best) == 0 && m.promise.Last != best {
			m.promise.Health = Broken // to be replaced by a snapshot
		}
	}
	return best, true
}

// Fetched says that the log asked for is here, whole and verified (R19).
func (s *Session) Fetched(slot int, log facet.Position) {
	if s.state != Recovering || slot < 0 || slot != s.fetching || log != s.fetch {
		return // another one has been chosen since
	}
	s.adopt(slot, log)
}

// FetchFailed says that slot could not give the log asked for. Another holder is
// asked, or the same one again later; less is never adopted (R19).
func (s *Session) FetchFailed(slot int, now Instant) {
	if s.state != Recovering || slot < 0 || slot != s.fetching {
		return
	}
	s.slots[slot].fetchAt = now.Add(askAgain)
	s.fetching = -1
}

// adopt freezes the log (R18).
func (s *Session) adopt(holder int, log facet.Position) {
	s.state, s.adopted, s.holder, s.last = Fencing, log, holder, log.Seq
	s.fetching = -1
	s.tell |= tellAdopt
	for i := range s.n {
		m := &s.slots[i]
		m.waiting, m.fetchAt = false, 0 // nobody is asked any more: see Wake
		if m.promised {
			s.settled = max(s.settled, m.promise.Known, m.promise.Base)
		}
	}
}

// fence replicates the frozen log and asks for activation.
func (s *Session) fence(now Instant, dst []Action) []Action {
	if s.tell&tellAdopt != 0 {
		s.tell &^= tellAdopt
		dst = append(dst, Action{Kind: ActAdopt, Slot: s.holder, Position: s.adopted})
	}
	if s.barrier == 0 || s.committed < s.barrier && !broken.Is(broken.NoBarrier) {
		return dst
	}
	// R20: a majority of the next set has the barrier.
	if s.born {
		s.serve()
		return dst
	}
	if now >= s.activateAt {
		s.activateAt = now.Add(askAgain)
		dst = append(dst, Action{Kind: ActActivate})
	}
	if s.flaws&flawNoAct != 0 {
		s.serve()
	}
	return dst
}

// Barrier says that the frozen log is in place: its entries from first on can be
// shipped, those below need a snapshot; and the barrier, of size bytes, has been
// made behind it, at seq.
func (s *Session) Barrier(now Instant, first, seq facet.Seq, size int) error {
	switch {
	case s.state == Dead:
		return ErrDead
	case s.state != Fencing || s.barrier != 0:
		return ErrState
	case seq != s.adopted.Seq+1 || first == 0 || first > seq || first-1 > s.settled || s.genesis && first != seq:
		return ErrSeq // I5: nothing but what is committed leaves the log for the file
	}
	return s.begin(now, first, seq, size)
}

// Begin begins a facet's very first epoch. The caller says that nobody else can
// ever have held one, and that this process life has not had a session in it: the
// row's epoch is the one it was created with, and it was never activated, or by the
// entry that created it. Then there is nobody to fence and nothing to fetch: the
// session adopts the own log at once, without PREPARE, and the members' promises come
// with the first append (R7, R47).
//
// last is the end of the own log: zero, or the position of a base that was imported
// into the own copy. That base counts as settled, since it is the genesis of the
// facet, and the other members get it as a snapshot. The first entry to ship,
// which is told to Barrier, is the barrier.
//
// A facet that may have had another owner, be it one that never served, is for
// NewSession: what is in its members' logs may be in the own log too.
func Begin(row Row, self StoreID, boot BootID, now Instant, last facet.Position) (*Session, error) {
	s, err := NewSession(row, self, boot)
	switch {
	case err != nil:
		return nil, err
	case row.Epoch<<generationBits != 1<<generationBits && !broken.Is(broken.NoFence),
		last.Epoch > row.Epoch, (last.Epoch == 0) != (last.Seq == 0):
		return nil, fmt.Errorf("begin with %v in epoch %v: %w", last, row.Epoch, ErrState)
	case row.ActiveEpoch == 0 && len(row.Active) == 0:
	case row.ActiveEpoch != row.Epoch || last.Seq != 0 || !slices.EqualFunc(row.Active, row.Next, sameStore):
		return nil, fmt.Errorf("begin with %v in epoch %v: %w", last, row.Epoch, ErrState)
	default:
		s.born = true
	}
	s.genesis, s.movedAt = true, now
	s.adopt(s.self, last)
	s.settled = last.Seq
	return s, nil
}

// Early has a session serve whose facet was made active (R47), before its barrier is
// committed. It is false for any other session, and before Barrier. What runs goes
// behind the barrier in the log, and nothing leaves before a majority has both: the
// first answer waits for one fsync instead of two. The caller believes that it can
// reach a majority; should it not, outcomes are unknown that were definite otherwise.
func (s *Session) Early() bool {
	if s.state != Fencing || !s.born || s.barrier == 0 {
		return false
	}
	s.serve()
	return true
}

func sameStore(a, b Member) bool { return a.Store == b.Store }

// generationBits are the upper bits of an epoch (R2): the rest of a first one is 1.
const generationBits = 16

func (s *Session) begin(now Instant, first, seq facet.Seq, size int) error {
	t, err := NewTracker(s.nextN, seq)
	if err != nil {
		return err
	}
	s.tracker, s.first, s.barrier, s.last, s.movedAt = t, first, seq, seq, now
	s.window.push(size)
	for i := range s.n {
		s.start(&s.slots[i])
	}
	if s.genesis && first > 1 { // the base was imported here, and nobody else has it
		for i := range s.n {
			s.probe(&s.slots[i], 1)
		}
		s.stream(&s.slots[s.self], first)
	}
	s.bypass()
	return nil
}

// start decides how to ship to a member at first, by what its promise said.
func (s *Session) start(m *member) {
	m.waiting, m.retryAt, m.acked, m.match = false, 0, 0, 0
	last := m.promise.Last
	switch {
	case s.born: // nobody has anything; who does not know of the facet yet says so
		s.stream(m, s.barrier)
	case m.promised && m.promise.Health == Broken:
		m.progress, m.next = filling, 1
	case m.promised && s.meets(last):
		s.stream(m, last.Seq+1)
	case m.promised:
		s.probe(m, min(last.Seq, s.adopted.Seq)+1)
	default:
		s.probe(m, s.barrier)
	}
}

// meets reports whether a log that ends at last is surely a beginning of ours.
func (s *Session) meets(last facet.Position) bool {
	return last.Seq == 0 || last.Epoch == s.epoch && last.Seq <= s.last ||
		last.Epoch == s.adopted.Epoch && last.Seq <= s.adopted.Seq
}

// Resume begins a session that was active before in this process life and epoch,
// and was closed with everything committed: its log ends at last, its entries from
// first on can be shipped. The caller has seen that the row still says so.
// Hibernation is no change of epoch (R2 binds it to the boot, not to the handle).
func Resume(row Row, self StoreID, boot BootID, now Instant, first facet.Seq, last facet.Position) (*Session, error) {
	s, err := NewSession(row, self, boot)
	switch {
	case err != nil:
		return nil, err
	case row.ActiveEpoch != row.Epoch || last.Epoch != row.Epoch || first == 0 || first > last.Seq+1:
		return nil, ErrState
	}
	s.state, s.adopted, s.holder = Fencing, last, s.self
	if s.tracker, err = NewTracker(s.nextN, last.Seq); err != nil {
		return nil, err
	}
	s.first, s.barrier, s.last, s.movedAt = first, last.Seq, last.Seq, now
	s.settled, s.committed, s.tracker.committed = last.Seq, last.Seq, last.Seq
	for i := range s.n {
		// Nobody's log can go further; whoever is behind says so.
		s.stream(&s.slots[i], last.Seq+1)
	}
	s.serve()
	s.opened = s.committed
	return s, nil
}
