package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/broken"
)

// Snapshot is a whole database that is to take the place of what a store has of a
// facet: sent by the owner to a replica that is too far behind, or imported.
type Snapshot struct {
	Epoch facet.Epoch // of the session that sends it
	Boot  Boot
	// Position is what the snapshot shows; at most what the session has committed.
	Position facet.Position
	// ComputeSum says that the sum of Position is not known and to be taken from
	// the content (an import); otherwise the content must have it.
	ComputeSum bool
	Source     io.Reader // a database file of whole pages
	MaxPages   uint32    // bound on its size, facet.MaxPages by default
}

// Install replaces the facet by a snapshot (R44): the file is received and synced
// aside, checked, recorded, and only then put in place; a crash leaves the old
// state or the new one. Entries may be appended meanwhile; when they make the
// snapshot unnecessary it is dropped. Nobody may have the facet open. A damaged copy
// takes entries again afterwards, but stays Uncertain until it holds a barrier that
// proves it whole, see lost. It returns the facet's base.
func (r Replica) Install(ctx context.Context, sn Snapshot) (pages.Base, error) {
	base, err := r.receive(ctx, sn)
	if err != nil {
		return pages.Base{}, fmt.Errorf("install %v at %v: %w", r.st.id, sn.Position, err)
	}
	return base, nil
}

func (r Replica) receive(ctx context.Context, sn Snapshot) (pages.Base, error) {
	s, st := r.s, r.st
	if sn.Position.Seq == 0 || sn.Position.Epoch == 0 || sn.Position.Epoch > sn.Epoch {
		return pages.Base{}, fmt.Errorf("position %v in epoch %v: not a valid position", sn.Position, sn.Epoch)
	}
	st.mu.Lock()
	needed, err := r.needed(&sn)
	base := st.base()
	st.mu.Unlock()
	if err != nil || !needed {
		return base, err
	}
	number := rand.Uint64() | 1
	tmp := s.tmpName(st.id, number)
	to, err := r.download(ctx, &sn, tmp)
	if err == nil {
		err = s.patient(ctx, func() error {
			var err error
			base, needed, err = r.placeInstall(&sn, number, to)
			return err
		})
	}
	if err != nil || !needed {
		// Worthless, and removed at the next start if not now.
		if rerr := s.fs.Remove(tmp); rerr != nil && s.alive() == nil {
			s.logger.Warn("temporary file stays behind", "file", tmp, "error", rerr)
		}
		return base, err
	}
	return to, r.putInPlace(context.WithoutCancel(ctx), tmp)
}

// needed decides whether the snapshot adds anything. State.mu is held.
func (r Replica) needed(sn *Snapshot) (bool, error) {
	st, at := r.st, sn.Position
	if _, err := r.s.fence(st, sn.Epoch, sn.Boot); err != nil {
		return false, err
	}
	l := st.live
	if l != nil && (l.open || l.checkpointing || l.installing) {
		return false, ErrOpen
	}
	if st.health.broken() {
		if at.Seq < st.basePos.Seq {
			return false, fmt.Errorf("%w: it is older than the base %v of the damaged copy", ErrNotKnown, st.basePos)
		}
		return true, nil
	}
	if at.Seq < st.basePos.Seq || at.Seq == st.basePos.Seq && at.Epoch == st.basePos.Epoch {
		return false, nil // the base is committed, and so is the snapshot: the base is the newer of the two
	}
	if l == nil {
		return true, nil
	}
	if at.Seq <= l.last.Seq && l.epochAt(at.Seq) == at.Epoch && !broken.Is(broken.SnapTrunc) {
		// M: SNAP_TRUNC. What follows the match may be acknowledged.
		return false, nil
	}
	if at.Seq <= max(l.known, l.commitKnown()) && !broken.Is(broken.SnapTrunc) {
		return false, r.s.diverged(st, fmt.Errorf("snapshot %v differs from what is committed up to %v", at, l.known))
	}
	return true, nil
}

