package owner

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node/quota"
	"github.com/facetd/facetd/node/service"
)

// desk is the waiting line of one facet and the goroutine that serves it.
//
// Requests wait in line; requests of the open interactive transaction pass them.
// At most one goroutine serves a desk at a time: whoever makes work for a desk
// that is not served starts it, and it ends when nothing is left to do. Everything
// below "served" is touched by that goroutine only.
type desk struct {
	m      *Manager
	sh     *shard
	name   facet.Name
	tenant *quota.Tenant // nil without limits
	share  *share        // of the crew

	lastUsed atomic.Int64  // coarse time of the last request
	memory   atomic.Int64  // bytes its session uses, as last measured
	pages    atomic.Uint32 // size of the open facet
	current  atomic.Pointer[service.Call]
	engine   atomic.Pointer[engine.DB]  // to interrupt it
	todo     atomic.Uint32              // bits of todo, see post
	hot      atomic.Pointer[engine.Hot] // what to have in the cache when it is served
	token    atomic.Bool                // the sweeper gave it leave to hibernate
	wakeFn   func()
	canceled func() bool             // whether the call that runs was given up
	admit    func() error            // whether it may write
	grow     func(bytes int64) error // whether it may grow

	mu      sync.Mutex
	line    []*service.Call
	txLine  []*service.Call // requests that carry a transaction
	jobs    []*job
	serving bool
	parked  bool // not served although requests wait: the session's window is full
	gone    bool // no longer in its shard; find another
	written *written

	jobsAfterCheckpoint []*job

	// Served.
	batch   []*service.Call // taken from line, not run yet, oldest first
	next    int             // index into batch
	session *session
	tx      *tx
	ended   [recentTx]endedTx
	endedAt int
	closing bool
	worker  *worker      // who serves
	rules   *quota.Rules // what the engine was told last
	taken   int64        // bytes of the tenant's room that the transaction under way has taken
	retryAt int64        // coarse time before which no checkpoint is tried again
	dead    facet.Epoch  // epoch of a session that died; it is never used again
}

// What a desk is asked to do besides requests.
const (
	todoSweep      = 1 << iota // look for canceled requests in the lines
	todoHibernate              // checkpoint and close if idle
	todoCheckpoint             // checkpoint; the log needs room
	todoDone                   // a checkpoint's writing has ended
	todoTx                     // an interactive transaction has run out of time
	todoDie                    // the session has died (rule R24)
	todoClose                  // the node closes: answer everybody, checkpoint, go
	todoKill                   // the same at once, without waiting for commits
	todoResume                 // the window has room again
	todoFreeze                 // the tenant was frozen: its transaction ends
)

func newDesk(m *Manager, sh *shard, name facet.Name) *desk {
	d := &desk{m: m, sh: sh, name: name}
	if sh != nil {
		d.tenant = m.opts.Tenants.Use(name.Tenant)
		m.crew.join(d)
	}
	d.lastUsed.Store(m.clock.Load())
	d.wakeFn = d.wake
	d.canceled = func() bool {
		c := d.current.Load()
		return c != nil && (c.Canceled() || d.tenant.Frozen() != nil)
	}
	d.admit, d.grow = d.mayWrite, d.mayGrow
	return d
}

// submit puts a call in line. It reports false when the desk is gone.
func (d *desk) submit(call *service.Call) bool {
	d.mu.Lock()
	if d.gone {
		d.mu.Unlock()
		return false
	}
	if len(d.line)+len(d.txLine) >= maxQueue {
		d.mu.Unlock()
		call.Err = facet.Errorf(facet.CodeOverloaded, "%d requests are waiting for %s; slow down or try again", maxQueue, d.name)
		call.Finish()
		return true
	}
	call.OnInterrupt(&d.wakeFn)
	if call.Request.Tx.IsZero() {
		d.line = append(d.line, call)
	} else {
		d.txLine = append(d.txLine, call)
	}
	start := !d.serving && !d.parked
	d.serving = d.serving || start
	d.mu.Unlock()
	if start {
		d.start()
	}
	return true
}

