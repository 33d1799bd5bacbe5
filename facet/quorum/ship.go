package quorum

import (
	"fmt"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
)

// Room reports whether something may run that may append (R32). It is also false
// while nothing may run at all.
func (s *Session) Room() bool {
	return s.state == Active && (s.window.n < MaxWindow && s.window.bytes < MaxWindowBytes || broken.Is(broken.NoWindow))
}

// Appended says that the entry seq, of size bytes, has been made and may be
// shipped. It is never taken back (R31): after an error of it, or of what led to
// it, the session must die.
func (s *Session) Appended(now Instant, seq facet.Seq, size int) error {
	switch {
	case s.state == Dead:
		return ErrDead
	case s.state != Active:
		return ErrState // R22
	case seq != s.last+1 && !(broken.Is(broken.RollbackReuse) && seq <= s.last):
		return ErrSeq // R31
	case s.window.n >= MaxWindow && !broken.Is(broken.NoWindow):
		return ErrWindow
	}
	if s.committed == s.last {
		s.movedAt = now
	}
	s.last = seq
	s.window.push(size)
	s.bypass()
	return nil
}

// bypass is rule R27 broken.
func (s *Session) bypass() {
	if s.flaws&flawSelfBypass != 0 {
		s.count(&s.slots[s.self], s.last)
	}
}

// Acked takes in that a member durably holds the session's log up to seq (R9).
func (s *Session) Acked(from From, now Instant, epoch facet.Epoch, seq facet.Seq) {
	m := s.slot(from)
	if m == nil || epoch != s.epoch || s.barrier == 0 {
		return
	}
	if seq > s.last {
		// I3: it cannot hold what was never made.
		s.die(fmt.Errorf("%w: entry %v of epoch %v acknowledged, the last one is %v", ErrImpossible, seq, epoch, s.last))
		return
	}
	m.match = max(m.match, seq)
	switch {
	case m.progress == streaming:
		m.next = max(m.next, seq+1)
	case seq >= m.next && seq+1 >= s.first, m.progress == filling && seq+1 >= s.first:
		s.stream(m, seq+1)
	case m.progress == filling && seq > m.acked:
		m.waiting = false // the log moved on under the snapshot: another one is needed
	}
	if seq <= m.acked {
		return // late or repeated: nothing to count
	}
	m.acked = seq
	m.retryAt = now.Add(resendAfter)
	before := s.committed
	s.count(m, seq)
	if s.committed > before {
		s.movedAt = now
	}
}

// count gives a member's vote to the tracker (R28).
func (s *Session) count(m *member, seq facet.Seq) {
	if m.vote < 0 && broken.Is(broken.LearnersCount) {
		m = &s.slots[(s.self+1)%s.n] // its vote is somebody else's
	}
	if m.vote < 0 {
		return // learners and members that leave are never counted (R42)
	}
	if k := s.tracker.Ack(int(m.vote), seq); k > s.committed {
		s.window.pop(int(k - max(s.committed, s.barrier-1)))
		s.committed = k
	}
}

// stream sends without waiting from next on.
func (s *Session) stream(m *member, next facet.Seq) {
	m.progress, m.next, m.match, m.step, m.waiting, m.unsure = streaming, next, next-1, 1, false, false
}

// probe looks for the place where the logs meet, beginning with the entry at.
func (s *Session) probe(m *member, at facet.Seq) {
	m.match = min(m.match, at-1)
	if m.unsure = false; at < s.first {
		m.progress, m.next, m.waiting = filling, at, false
		return
	}
	if m.progress != probing || m.step == 0 {
		m.step = 1
	}
	m.progress, m.next, m.waiting, m.retryAt = probing, at, false, 0
}

