package quorum

import (
	"fmt"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
)

// Instant is a time on the boot-time clock of one node, in nanoseconds. Instants
// of different nodes are never compared.
type Instant int64

// Add is the instant d later.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Never is later than every other instant.
const Never Instant = 1<<63 - 1

// State is where a session is in its life.
type State uint8

const (
	// Recovering: gathering promises, choosing and fetching a log. Nothing but
	// PREPARE and FETCH leaves the session (R17).
	Recovering State = iota
	// Fencing: the log is frozen and on its way to the next set, with the barrier
	// behind it (R20).
	Fencing
	// Active: placement accepted the session; it may serve (R22).
	Active
	// Dead: for good (R24).
	Dead
)

// The names are those of OWNERSHIP.md.
var stateNames = [...]string{"RECOVER", "BARRIER", "ACTIVE", "DEAD"}

func (s State) String() string { return stateNames[s] }

// Session is the core of one ownership: of one facet, in one epoch, in one
// process life.
//
// # The simple version
//
// A new owner must find every commit that was acknowledged before it, and make
// sure that none is acknowledged behind its back. So it asks the stores of the
// last activated set for a promise to refuse older epochs; a majority of promises
// means that no older owner gets a majority of acknowledgements for anything that
// is not in those stores' logs already (R16). It takes the most advanced of these
// logs (R18), writes one entry of its own behind it, the barrier, and when a
// majority has that, everything before it is settled (R20). Then it asks placement
// to make it the owner (R21), and serves.
//
// # Why each piece is there
//
//   - Positions compare by epoch first: a longer log of an older epoch may hold
//     entries that a newer epoch has replaced (R18).
//   - Adopted entries are never counted, whoever has them: a majority may hold an
//     old entry and still lose it to a third session with a log of a higher epoch.
//     The barrier is what that log cannot beat (R20).
//   - The promises are those of the *active* set, the acknowledgements those of
//     the *next* set: what is acknowledged to clients is in a majority of the set
//     activated last, whichever session looks for it (R16, R42).
//   - No commit hint leaves before the session is Active: until then its barrier
//     may be committed in a next set that never comes to be, and a store of that
//     set which believed it would rightly refuse to cut it off.
//   - A store that may have lost its tail still keeps its promise, but its log
//     counts for nothing unless everybody has answered (R19).
//   - The very first epoch has nobody to fence and nothing to find: nobody held an
//     epoch before, and no entry was ever made. It begins behind the recovery, see
//     Begin. Its promises come with the appends (R7), and a majority has them, and
//     the genesis base, when its barrier is committed (R47). Such an epoch may be
//     activated by the entry that issued it: no lease stands against it, and the set
//     it commits in is the one that the next session asks. Should the owner die
//     before anybody has its barrier, the next one finds a majority that has
//     nothing, and nothing was acknowledged. It may even serve before its barrier is
//     committed (Early): every answer waits for more than the barrier.
//
// # Rejected
//
// Fetching while promises come in, into the own copy: it saves a round trip on a
// cold start, and is rule M: EARLY_SHIP, which loses commits. Keeping the entries
// here: the core would own memory that the pages, the log and the connections
// hold anyway; it knows sequence numbers only.
//
// Invariants: committed <= last; state Active implies committed >= barrier but after
// Early; barrier > adopted.Seq; last never decreases
// (R31); nothing in progress of a slot exceeds last; I7: state Active implies that
// a row with our epoch as active epoch was applied.
type Session struct {
	epoch facet.Epoch
	boot  BootID
	self  int

	state State
	why   error

	n       int // slots in use
	slots   [MaxSlots]member
	activeN int
	nextN   int

	// RECOVER
	fetching int            // slot asked for its log, -1 for none
	fetch    facet.Position // the log asked for

	// From ActAdopt on.
	adopted facet.Position
	holder  int
	first   facet.Seq // first entry that can be shipped; what is below needs a snapshot
	barrier facet.Seq // zero until it has been made
	last    facet.Seq
	settled facet.Seq // committed before this session, as far as the members knew
	genesis bool      // the facet's first epoch: no member has anything, see Begin
	born    bool      // genesis, and activated by the entry that made the facet

	tracker   Tracker
	committed facet.Seq
	opened    facet.Seq // commit index told by ActCommitted
	window    window
	movedAt   Instant // when work was first pending since the last commit

	activateAt Instant
	hint       facet.Seq // commit index to tell everybody by ActHint

	rounds Rounds
	tell   todo

	flaws flaw // zero outside tests, see flaws.go
}

