package replica

import (
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/broken"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Replica is the handle of one facet on a store: cheap to copy, good for the life
// of the store.
type Replica struct {
	s  *Store
	st *state
}

// ID is the facet's incarnation.
func (r Replica) ID() facet.Incarnation { return r.st.id }

// Append puts the entry c of the session (epoch, boot) into the facet's log, or
// finds it there. ack is told once everything up to c is durable; until then
// nothing is promised. commit is what the session says is committed.
//
// When epoch was not promised yet the promise is placed with the entry (R7); the
// caller has checked that placement issued it to that owner (R6).
//
// An error means that nothing changed: ErrEpoch, ErrBoot, ErrGap, ErrDiverged,
// ErrDamaged, ErrDeleted, ErrFull, ErrBusy or ErrClosed.
func (r Replica) Append(epoch facet.Epoch, boot Boot, c *facet.Commit, commit facet.Seq, ack Acker) error {
	if c.Incarnation != r.st.id {
		return fmt.Errorf("append to %v: commit is of facet %v", r.st.id, c.Incarnation)
	}
	if c.Epoch > epoch || c.Epoch == 0 || c.Seq == 0 {
		// Invariant I6: no entry has an epoch above the promise.
		return fmt.Errorf("append %v/%v in epoch %v: not a valid position", c.Incarnation, c.Position(), epoch)
	}
	if err := pages.Check(c); err != nil {
		return err
	}
	buf := r.s.buffers.Get().(*[]byte)
	b := c.AppendBinary((*buf)[:0])
	a := appending{epoch: epoch, boot: boot, commit: commit, c: c, payload: b, crc: crc32.Checksum(b, castagnoli), ack: ack}
	err := r.append(&a)
	if cap(b) <= maxKeptBuffer {
		*buf = b
		r.s.buffers.Put(buf)
	}
	if err == nil && a.held {
		ack.Acked(r.st.id, epoch, c.Seq)
	}
	return err
}

// appending is one Append on its way.
type appending struct {
	epoch   facet.Epoch
	boot    Boot
	commit  facet.Seq
	c       *facet.Commit
	payload []byte
	crc     uint32
	ack     Acker

	held bool // the entry was here and durable: acknowledge at once

	// An entry that had to be read back from the log to compare with.
	read    commitlog.Loc
	readSum facet.Sum
	readCRC uint32
}

// errRead asks for appending.read to be read from the log.
var errRead = errors.New("read the entry first")

func (r Replica) append(a *appending) error {
	for {
		r.st.mu.Lock()
		err := r.s.tryAppend(r.st, a)
		r.st.mu.Unlock()
		if err != errRead {
			return err
		}
		payload, err := r.s.log.Read(a.read, nil)
		if err != nil {
			return fmt.Errorf("append %v/%v: compare with the log: %w", r.st.id, a.c.Position(), err)
		}
		old, err := facet.DecodeCommit(r.st.id, payload)
		if err != nil {
			return fmt.Errorf("append %v/%v: compare with the log: %w", r.st.id, a.c.Position(), err)
		}
		a.readSum, a.readCRC = old.PostSum, crc32.Checksum(payload, castagnoli)
	}
}

// tryAppend decides and places. State.mu is held from the comparison with the
// promise until the record has its place (R5).
func (s *Store) tryAppend(st *state, a *appending) error {
	c := a.c
	raise, err := s.fence(st, a.epoch, a.boot)
	if err != nil && !(a.read != (commitlog.Loc{}) && broken.Is(broken.CheckThenAppend)) {
		return err
	}
	if st.health.broken() {
		return fmt.Errorf("%w: %v", ErrDamaged, st.health)
	}
	l := s.wake(st)
	defer l.settle()
	base := st.basePos
	switch {
	case c.Seq == l.last.Seq+1:
		if broken.Is(broken.NoPrev) {
			return l.add(a, raise, false)
		}
		if c.PrevEpoch != l.last.Epoch {
			return &GapError{l.last} // R7
		}
		if c.PreSum != l.last.Sum {
			return s.diverged(st, fmt.Errorf("entry %v expects sum %v at %v, it is %v", c.Position(), c.PreSum, l.last, l.last.Sum))
		}
		return l.add(a, raise, false)
	case c.Seq > l.last.Seq:
		return &GapError{l.last} // R7
	case c.Seq <= base.Seq:
		// Below the base everything is committed, and the sender's log holds all
		// that is committed: it can only be the same.
		if c.Seq == base.Seq && (c.Epoch != base.Epoch || c.PostSum != base.Sum) || c.Epoch > base.Epoch {
			return s.diverged(st, fmt.Errorf("entry %v differs from base %v", c.Position(), base))
		}
		return l.have(a, raise)
	case l.epochAt(c.Seq) == c.Epoch:
		sum, crc, err := l.content(a, c.Seq)
		if err != nil {
			return err
		}
		if broken.Is(broken.TruncOnDup) && c.Seq < l.last.Seq {
			return l.add(a, raise, true)
		}
		if (sum != c.PostSum || crc != a.crc) && !broken.Is(broken.TwoEntries) { // I1
			return s.diverged(st, fmt.Errorf("two entries at %v", c.Position()))
		}
		return l.have(a, raise) // R8: nothing changes, what follows stays
	}
	// R8: another epoch at that seq, so the log from there on is cut off.
	if c.PrevEpoch != l.epochAt(c.Seq-1) {
		return &GapError{l.last}
	}
	sum, _, err := l.content(a, c.Seq-1)
	if err != nil {
		return err
	}
	if sum != c.PreSum {
		return s.diverged(st, fmt.Errorf("entry %v expects sum %v before it, it is %v", c.Position(), c.PreSum, sum))
	}
	if c.Seq <= max(l.known, l.commitKnown()) && !broken.Is(broken.CutCommitted) {
		return s.diverged(st, fmt.Errorf("entry %v would cut what is committed up to %v", c.Position(), l.known))
	}
	return l.add(a, raise, true)
}

// content is the checksum after the entry at seq and the CRC of its payload; for
// the base the CRC is not known.
func (l *live) content(a *appending, seq facet.Seq) (facet.Sum, uint32, error) {
	if seq == l.st.basePos.Seq {
		return l.st.basePos.Sum, 0, nil
	}
	loc := l.entries[seq-l.first]
	if loc == (commitlog.Loc{}) {
		for i := range l.pend.n {
			if p := l.pend.at(i); p.kind == kindEntry && p.own && !p.dead && p.seq == seq {
				return p.sum, p.crc, nil
			}
		}
	}
	if a.read != loc || loc == (commitlog.Loc{}) {
		a.read = loc
		return facet.Sum{}, 0, errRead
	}
	return a.readSum, a.readCRC, nil
}

// add places the entry, with the promise and the cut that must come first.
func (l *live) add(a *appending, raise, cut bool) error {
	c := a.c
	id := c.Incarnation
	rec := commitlog.Record{Kind: kindEntry, Incarnation: id, Epoch: c.Epoch, Seq: c.Seq, Payload: a.payload}
	p := pending{epoch: a.epoch, stamp: c.Epoch, seq: c.Seq, sum: c.PostSum, crc: a.crc, ack: a.ack}
	if !raise && !cut {
		if err := l.place(rec, p); err != nil {
			return err
		}
	} else {
		recs := make([]commitlog.Record, 0, 3)
		if raise {
			recs = append(recs, promiseRecord(id, a.epoch, a.boot, tailOf(l.last)))
		}
		if cut {
			recs = append(recs, commitlog.Record{Kind: kindCut, Incarnation: id, Epoch: a.epoch, Seq: c.Seq, Payload: c.Prev().AppendBinary(nil)})
		}
		recs = append(recs, rec)
		// R8: cut and entry in one batch.
		if err := l.s.log.AppendMany(recs, l.placed+1, l); err != nil {
			return logError(err)
		}
		if cut {
			l.cut(c.Seq, c.Prev())
		}
		for _, rec := range recs[:len(recs)-1] {
			l.placed++
			l.pend.push(pending{after: l.placed, own: true, kind: rec.Kind})
		}
		l.placed++
		p.after, p.own, p.kind = l.placed, true, kindEntry
		l.pend.push(p)
		l.promise(a, raise)
	}
	l.extend(c, commitlog.Loc{})
	l.known = max(l.known, min(a.commit, c.Seq)) // R10
	if broken.Is(broken.AckPlaced) {
		a.held, l.pend.at(l.pend.n-1).ack = true, nil
	}
	l.stir()
	return nil
}

// have acknowledges an entry that is here.
func (l *live) have(a *appending, raise bool) error {
	if raise {
		if err := l.place(promiseRecord(a.c.Incarnation, a.epoch, a.boot, tailOf(l.last)), pending{}); err != nil {
			return err
		}
		l.promise(a, raise)
	}
	l.known = max(l.known, min(a.commit, a.c.Seq)) // R10
	if broken.Is(broken.CommitHintLen) {
		l.known = max(l.known, min(a.commit, l.last.Seq))
	}
	l.stir()
	if l.told == l.placed || broken.Is(broken.AckDup) {
		a.held = true // acknowledged by Append, without the lock
		return nil
	}
	// R9: not before the records that are under way. They may be more than the
	// entry needs; they are never fewer.
	l.pend.push(pending{after: l.placed, epoch: a.epoch, seq: a.c.Seq, ack: a.ack})
	return nil
}

func (l *live) promise(a *appending, raise bool) {
	if raise {
		l.st.promised, l.st.boot = a.epoch, l.s.boots.number(a.boot)
	}
}

// Known takes in that the session (epoch, boot) has committed everything up to at
// (R10): it counts only if at is in this log.
func (r Replica) Known(epoch facet.Epoch, boot Boot, at facet.Position) error {
	st := r.st
	st.mu.Lock()
	defer st.mu.Unlock()
	raise, err := r.s.fence(st, epoch, boot)
	switch {
	case err != nil:
		return err
	case raise:
		return &EpochError{st.promised}
	case st.health.broken():
		return fmt.Errorf("%w: %v", ErrDamaged, st.health)
	case at.Seq <= st.basePos.Seq:
		return nil
	case st.live == nil || at.Seq > st.live.last.Seq || st.live.epochAt(at.Seq) != at.Epoch && !broken.Is(broken.HintAnyEpoch):
		return &GapError{st.last()}
	}
	st.live.known = max(st.live.known, at.Seq)
	st.live.stir()
	return nil
}