// gap takes in that the entry n.Seq did not follow the member's log. An answer
// that is not to the probe on its way is late, and says nothing.
func (s *Session) gap(m *member, n Nack) {
	if s.barrier == 0 || n.Seq <= m.acked || n.Seq >= m.next && m.progress == streaming ||
		m.progress == filling || m.progress == probing && n.Seq != m.next {
		return
	}
	at := n.Last.Seq + 1
	if at >= n.Seq {
		// Its log is long enough: the entry before differs. Step back, farther each
		// time; entries sent again change nothing (R8).
		if m.step == 0 {
			m.step = 1
		}
		step := min(m.step, n.Seq-1)
		m.step *= 2
		at = max(n.Seq-step, 1)
		if known := min(m.promise.Known, s.settled); m.promised && n.Seq > known+1 {
			at = max(at, known+1) // up to there the logs are the same
		}
		if at == n.Seq {
			s.die(fmt.Errorf("%w: no place for entry %v", ErrImpossible, n.Seq))
			return
		}
	}
	s.probe(m, at)
}

// Compacted says that entries below first can no longer be shipped: they are in
// the database file only.
func (s *Session) Compacted(first facet.Seq) {
	if s.state != Dead && first <= max(s.committed, s.settled)+1 {
		s.first = max(s.first, first)
	}
}

// Filled says that a slot took a snapshot at seq, or ignored it because its log holds
// the entry at seq already (R44). That is no acknowledgement: what the log holds may
// not be durable yet, and what it has in its file may be older (R9).
func (s *Session) Filled(from From, seq facet.Seq) {
	m := s.slot(from)
	switch {
	case m == nil || s.barrier == 0 || m.progress != filling || seq > s.last:
	case seq+1 >= s.first:
		s.stream(m, seq+1)
	default:
		m.waiting = false // the log moved on under the snapshot: another one is needed
	}
}

// SnapshotFailed says that a snapshot did not reach a slot.
func (s *Session) SnapshotFailed(slot int, now Instant) {
	if slot >= 0 && slot < s.n && s.slots[slot].progress == filling {
		s.slots[slot].retryAt = now.Add(busyAfter)
	}
}

// FlushCommit has everybody to whom everything that is committed was sent told the
// commit index, without an entry to carry it: for a session that goes idle. It need
// not be acknowledged: the hint names the entry by its position, comes behind it on
// the same connection, and a log that lacks it refuses the hint. So one that was
// resumed, and has heard of nobody yet, can tell it too.
func (s *Session) FlushCommit() {
	if s.state == Active {
		s.hint = s.committed
	}
}

// Stalled reports whether nothing was committed for StallAfter with work pending:
// the node should stop renewing its lease (R32).
func (s *Session) Stalled(now Instant) bool {
	return s.state != Dead && s.barrier != 0 && s.last > s.committed && now >= s.movedAt.Add(StallAfter)
}

// commitHint is the commit index that may be told to members. Before the session
// is active its barrier may yet have to be cut off again.
func (s *Session) commitHint() facet.Seq {
	if s.state != Active && s.flaws&flawEarlyHint == 0 {
		return 0
	}
	return s.committed
}

// ship sends to every member what it lacks. It is not called before the log is
// frozen (R17).
func (s *Session) ship(now Instant, dst []Action) []Action {
	if s.barrier == 0 {
		return dst
	}
	for i := range s.n {
		m := &s.slots[i]
		if m.role&(roleNext|roleLearner) == 0 || m.down {
			continue
		}
		if m.next < s.first && m.progress != filling {
			s.unsure(m) // its entries were compacted; it may have had them
		}
		if m.progress == filling && m.unsure && s.first <= s.last {
			s.probe(m, s.first)
		}
		switch m.progress {
		case streaming:
			dst = s.feed(i, m, now, dst)
		case probing:
			if m.next > s.last { // nothing to probe with, and no doubt: see probe's callers
				s.stream(m, m.next)
				continue
			}
			dst = s.seek(i, m, now, dst)
		case filling:
			if m.waiting && now < m.retryAt || !s.fillable() {
				continue
			}
			to := max(s.committed, s.settled) // R44
			m.waiting, m.retryAt = true, Never
			dst = append(dst, Action{Kind: ActSnapshot, Slot: i, Seq: max(s.first-1, 1), To: to})
		}
	}
	return dst
}

