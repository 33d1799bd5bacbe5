package owner

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node/peer"
)

// Peers reaches the other nodes of replica sets.
type Peers interface {
	Peer(cluster.NodeID) *peer.Peer
}

// What a session asks of its members, each question in a goroutine of its own, one
// of a kind for each member at a time.

// prepare asks for a promise (R6, R16).
func (s *session) prepare(slot int) {
	if slot == s.core.Self() {
		err := s.d.m.opts.Store.PrepareFunc(s.row.Incarnation, s.row.Epoch, replica.Boot(s.d.m.opts.Self.Boot), func(p replica.Promise) {
			s.promised(s.lockedOwn(), p)
		})
		if err != nil {
			s.refused(slot, 0, err)
		}
		return
	}
	if !s.begin(slot, func(m *member) *bool { return &m.asking }) {
		return
	}
	s.d.m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.d.m.ctx, askTimeout)
		defer cancel()
		res, err := s.peer(slot).Prepare(ctx, []peer.Session{{Incarnation: s.row.Incarnation, Epoch: s.row.Epoch}})
		s.end(slot, func(m *member) *bool { return &m.asking })
		if err != nil {
			return // the core asks again
		}
		if res[0].Err == nil {
			if from, ok := s.lockedFrom(res[0].From); ok {
				s.promised(from, res[0].Promise)
			}
			return
		}
		s.mu.Lock()
		if from, ok := s.from(res[0].From); ok {
			s.nack(from, 0, res[0].Err)
		}
		s.run()
	})
}

func (s *session) lockedOwn() quorum.From {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ownFrom()
}

func (s *session) lockedFrom(r peer.Remote) (quorum.From, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.from(r)
}

func (s *session) promised(from quorum.From, p replica.Promise) {
	s.mu.Lock()
	s.core.Promised(from, corePromise(&p))
	s.run()
}

// corePromise is a promise as the pure session sees it.
func corePromise(p *replica.Promise) quorum.Promise {
	q := quorum.Promise{Epoch: p.Epoch, Last: p.Last, Base: p.Base.Position.Seq, Known: p.CommitKnown}
	switch p.Health {
	case replica.Healthy:
	case replica.Uncertain:
		q.Health = quorum.Uncertain
	default:
		q.Health = quorum.Broken
	}
	return q
}

// begin marks that a question is on its way; it is false if one is already.
func (s *session) begin(slot int, flag func(*member) *bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := flag(&s.members[slot])
	if *f || s.stopped {
		return false
	}
	*f = true
	return true
}

func (s *session) end(slot int, flag func(*member) *bool) {
	s.mu.Lock()
	*flag(&s.members[slot]) = false
	s.mu.Unlock()
}

// check asks whether this session's epoch is still the newest one promised (R34).
func (s *session) check(slot int, round uint64) {
	if slot == s.core.Self() {
		epoch, boot := s.own.Promised()
		s.mu.Lock()
		if epoch == s.row.Epoch && boot == replica.Boot(s.d.m.opts.Self.Boot) {
			s.core.Checked(s.ownFrom(), epoch, round)
		}
		s.run()
		return
	}
	if !s.begin(slot, func(m *member) *bool { return &m.checking }) {
		return // an answer to an older round says nothing of this one; the core asks again
	}
	s.d.m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.d.m.ctx, askTimeout)
		defer cancel()
		r, yes, err := s.peer(slot).Check(ctx, []peer.Session{{Incarnation: s.row.Incarnation, Epoch: s.row.Epoch}})
		s.end(slot, func(m *member) *bool { return &m.checking })
		s.mu.Lock()
		if from, ok := s.from(r); ok && err == nil && yes[0] {
			s.core.Checked(from, s.row.Epoch, round)
		}
		s.run()
	})
}

// hint tells a member what is committed, for a session that goes to rest (R10).
func (s *session) hint(a *quorum.Action) {
	at := facet.Position{Epoch: s.row.Epoch, Seq: a.Commit}
	if a.Slot == s.core.Self() {
		// A refusal changes nothing: it is a hint.
		_ = s.own.Known(s.row.Epoch, replica.Boot(s.d.m.opts.Self.Boot), at)
		return
	}
	_ = s.peer(a.Slot).Known(peer.KnownItem{Incarnation: s.row.Incarnation, Epoch: s.row.Epoch, At: at})
}

// Tell has the facet's session tell a member what is committed, opening the facet if it
// rests: what it told when it went to rest may not have arrived.
func (m *Manager) Tell(ctx context.Context, id facet.Incarnation, to cluster.NodeID) error {
	s := m.sessions.find(id)
	if s == nil {
		row, ok := m.opts.Placement.ByIncarnation(id)
		switch {
		case !ok:
			return facet.Errorf(facet.CodeNotFound, "facet %v is gone", id)
		case !row.Local:
			return NotOwner(&row)
		}
		if err := m.Wake(ctx, row.Name); err != nil {
			return err
		}
		if s = m.sessions.find(id); s == nil {
			return errClosed
		}
	}
	s.tell(to)
	return nil
}

