package replica

import (
	"context"
	"fmt"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/broken"
)

// live is what a store holds of a facet beyond its state while the facet has
// entries above its base, records under way, or a user.
//
// The log of a facet is base, then entries, dense. Three marks lie on it, from
// the left: known (what the owner said is committed), durable (what this store
// has fsynced), last (what is placed in the commit log). Records become durable
// in the order they were placed, so one queue, pend, serves all who wait.
//
// Invariant I4: known and durable never decrease but by a cut, which never cuts
// at or below known. While an INSTALL is under way the base is above both. Invariant: len(entries) == last.Seq - base.Seq unless the
// facet is broken; entries[i] is the entry first+i and is the zero Loc until it
// is durable.
//
// All fields are guarded by state.mu.
type live struct {
	s  *Store
	st *state

	last    facet.Position
	first   facet.Seq // of entries[0]; base.Seq+1
	entries []commitlog.Loc
	runs    []run // ascending; the first one begins at or below first
	known   facet.Seq
	durable facet.Seq

	placed uint64 // records and waits so far: each pending has the number it waits for
	told   uint64 // the latest record reported durable
	pend   ring

	open          bool // a pages.Store of it is out
	checkpointing bool
	installing    bool       // an INSTALL is placed and its file not yet in place
	next          pages.Base // base placed, not yet durable; zero for none

	sources []*BaseFile   // being read
	moved   chan struct{} // closed by stir; nil while nobody waits

	images   []commitlog.Loc // PAGES of the newest checkpoint since the base; entries are there too
	imagesTo pages.Base      // what they lead to, once the last part is there

	boot *replayed // what only the replay at boot needs, nil afterwards
}

// run is a range of entries of one epoch, up to the next run.
type run struct {
	from  facet.Seq
	epoch facet.Epoch
}

// Acker is told that this store durably holds an owner's log up to seq (rule R9).
type Acker interface {
	// Acked is called once for each accepted Append, in the order of the log for
	// each facet, mostly from the commit log's workers. It must not block and
	// must not call Close. It is not called when a higher epoch has cut the entry
	// off meanwhile, or when the disk has failed.
	Acked(id facet.Incarnation, epoch facet.Epoch, seq facet.Seq)
}

// pending is one record under way, or one who waits for a record.
type pending struct {
	after uint64 // number of the record to wait for
	kind  commitlog.Kind
	own   bool        // it is that record; else it only waits for it
	dead  bool        // cut off
	epoch facet.Epoch // of the session that sent it
	stamp facet.Epoch // kindEntry: its own epoch
	seq   facet.Seq
	sum   facet.Sum // kindEntry: checksum after it
	crc   uint32    // kindEntry: of its payload
	ack   Acker
	fn    func()
}

// ring is a queue that re-uses its memory.
type ring struct {
	buf     []pending
	head, n int
}

func (r *ring) at(i int) *pending { return &r.buf[(r.head+i)&(len(r.buf)-1)] }

func (r *ring) push(p pending) {
	if r.n == len(r.buf) {
		buf := make([]pending, max(4, 2*len(r.buf)))
		for i := range r.n {
			buf[i] = *r.at(i)
		}
		r.buf, r.head = buf, 0
	}
	r.n++
	*r.at(r.n - 1) = p
}

func (r *ring) pop() pending {
	p := *r.at(0)
	*r.at(0) = pending{}
	r.head, r.n = (r.head+1)&(len(r.buf)-1), r.n-1
	return p
}

// wake gives the facet a live part.
func (s *Store) wake(st *state) *live {
	if st.live == nil {
		st.live = &live{
			s: s, st: st, last: st.basePos, first: st.basePos.Seq + 1,
			known: st.basePos.Seq, durable: st.basePos.Seq,
		}
	}
	return st.live
}

// settle lets the live part go when nothing needs it.
func (l *live) settle() {
	if len(l.entries) > 0 || l.pend.n > 0 || len(l.sources) > 0 || l.open || l.checkpointing || l.installing {
		return
	}
	l.st.live = nil
}

// last is the end of the log of a facet, at rest or not.
func (st *state) last() facet.Position {
	if st.live == nil || st.health.broken() {
		return st.basePos // the tail of a broken copy says nothing (R19)
	}
	return st.live.last
}

// commitKnown is up to where the facet is known to be committed, as far as it is
// durable here. Invariant I4: never above the durable end.
func (l *live) commitKnown() facet.Seq {
	if l.s.opts.SingleNode {
		if broken.Is(broken.SingleEarly) {
			return l.last.Seq
		}
		return l.durable // R50: a majority of one
	}
	return min(l.known, l.durable)
}

// epochAt is the epoch of the entry at seq, which is the base or above it and not
// above last.
func (l *live) epochAt(seq facet.Seq) facet.Epoch {
	if seq == l.st.basePos.Seq {
		return l.st.basePos.Epoch
	}
	for i := len(l.runs) - 1; i >= 0; i-- {
		if l.runs[i].from <= seq {
			return l.runs[i].epoch
		}
	}
	return 0
}

// extend puts the entry c at the end of the log.
func (l *live) extend(c *facet.Commit, loc commitlog.Loc) {
	if n := len(l.runs); n == 0 || l.runs[n-1].epoch != c.Epoch {
		l.runs = append(l.runs, run{c.Seq, c.Epoch})
	}
	l.entries = append(l.entries, loc)
	l.last = c.Position()
}