// todo holds actions of the session itself that Ready has not given yet.
type todo uint8

const (
	tellAdopt todo = 1 << iota
	tellServe
	tellConfirmed
	tellDie
)

// NewSession begins the ownership that row describes, for the process life boot
// on the store self. Slots are numbered as Slots says.
func NewSession(row Row, self StoreID, boot BootID) (*Session, error) {
	s := &Session{epoch: row.Epoch, boot: boot, self: -1, fetching: -1, holder: -1, flaws: builtIn()}
	switch {
	case row.Epoch == 0 || row.Owner != boot && !broken.Is(broken.ResumeEpoch):
		return nil, fmt.Errorf("begin session in epoch %v: it was issued to another process life", row.Epoch) // R2
	case len(row.Next) == 0 || len(row.Next) > MaxMembers || len(row.Active) > MaxMembers:
		return nil, fmt.Errorf("begin session in epoch %v: sets of %d and %d members", row.Epoch, len(row.Active), len(row.Next))
	}
	active := row.Active
	if len(active) == 0 {
		// Never activated: nothing was ever acknowledged, and the members of the
		// first set hold the genesis base at most (R47).
		active = row.Next
	}
	for _, m := range active {
		if err := s.addMember(m, roleActive); err != nil {
			return nil, fmt.Errorf("begin session in epoch %v: %w", row.Epoch, err)
		}
	}
	for _, m := range row.Next {
		if err := s.addMember(m, roleNext); err != nil {
			return nil, fmt.Errorf("begin session in epoch %v: %w", row.Epoch, err)
		}
	}
	s.self = s.find(self)
	if s.self < 0 || s.slots[s.self].role&roleNext == 0 {
		return nil, fmt.Errorf("begin session in epoch %v: the owner's store %v is no member of the next set", row.Epoch, self)
	}
	s.slots[s.self].Boot = boot
	return s, nil
}

func (s *Session) find(store StoreID) int {
	for i := range s.n {
		if s.slots[i].Store == store && s.slots[i].role != 0 {
			return i
		}
	}
	return -1
}

func (s *Session) addMember(m Member, r role) error {
	i := s.find(m.Store)
	if i < 0 {
		i = s.n
		s.n++
		s.slots[i] = member{Member: m, vote: -1}
	} else if s.slots[i].role&r != 0 {
		return fmt.Errorf("store %v is a member twice", m.Store)
	}
	s.slots[i].role |= r
	switch r {
	case roleActive:
		s.activeN++
	case roleNext:
		s.slots[i].vote = int8(s.nextN)
		s.nextN++
	}
	return nil
}

// Slots is how many slots there are: the members of the active set in order, then
// those only in the next set, then learners. Slot i keeps its meaning.
func (s *Session) Slots() int { return s.n }

// Store is the store of a slot.
func (s *Session) Store(slot int) StoreID { return s.slots[slot].Store }

// Self is the slot of the owner's own copy.
func (s *Session) Self() int { return s.self }

// Epoch is the session's epoch.
func (s *Session) Epoch() facet.Epoch { return s.epoch }

// State is where the session is.
func (s *Session) State() State { return s.state }

// Err says why the session is dead, nil while it lives.
func (s *Session) Err() error { return s.why }

