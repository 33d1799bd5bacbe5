package quorum

import (
	"errors"
	"slices"

	"github.com/facetd/facetd/facet"
)

func (s *simSession) send(m msg) {
	m.from, m.epoch, m.ownerBoot = s.n.id, s.epoch, s.n.boot
	m.store = s.core.Store(m.slot)
	m.to = storeNode(m.store)
	s.n.w.post(m)
}

// run carries actions out until there are none.
func (s *simSession) run() {
	w := s.n.w
	for range 1000 {
		if w.err != nil || s.n.sess != s {
			return
		}
		acts := s.core.Ready(s.n.now(), w.acts[:0])
		if len(acts) == 0 {
			if at, now := s.core.Wake(), s.n.now(); at <= now {
				w.fail("nothing to do at %v, but to be woken at %v", now, at)
			}
			s.check()
			s.answer()
			return
		}
		if len(acts) > MaxActions {
			w.fail("%d actions at once", len(acts))
		}
		for _, a := range append([]Action(nil), acts...) {
			w.logf("  e%d %v", s.epoch, a)
			s.do(a)
		}
	}
	w.fail("session %d never stops asking", s.epoch)
}

// check holds the core to its own invariants.
func (s *simSession) check() {
	c := s.core
	if c.barrier == 0 || s.n.w.core|flaw(s.n.w.sim) != 0 {
		return
	}
	ok := c.committed <= c.last && c.barrier > c.adopted.Seq && c.window.n == int(c.last-max(c.committed, c.barrier-1)) &&
		c.rounds.confirmed <= c.rounds.running && c.rounds.running <= c.rounds.wanted
	for i := range c.n {
		m := &c.slots[i]
		ok = ok && (m.role&(roleNext|roleLearner) == 0 || m.next <= c.last+1 && m.next > 0 && m.acked <= c.last) &&
			(m.progress != streaming || m.match < m.next)
	}
	if !ok {
		s.n.w.fail("invariant of epoch %d: %+v", s.epoch, *c)
	}
}

func (s *simSession) do(a Action) {
	w := s.n.w
	switch a.Kind {
	case ActPrepare:
		s.send(msg{kind: mPrepare, slot: a.Slot})
	case ActFetch:
		w.fetches++
		s.send(msg{kind: mFetch, slot: a.Slot, pos: a.Position, seq: a.Seq})
	case ActAdopt:
		if s.frozen {
			w.fail("epoch %d adopts twice", s.epoch)
		}
		s.frozen = true
		if a.Slot == s.core.Self() {
			s.log, s.base = slices.Clone(s.n.replica.mem.log), s.n.replica.mem.base
		} else {
			s.log, s.base = s.staged, s.stageB
		}
		if position(s.log) != a.Position {
			w.fail("epoch %d adopts %v and got %v", s.epoch, a.Position, position(s.log))
			return
		}
		if w.sim&(simNoBarrier|simNoOwnEpoch) != 0 && len(s.log) > 0 {
			s.core.skipBarrier(s.base+1, w.sim&simNoBarrier != 0)
			return
		}
		w.vals++
		s.log = append(s.log, entry{s.epoch, w.vals, true})
		if err := s.core.Barrier(s.n.now(), s.base+1, facet.Seq(len(s.log)), 1); err != nil {
			w.fail("barrier of epoch %d: %v", s.epoch, err)
		}
		if w.p.early {
			s.core.Early()
		}
	case ActShip:
		s.ship(a)
	case ActSnapshot:
		w.snaps++
		at := max(a.Seq, s.base)
		if at > a.To {
			w.fail("no snapshot from %d to %d with base %d", a.Seq, a.To, s.base)
			return
		}
		s.send(msg{kind: mSnap, slot: a.Slot, entries: slices.Clone(s.log[:at])})
	case ActHint:
		s.send(msg{kind: mHint, slot: a.Slot, commit: a.Commit})
	case ActActivate:
		w.post(msg{kind: mActivate, from: s.n.id, to: w.lead, epoch: s.epoch, ownerBoot: s.n.boot})
	case ActServe:
		c := s.core.Committed()
		w.logf("SERVES   epoch %d from %d", s.epoch, c)
		w.decide(s, c)
	case ActCommitted:
		if a.Commit < s.hi {
			w.fail("I4: commit index of epoch %d fell from %d to %d", s.epoch, s.hi, a.Commit)
		}
		s.hi = a.Commit
	case ActCheck:
		s.send(msg{kind: mCheck, slot: a.Slot, round: a.Round})
	case ActDie:
		err := s.core.Err()
		w.logf("DIES     epoch %d: %v", s.epoch, err)
		s.answer()
		s.n.sess = nil
		if errors.Is(err, ErrImpossible) || errors.Is(err, ErrTwoLives) || errors.Is(err, ErrDiverged) {
			w.fail("epoch %d: %v", s.epoch, err)
		}
	}
}

