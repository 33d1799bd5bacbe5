package follower

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/quota"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/placement"
)

// Options configure a Manager.
type Options struct {
	Store   *replica.Store   // required
	Table   *placement.Table // required
	Node    cluster.NodeID   // required: this node
	StoreID cluster.StoreID  // required: the id of Store

	// Owner takes what is not answered here. It must not block.
	Owner func(*service.Call) // required
	// Tell has the owner of a facet tell this node what is committed (R10). It returns
	// when the owner was asked, or ctx ends. Nil does without.
	Tell func(ctx context.Context, owner cluster.NodeID, id facet.Incarnation, epoch facet.Epoch) error

	// Tenants holds tenants to their limits; nil lets all do as they like.
	Tenants   *quota.Tenants
	Limits    engine.Limits
	IdleAfter time.Duration // default DefaultIdleAfter
	Logger    *slog.Logger  // default: none
}

// Manager answers reads from copies. See the package comment.
type Manager struct {
	opts   Options
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine
	begun  chan struct{}  // semaphore: checkpoints

	reads, handedOn, opened, checkpoints atomic.Int64

	mu     sync.Mutex
	views  map[facet.Incarnation]*view
	closed bool
	last   chan struct{} // closed when Close is done
}

// Stats are counters since the start, for metrics.
type Stats struct {
	Open        int   // views
	Reads       int64 // answered here
	HandedOn    int64 // left to the owner
	Opened      int64 // views opened, again after a checkpoint among them
	Checkpoints int64 // of copies that had too much above their files
}

// New makes a Manager. Close it.
func New(opts Options) (*Manager, error) {
	if opts.Store == nil || opts.Table == nil || opts.Node.IsZero() || opts.StoreID.IsZero() || opts.Owner == nil {
		return nil, errors.New("follower options: Store, Table, Node, StoreID and Owner are required")
	}
	if opts.IdleAfter <= 0 {
		opts.IdleAfter = DefaultIdleAfter
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Manager{
		opts: opts, log: opts.Logger, views: make(map[facet.Incarnation]*view),
		begun: make(chan struct{}, 1), last: make(chan struct{}),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.wg.Go(m.sweep)
	return m, nil
}

// Stats reads the counters.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	n := len(m.views)
	m.mu.Unlock()
	return Stats{n, m.reads.Load(), m.handedOn.Load(), m.opened.Load(), m.checkpoints.Load()}
}

// Submit answers the call here, or leaves it to the owner. See service.Service.
func (m *Manager) Submit(call *service.Call) {
	if err := m.enter(call); err != nil {
		call.Err = err
		call.Finish()
		return
	}
	f, ok := m.follows(&call.Request)
	for ok {
		var v *view
		if v = m.view(f); v == nil {
			break // no room
		}
		if v.submit(call) {
			return
		}
	}
	m.handOn(call)
}

// enter has the tenant admit the call, here for the owner's side as well.
func (m *Manager) enter(call *service.Call) error {
	if m.opts.Tenants == nil || call.Taken() {
		return nil
	}
	t := m.opts.Tenants.Use(call.Request.Name.Tenant)
	defer m.opts.Tenants.Unuse(t)
	err := t.Enter(!call.Request.Tx.IsZero())
	if err == nil {
		call.Take(t)
	}
	return err
}

// TenantsChanged interrupts what is read for tenants that are frozen now.
func (m *Manager) TenantsChanged() {
	if m.opts.Tenants == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.views {
		if db := v.engine.Load(); db != nil && v.tenant.Frozen() != nil {
			db.Interrupt()
		}
	}
}

// handOn leaves a call, which nothing came of, to the owner.
func (m *Manager) handOn(call *service.Call) {
	m.handedOn.Add(1)
	call.OnInterrupt(nil)
	m.opts.Owner(call)
}

// follows reports whether this node may answer the request from its copy. A facet it
// owns itself, or may own next, is served by its session: that is fresh.
func (m *Manager) follows(req *facet.Request) (f placement.Facet, ok bool) {
	if !req.Tx.IsZero() || req.KeepTx || !req.Key.IsZero() {
		return f, false
	}
	f, ok = m.opts.Table.Lookup(req.Name)
	if !ok || f.State == placement.Deleting || f.State == placement.Retired ||
		f.Owner.IsZero() || f.Owner.Node == m.opts.Node || !m.member(f.Active) {
		return f, false
	}
	// A bookmark of another incarnation is for the owner to judge: the table here may
	// be behind.
	return f, req.After.IsZero() || req.After.Facet == f.Incarnation
}

func (m *Manager) member(set placement.Set) bool {
	x, ok := set.Member(m.opts.Node)
	return ok && x.Store == m.opts.StoreID
}

// view finds or makes the view of a facet; nil when there is no room for it.
func (m *Manager) view(f placement.Facet) *view {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	if v := m.views[f.Incarnation]; v != nil {
		return v
	}
	v := newView(m, f)
	if len(m.views) >= maxViews {
		if v.before = m.leastUsed(); v.before == nil {
			return nil
		}
		delete(m.views, v.before.id)
	}
	m.views[v.id] = v
	return v
}

// leastUsed takes the view that nobody uses for the longest time; nil when all are in
// use. m.mu is held.
func (m *Manager) leastUsed() *view {
	var oldest *view
	var since int64
	for _, v := range m.views {
		if at, idle := v.idleSince(); idle && (oldest == nil || at < since) {
			oldest, since = v, at
		}
	}
	if oldest == nil || !oldest.leave(0) {
		return nil
	}
	return oldest
}

// sweep closes views that were idle for long. One sweeper serves all, so that none
// needs a timer.
func (m *Manager) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-m.ctx.Done():
			return
		}
		var gone []*view
		m.mu.Lock()
		for id, v := range m.views {
			if v.leave(m.opts.IdleAfter) {
				delete(m.views, id)
				gone = append(gone, v)
			}
		}
		m.mu.Unlock()
		for _, v := range gone {
			v.close()
		}
	}
}

// Close leaves what waits to the owner and closes every view. It may be called twice.
func (m *Manager) Close() error {
	m.mu.Lock()
	twice := m.closed
	m.closed = true
	for _, v := range m.views {
		v.shun()
	}
	m.mu.Unlock()
	if twice {
		<-m.last
		return nil
	}
	m.cancel()
	m.wg.Wait()
	for _, v := range m.views { // nobody else is left
		v.close()
	}
	m.views = nil
	close(m.last)
	return nil
}