// Committed is the commit index (R28), zero before the barrier is committed.
func (s *Session) Committed() facet.Seq { return s.committed }

// Last is the last entry of the session's log, zero before it is adopted.
func (s *Session) Last() facet.Seq { return s.last }

// Die ends the session for a reason the caller knows: a failed write, a lost
// lock, a commit that could not be handed on (R24, R26).
func (s *Session) Die(why error) { s.die(why) }

func (s *Session) die(why error) {
	if s.state == Dead {
		return
	}
	s.state, s.why, s.tell = Dead, why, tellDie
}

// Applied takes in the facet's row as this node's placement table has it now: at
// the start, and after every change. It brings the session to life (R22), or to
// its end (R24).
func (s *Session) Applied(row Row) {
	switch {
	case s.state == Dead:
	case row.Epoch > s.epoch && broken.Is(broken.DeafOwner):
	case row.Epoch > s.epoch:
		s.die(fmt.Errorf("%w: %v", ErrFenced, row.Epoch))
	case row.Epoch < s.epoch:
		// A table that has not caught up with the entry that issued our epoch.
	case row.Owner != s.boot && !broken.Is(broken.ResumeEpoch):
		s.die(ErrReleased)
	case row.ActiveEpoch == s.epoch && s.state == Fencing && (s.committed >= s.barrier || broken.Is(broken.NoBarrier)) && s.barrier != 0:
		s.serve()
	case row.ActiveEpoch == s.epoch && s.state < Active && s.born:
	case row.ActiveEpoch == s.epoch && s.state < Active:
		// Nobody but this session may activate its epoch, and it has not asked.
		s.die(fmt.Errorf("%w: epoch %v was activated before its barrier was committed", ErrImpossible, s.epoch))
	}
}

func (s *Session) serve() {
	s.state = Active
	s.opened = s.barrier - 1
	s.tell |= tellServe
	if s.rounds.n == 0 {
		s.rounds.n = s.nextN
	}
}

// Registered takes in which process life is registered for a store. What the one
// before said no longer counts: it may have been of another copy of the disk (R3).
// It costs one probe.
func (s *Session) Registered(m Member) {
	i := s.find(m.Store)
	if i < 0 || s.slots[i].Boot == m.Boot {
		return
	}
	if i == s.self {
		s.die(ErrReleased) // another process has this directory
		return
	}
	p := &s.slots[i]
	p.Boot = m.Boot
	p.promised, p.promise, p.checked, p.asked = false, Promise{}, 0, 0
	if s.fetching == i {
		s.fetching = -1
	}
	p.waiting, p.retryAt, p.hinted = false, 0, 0 // what it knew to be committed is gone
	if s.barrier != 0 {
		s.tracker.withdraw(int(p.vote))
		p.acked = 0
		if p.progress == streaming && s.first <= s.last {
			// Also where nothing is in flight: what it holds is to be counted again.
			// If there is no entry to ask with, everything is committed anyway.
			s.probe(p, min(max(p.match, s.first), s.last))
		}
	}
}

// Down says that messages to a slot may have been lost, and that no more can be
// sent: its connection broke.
func (s *Session) Down(slot int) {
	if slot < 0 || slot >= s.n || slot == s.self {
		return
	}
	p := &s.slots[slot]
	p.down, p.waiting, p.retryAt, p.asked, p.hinted = true, false, 0, 0, 0
	if s.fetching == slot {
		s.fetching = -1
	}
	if s.barrier != 0 && p.progress == streaming {
		s.probe(p, p.match+1)
	}
}

// Up says that messages can be sent to a slot. Slots begin that way.
func (s *Session) Up(slot int) {
	if slot >= 0 && slot < s.n {
		s.slots[slot].down = false
	}
}

