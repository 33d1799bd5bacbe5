package replica

import (
	"errors"
	"fmt"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
)

// replay builds the store's state from the records of the log, in order.
//
// Segments are removed from the head of the log, so the first records of a facet
// may be entries whose base comes later: a run of entries may begin anywhere. It
// is sound if, at the end, base and run meet, and everything that was told to be
// there is. What does not meet is a hole.
//
// Promises and bases only rise here, whatever the order of their records: a CARRY
// may repeat what a newer record has said already.
type replay struct {
	s       *Store
	segment uint32
	damages map[damageID]bool        // dealt with at an earlier boot
	newest  map[*state]commitlog.Loc // of each facet's records
}

// replayed is what only the replay knows of a facet.
type replayed struct {
	before  facet.Position // what entries[0] follows; it must turn out to be the base
	need    facet.Seq      // entries up to here are missing, unless the base covers them or a cut removed them
	install uint64         // temporary file of the INSTALL that made the base
	images  facet.Seq      // parts of the newest PAGES, which lead to here, are missing
}

// record takes in one record.
func (re *replay) record(rec commitlog.Record, loc commitlog.Loc) error {
	re.segment = loc.Segment
	if rec.Kind == kindDamage {
		d, err := decodeDamage(rec.Payload)
		re.damages[d] = true
		return err
	}
	st := re.s.lookup(rec.Incarnation, true)
	re.newest[st] = loc
	if st.tomb() && rec.Kind != kindTomb && rec.Kind != kindCarry {
		return nil
	}
	// Whatever is said of a facet, it is kept here, unless it says dropped.
	st.flags |= flagCreated
	if !st.tomb() {
		st.flags = flagCreated
	}
	switch rec.Kind {
	case kindEntry:
		c, err := facet.DecodeCommit(rec.Incarnation, rec.Payload)
		if err != nil {
			return err
		}
		re.entry(st, &c, loc)
	case kindPages:
		h, _, err := decodeImages(rec.Payload)
		if err != nil {
			return err
		}
		re.images(st, h, loc)
	case kindInstall:
		i, err := decodeInstall(rec.Payload)
		if err != nil {
			return err
		}
		re.install(st, &i, loc)
	case kindPromise:
		boot, end, err := decodePromise(&rec)
		if err != nil {
			return err
		}
		re.promise(st, rec.Epoch, boot, loc)
		re.tells(st, end)
	case kindCut:
		end, rest, err := facet.DecodePosition(rec.Payload)
		if err != nil || len(rest) != 0 || end.Seq+1 != rec.Seq {
			return errors.Join(fmt.Errorf("decode cut at %v: bad payload", rec.Seq), err)
		}
		re.cut(st, end)
	case kindBase:
		base, end, err := decodeBaseRecord(&rec)
		if err != nil {
			return err
		}
		re.base(st, base, loc)
		re.tells(st, end)
	case kindTomb:
		if err := fixed("tombstone", rec.Payload, 1); err != nil {
			return err
		}
		re.tomb(st, flagTomb|(rec.Payload[0]&1)*flagFiled, loc)
	case kindCarry:
		c, err := decodeCarry(&rec)
		if err != nil {
			return err
		}
		re.carry(st, &c, loc)
	default:
		return fmt.Errorf("record of unknown kind %#x; use the version that wrote it", uint8(rec.Kind))
	}
	return nil
}

func (re *replay) carry(st *state, c *carried, loc commitlog.Loc) {
	if c.promised != 0 {
		re.promise(st, c.promised, c.boot, loc)
	}
	if c.flags&flagTomb != 0 || st.tomb() {
		re.tomb(st, c.flags, loc)
		return
	}
	if c.flags&flagDropped != 0 {
		st.live = nil
		st.flags = c.flags
		st.setBase(pages.Base{})
	}
	re.base(st, c.base, loc)
	re.tells(st, c.end)
	re.s.setHealth(st, c.health, c.since)
	st.promiseSeg = loc.Segment
}