func (s *simSession) ship(a Action) {
	log := s.log
	if s.core.flaws&flawEarlyShip != 0 && !s.frozen {
		log = s.n.replica.mem.log
	} else if !s.frozen {
		s.n.w.fail("R17: epoch %d ships before it adopted", s.epoch)
		return
	}
	m := msg{kind: mAppend, slot: a.Slot, seq: a.Seq, commit: a.Commit, entries: slices.Clone(log[a.Seq-1 : a.To])}
	if a.Seq >= 2 {
		m.prev = log[a.Seq-2].epoch
	}
	if a.Seq <= s.base && s.frozen {
		s.n.w.fail("epoch %d ships %d, entries begin behind %d", s.epoch, a.Seq, s.base)
		return
	}
	if a.Slot == s.core.Self() && s.n.w.rng.IntN(4) > 0 {
		m.from, m.to, m.epoch, m.ownerBoot, m.store = s.n.id, s.n.id, s.epoch, s.n.boot, s.n.replica.store
		s.n.w.deliver(m) // the own copy is asked without a detour, mostly
		return
	}
	if !s.n.w.calm && s.n.w.rng.IntN(2) == 0 { // entries may travel apart
		for i := range m.entries {
			one := m
			one.seq, one.entries = m.seq+facet.Seq(i), m.entries[i:i+1]
			if i > 0 {
				one.prev = m.entries[i-1].epoch
			}
			s.send(one)
		}
		return
	}
	s.send(m)
}

// answer lets out what may leave.
func (s *simSession) answer() {
	w := s.n.w
	keep := s.waiting[:0]
	for _, seq := range s.waiting {
		switch s.core.Write(seq) {
		case Send:
			w.acks++
			w.decide(s, seq)
			w.acked = max(w.acked, seq)
			w.logf("ACKED    %d by epoch %d", seq, s.epoch)
		case Hold:
			keep = append(keep, seq)
		}
	}
	s.waiting = keep
	reads := s.reads[:0]
	for _, r := range s.reads {
		v := s.core.Read(r.gate, s.n.now(), s.n.lease.Deadline())
		if r.free && s.core.State() == Active && r.gate.Seen <= s.core.Committed() {
			v = Send
		}
		switch v {
		case Send:
			w.readsDone++
			if r.gate.Ticket != 0 {
				w.qreads++
			}
			w.logf("READ     by epoch %d saw %d, ticket %d", s.epoch, r.gate.Seen, r.gate.Ticket)
			if r.gate.Seen < r.needed {
				w.fail("FRESH: a read by epoch %d saw %d entries, %d were acknowledged before it was asked", s.epoch, r.gate.Seen, r.needed)
			}
			w.decide(s, r.gate.Seen)
		case Confirm:
			r.gate.Ticket = s.core.Join()
			reads = append(reads, r)
		case Hold:
			reads = append(reads, r)
		}
	}
	s.reads = reads
}

// decide is the checker of AGREE: what one owner showed, every other one shows.
func (w *world) decide(s *simSession, to facet.Seq) {
	for i := range to {
		if int(i) >= len(s.log) {
			w.fail("epoch %d shows %d entries of %d", s.epoch, to, len(s.log))
			return
		}
		if int(i) == len(w.decided) {
			w.decided = append(w.decided, s.log[i])
		}
		if w.decided[i] != s.log[i] {
			w.fail("AGREE: index %d was entry %d of epoch %d, epoch %d shows entry %d of epoch %d",
				i+1, w.decided[i].val, w.decided[i].epoch, s.epoch, s.log[i].val, s.log[i].epoch)
			return
		}
	}
}

func (s *simSession) write() {
	w := s.n.w
	if !s.core.Room() || len(s.log) >= w.p.maxLog {
		return
	}
	w.vals++
	s.log = append(s.log, entry{s.epoch, w.vals, false})
	seq := facet.Seq(len(s.log))
	w.logf("EXECUTE  entry %d by epoch %d at %d", w.vals, s.epoch, seq)
	if err := s.core.Appended(s.n.now(), seq, 1); err != nil {
		w.fail("append %d: %v", seq, err)
	}
	s.waiting = append(s.waiting, seq)
	s.run()
}

func (s *simSession) read() {
	w := s.n.w
	if s.core.State() != Active || len(s.reads) > 8 {
		return
	}
	free := false
	if w.sim&simCheckBefore != 0 {
		if !s.tested { // the test comes first, the snapshot some time later
			s.tested = s.n.lease.Valid(s.n.now())
			return
		}
		if w.rng.IntN(8) > 0 {
			return
		}
		s.tested, free = false, true
	}
	s.reads = append(s.reads, simRead{gate: ReadGate{Seen: facet.Seq(len(s.log))}, needed: w.acked, free: free})
	s.run()
}

// skipBarrier is R20 broken.
func (s *Session) skipBarrier(first facet.Seq, serve bool) {
	t, _ := NewTracker(s.nextN, 1)
	s.first, s.barrier, s.tracker = first, s.adopted.Seq, t
	for i := range s.n {
		s.start(&s.slots[i])
	}
	if serve {
		s.tracker.barrier = s.adopted.Seq + 1
		s.tracker.committed, s.committed = s.adopted.Seq, s.adopted.Seq
	}
	// Nobody is asked again for what he has, so what he promised counts.
	for i := range s.n {
		if m := &s.slots[i]; m.match > 0 && m.progress == streaming {
			m.acked = m.match
			s.count(m, m.match)
		}
	}
}

// rollback is R31 broken.
func (s *simSession) rollback() {
	c := s.core
	if c.state != Active || c.last == c.committed {
		return
	}
	s.n.w.logf("ROLLBACK epoch %d from %d to %d", s.epoch, c.last, c.committed)
	s.log, s.waiting = s.log[:c.committed:c.committed], nil
	c.last = c.committed
	c.window = window{}
	for i := range c.n {
		m := &c.slots[i]
		m.next, m.match, m.acked = min(m.next, c.last+1), min(m.match, c.last), min(m.acked, c.last)
	}
}