// tell is hint for one member. A log that lacks the entry refuses it (R10).
func (s *session) tell(to cluster.NodeID) {
	s.mu.Lock()
	slot := slices.IndexFunc(s.members, func(x member) bool { return x.Node == to })
	a := quorum.Action{Slot: slot, Commit: s.core.Committed()}
	active := s.core.State() == quorum.Active // before, nothing is told (R17)
	s.mu.Unlock()
	if slot >= 0 && active && a.Commit > 0 {
		s.hint(&a)
	}
}

// proposeActivate asks for the compare-and-set of R21. The core asks again while it
// has not come to be.
func (s *session) proposeActivate() {
	s.mu.Lock()
	if s.activating || s.stopped {
		s.mu.Unlock()
		return
	}
	s.activating = true
	s.mu.Unlock()
	s.wakeDesk()
	s.d.m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.d.m.ctx, openTimeout)
		defer cancel()
		err := s.d.m.opts.Placement.Activate(ctx, s.row)
		s.mu.Lock()
		s.activating = false
		s.mu.Unlock()
		if err != nil {
			s.d.m.log.Debug("activate", "facet", s.d.name.String(), "epoch", uint64(s.row.Epoch), "error", err)
			s.mu.Lock()
			s.run()
			return
		}
		s.lookAtRow()
	})
}

// lookAtRow takes in the row as the table has it.
func (s *session) lookAtRow() {
	if row, ok := s.d.m.opts.Placement.ByIncarnation(s.row.Incarnation); ok {
		s.applied(row)
		return
	}
	s.die(quorum.ErrDeleted)
}

// errBehind ends a session whose node cannot get at the log that must be adopted.
var errBehind = errors.New("another member holds more of the log; it is to be the owner")

// fetch gets the entries of the chosen log that the own copy lacks (R19) and keeps
// them aside (R17). A log that needs a snapshot, or more memory than a session may
// take, is not fetched: the member that holds it becomes the owner instead, and
// ships to this node what it lacks like to any other.
func (s *session) fetch(a quorum.Action) {
	s.d.m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.d.m.ctx, fetchTimeout)
		defer cancel()
		entries, err := s.fetchEntries(ctx, &a)
		s.mu.Lock()
		switch {
		case err == nil:
			s.fetched = entries
			s.core.Fetched(a.Slot, a.Position)
		case errors.Is(err, replica.ErrCompacted), errors.Is(err, errTooMuch):
			s.betterAt = s.members[a.Slot].Node
			s.core.Die(errBehind)
		default:
			s.core.FetchFailed(a.Slot, s.d.m.now())
		}
		s.run()
	})
}

var errTooMuch = errors.New("more entries than a session may hold")

func (s *session) fetchEntries(ctx context.Context, a *quorum.Action) ([]facet.Commit, error) {
	if m := s.own.Meta(); a.Seq <= m.Base.Seq || m.Health >= replica.Holed {
		return nil, errTooMuch // the own copy is of no use: it is to be replaced as a whole
	}
	var entries []facet.Commit
	size := 0
	for next := a.Seq; next <= a.Position.Seq; {
		res, err := s.peer(a.Slot).Fetch(ctx, peer.FetchRequest{
			Incarnation: s.row.Incarnation, Epoch: s.row.Epoch, From: next, To: a.Position.Seq,
		})
		if err != nil {
			return nil, err
		}
		if len(res.Entries) == 0 {
			return nil, fmt.Errorf("fetch %v from %v: nothing came", s.row.Incarnation, next)
		}
		for i := range res.Entries {
			c := &res.Entries[i]
			if n := len(entries); n > 0 && c.Prev() != entries[n-1].Position() {
				return nil, fmt.Errorf("fetch %v: entry %v does not follow %v", s.row.Incarnation, c.Position(), entries[n-1].Position())
			}
			if size += c.EncodedLen(); size > maxFetched {
				return nil, errTooMuch
			}
			entries = append(entries, *c)
		}
		next += facet.Seq(len(res.Entries))
	}
	if n := len(entries); n > 0 && entries[n-1].Position() != a.Position {
		return nil, fmt.Errorf("fetch %v: log ends at %v, %v was promised", s.row.Incarnation, entries[n-1].Position(), a.Position)
	}
	return entries, nil
}

