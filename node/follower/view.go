package follower

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node/quota"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/placement"
)

// view is the reading side of one copy: requests that wait, and while it is open the
// pages and the SQLite connection on them.
//
// Whoever gives it something to do while nobody serves it starts a goroutine, which
// ends when nothing waits. Everything below "served" belongs to that goroutine, or to
// whoever has made the view leave.
type view struct {
	m      *Manager
	id     facet.Incarnation
	tenant *quota.Tenant // nil without limits
	kick   chan struct{} // holds a token: something came in, or was canceled
	wakeFn func()

	current  atomic.Pointer[service.Call]
	engine   atomic.Pointer[engine.DB] // to interrupt it
	canceled func() bool               // whether the call that runs was given up
	asking   atomic.Bool               // a question to the owner is on its way
	writing  atomic.Bool               // the copy is being brought to its file
	failedAt atomic.Int64              // when that failed last

	mu      sync.Mutex
	line    []*service.Call
	serving bool
	gone    bool  // find or make another one
	used    int64 // when it was served last, in Unix nanoseconds

	// Served.
	before  *view // closed first: this one has its place
	waiting []waiting
	pages   *replica.View
	db      *engine.DB
	rules   *quota.Rules // what the engine was told last
	floor   facet.Seq    // of the last answer: no later one shows less
	askedAt time.Time
}

// waiting is a call that is not answered yet, and when it is left to the owner.
type waiting struct {
	call  *service.Call
	until time.Time
}

func newView(m *Manager, f placement.Facet) *view {
	v := &view{m: m, id: f.Incarnation, tenant: m.opts.Tenants.Use(f.Name.Tenant), kick: make(chan struct{}, 1), used: time.Now().UnixNano()}
	v.wakeFn = v.wake
	v.canceled = func() bool {
		c := v.current.Load()
		return c != nil && (c.Canceled() || v.tenant.Frozen() != nil)
	}
	return v
}

// submit puts a call in line. It reports false when the view is gone.
func (v *view) submit(call *service.Call) bool {
	v.mu.Lock()
	if v.gone {
		v.mu.Unlock()
		return false
	}
	if len(v.line) >= maxQueue {
		v.mu.Unlock()
		v.m.handOn(call)
		return true
	}
	call.OnInterrupt(&v.wakeFn)
	v.line = append(v.line, call)
	if !v.serving {
		v.serving = true
		v.m.wg.Go(v.serve) // under the lock: not behind shun
	}
	v.mu.Unlock()
	v.nudge()
	return true
}

// shun lets nothing more in.
func (v *view) shun() {
	v.mu.Lock()
	v.gone = true
	v.mu.Unlock()
}

func (v *view) nudge() {
	select {
	case v.kick <- struct{}{}:
	default:
	}
}

// wake is told that some call was canceled: the one that runs is interrupted, one that
// waits is found by the next look.
func (v *view) wake() {
	if c := v.current.Load(); c != nil && c.Canceled() {
		if db := v.engine.Load(); db != nil {
			db.Interrupt()
		}
		return
	}
	v.nudge()
}

// idleSince tells when it was used last, if nobody uses it.
func (v *view) idleSince() (at int64, idle bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.used, !v.serving && !v.gone
}

// leave makes the view go if nobody has used it for that long. The caller takes it out
// of the manager's map, and then it is his to close.
func (v *view) leave(after time.Duration) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.serving || v.gone || time.Now().UnixNano()-v.used < int64(after) {
		return false
	}
	v.gone = true
	return true
}

// serve answers what waits.
func (v *view) serve() {
	if v.before != nil {
		v.before.close()
		v.before = nil
	}
	for {
		v.take()
		if len(v.waiting) == 0 {
			if v.rest() {
				return
			}
			continue
		}
		err := v.answerSome(v.look())
		if len(v.waiting) > 0 {
			v.pause(err)
		}
	}
}

// take moves what came in behind what waits.
func (v *view) take() {
	v.mu.Lock()
	line := v.line
	v.line = nil
	v.mu.Unlock()
	now := time.Now()
	for _, call := range line {
		wait := MaxWait
		if t := call.Request.Timeout; t > 0 {
			wait = min(wait, t)
		}
		if len(v.waiting) >= maxQueue {
			v.m.handOn(call)
			continue
		}
		v.waiting = append(v.waiting, waiting{call, now.Add(wait)})
	}
}

// rest ends the service, unless something came in meanwhile.
func (v *view) rest() bool {
	if v.db != nil {
		v.db.Park()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.line) > 0 {
		return false
	}
	v.serving, v.used = false, time.Now().UnixNano()
	return true
}

