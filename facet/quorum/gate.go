package quorum

import (
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
)

// Verdict is what may happen to an answer.
type Verdict uint8

const (
	// Hold: not yet; ask again when the commit index or a round has moved.
	Hold Verdict = iota
	// Send: the answer may leave.
	Send
	// Confirm: the lease is over. Take a ticket (Session.Join), ask again when
	// ActConfirmed has reached it.
	Confirm
	// Unknown: the session is dead. Nobody can say whether what the answer saw will
	// stay.
	Unknown
)

var verdictNames = [...]string{"hold", "send", "confirm", "unknown"}

func (v Verdict) String() string { return verdictNames[v] }

// ReadGate is the gate of one answer that waits (R29, R33, R34). It is made when
// the answer's snapshot has been taken, never before; that order is the rule.
type ReadGate struct {
	Seen   facet.Seq // last entry the snapshot contained
	Ticket uint64    // of Session.Join, taken after the snapshot; zero for none
}

// Read tests whether an answer to a read may leave now, under a lease that ends at
// deadline. The order of the tests is R33: the lease last, after the gate.
func (s *Session) Read(g ReadGate, now, deadline Instant) Verdict {
	switch {
	case s.state == Dead:
		return Unknown
	case s.state != Active: // R22
		return Hold
	case g.Seen > s.committed && s.flaws&flawNoGate == 0: // R29
		return Hold
	case g.Ticket != 0 && s.rounds.confirmed >= g.Ticket: // R34: no clock
		return Send
	case now < deadline: // R33
		return Send
	case g.Ticket != 0:
		return Hold
	}
	return Confirm
}

// Write tests whether the answer to a transaction whose last entry is seq may
// leave. It needs no lease: what is durable on a majority stays (R28).
func (s *Session) Write(seq facet.Seq) Verdict {
	switch {
	case (s.state != Dead && seq > s.committed || s.state < Active) && !broken.Is(broken.NoGate):
		return Hold
	case seq <= s.committed || broken.Is(broken.NoGate):
		return Send
	}
	return Unknown
}

// Rounds numbers the rounds of CHECK of a session. One runs at a time; whoever
// joins while it runs waits for the next one, since a majority may have answered
// before his snapshot was taken. So any number of reads share a round, and a read
// waits for two at most.
//
// Invariant: confirmed <= running <= wanted <= running+1.
type Rounds struct {
	n         int // members asked
	running   uint64
	wanted    uint64
	confirmed uint64
}

// Join gives the ticket of the first round that has not begun.
func (r *Rounds) Join() uint64 {
	r.wanted = r.running + 1
	return r.wanted
}

// Begin starts the next round if somebody waits for it and none is running.
func (r *Rounds) Begin() bool {
	if r.wanted == r.running || r.confirmed < r.running {
		return false
	}
	r.running++
	return true
}

func (r *Rounds) pending() bool { return r.confirmed < r.running }

// Join asks for a quorum read: the ticket for a ReadGate whose snapshot has been
// taken.
func (s *Session) Join() uint64 {
	if s.flaws&flawQReadEarly != 0 && s.rounds.running > 0 {
		return s.rounds.running
	}
	return s.rounds.Join()
}

// Checked takes in that a member says that this session's epoch is the one it has
// promised.
func (s *Session) Checked(from From, epoch facet.Epoch, round uint64) {
	m := s.slot(from)
	if m == nil || epoch != s.epoch || m.vote < 0 || round > s.rounds.running {
		return
	}
	m.checked = max(m.checked, round)
	yes := 0
	for i := range s.n {
		if m := &s.slots[i]; m.vote >= 0 && m.checked >= s.rounds.running {
			yes++
		}
	}
	if s.rounds.pending() && yes >= Majority(s.rounds.n) {
		s.rounds.confirmed = s.rounds.running
		s.tell |= tellConfirmed
	}
}

// check runs the rounds of quorum reads. The set asked is the next set: the
// session is active, so it is the active one.
func (s *Session) check(now Instant, dst []Action) []Action {
	if s.tell&tellConfirmed != 0 {
		s.tell &^= tellConfirmed
		dst = append(dst, Action{Kind: ActConfirmed, Round: s.rounds.confirmed})
	}
	s.rounds.Begin()
	if !s.rounds.pending() {
		return dst
	}
	for i := range s.n {
		m := &s.slots[i]
		if m.vote < 0 || m.down || m.checked >= s.rounds.running ||
			m.asked == s.rounds.running && now < m.askedAt.Add(askAgain) {
			continue
		}
		m.asked, m.askedAt = s.rounds.running, now
		dst = append(dst, Action{Kind: ActCheck, Slot: i, Round: s.rounds.running})
	}
	return dst
}
