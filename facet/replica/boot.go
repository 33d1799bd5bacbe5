package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/broken"
)

// finish turns what was replayed into a store that can be used: health is judged,
// and what a crash interrupted is brought to its end.
func (re *replay) finish(report *Report) error {
	s := re.s
	var lives, unfiled []*state
	s.each(func(st *state) bool {
		if st.tomb() {
			report.Tombs++
			if st.flags&flagFiled == 0 {
				unfiled = append(unfiled, st)
			}
			return true
		}
		if st.flags&flagDropped != 0 {
			if st.flags&flagFiled == 0 {
				unfiled = append(unfiled, st)
			}
			return true
		}
		report.Facets++
		if st.live != nil {
			lives = append(lives, st)
		}
		return true
	})
	sick := make(map[*state]Health)
	for _, st := range lives {
		if re.close(st) {
			sick[st] = Holed
		}
	}
	if err := re.judge(report.Log.Damage, sick); err != nil {
		return fmt.Errorf("record damage of the log: %w", err)
	}
	if err := re.installs(lives, report); err != nil {
		return fmt.Errorf("put snapshots in place: %w", err)
	}
	if err := s.cleanTmp(); err != nil {
		return fmt.Errorf("remove temporary files: %w", err)
	}
	for _, st := range lives {
		if err := s.finishCheckpoint(st, report); err != nil {
			return fmt.Errorf("finish checkpoint of %v: %w", st.id, err)
		}
	}
	for _, st := range unfiled {
		if err := s.fileAt(st, time.Now()); err != nil {
			return fmt.Errorf("move the file of %v to the trash: %w", st.id, err)
		}
	}
	if err := s.log.Sync(context.Background()); err != nil {
		return err
	}
	for _, st := range lives {
		st.mu.Lock()
		if l := st.live; l != nil {
			l.boot = nil
			l.settle()
		}
		st.mu.Unlock()
	}
	s.each(func(st *state) bool {
		st.mu.Lock()
		defer st.mu.Unlock()
		switch {
		case st.gone() != nil:
		case st.health == Uncertain:
			report.Uncertain++
			s.logger.Warn("an acknowledged commit of this facet may be lost on this store; what is there will be used",
				"facet", st.id, "last", st.last(), "promised_then", uint64(s.lost.at(st.id)))
		case st.health.broken():
			report.Holed++
			s.logger.Error("facet is out of service on this store: restore it from a backup or an export, or let a replica send a snapshot",
				"facet", st.id, "health", st.health, "base", st.basePos)
		}
		return true
	})
	return nil
}

// close ends the replay of one facet and reports whether it has a hole.
func (re *replay) close(st *state) (holed bool) {
	l := st.live
	if l.boot == nil {
		l.boot = &replayed{before: st.basePos}
	}
	if l.boot.before != st.basePos || max(l.boot.need, l.boot.images) > st.basePos.Seq || l.first != st.basePos.Seq+1 {
		re.s.logger.Error("entries or images of the facet are missing in the log", "facet", st.id, "base", st.basePos,
			"first", uint64(l.first), "last", l.last, "entries_follow", l.boot.before, "missing_up_to", uint64(max(l.boot.need, l.boot.images)))
		l.last, l.known, l.durable = st.basePos, st.basePos.Seq, st.basePos.Seq
		return true
	}
	l.known, l.durable = st.basePos.Seq, l.last.Seq
	return false
}