func (d *desk) submitJob(j *job) bool {
	d.mu.Lock()
	if d.gone {
		d.mu.Unlock()
		return false
	}
	d.jobs = append(d.jobs, j)
	start := !d.serving && !d.parked
	d.serving = d.serving || start
	d.mu.Unlock()
	if start {
		d.start()
	}
	return true
}

// post asks the desk to do something. Any goroutine may call it; it never blocks.
func (d *desk) post(bits uint32) {
	if d.todo.Or(bits)&bits == bits {
		return // asked before and not done yet
	}
	d.mu.Lock()
	start := !d.serving && !d.gone
	if start {
		d.serving, d.parked = true, false
	}
	d.mu.Unlock()
	if start {
		d.start()
	}
}

func (d *desk) start() { d.m.crew.serve(d) }

// wake is told that some call of this desk was canceled: the one that runs is
// interrupted, one that waits is found by a sweep through the lines.
func (d *desk) wake() {
	if c := d.current.Load(); c != nil && c.Canceled() {
		if db := d.engine.Load(); db != nil {
			db.Interrupt()
		}
		return
	}
	d.post(todoSweep)
}

// serve does everything there is to do, then ends. It reports true when there is more to
// do and the desk has had its turn: then the crew serves it again.
func (d *desk) serve() (more bool) {
	var until time.Time // end of the turn, once anybody waits
	for {
		if bits := d.todo.Swap(0); bits != 0 {
			if bits&^(todoResume|todoSweep) != 0 {
				d.worker.aside() // it may wait for the disk
			}
			if d.handle(bits) {
				return false
			}
		}
		if s := d.session; s != nil && s.full() && d.park() {
			return false // rule R32; the session posts todoResume when there is room
		}
		call, j, more, leaves := d.pick()
		switch {
		case j != nil:
			d.worker.aside()
			d.runJob(j)
		case call != nil:
			d.run(call)
			if d.next >= len(d.batch) {
				d.rest()
			}
			if d.m.crew.waited.Load() {
				if now := time.Now(); until.IsZero() {
					until = now.Add(turnTime)
				} else if now.After(until) {
					return true
				}
			}
		case !more:
			if leaves { // told by pick: another goroutine may serve the desk by now
				d.remove()
			}
			return false
		}
	}
}

// park ends the service although requests wait, unless something was posted
// meanwhile.
func (d *desk) park() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.todo.Load() != 0 {
		return false
	}
	d.serving, d.parked = false, true
	return true
}

// pick takes the next thing to do. When there is nothing it ends the service,
// unless something was posted meanwhile, and says whether the desk is gone with it.
func (d *desk) pick() (call *service.Call, j *job, more, leaves bool) {
	if d.tx == nil && d.next < len(d.batch) {
		// The steady path: no lock between two requests of one batch. Jobs and
		// stray transaction requests wait for the end of the batch.
		call = d.batch[d.next]
		d.batch[d.next] = nil
		d.next++
		return call, nil, true, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.txLine) > 0 {
		call = d.txLine[0]
		d.txLine = append(d.txLine[:0], d.txLine[1:]...)
		return call, nil, true, false
	}
	if d.tx == nil {
		if len(d.jobs) > 0 {
			j = d.jobs[0]
			d.jobs = append(d.jobs[:0], d.jobs[1:]...)
			return nil, j, true, false
		}
		if len(d.line) > 0 {
			d.batch, d.line = d.line, d.batch[:0]
			d.next = 1
			call = d.batch[0]
			d.batch[0] = nil
			return call, nil, true, false
		}
	}
	if d.todo.Load() != 0 {
		return nil, nil, true, false
	}
	d.serving = false
	// A desk without a facet goes at once: requests for names that do not exist
	// must not pile desks up.
	d.gone = d.session == nil && d.dead == 0
	return nil, nil, false, d.gone
}

// rest gives back what a facet does not need between two bursts of requests: the
// C stack, which the next facet then finds warm in the cache.
func (d *desk) rest() {
	if s := d.session; s != nil && d.tx == nil {
		s.db.Park()
		d.measure()
		if h := s.db.Hot(); h != d.hot.Load() {
			d.hot.Store(h)
		}
	}
}