// slot checks that a message comes from the store and process life that hold a
// slot: others are no members, whatever they say (R3).
func (s *Session) slot(from From) *member {
	if from.Slot < 0 || from.Slot >= s.n || s.state == Dead {
		return nil
	}
	p := &s.slots[from.Slot]
	if p.role == 0 || s.flaws&flawAmnesia == 0 && (p.Boot == (BootID{}) || p.Store != from.Store || p.Boot != from.Boot) {
		return nil
	}
	return p
}

// Nacked takes in a refusal.
func (s *Session) Nacked(from From, now Instant, n Nack) {
	p := s.slot(from)
	if p == nil || n.Epoch != s.epoch {
		return
	}
	switch n.Kind {
	case NackEpoch:
		if n.Promised > s.epoch && !broken.Is(broken.Undead) {
			s.die(fmt.Errorf("%w: %v was promised", ErrFenced, n.Promised))
		}
	case NackTwoLives:
		s.die(ErrTwoLives)
	case NackDeleted:
		s.die(ErrDeleted)
	case NackBusy:
		if s.barrier != 0 && p.progress == streaming {
			s.probe(p, p.match+1)
		}
		p.waiting, p.retryAt = true, now.Add(busyAfter)
	case NackGap:
		s.gap(p, n)
	case NackDiverged, NackDamaged:
		s.broken(from.Slot, n.Kind)
	}
}

// broken takes a copy out of the count until a snapshot has replaced it (R51).
func (s *Session) broken(slot int, kind NackKind) {
	p := &s.slots[slot]
	if slot == s.self && kind == NackDiverged {
		s.die(ErrDiverged)
		return
	}
	p.promise.Health = Broken
	if s.barrier != 0 {
		s.tracker.withdraw(int(p.vote))
		p.acked, p.match, p.next = 0, 0, 1
		p.progress, p.waiting, p.unsure = filling, false, false
	}
}

// Ready appends what is to be done now, at most MaxActions actions, and takes it
// as done. Call it until it adds nothing.
func (s *Session) Ready(now Instant, dst []Action) []Action {
	switch s.state {
	case Dead:
		if s.tell&tellDie != 0 {
			s.tell = 0
			dst = append(dst, Action{Kind: ActDie})
		}
		return dst
	case Recovering:
		dst = s.recover(now, dst)
	default:
		if s.state == Fencing {
			dst = s.fence(now, dst)
		}
		dst = s.ship(now, dst)
	}
	if s.tell&tellServe != 0 {
		s.tell &^= tellServe
		dst = append(dst, Action{Kind: ActServe})
	}
	if s.state == Active {
		if s.committed > s.opened {
			s.opened = s.committed
			dst = append(dst, Action{Kind: ActCommitted, Commit: s.committed})
		}
		dst = s.check(now, dst)
	}
	return dst
}

// Wake is when Ready has something to do at the latest if nothing else happens,
// or Never.
func (s *Session) Wake() Instant {
	at := Never
	if s.state == Dead {
		return at
	}
	if s.state == Fencing && s.barrier != 0 && s.committed >= s.barrier {
		at = s.activateAt
	}
	for i := range s.n {
		p := &s.slots[i]
		if p.down || p.role == 0 {
			continue
		}
		// Only what Ready would act on: a time that is over and leads to nothing is
		// a loop.
		switch {
		case s.state == Recovering:
			if p.waiting && !p.promised {
				at = min(at, p.retryAt)
			}
			if p.fetchAt > 0 {
				at = min(at, p.fetchAt)
			}
		case s.barrier == 0 || p.role&(roleNext|roleLearner) == 0:
		case p.progress == streaming && p.match+1 < p.next, p.progress == probing && p.waiting,
			p.progress == filling && p.waiting && s.fillable():
			at = min(at, p.retryAt)
		}
		if s.rounds.pending() && p.vote >= 0 && p.checked < s.rounds.running && p.asked > 0 {
			at = min(at, p.askedAt.Add(askAgain))
		}
	}
	return at
}