// sendSnapshot fills a member that is too far behind (R44).
func (s *session) sendSnapshot(a quorum.Action) {
	if a.Slot == s.core.Self() {
		s.die(fmt.Errorf("the own copy needs a snapshot: %w", replica.ErrDamaged))
		return
	}
	if !s.begin(a.Slot, func(m *member) *bool { return &m.sending }) {
		return
	}
	s.d.m.wg.Go(func() {
		ctx, cancel := context.WithTimeout(s.d.m.ctx, snapshotTimeout)
		defer cancel()
		r, at, base, err := s.sendSource(ctx, &a)
		s.end(a.Slot, func(m *member) *bool { return &m.sending })
		s.mu.Lock()
		from, ok := s.from(r)
		s.members[a.Slot].ahead = errors.Is(err, replica.ErrNotKnown)
		switch {
		case err == nil && ok:
			s.core.Filled(from, at)
			// If it is being filled still, it is asked for again.
			s.core.SnapshotFailed(a.Slot, s.d.m.now())
			s.acked(from, min(base.Seq, s.core.Last()))
			return
		case err == nil || ctx.Err() != nil:
			s.core.SnapshotFailed(a.Slot, s.d.m.now())
		case ok && (errors.Is(err, replica.ErrEpoch) || errors.Is(err, replica.ErrBoot) || errors.Is(err, replica.ErrDeleted)):
			s.nack(from, 0, err)
		default:
			s.core.SnapshotFailed(a.Slot, s.d.m.now())
			s.d.m.log.Debug("send snapshot", "facet", s.d.name.String(), "to", string(s.members[a.Slot].Node), "error", err)
		}
		s.run()
	})
}

// sendSource sends a snapshot at the position at, and tells what the receiver has in
// its file then.
func (s *session) sendSource(ctx context.Context, a *quorum.Action) (r peer.Remote, at facet.Seq, base facet.Position, err error) {
	select { // a bound on snapshots under way, and with it on the pages they hold
	case s.d.m.snapshots <- struct{}{}:
		defer func() { <-s.d.m.snapshots }()
	case <-ctx.Done():
		return r, 0, base, ctx.Err()
	}
	s.mu.Lock()
	ahead := s.members[a.Slot].ahead
	s.mu.Unlock()
	offer := peer.SnapshotOffer{Incarnation: s.row.Incarnation, Epoch: s.row.Epoch}
	// The pages of the session hold what is not committed yet, and what waits for
	// this very member to be committed must not be waited for. The file holds what
	// was committed, and the log what follows.
	b, src, err := s.own.BaseSource()
	if err != nil {
		return r, 0, base, err
	}
	defer src.Close()
	if b.Position.Seq >= a.Seq && !ahead {
		offer.Position, offer.Pages = b.Position, b.Pages
		r, base, err = s.peer(a.Slot).SendSnapshot(ctx, offer, src)
		return r, offer.Position.Seq, base, err
	}
	// Nothing was ever checkpointed, or the other copy was later than this one, and a facet
	// in use is checkpointed when it is long: a damaged copy is to be replaced.
	sn, err := s.committedSnapshot(ctx)
	if err != nil {
		return r, 0, base, err
	}
	defer sn.Close()
	offer.Position, offer.Pages = sn.Position(), sn.Pages()
	r, base, err = s.peer(a.Slot).SendSnapshot(ctx, offer, sn)
	return r, offer.Position.Seq, base, err
}

// committedSnapshot freezes the pages between two requests and waits until what
// they show is committed (R44), if that is soon.
func (s *session) committedSnapshot(ctx context.Context) (*pages.Snapshot, error) {
	s.mu.Lock()
	serving := s.serving
	s.mu.Unlock()
	if !serving || s.d.sh == nil {
		return nil, errors.New("nothing runs yet, and nothing was checkpointed")
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	type made struct {
		sn  *pages.Snapshot
		err error
	}
	done := make(chan made, 1)
	j := &job{f: func(now *session, err error) {
		if err == nil && now != s {
			err = errors.New("the session is over")
		}
		if err != nil {
			done <- made{nil, err}
			return
		}
		sn, err := s.store.Snapshot()
		if err != nil {
			done <- made{nil, err}
			return
		}
		if broken.Is(broken.SnapUncommitted) {
			done <- made{sn, nil}
			return
		}
		s.onCommitted(func(err error) { done <- made{sn, err} })
	}}
	if !s.d.submitJob(j) {
		return nil, errors.New("the desk is gone")
	}
	select {
	case m := <-done:
		if m.err != nil && m.sn != nil {
			m.sn.Close()
			m.sn = nil
		}
		return m.sn, m.err
	case <-ctx.Done():
		s.d.m.wg.Go(func() { // the desk answers, if only when it closes
			if m := <-done; m.sn != nil {
				m.sn.Close()
			}
		})
		return nil, ctx.Err()
	}
}
