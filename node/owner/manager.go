package owner

import (
	"cmp"
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/quota"
	"github.com/facetd/facetd/node/service"
)

// Options configure a Manager. Zero values are the defaults.
type Options struct {
	// Self is this node in this process life.
	Self      Member
	Placement Placement
	Store     *replica.Store // this node's copies
	// Peers reaches the other members; nil will do where every set is this node.
	Peers Peers
	// Lease is this process's read lease; without one every read asks a majority.
	Lease Lease
	// Warm has the node to, which is to own a facet next, make ready what it can while
	// this one still serves. Where row names to as the owner already it has it begin to
	// open the facet. It returns when that is so, or ctx ends. Clients are not sent
	// there before: the new owner, which may hear of the move last, would send them
	// back. Nil does without.
	Warm func(ctx context.Context, row Row, to cluster.NodeID)
	// Awake has the new owner of a facet open it, and returns when it has, or ctx
	// ends. Nil leaves it to the first request.
	Awake func(ctx context.Context, row Row)
	// Seen reports whether a node seems to live, to anybody: a hint, which only keeps a
	// facet from being recovered by force past a member that this node alone cannot
	// reach. Nil: nobody knows.
	Seen func(cluster.NodeID) bool
	// Led reports whether this node knows a placement leader. Without one, and without a
	// lease, for longer than an election takes, the node is cut off: requests that need
	// the others are refused at once. Nil is always.
	Led func() bool
	// Admit says before a request runs whether its commit would find room in the
	// log (rule R15). nil admits everything.
	Admit func() error
	// Tenants holds tenants to their limits; nil lets all do as they like.
	Tenants *quota.Tenants

	Limits       engine.Limits
	IdleAfter    time.Duration // idle time before a facet hibernates; default 30 s
	MemoryBudget int64         // bytes of active facets before the least recently used hibernate; default 1 GiB
	TxIdle       time.Duration // idle limit of interactive transactions; default 5 s
	TxTotal      time.Duration // total limit of interactive transactions; default 30 s
	Logger       *slog.Logger
	Now          func() time.Time // default time.Now
}

// Manager runs the facets this node owns. All methods may be called from any
// goroutine.
type Manager struct {
	opts     Options
	log      *slog.Logger
	lease    Lease
	scratch  *engine.Scratch
	began    time.Time       // zero of the cores' clock
	ctx      context.Context // ends when the manager has closed
	cancel   context.CancelFunc
	opening  context.Context // ends when it begins to: nothing is activated any more
	stop     context.CancelFunc
	wg       sync.WaitGroup // every goroutine of the manager and its desks
	desks    sync.WaitGroup // every desk
	crew     crew
	sessions sessions
	lacking  lacking
	away     away
	outlook  outlook
	seed     maphash.Seed
	shards   [shards]shard

	hibernating chan struct{} // semaphore
	snapshots   chan struct{} // semaphore
	preparing   chan struct{} // semaphore
	pressure    chan struct{} // wakes the sweeper when memory runs short
	clock       atomic.Int64  // coarse time in Unix nanoseconds, set by the sweeper

	active  atomic.Int64 // open sessions
	memory  atomic.Int64 // their memory in bytes, as last measured
	created atomic.Int64
	opened  atomic.Int64
	closed  atomic.Bool
}

type shard struct {
	mu     sync.RWMutex
	desks  map[facet.Name]*desk
	closed bool
}

