package owner

import (
	"errors"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/peer"
)

// run carries out what the core wants until it wants nothing, and lets out what may
// leave. It is called with mu held, after an input, and returns without it. Actions
// are carried out without mu, by one goroutine at a time and in order: one that
// comes while another is at it leaves its input behind and goes.
func (s *session) run() {
	if s.running || s.stopped {
		s.mu.Unlock()
		return
	}
	s.running = true
	if s.held {
		s.held, s.ownMoved = false, s.d.m.now()
	}
	for {
		// Nobody ships now. What this node has durably can be read back from its log.
		s.recent.trim(min(s.core.Committed(), s.core.Acknowledged(s.core.Self())))
		s.acts = s.core.Ready(s.d.m.now(), s.acts[:0])
		s.open()
		if s.filling != nil && s.learned() {
			close(s.filling)
			s.filling = nil
		}
		unblock := s.unblock()
		if len(s.acts) == 0 && len(s.released) == 0 && !unblock {
			break
		}
		s.mu.Unlock()
		for i := range s.acts {
			s.do(&s.acts[i])
		}
		for i := range s.released {
			s.released[i].finish(nil)
			s.released[i] = gated{}
		}
		s.released = s.released[:0]
		if unblock {
			s.d.post(todoResume)
		}
		s.mu.Lock()
		if s.stopped {
			break
		}
	}
	s.running = false
	s.arm()
	s.mu.Unlock()
}

// unblock reports whether the desk is to be started again. mu is held.
func (s *session) unblock() bool {
	if !s.blocked {
		return false
	}
	if n, bytes := s.core.Pending(); n > quorum.MaxWindow/2 || bytes > quorum.MaxWindowBytes/2 {
		return false
	}
	if len(s.recent.entries) > quorum.MaxWindow/2 || s.recent.bytes > quorum.MaxWindowBytes/2 {
		return false
	}
	s.blocked = false
	return true
}

// arm sets the timer for when the core wants to act though nothing happens. A
// timer that fires too early costs a look, so it is left alone then: in steady
// state it is set about once a second. mu is held.
func (s *session) arm() {
	at := s.core.Wake()
	if s.stopped || at == quorum.Never || s.timerAt != 0 && s.timerAt <= at {
		return
	}
	s.timerAt = at
	wait := time.Duration(at-s.d.m.now()) + time.Microsecond
	if s.timer == nil {
		s.timer = time.AfterFunc(wait, s.tick)
	} else {
		s.timer.Reset(wait)
	}
}

func (s *session) tick() {
	s.mu.Lock()
	s.timerAt = 0
	s.run()
}

// do carries out one action. mu is not held.
func (s *session) do(a *quorum.Action) {
	switch a.Kind {
	case quorum.ActPrepare:
		s.prepare(a.Slot)
	case quorum.ActFetch:
		s.fetch(*a)
	case quorum.ActAdopt:
		adopt := *a
		s.mu.Lock()
		s.adopt = &adopt
		s.mu.Unlock()
		s.wakeDesk()
	case quorum.ActShip:
		s.shipTo(a)
	case quorum.ActSnapshot:
		s.sendSnapshot(*a)
	case quorum.ActHint:
		s.hint(a)
	case quorum.ActActivate:
		s.proposeActivate()
	case quorum.ActServe:
		s.mu.Lock()
		s.serving = true
		s.mu.Unlock()
		s.wakeDesk()
	case quorum.ActCheck:
		s.check(a.Slot, a.Round)
	case quorum.ActCommitted, quorum.ActConfirmed:
		// What waits for these was let out by open.
	case quorum.ActDie:
		s.died()
	}
}

// shipTo sends entries to one member, this node's own copy among them (R27).
func (s *session) shipTo(a *quorum.Action) {
	s.mu.Lock()
	m := &s.members[a.Slot]
	if m.catching {
		m.catchTo = max(m.catchTo, a.To)
		if a.Seq < m.catchAt {
			m.catchAt = a.Seq
		}
		s.mu.Unlock()
		return
	}
	var here bool
	if s.batch, here = s.recent.from(s.batch[:0], a.Seq, a.To); !here {
		m.catching, m.catchAt, m.catchTo = true, a.Seq, a.To
		s.mu.Unlock()
		slot := a.Slot // a is used again
		s.d.m.wg.Go(func() { s.catchUp(slot) })
		return
	}
	s.mu.Unlock()
	to := s.peer(a.Slot)
	for _, e := range s.batch {
		if err := s.send(to, &e.commit, a.Commit); err != nil {
			s.refused(a.Slot, e.commit.Seq, err)
			return
		}
	}
}

// send gives one entry to a member, without waiting; to is nil for the own copy.
func (s *session) send(to *peer.Peer, c *facet.Commit, commit facet.Seq) error {
	if to == nil {
		return s.own.Append(s.row.Epoch, replica.Boot(s.d.m.opts.Self.Boot), c, commit, ownAcker{s})
	}
	return to.Append(peer.AppendItem{Epoch: s.row.Epoch, Commit: commit, Entry: c})
}

// peer is the node of a slot, nil for this one. mu is not held.
func (s *session) peer(slot int) *peer.Peer {
	if slot == s.core.Self() {
		return nil
	}
	s.mu.Lock()
	node := s.members[slot].Node
	s.mu.Unlock()
	return s.d.m.opts.Peers.Peer(node)
}