// fillable reports whether there is anything committed to make a snapshot of.
func (s *Session) fillable() bool {
	to := max(s.committed, s.settled)
	return to > 0 && to+1 >= s.first
}

func (s *Session) feed(i int, m *member, now Instant, dst []Action) []Action {
	if m.match+1 < m.next && now >= m.retryAt {
		// Silence with entries in flight. The own copy is asked again too: it
		// answers when its disk does.
		s.probe(m, m.match+1)
		return s.seek(i, m, now, dst)
	}
	to := min(s.last, m.next+MaxShip-1, m.match+MaxInFlight)
	switch {
	case m.next <= to:
		if m.match+1 == m.next {
			m.retryAt = now.Add(resendAfter)
		}
		hint := s.commitHint()
		dst = append(dst, Action{Kind: ActShip, Slot: i, Seq: m.next, To: to, Commit: hint})
		m.next, m.hinted = to+1, min(hint, to)
	case s.hint > m.hinted && m.next > s.hint && s.state == Active:
		m.hinted = s.hint
		dst = append(dst, Action{Kind: ActHint, Slot: i, Commit: s.hint})
	}
	return dst
}

// seek sends the probe, or nothing if it is still on its way.
func (s *Session) seek(i int, m *member, now Instant, dst []Action) []Action {
	if m.progress != probing || m.waiting && now < m.retryAt {
		return dst
	}
	m.waiting, m.retryAt = true, now.Add(resendAfter)
	return append(dst, Action{Kind: ActShip, Slot: i, Seq: m.next, To: m.next, Commit: s.commitHint()})
}

// AddLearner begins to fill a store that is no member, so that it can become one
// with little delay (R42). It is never counted.
func (s *Session) AddLearner(m Member) (slot int, err error) {
	if s.state != Active {
		return -1, ErrState
	}
	if i := s.find(m.Store); i >= 0 {
		return i, nil
	}
	slot = -1
	for i := range s.n {
		if s.slots[i].role == 0 {
			slot = i
		}
	}
	if slot < 0 {
		if s.n == MaxSlots {
			return -1, ErrFull
		}
		slot = s.n
		s.n++
	}
	s.slots[slot] = member{Member: m, role: roleLearner, vote: -1}
	s.probe(&s.slots[slot], s.last)
	return slot, nil
}

// RemoveLearner ends the filling of a store.
func (s *Session) RemoveLearner(slot int) {
	if slot >= 0 && slot < s.n && s.slots[slot].role == roleLearner {
		s.slots[slot] = member{vote: -1}
	}
}

// Acknowledged is how far a slot is known to hold the session's log.
func (s *Session) Acknowledged(slot int) facet.Seq { return s.slots[slot].acked }

// window holds the sizes of what is appended and not committed: a ring that grows
// to MaxWindow, since most sessions never have more than a few.
type window struct {
	sizes []uint32 // power of two long
	head  int
	n     int
	bytes int
}

func (w *window) push(size int) {
	if w.n == len(w.sizes) {
		sizes := make([]uint32, max(8, 2*len(w.sizes)))
		for i := range w.n {
			sizes[i] = w.sizes[(w.head+i)&(len(w.sizes)-1)]
		}
		w.sizes, w.head = sizes, 0
	}
	w.sizes[(w.head+w.n)&(len(w.sizes)-1)] = uint32(size)
	w.n++
	w.bytes += size
}

func (w *window) pop(k int) {
	for ; k > 0 && w.n > 0; k-- {
		w.bytes -= int(w.sizes[w.head])
		w.head = (w.head + 1) & (len(w.sizes) - 1)
		w.n--
	}
}
