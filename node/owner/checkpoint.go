package owner

import (
	"errors"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
)

// written is a checkpoint whose writing has ended.
type written struct {
	s   *session
	c   *pages.Checkpoint
	err error
}

// checkpoint starts to copy committed pages into the database file while requests
// go on. It waits for the commit index first (rule R11).
func (d *desk) checkpoint() {
	s := d.session
	if s == nil || s.ckpt != nil || s.isDead() || d.m.clock.Load() < d.retryAt {
		return
	}
	c := s.store.Checkpoint()
	if c == nil {
		return
	}
	s.ckpt = c
	committed := make(chan error, 1)
	s.onCommitted(func(err error) { committed <- err })
	d.m.wg.Go(func() {
		w := &written{s: s, c: c}
		if w.err = <-committed; w.err == nil {
			w.err = s.checkpointOwn(d.m.ctx, c)
		}
		d.mu.Lock()
		d.written = w
		d.mu.Unlock()
		d.post(todoDone)
	})
}

// checkpointed takes a finished checkpoint into the store.
func (d *desk) checkpointed() {
	d.mu.Lock()
	w := d.written
	d.written = nil
	d.jobs = append(d.jobs, d.jobsAfterCheckpoint...)
	d.jobsAfterCheckpoint = nil
	d.mu.Unlock()
	if w == nil {
		return
	}
	s := w.s
	s.ckpt = nil
	if w.err != nil {
		w.c.Abort()
		d.checkpointFailed(s, w.err)
	} else {
		w.c.Done()
		d.measure()
	}
	d.bury()
}

// checkpointFailed decides what a failed checkpoint means. A file that does not
// have the checksum it should is out of service; anything else left everything as
// it was and is tried again.
func (d *desk) checkpointFailed(s *session, err error) {
	if errors.Is(err, facet.ErrCorrupt) {
		s.die(err)
		return
	}
	d.retryAt = d.m.clock.Load() + int64(checkpointBackoff)
	if d.m.ctx.Err() == nil {
		d.m.log.Warn("checkpoint put off", "facet", d.name.String(), "error", err)
	}
}

// checkpointNow checkpoints the idle facet before it closes. It reports false when
// that failed and the session had to die.
func (d *desk) checkpointNow() bool {
	s := d.session
	c := s.store.Checkpoint()
	if c == nil {
		return true
	}
	if err := s.checkpointOwn(d.m.ctx, c); err != nil {
		c.Abort()
		d.checkpointFailed(s, err)
		d.bury()
		return false
	}
	c.Done()
	return true
}

// measure notes how much memory the open facet uses.
func (d *desk) measure() {
	s := d.session
	if s == nil {
		return
	}
	n := s.db.MemoryUsed() + int64(s.store.Dirty())*pages.Size
	if old := d.memory.Load(); old != n {
		d.memory.Store(n)
		d.m.grew(n - old)
	}
}