// handle does what was posted. It reports true when the desk is gone.
func (d *desk) handle(bits uint32) bool {
	if bits&todoKill != 0 {
		if d.session != nil {
			d.session.die(errClosing)
		}
		bits |= todoClose
	}
	if bits&todoDie != 0 {
		d.bury()
	}
	if bits&todoDone != 0 {
		d.checkpointed()
		if d.closing {
			bits |= todoClose
		}
	}
	if bits&todoSweep != 0 {
		d.sweep()
	}
	if bits&todoTx != 0 {
		d.expireTx()
	}
	if bits&todoFreeze != 0 {
		d.freeze()
	}
	if bits&todoCheckpoint != 0 {
		d.checkpoint()
	}
	if bits&todoClose != 0 {
		return d.close()
	}
	if bits&todoHibernate != 0 {
		defer d.returnToken()
		return d.hibernate()
	}
	return false
}

// returnToken gives back what the sweeper lent.
func (d *desk) returnToken() {
	if d.token.Swap(false) {
		<-d.m.hibernating
	}
}

// run serves one call.
func (d *desk) run(call *service.Call) {
	if call.Canceled() {
		d.answer(call, facet.Errorf(facet.CodeCanceled, "canceled before it ran"))
		return
	}
	req := &call.Request
	if err := d.tenant.Frozen(); err != nil { // since it came in
		d.freeze()
		d.answer(call, err)
		return
	}
	d.lastUsed.Store(d.m.clock.Load())
	if !req.Tx.IsZero() {
		if err := d.checkTx(req.Tx); err != nil {
			d.answer(call, err)
			return
		}
	}
	if d.session == nil {
		d.worker.aside()
		empty, err := d.open(call)
		if err != nil {
			d.answer(call, err)
			return
		}
		if empty {
			return // answered as from an empty database
		}
	}
	s := d.session
	if s.isDead() { // its last checkpoint is still being written
		d.answer(call, facet.Errorf(facet.CodeUnavailable, "the facet is being taken over; try again"))
		return
	}
	if !req.After.IsZero() {
		if err := s.reaches(req.After); err != nil {
			call.Err = err
			s.gate(call, false) // what a deposed owner thinks of a bookmark is no answer
			return
		}
	}
	d.setLimits(s)
	before := s.store.Position().Seq
	d.current.Store(call)
	call.Phases.Started = service.Clock()
	call.Err = s.db.RunWith(req, &call.Response, engine.RunOptions{Canceled: d.canceled, Admit: d.admit, Grow: d.grow})
	d.current.Store(nil)
	call.Phases.Executed, call.Phases.Wrote = service.Clock(), s.store.Position().Seq != before
	d.count(call, s.db.Rows())
	if err := s.db.Broken(); err != nil {
		s.die(err)
	}
	d.followTx(call)
	if req.Bookmark || req.Read == facet.ReadFollower {
		s.mark(&call.Response)
	}
	if broken.Is(broken.ErrorsPass) && call.Err != nil {
		d.answer(call, call.Err)
	} else {
		s.gate(call, call.Phases.Wrote)
	}
	d.resize(s)
	if n := s.store.Dirty(); n >= checkpointPages && (n >= lateCheckpointPages || !s.lagging()) {
		d.checkpoint()
	}
}

// answer ends a call that did not run.
func (d *desk) answer(call *service.Call, err error) {
	call.OnInterrupt(nil)
	call.Err = err
	call.Finish()
}

// sweep answers the canceled calls that wait.
func (d *desk) sweep() {
	var canceled []*service.Call
	filter := func(line []*service.Call) []*service.Call {
		kept := line[:0]
		for _, c := range line {
			if c.Canceled() {
				canceled = append(canceled, c)
			} else {
				kept = append(kept, c)
			}
		}
		clear(line[len(kept):])
		return kept
	}
	d.batch = append(d.batch[:0], filter(d.batch[d.next:])...)
	d.next = 0
	d.mu.Lock()
	d.line = filter(d.line)
	d.txLine = filter(d.txLine)
	d.mu.Unlock()
	for _, c := range canceled {
		d.answer(c, facet.Errorf(facet.CodeCanceled, "canceled before it ran"))
	}
}