// New starts a manager. Close it.
func New(opts Options) (*Manager, error) {
	if opts.Placement == nil || opts.Store == nil || opts.Self.Boot.IsZero() {
		return nil, fmt.Errorf("start owner: Placement, Store and Self are needed")
	}
	setDefault(&opts.IdleAfter, DefaultIdleAfter)
	setDefault(&opts.MemoryBudget, DefaultMemoryBudget)
	setDefault(&opts.TxIdle, DefaultTxIdle)
	setDefault(&opts.TxTotal, DefaultTxTotal)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Manager{
		opts: opts, log: opts.Logger, seed: maphash.MakeSeed(),
		hibernating: make(chan struct{}, maxHibernating),
		snapshots:   make(chan struct{}, maxSnapshots),
		preparing:   make(chan struct{}, 1),
		lease:       opts.Lease, began: time.Now(),
		pressure: make(chan struct{}, 1),
	}
	if m.lease == nil {
		m.lease = noLease{}
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	opening, stop := context.WithCancelCause(m.ctx)
	m.opening, m.stop = opening, func() { stop(errClosing) }
	m.outlook.init(m.opening)
	m.scratch = engine.NewScratch(opts.Limits)
	m.clock.Store(opts.Now().UnixNano())
	m.crew.wg = &m.wg
	for i := range m.shards {
		m.shards[i].desks = make(map[facet.Name]*desk)
	}
	m.wg.Go(m.sweep)
	return m, nil
}

func setDefault[T time.Duration | int64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// now is the cores' clock. Nothing about leases depends on it.
func (m *Manager) now() quorum.Instant { return quorum.Instant(time.Since(m.began)) }

// Stats are the manager's counters, for metrics.
type Stats struct {
	Active  int64 // facets open for work
	Memory  int64 // bytes they use
	Created int64 // facets created since start
	Opened  int64 // activations since start
	Closed  int64 // sessions closed since start, by hibernation or otherwise
}

// Stats reads the counters.
func (m *Manager) Stats() Stats {
	return Stats{m.active.Load(), m.memory.Load(), m.created.Load(), m.opened.Load(), m.opened.Load() - m.active.Load()}
}

// Trim lets go of what is only kept to be fast under load.
func (m *Manager) Trim() {
	m.crew.trim()
	m.scratch.Trim()
}

// Submit queues a call. See service.Service.
func (m *Manager) Submit(call *service.Call) {
	for {
		d := m.lookup(call.Request.Name)
		err := m.enter(call, d)
		if err == nil && d == nil {
			d, err = m.desk(call.Request.Name)
		}
		if err != nil {
			call.Err = err
			call.Finish()
			return
		}
		if d.submit(call) {
			return
		}
	}
}

// desk finds or makes the desk of a facet.
func (m *Manager) desk(name facet.Name) (*desk, error) {
	sh := &m.shards[maphash.Comparable(m.seed, name)%shards]
	sh.mu.RLock()
	d := sh.desks[name]
	sh.mu.RUnlock()
	if d != nil {
		return d, nil
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.closed {
		return nil, errClosing
	}
	if d = sh.desks[name]; d == nil {
		d = newDesk(m, sh, name)
		sh.desks[name] = d
		m.desks.Add(1)
	}
	return d, nil
}

// lookup finds the desk of a facet without making one.
func (m *Manager) lookup(name facet.Name) *desk {
	sh := &m.shards[maphash.Comparable(m.seed, name)%shards]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.desks[name]
}

var errClosing = facet.Errorf(facet.CodeUnavailable, "the node is shutting down; try again, another node or this one will answer soon")

// Memory is what the session of a facet uses, as last measured; zero where none is open.
func (m *Manager) Memory(name facet.Name) int64 {
	if d := m.lookup(name); d != nil {
		return d.memory.Load()
	}
	return 0
}

// each calls f for every desk there is now.
func (m *Manager) each(f func(*desk)) {
	var ds []*desk
	for i := range m.shards {
		sh := &m.shards[i]
		sh.mu.RLock()
		ds = ds[:0]
		for _, d := range sh.desks {
			ds = append(ds, d)
		}
		sh.mu.RUnlock()
		for _, d := range ds {
			f(d)
		}
	}
}

// sweep hibernates facets that were idle for long, and the least recently used
// ones while memory is short. One sweeper serves all facets, so that none needs a
// timer of its own.
func (m *Manager) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-tick.C:
			m.forsake()
			m.lookOut()
		case <-m.pressure:
		}
		now := m.opts.Now().UnixNano()
		m.clock.Store(now)
		m.redial()
		var sum int64
		var idle, rest []used
		m.each(func(d *desk) {
			u := used{d, d.lastUsed.Load(), d.memory.Load()}
			if now-u.at >= int64(m.opts.IdleAfter) {
				idle = append(idle, u)
				return
			}
			sum += u.size
			rest = append(rest, u)
		})
		if sum > m.opts.MemoryBudget {
			// Go an eighth below the budget, so that the next second needs no sweep.
			slices.SortFunc(rest, func(a, b used) int { return cmp.Compare(a.at, b.at) })
			for _, u := range rest {
				if sum <= m.opts.MemoryBudget-m.opts.MemoryBudget/8 {
					break
				}
				idle = append(idle, u)
				sum -= u.size
			}
		}
		for _, u := range idle {
			if !m.letHibernate(u.d) {
				return
			}
		}
	}
}

type used struct {
	d    *desk
	at   int64
	size int64
}

// letHibernate asks the desk to hibernate, waiting for one of maxHibernating
// tokens first: a facet whose turn has not come stays open and answers. It
// reports false when the manager closes.
func (m *Manager) letHibernate(d *desk) bool {
	select {
	case m.hibernating <- struct{}{}:
	case <-m.ctx.Done():
		return false
	}
	if d.token.Swap(true) { // asked before and not come to it yet
		<-m.hibernating
		return true
	}
	d.post(todoHibernate)
	d.mu.Lock()
	gone := d.gone
	d.mu.Unlock()
	if gone {
		d.returnToken()
	}
	return true
}

// grew notes that an active facet uses delta more bytes and wakes the sweeper when
// the budget is exceeded.
func (m *Manager) grew(delta int64) {
	if m.memory.Add(delta) > m.opts.MemoryBudget && delta > 0 {
		select {
		case m.pressure <- struct{}{}:
		default:
		}
	}
}

// Close stops taking requests, answers what waits, and checkpoints what it can
// until ctx ends; the rest stays in the log. It may be called twice.
func (m *Manager) Close(ctx context.Context) error {
	if m.closed.Swap(true) {
		return nil
	}
	for i := range m.shards {
		sh := &m.shards[i]
		sh.mu.Lock()
		sh.closed = true // nobody makes a desk here from now on
		sh.mu.Unlock()
	}
	m.stop()
	m.lacking.close()
	m.each(func(d *desk) { d.post(todoClose) })
	// When time is up, checkpoints are given up and answers not yet committed
	// become CodeUnknownOutcome; the log has what is durable.
	stop := context.AfterFunc(ctx, func() {
		m.cancel()
		// A desk that waits for a commit hears of it first by its session.
		m.sessions.each(func(s *session) { s.die(errClosing) })
		m.each(func(d *desk) { d.post(todoKill) })
	})
	defer stop()
	m.desks.Wait()
	m.cancel()
	m.crew.close()
	m.wg.Wait()
	m.scratch.Close()
	return ctx.Err()
}