// answerSome goes through what waits: err says why nothing can be read now. It returns
// why nothing can be read behind it.
func (v *view) answerSome(err error) error {
	kept := v.waiting[:0]
	for _, w := range v.waiting {
		switch {
		case w.call.Canceled():
			v.end(w.call, facet.Errorf(facet.CodeCanceled, "canceled before it ran"))
		case err == nil && (w.call.Request.After.Covered(v.position()) || broken.Is(broken.NoBookmark)):
			if err = v.run(w.call); err != nil {
				kept = append(kept, w)
			}
		case v.m.ctx.Err() != nil || err != nil && !errors.Is(err, errNotNow) || !time.Now().Before(w.until):
			v.m.handOn(w.call)
		default:
			kept = append(kept, w)
		}
	}
	clear(v.waiting[len(kept):])
	v.waiting = kept
	return err
}

// run answers one call, or leaves it to the owner. An error says that the pages cannot
// be read any more and nothing came of it.
func (v *view) run(call *service.Call) error {
	if err := v.tenant.Frozen(); err != nil { // since it came in
		v.end(call, err)
		return nil
	}
	if r := v.tenant.Rules(); r != v.rules {
		v.rules = r
		v.db.SetLimits(0, r.StatementTime, r.MemoryBytes)
	}
	base := len(call.Response.Result)
	v.current.Store(call)
	call.Phases.Started = service.Clock()
	writes, err := v.db.TryRead(&call.Request, &call.Response, engine.RunOptions{Canceled: v.canceled})
	v.current.Store(nil)
	if lost := v.lost(); lost != nil {
		// Whatever it said, it may have met a page that is not there.
		v.shut()
		call.Response = facet.Response{Result: call.Response.Result[:base]}
		return errNotNow
	}
	if writes {
		call.Response = facet.Response{Result: call.Response.Result[:base]}
		v.m.handOn(call)
		return nil
	}
	if p := v.position(); p.Seq != 0 {
		call.Response.Bookmark = facet.Bookmark{Facet: v.id, Epoch: p.Epoch, Seq: p.Seq}
	}
	v.floor = v.position().Seq
	v.m.reads.Add(1)
	call.Phases.Executed = service.Clock()
	v.tenant.Rows(v.db.Rows())
	v.tenant.Worked(false, call.Bytes(), call.Phases.Executed-call.Phases.Started)
	if frozen := v.tenant.Frozen(); frozen != nil && errors.Is(err, facet.ErrCanceled) && !call.Canceled() {
		err = frozen
	}
	v.end(call, err)
	return nil
}

func (v *view) end(call *service.Call, err error) {
	call.OnInterrupt(nil)
	call.Err = err
	call.Finish()
}

func (v *view) position() facet.Position { return v.pages.Store().Position() }

// lost says why the pages cannot be read any more.
func (v *view) lost() error {
	if err := v.pages.Lost(); err != nil {
		return err
	}
	return v.db.Broken()
}

// pause waits until there may be something to do.
func (v *view) pause(err error) {
	wait := MaxWait
	now := time.Now()
	for _, w := range v.waiting {
		wait = min(wait, w.until.Sub(now))
	}
	var moved <-chan struct{}
	switch {
	case err != nil:
		wait = min(wait, lookAgain)
	default:
		wait = min(wait, askAgain)
		r, rerr := v.m.opts.Store.Replica(v.id)
		if rerr != nil {
			return
		}
		moved = r.Moved()
		if r.Meta().CommitKnown > v.position().Seq {
			return // it moved before the channel was made
		}
		v.ask(askAgain)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-v.kick:
	case <-moved:
	case <-timer.C:
	case <-v.m.ctx.Done():
	}
}

// ask has the owner tell what is committed, unless it was asked within that time.
func (v *view) ask(again time.Duration) {
	f, ok := v.m.opts.Table.ByIncarnation(v.id)
	if v.m.opts.Tell == nil || !ok || f.Owner.IsZero() || f.Owner.Node == v.m.opts.Node ||
		time.Since(v.askedAt) < again || v.asking.Swap(true) {
		return
	}
	v.askedAt = time.Now()
	v.m.wg.Go(func() {
		defer v.asking.Store(false)
		ctx, cancel := context.WithTimeout(v.m.ctx, askTimeout)
		defer cancel()
		if err := v.m.opts.Tell(ctx, f.Owner.Node, v.id, f.Epoch); err != nil {
			v.m.log.Debug("ask what is committed", "facet", f.Name.String(), "owner", string(f.Owner.Node), "error", err)
		}
	})
}
