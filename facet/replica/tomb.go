package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
)

// Tomb deletes the facet from this store, durably and for good (R47): no message
// about this incarnation will be accepted again. The caller has seen the committed
// tombstone (R4). The file goes to the trash. Nobody may have the facet open.
func (r Replica) Tomb(ctx context.Context, now time.Time) error {
	var l *live
	err := r.s.patient(ctx, func() error {
		var err error
		l, err = r.placeTomb()
		return err
	})
	if err == nil && l != nil {
		err = l.wait(ctx)
	}
	if err == nil {
		err = r.s.fileAt(r.st, now)
	}
	if err != nil {
		return fmt.Errorf("delete %v: %w", r.st.id, err)
	}
	return nil
}

func tombRecord(st *state, filed byte) commitlog.Record {
	return commitlog.Record{Kind: kindTomb, Incarnation: st.id, Payload: []byte{filed}}
}

func (r Replica) placeTomb() (*live, error) {
	st := r.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.tomb() {
		return st.live, nil
	}
	l := r.s.wake(st)
	defer l.settle()
	if l.open || l.checkpointing || l.installing {
		return nil, ErrOpen
	}
	if err := l.place(tombRecord(st, 0), pending{}); err != nil {
		return nil, err
	}
	l.forget()
	st.flags |= flagTomb
	r.s.setHealth(st, Healthy, 0)
	return l, nil
}

// forget takes base and log away: nothing of it is acknowledged any more. State.mu
// is held.
func (l *live) forget() {
	for i := range l.pend.n {
		if p := l.pend.at(i); p.kind == kindEntry || p.ack != nil {
			p.dead = true
		}
	}
	l.st.setBase(pages.Base{})
	l.last, l.first, l.entries, l.runs, l.images = facet.Position{}, 1, nil, nil, nil
	l.known, l.durable = 0, 0
}

// fileAt moves the file of a deleted or dropped facet to the trash, once.
func (s *Store) fileAt(st *state, now time.Time) error {
	st.mu.Lock()
	filed := st.flags&flagFiled != 0
	st.mu.Unlock()
	if filed {
		return nil
	}
	name := s.path("trash", fmt.Sprintf("%d-%v.db", now.Unix(), st.id))
	err := s.fs.Rename(s.dbName(st.id), name)
	if err == nil {
		err = s.fs.SyncDir(s.path("trash"))
		if err == nil {
			err = s.fs.SyncDir(s.shard(st.id))
		}
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil // it never had one, or a crash came after the move
	}
	if err != nil {
		err = fmt.Errorf("move file to the trash: %w", err)
		s.fail(err) // R13
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.flags |= flagFiled
	// Not waited for: should it be lost, the next start looks for the file again.
	l := s.wake(st)
	if st.tomb() {
		err = l.place(tombRecord(st, 1), pending{})
	} else {
		err = l.carry()
	}
	if err != nil {
		s.logger.Warn("tombstone stays unfinished until the next start", "facet", st.id, "error", err)
		l.settle()
	}
	return nil
}

// EmptyTrash removes the files of facets deleted longer than grace ago, and
// returns how many. The node calls it now and then.
func (s *Store) EmptyTrash(ctx context.Context, now time.Time, grace time.Duration) (int, error) {
	list, err := s.fs.ReadDir(s.path("trash"))
	if err != nil {
		return 0, fmt.Errorf("empty the trash: %w", err)
	}
	n := 0
	for _, e := range list {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		at, _, ok := strings.Cut(e.Name, "-")
		sec, err := strconv.ParseInt(at, 10, 64)
		if !ok || err != nil || e.Dir {
			continue // not ours: leave it (R4)
		}
		if now.Sub(time.Unix(sec, 0)) < grace {
			continue
		}
		if err := s.fs.Remove(s.path("trash", e.Name)); err != nil {
			return n, fmt.Errorf("empty the trash: %w", err)
		}
		n++
	}
	return n, nil
}