// download writes the snapshot to the temporary file, durably, and checks it.
func (r Replica) download(ctx context.Context, sn *Snapshot, tmp string) (to pages.Base, err error) {
	f, err := r.s.fs.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return to, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	limit := sn.MaxPages
	if limit == 0 || limit > facet.MaxPages {
		limit = facet.MaxPages
	}
	to.Position = sn.Position
	var sum facet.Sum
	buf := make([]byte, installChunk)
	for {
		if err := ctx.Err(); err != nil {
			return to, err
		}
		n, rerr := io.ReadFull(sn.Source, buf)
		if n%facet.PageSize != 0 {
			if rerr == nil || rerr == io.ErrUnexpectedEOF {
				rerr = fmt.Errorf("it ends within page %d", int(to.Pages)+n/facet.PageSize+1)
			}
			return to, facet.Errorf(facet.CodeNotAcceptable, "read snapshot: %v", rerr)
		}
		if uint32(n/facet.PageSize) > limit-to.Pages {
			return to, facet.Errorf(facet.CodeLimit, "snapshot is larger than %d pages", limit)
		}
		if err := r.s.roomFor(pages.Base{}, pages.Base{Pages: uint32(n / facet.PageSize)}); err != nil {
			return to, err
		}
		if n > 0 {
			if _, err := f.WriteAt(buf[:n], int64(to.Pages)*facet.PageSize); err != nil {
				return to, err
			}
			r.s.written.Add(int64(n))
		}
		for at := 0; at < n; at += facet.PageSize {
			to.Pages++
			sum = sum.Add(pages.Hash(to.Pages, buf[at:at+facet.PageSize]))
		}
		if rerr == io.EOF || rerr == io.ErrUnexpectedEOF {
			break
		}
		if rerr != nil {
			return to, fmt.Errorf("read snapshot: %w", rerr)
		}
	}
	if sn.ComputeSum {
		to.Position.Sum = sum
	} else if sum != sn.Position.Sum && !broken.Is(broken.SnapUnchecked) {
		return to, fmt.Errorf("snapshot sums to %v, want %v: %w", sum, sn.Position.Sum, pages.ErrDiverged)
	}
	if broken.Is(broken.SnapNotSynced) {
		return to, nil
	}
	if err := f.Datasync(); err != nil {
		err = fmt.Errorf("sync snapshot: %w", err)
		r.s.fail(err) // R13
		return to, err
	}
	if err := r.s.fs.SyncDir(r.s.path("tmp")); err != nil {
		err = fmt.Errorf("sync directory: %w", err)
		r.s.fail(err) // R13
		return to, err
	}
	return to, nil
}

// placeInstall decides again, after what was appended meanwhile, and records the
// snapshot: from here on the facet's log begins with it.
func (r Replica) placeInstall(sn *Snapshot, number uint64, to pages.Base) (base pages.Base, needed bool, err error) {
	st := r.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if needed, err := r.needed(sn); err != nil || !needed {
		return st.base(), false, err
	}
	raise, err := r.s.fence(st, sn.Epoch, sn.Boot)
	if err != nil {
		return st.base(), false, err
	}
	l := r.s.wake(st)
	defer l.settle()
	i := installed{number: number, to: to}
	// A snapshot that ends in its session's own epoch has that session's barrier.
	if st.health != Healthy && !(to.Position.Epoch == sn.Epoch && r.s.heals(st, sn.Epoch)) {
		i.health, i.since = Uncertain, r.s.lost.at(st.id)
	}
	rec := i.record(st.id)
	recs := []commitlog.Record{rec}
	if raise { // R7
		recs = []commitlog.Record{promiseRecord(st.id, sn.Epoch, sn.Boot, tailOf(st.last())), rec}
	}
	if err := r.s.log.AppendMany(recs, l.placed+1, l); err != nil {
		return st.base(), false, logError(err)
	}
	for _, rec := range recs {
		l.placed++
		l.pend.push(pending{after: l.placed, own: true, kind: rec.Kind, seq: rec.Seq})
	}
	if raise {
		st.promised, st.boot = sn.Epoch, r.s.boots.number(sn.Boot)
	}
	for i := range l.pend.n {
		if p := l.pend.at(i); p.kind == kindEntry {
			p.dead = true // not part of the log any more
		}
	}
	st.setBase(to)
	r.s.setHealth(st, i.health, i.since)
	l.last, l.first, l.entries, l.runs = to.Position, to.Position.Seq+1, l.entries[:0], l.runs[:0]
	l.durable = min(l.durable, to.Position.Seq) // landed raises it
	l.images, l.imagesTo = nil, pages.Base{}
	l.installing = true
	return to, true, nil
}

// putInPlace gives the file its name once its INSTALL is durable.
func (r Replica) putInPlace(ctx context.Context, tmp string) error {
	s, st := r.s, r.st
	st.mu.Lock()
	l := st.live // installing keeps it
	st.mu.Unlock()
	if err := l.wait(ctx); err != nil {
		return err
	}
	err := s.fs.Rename(tmp, s.dbName(st.id))
	if err == nil {
		err = s.fs.SyncDir(s.shard(st.id))
	}
	if err == nil {
		err = s.fs.SyncDir(s.path("tmp"))
	}
	if err != nil {
		err = fmt.Errorf("put snapshot of %v in place: %w", st.id, err)
		s.fail(err) // R13
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	l.installing = false
	l.settle()
	return nil
}

func (s *Store) tmpName(id facet.Incarnation, number uint64) string {
	return s.path("tmp", fmt.Sprintf("%v-%016x.db", id, number))
}