// judge finds the facets that new damage of the log may have hit, and writes their
// health and that the damage has been dealt with (R14).
//
// A facet is not hit by anonymous damage if a record of it follows: that record
// told where its log ended, so anything missing before it has been seen.
func (re *replay) judge(damage []commitlog.Damage, sick map[*state]Health) error {
	s := re.s
	var dealt []damageID
	for _, d := range damage {
		id := damageID{d.Kind, d.Segment, d.Offset, d.FirstBatch}
		if d.Kind == commitlog.Header || re.damages[id] {
			continue
		}
		s.logger.Error("the commit log is damaged", "damage", d.String())
		dealt = append(dealt, id)
		health, at := Holed, commitlog.Loc{Segment: d.Segment, Offset: d.Offset}
		if d.Kind == commitlog.Uncertain {
			health = Uncertain
		}
		for i := range d.Named {
			re.named(&d.Named[i], at, health, sick)
		}
		if d.Anonymous {
			s.each(func(st *state) bool {
				if !st.tomb() && re.newest[st].Before(at) {
					sick[st] = max(sick[st], health)
				}
				return true
			})
		}
	}
	n := 0
	for st, h := range sick {
		// Also where the copy is known to be as bad: it was promised more since.
		if n++; n%carryBatch == 0 {
			if err := s.log.Sync(context.Background()); err != nil {
				return err
			}
		}
		err := s.patient(context.Background(), func() error {
			st.mu.Lock()
			defer st.mu.Unlock()
			if st.flags&flagDropped != 0 {
				h = Uncertain // a copy begun since may be lost, but what is left is none
			}
			s.worsen(st, h)
			return s.wake(st).carry()
		})
		if err != nil {
			return err
		}
	}
	for _, d := range dealt {
		err := s.patient(context.Background(), func() error {
			return s.log.Append(commitlog.Record{Kind: kindDamage, Payload: d.append(nil)}, 0, nil)
		})
		if err != nil {
			return err
		}
	}
	return s.log.Sync(context.Background())
}

// named judges the loss of one record that is known by name.
func (re *replay) named(r *commitlog.RecordID, at commitlog.Loc, health Health, sick map[*state]Health) {
	if r.Kind == kindDamage {
		return
	}
	st := re.s.lookup(r.Incarnation, true)
	if st.tomb() {
		return
	}
	if st.flags&flagDropped == 0 {
		st.flags |= flagCreated
	}
	if r.Kind == kindPromise && r.Epoch > st.promised {
		// The boot it was made to is lost, so nobody can act in that epoch here;
		// but no lower one can either, and that is what counts.
		st.promised, st.boot = r.Epoch, re.s.boots.number(Boot{})
	}
	if newest, ok := re.newest[st]; ok && at.Before(newest) && r.Kind != kindTomb {
		return // what followed has told whether anything is missing
	}
	sick[st] = max(sick[st], health)
}

