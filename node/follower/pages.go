package follower

import (
	"errors"
	"fmt"
	"time"

	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/replica"
)

// errNotNow says that the copy can be read soon, by all that is known.
var errNotNow = errors.New("the copy cannot be read just now")

// look brings the view to what is known to be committed. errNotNow: try again; another
// error: this copy answers nothing now.
func (v *view) look() error {
	r, err := v.m.opts.Store.Replica(v.id)
	if err != nil {
		v.shut()
		return err
	}
	for range maxTries {
		if v.pages != nil && (v.pages.Behind() || v.lost() != nil) {
			v.shut()
		}
		if err = v.advance(r); err == nil {
			break
		}
		v.shut()
		switch {
		case errors.Is(err, replica.ErrCompacted):
			continue // its base has moved meanwhile
		case errors.Is(err, replica.ErrViewFull), errors.Is(err, errTooLong):
			return v.checkpoint(r)
		case errors.Is(err, replica.ErrOpen), errors.Is(err, replica.ErrBusy):
			return errNotNow
		}
		v.m.log.Debug("read a copy", "facet", v.id.String(), "error", err)
		return err
	}
	if err != nil {
		return errNotNow
	}
	if v.position().Seq < v.floor {
		// A copy that was begun anew, or has lost its tail: it will come there again.
		return errNotNow
	}
	if m := r.Meta(); m.CommitKnown < m.Durable {
		v.ask(askSometimes) // so that reads without a bookmark do not stay behind for long
	}
	return nil
}

var errTooLong = errors.New("too many entries above the file")

// advance opens the view if it is not, and moves it on.
func (v *view) advance(r replica.Replica) error {
	if v.pages == nil {
		// What is not known to be committed does not count: no checkpoint would take it.
		if m := r.Meta(); m.CommitKnown > m.Base.Seq+maxEntries {
			return errTooLong
		}
		var err error
		if v.pages, err = r.OpenView(); err != nil {
			return err
		}
	}
	moved, err := v.pages.Advance(v.m.ctx, maxDirty)
	if err != nil {
		return err
	}
	switch {
	case v.db == nil:
		db, err := engine.Open(engine.Options{ID: v.id, Store: v.pages.Store(), Limits: v.m.opts.Limits, View: true})
		if err != nil {
			return fmt.Errorf("open view of %v: %w", v.id, err)
		}
		v.db = db
		v.engine.Store(db)
		v.m.opened.Add(1)
	case moved:
		return v.db.Refresh()
	}
	return nil
}

// checkpoint has the copy brought to its file, in a goroutine, one at a time.
func (v *view) checkpoint(r replica.Replica) error {
	if at := v.failedAt.Load(); at != 0 && time.Now().UnixNano()-at < int64(checkpointAgain) {
		return errTooLong
	}
	if v.writing.Swap(true) {
		return errNotNow
	}
	v.m.wg.Go(func() {
		defer v.nudge()
		defer v.writing.Store(false)
		select {
		case v.m.begun <- struct{}{}:
			defer func() { <-v.m.begun }()
		case <-v.m.ctx.Done():
			return
		}
		err := r.CheckpointIdle(v.m.ctx) // as far as it is known to be committed (R11)
		if err != nil && !errors.Is(err, replica.ErrOpen) {
			v.failedAt.Store(time.Now().UnixNano())
			v.m.log.Debug("bring a copy to its file for its readers", "facet", v.id.String(), "error", err)
			return
		}
		v.failedAt.Store(0)
		v.m.checkpoints.Add(1)
	})
	return errNotNow
}

// shut gives pages and connection back; the view may be opened again.
func (v *view) shut() {
	if v.db != nil {
		v.engine.Store(nil)
		if err := v.db.Close(); err != nil {
			v.m.log.Warn("close the connection of a view", "facet", v.id.String(), "error", err)
		}
		v.db, v.rules = nil, nil
	}
	if v.pages != nil {
		if err := v.pages.Close(); err != nil {
			v.m.log.Warn("close a view", "facet", v.id.String(), "error", err)
		}
		v.pages = nil
	}
}

// close is shut for good.
func (v *view) close() {
	v.shut()
	v.m.opts.Tenants.Unuse(v.tenant)
	if v.before != nil {
		v.before.close()
		v.before = nil
	}
}