// catchUp reads entries that are no longer in memory from this node's log and sends
// them, until the member is where the core wants it.
func (s *session) catchUp(slot int) {
	for {
		s.mu.Lock()
		m := &s.members[slot]
		at, to, commit := m.catchAt, m.catchTo, s.core.Committed()
		if at > to || s.stopped || s.core.Err() != nil {
			m.catching = false
			s.mu.Unlock()
			return
		}
		if s.core.State() != quorum.Active {
			commit = 0 // no hint leaves before the session is active
		}
		m.catchAt = to + 1
		s.mu.Unlock()
		if sent, err := s.sendFromLog(slot, at, to, commit); err != nil {
			s.mu.Lock()
			s.members[slot].catching = false
			s.mu.Unlock()
			s.refused(slot, sent, err)
			return
		}
	}
}

// sendFromLog sends the entries at to to. With an error it tells which one was not
// sent.
func (s *session) sendFromLog(slot int, at, to, commit facet.Seq) (facet.Seq, error) {
	peer := s.peer(slot)
	for c, err := range s.own.Entries(at) {
		if err == nil && c.Seq > to {
			return at, nil
		}
		if err == nil {
			err = s.send(peer, c, commit)
		}
		if err != nil {
			return at, err
		}
		at = c.Seq + 1
	}
	if at <= to {
		return at, replica.ErrBusy // not durable here yet
	}
	return at, nil
}

// refused takes in that an entry could not be given to a member.
func (s *session) refused(slot int, seq facet.Seq, err error) {
	s.mu.Lock()
	switch {
	case errors.Is(err, peer.ErrDown):
		s.core.Down(slot)
		s.d.m.away.note(s.members[slot].Node)
		if s.d.m.opts.Peers.Peer(s.members[slot].Node).Status().Connected {
			s.core.Up(slot) // it came back before we took note, and Ready was told already
		}
	case errors.Is(err, replica.ErrCompacted):
		// A checkpoint took them meanwhile: what is left is a snapshot.
		s.core.Compacted(s.own.Meta().Base.Seq + 1)
		s.nack(s.fromSlot(slot), seq, replica.ErrBusy)
	case errors.Is(err, replica.ErrClosed), errors.Is(err, peer.ErrClosed):
		s.core.Die(err)
	case errors.Is(err, peer.ErrInvalid), errors.Is(err, peer.ErrTooLong):
		s.core.Die(err) // no log may hold it: a defect
	default:
		s.nack(s.fromSlot(slot), seq, err)
	}
	s.run()
}

// nack tells the core of a refusal in the words of package replica. mu is held.
func (s *session) nack(from quorum.From, seq facet.Seq, err error) {
	n := quorum.Nack{Kind: quorum.NackBusy, Epoch: s.row.Epoch, Seq: seq}
	var epoch *replica.EpochError
	var gap *replica.GapError
	switch {
	case errors.As(err, &epoch):
		n.Kind, n.Promised = quorum.NackEpoch, epoch.Promised
	case errors.As(err, &gap):
		n.Kind, n.Last = quorum.NackGap, gap.Last
	case errors.Is(err, replica.ErrBoot):
		n.Kind = quorum.NackTwoLives
	case errors.Is(err, replica.ErrDiverged):
		n.Kind = quorum.NackDiverged
	case errors.Is(err, replica.ErrDamaged):
		n.Kind = quorum.NackDamaged
	case errors.Is(err, replica.ErrDeleted):
		n.Kind = quorum.NackDeleted
	}
	if from.Slot == s.core.Self() && n.Kind == quorum.NackDamaged {
		s.core.Die(err) // an owner that cannot use its own copy is none
		return
	}
	s.core.Nacked(from, s.d.m.now(), n)
}

// ownAcker hears of this node's own copy.
type ownAcker struct{ s *session }

func (a ownAcker) Acked(_ facet.Incarnation, epoch facet.Epoch, seq facet.Seq) {
	if epoch != a.s.row.Epoch {
		return // meant for an earlier session of this process life
	}
	a.s.mu.Lock()
	a.s.ownMoved = a.s.d.m.now()
	a.s.acked(a.s.ownFrom(), seq)
}

// acked takes in an acknowledgement. It is called with mu held and returns without.
func (s *session) acked(from quorum.From, seq facet.Seq) {
	s.core.Acked(from, s.d.m.now(), s.row.Epoch, seq)
	s.run()
}

// answered takes in what a peer said to an append.
func (s *session) answered(r peer.Remote, a *peer.Ack) {
	s.mu.Lock()
	from, ok := s.from(r)
	switch {
	case !ok:
		s.mu.Unlock()
	case a.Err == nil:
		s.acked(from, a.Seq)
	default:
		s.nack(from, a.Seq, a.Err)
		s.run()
	}
}

// reachable takes in that a member's connection came up, or broke.
func (s *session) reachable(node func(*member) bool, up bool) {
	s.mu.Lock()
	for i := range s.members {
		if i == s.core.Self() || !node(&s.members[i]) {
			continue
		}
		if up {
			s.core.Up(i)
		} else {
			s.core.Down(i)
		}
	}
	s.run()
}

// applied takes in the facet's row as the placement table has it now, and the
// process lives registered for its members.
func (s *session) applied(row Row) {
	s.mu.Lock()
	for _, set := range [][]Member{row.ActiveSet, row.NextSet} {
		for i := range set {
			s.registered(set[i])
		}
	}
	s.core.Applied(row.core())
	s.run()
}

// registered notes which process life speaks for a store (R3). mu is held.
func (s *session) registered(now Member) {
	for i := range s.members {
		if m := &s.members[i]; m.Store == now.Store && m.Boot != now.Boot {
			m.Boot = now.Boot
			s.core.Registered(now.core())
		}
	}
}