// installs puts the files of INSTALLs in place whose rename a crash may have
// undone (R44).
func (re *replay) installs(lives []*state, report *Report) error {
	s := re.s
	dirs := make(map[string]bool)
	for _, st := range lives {
		l := st.live
		if l == nil || l.boot.install == 0 {
			continue
		}
		tmp := s.tmpName(st.id, l.boot.install)
		if _, err := s.fs.Stat(tmp); errors.Is(err, os.ErrNotExist) {
			continue // it was done before the crash
		} else if err != nil {
			return err
		}
		if err := s.fs.Rename(tmp, s.dbName(st.id)); err != nil {
			return err
		}
		report.Installs++
		dirs[s.shard(st.id)] = true
		dirs[s.path("tmp")] = true
	}
	for d := range dirs {
		if err := s.fs.SyncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// cleanTmp removes files of snapshots that were being received.
func (s *Store) cleanTmp() error {
	list, err := s.fs.ReadDir(s.path("tmp"))
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := s.fs.Remove(s.path("tmp", e.Name)); err != nil {
			return err
		}
	}
	return nil
}

// finishCheckpoint brings the file of a facet whose checkpoint was cut short to
// the state the checkpoint was to reach: its pages may be old, new or torn, but
// the log has the images of those that were overwritten and the entries for the
// rest.
func (s *Store) finishCheckpoint(st *state, report *Report) error {
	st.mu.Lock()
	l := st.live
	if l == nil || len(l.images) == 0 || st.health.broken() || broken.Is(broken.StaleFile) {
		st.mu.Unlock()
		return nil
	}
	from, to, images := st.base(), l.imagesTo, l.images
	if to.Position.Seq == 0 { // the file was not touched before the last part
		l.images = nil
		st.mu.Unlock()
		return nil
	}
	if to.Position.Seq > l.last.Seq || l.epochAt(to.Position.Seq) != to.Position.Epoch {
		st.mu.Unlock()
		s.quarantine(st, Holed)
		return nil
	}
	locs := append([]commitlog.Loc(nil), l.entries[:to.Position.Seq-from.Position.Seq]...)
	st.mu.Unlock()

	f, err := s.openDB(st.id, from.Pages == 0)
	if err != nil {
		if ferr := s.openFailed(st, err); errors.Is(ferr, facet.ErrCorrupt) {
			return nil
		}
		return err
	}
	err = s.restore(f, from, to, images, s.commits(st.id, locs))
	if err == nil {
		err = s.fs.SyncDir(s.shard(st.id))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		if ferr := s.openFailed(st, err); errors.Is(ferr, facet.ErrCorrupt) {
			return nil // it costs the facet, not the node
		}
		return err
	}
	report.Checkpoints++
	return s.placeBase(context.Background(), st, to)
}

func (s *Store) restore(f *dbFile, from, to pages.Base, images []commitlog.Loc, commits commits) error {
	var buf []byte
	for _, loc := range images {
		payload, err := s.log.Read(loc, buf[:0])
		if err != nil {
			return err
		}
		buf = payload
		_, enc, err := decodeImages(payload)
		if err != nil {
			return err
		}
		if err := pages.Restore(f, enc); err != nil {
			return err
		}
	}
	return pages.Finish(f, from, to, commits)
}

// healed takes in that an entry stamped with the epoch of its own session is
// durable: its owner has sent the whole adopted log, so whatever was lost is here
// again or was never committed (R14). State.mu is held.
func (s *Store) healed(l *live, epoch facet.Epoch) {
	st := l.st
	if !s.heals(st, epoch) {
		return
	}
	s.setHealth(st, Healthy, 0)
	if err := l.carry(); err != nil {
		// Only the memory of it is lost: the next boot finds it uncertain again.
		s.logger.Warn("facet is sound again, but that could not be recorded", "facet", st.id, "error", err)
	}
}

// carry places everything there is to say about the facet but its entries.
// State.mu is held.
func (l *live) carry() error {
	st := l.st
	c := carried{promised: st.promised, base: st.base(), health: st.health, flags: st.flags, end: tailOf(l.last)}
	if st.health != Healthy {
		c.since = l.s.lost.at(st.id)
	}
	if st.promised != 0 {
		c.boot = l.s.boots.id(st.boot)
	}
	if st.health.broken() {
		c.end = tailOf(st.basePos)
	}
	if l.next.Position.Seq > 0 {
		c.base = l.next // placed before: the newer one must not hang on its segment
	}
	return l.place(c.record(st.id), pending{})
}

// quarantine takes a copy that failed a check out of service (R51).
func (s *Store) quarantine(st *state, h Health) {
	err := s.patient(context.Background(), func() error {
		st.mu.Lock()
		defer st.mu.Unlock()
		if st.gone() != nil {
			return nil
		}
		s.worsen(st, h)
		return s.wake(st).carry()
	})
	if err != nil {
		s.logger.Error("quarantine could not be recorded", "facet", st.id, "health", h, "error", err)
	}
}

// diverged answers an entry that cannot be of the same log. State.mu is held.
func (s *Store) diverged(st *state, why error) error {
	s.logger.Error("log diverged: facet is out of service on this store", "facet", st.id, "why", why)
	s.worsen(st, Diverged)
	if err := s.wake(st).carry(); err != nil {
		s.logger.Error("quarantine could not be recorded", "facet", st.id, "error", err)
	}
	return fmt.Errorf("%w: %w", ErrDiverged, why)
}