// cut removes the entries from seq on; the log ends at end then.
func (l *live) cut(seq facet.Seq, end facet.Position) {
	l.entries = l.entries[:seq-l.first]
	for n := len(l.runs); n > 0 && l.runs[n-1].from >= seq; n-- {
		l.runs = l.runs[:n-1]
	}
	for i := range l.pend.n {
		if p := l.pend.at(i); p.kind == kindEntry && p.seq >= seq {
			p.dead = true // I3: never acknowledge what is not here any more
		}
	}
	l.durable = min(l.durable, seq-1)
	l.last = end
}

// rebase makes b the base: entries at or below it are done with.
func (l *live) rebase(b pages.Base) {
	l.st.setBase(b)
	seq := b.Position.Seq
	if l.last.Seq <= seq {
		l.last, l.entries, l.runs = b.Position, l.entries[:0], l.runs[:0]
	} else if seq >= l.first {
		n := copy(l.entries, l.entries[seq+1-l.first:])
		l.entries = l.entries[:n]
		for len(l.runs) > 1 && l.runs[1].from <= seq+1 {
			l.runs = l.runs[:copy(l.runs, l.runs[1:])]
		}
	}
	l.first = seq + 1
	l.known, l.durable = max(l.known, seq), max(l.durable, seq)
	l.images, l.imagesTo = nil, pages.Base{}
}

// place appends one record to the commit log and queues p for it. State.mu is
// held: the order of the log is the order of decisions (rule R5).
func (l *live) place(rec commitlog.Record, p pending) error {
	if err := l.s.log.Append(rec, l.placed+1, l); err != nil {
		return logError(err)
	}
	l.placed++
	p.after, p.own, p.kind = l.placed, true, rec.Kind
	l.pend.push(p)
	return nil
}

// when calls fn, from the commit log, once everything placed so far is durable. It
// returns false, and does not call fn, if that is so already.
func (l *live) when(fn func()) bool {
	if l.told == l.placed {
		return false
	}
	l.pend.push(pending{after: l.placed, fn: fn})
	return true
}

// Durable implements commitlog.Waiter.
func (l *live) Durable(token uint64, loc commitlog.Loc) {
	if l.s.fatal.Load() != nil {
		return // R13: nothing is acknowledged any more
	}
	l.s.notified.Store(loc.Segment)
	st := l.st
	for {
		var due [8]pending
		n := 0
		st.mu.Lock()
		l.told = token
		for n < len(due) && l.pend.n > 0 && l.pend.at(0).after <= token {
			p := l.pend.pop()
			if p.own {
				l.landed(&p, loc)
			}
			if !p.dead && (p.ack != nil || p.fn != nil) {
				due[n] = p
				n++
			}
		}
		more := l.pend.n > 0 && l.pend.at(0).after <= token
		l.stir()
		if !more {
			l.settle()
		}
		st.mu.Unlock()
		for i := range n {
			if p := &due[i]; p.ack != nil {
				p.ack.Acked(st.id, p.epoch, p.seq)
			} else {
				p.fn()
			}
		}
		if !more {
			return
		}
	}
}

// landed takes in that the record of p is durable at loc.
func (l *live) landed(p *pending, loc commitlog.Loc) {
	st := l.st
	switch p.kind {
	case kindEntry:
		if p.dead || p.seq < l.first {
			return
		}
		l.entries[p.seq-l.first] = loc
		l.durable = p.seq
		if st.health == Uncertain && p.stamp == p.epoch {
			// An older entry, sent again by a new session, proves nothing about the
			// ones after it; the session's own barrier does.
			l.s.healed(l, p.epoch)
		}
	case kindPromise:
		st.promiseSeg = loc.Segment
	case kindCarry:
		st.promiseSeg = loc.Segment
		if !l.installing { // else the base still hangs on its INSTALL
			st.baseSeg = loc.Segment
		}
	case kindTomb:
		st.baseSeg = loc.Segment
	case kindPages:
		l.images = append(l.images, loc)
	case kindInstall: // the base moved when it was placed
		st.baseSeg = loc.Segment
		// Not before: a crash would have left the old log (I4).
		l.known, l.durable = max(l.known, p.seq), max(l.durable, p.seq)
	case kindBase:
		st.baseSeg = loc.Segment
		l.rebase(l.next)
		l.next = pages.Base{}
	}
}

// wait returns when everything placed for the facet so far is durable. State.mu
// is not held.
func (l *live) wait(ctx context.Context) error {
	done := make(chan struct{})
	l.st.mu.Lock()
	waiting := l.when(func() { close(done) })
	l.st.mu.Unlock()
	if !waiting {
		return l.s.alive()
	}
	select {
	case <-done:
		return nil
	case <-l.s.dead:
		return l.s.alive()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// patient calls place, which takes state.mu, again as long as the commit log is
// busy.
func (s *Store) patient(ctx context.Context, place func() error) error {
	for {
		err := place()
		if !isBusy(err) {
			return err
		}
		if err := s.log.Sync(ctx); err != nil {
			return logError(err)
		}
		if err := s.log.Wait(ctx, 0); isBusy(err) || err == nil {
			continue
		} else if ctx.Err() != nil {
			return fmt.Errorf("wait for the commit log: %w", err)
		}
	}
}