// live gives the facet its live part with the notes of the replay.
func (re *replay) live(st *state) *live {
	l := re.s.wake(st)
	if l.boot == nil {
		l.boot = &replayed{before: st.basePos}
	}
	return l
}

func (re *replay) entry(st *state, c *facet.Commit, loc commitlog.Loc) {
	if c.Seq <= st.basePos.Seq {
		return
	}
	l := re.live(st)
	if c.Prev() != l.last {
		re.restart(l, c.Prev())
	}
	l.extend(c, loc)
}

// restart begins a new run behind the position before.
func (re *replay) restart(l *live, before facet.Position) {
	l.boot.before = before
	l.first, l.entries, l.runs, l.last = before.Seq+1, l.entries[:0], l.runs[:0], before
}

func (re *replay) cut(st *state, end facet.Position) {
	if end.Seq < st.basePos.Seq {
		return
	}
	l := re.live(st)
	if end.Seq+1 >= l.first && end.Seq <= l.last.Seq {
		l.cut(end.Seq+1, end)
		if l.boot.need > end.Seq {
			l.boot.need = 0 // what was missing is cut off too
		}
	} else { // what came before is not in the log any more
		re.restart(l, end)
		l.boot.need = min(l.boot.need, end.Seq)
	}
}

func (re *replay) promise(st *state, epoch facet.Epoch, boot Boot, loc commitlog.Loc) {
	if epoch >= st.promised {
		st.promised, st.boot = epoch, re.s.boots.number(boot)
	}
	st.promiseSeg = loc.Segment
}

// tells takes in that the log of the facet ended at end.
func (re *replay) tells(st *state, end tail) {
	if end.seq <= st.basePos.Seq {
		return
	}
	l := re.live(st)
	if end.seq > l.last.Seq || end.seq >= l.first && l.epochAt(end.seq) != end.epoch {
		l.boot.need = max(l.boot.need, end.seq)
	}
}

func (re *replay) base(st *state, b pages.Base, loc commitlog.Loc) {
	st.baseSeg = loc.Segment
	seq := b.Position.Seq
	if seq <= st.basePos.Seq {
		return
	}
	l := st.live
	if l == nil {
		st.setBase(b)
		return
	}
	before := l.boot.before == b.Position
	inside := seq >= l.first && seq <= l.last.Seq && l.epochAt(seq) == b.Position.Epoch
	switch {
	case seq >= l.last.Seq || inside:
		l.rebase(b)
	case before: // the run follows the base
		st.setBase(b)
		l.images, l.imagesTo = nil, pages.Base{}
	default:
		st.setBase(b)
		l.images, l.imagesTo = nil, pages.Base{}
		return
	}
	l.boot.before, l.boot.install = b.Position, 0
	if len(l.entries) == 0 && max(l.boot.need, l.boot.images) <= seq {
		st.live = nil
	}
}

func (re *replay) images(st *state, h imagePart, loc commitlog.Loc) {
	if h.to.Position.Seq <= st.basePos.Seq {
		return
	}
	l := re.live(st)
	if h.number == 0 {
		l.images, l.imagesTo, l.boot.images = l.images[:0], pages.Base{}, 0
	}
	if int(h.number) != len(l.images) {
		// Parts before it are lost, or were removed because a later checkpoint has
		// taken the place of this one.
		l.images, l.imagesTo, l.boot.images = nil, pages.Base{}, h.to.Position.Seq
		return
	}
	l.images = append(l.images, loc)
	if h.last {
		l.imagesTo = h.to
	}
}

func (re *replay) install(st *state, i *installed, loc commitlog.Loc) {
	st.live = nil
	st.setBase(i.to)
	re.s.setHealth(st, i.health, i.since)
	st.baseSeg = loc.Segment
	re.live(st).boot.install = i.number
}

func (re *replay) tomb(st *state, flags uint8, loc commitlog.Loc) {
	st.flags |= flags & (flagTomb | flagFiled)
	st.promiseSeg, st.baseSeg = loc.Segment, loc.Segment
	st.live = nil
	re.s.setHealth(st, Healthy, 0)
	st.setBase(pages.Base{})
}
