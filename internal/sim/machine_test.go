package sim

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node"
)

// machine is what outlives a process: a disk, a placement log, a clock, an address.
type machine struct {
	w      *world
	id     cluster.NodeID
	ip     string
	zone   string
	clocks clocks

	// Of the cluster it is started into.
	expect int
	join   []string

	mu    sync.Mutex
	disk  *disk.Mem
	log   *consensus.Memory
	ident node.Identity
	life  *life // nil while it is off
	lives int
	// breaking says that a fault is armed after which the process must stop (R13).
	breaking bool
	fell     bool   // its process stopped by itself
	read     uint64 // highest batch of its commit log that was counted, see seen
	// leaving says that the node is to be taken out of the cluster, out that it was.
	leaving, out bool
}

// lowWater is the room on a disk that a log leaves free.
const lowWater = 64 << 10

// life is one process on a machine.
type life struct {
	m      *machine
	name   string
	ctx    context.Context // ends when the process is killed
	cancel context.CancelFunc
	port   *port
	ready  chan struct{} // closed when node is set: it answers
	dead   chan struct{} // closed when the process is gone: what it answers is not heard
	gone   chan struct{} // closed when its goroutines have ended
	closed chan struct{} // closed when the node is

	closing atomic.Bool
	node    *node.Node
	die     sync.Once
	pause   pause
}

// pause holds back what clients ask a node and what it answers them.
type pause struct {
	mu   sync.Mutex
	gate chan struct{} // closed when it may go on; nil while it does
}

func (p *pause) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate == nil {
		p.gate = make(chan struct{})
	}
}

func (p *pause) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate != nil {
		close(p.gate)
		p.gate = nil
	}
}

// wait returns when the node runs, or is dead, or ctx ends.
func (l *life) wait(ctx context.Context) error {
	l.pause.mu.Lock()
	gate := l.pause.gate
	l.pause.mu.Unlock()
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-l.dead:
		return errGone
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *life) isDead() bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

func (l *life) isReady() bool {
	select {
	case <-l.ready:
		return true
	default:
		return false
	}
}

// start begins a process life on a machine that is off, and returns the one that runs:
// nil once the node was taken out of the cluster.
func (m *machine) start() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life != nil || m.out {
		return m.life
	}
	m.lives++
	l := &life{m: m, name: fmt.Sprintf("%s.%d", m.id, m.lives), ready: make(chan struct{}), dead: make(chan struct{}), gone: make(chan struct{}), closed: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	m.life = l
	port, listener := m.w.net.port(m.id)
	l.port = port
	cfg := node.Config{
		ID: m.id, Zone: m.zone, Listen: string(m.id) + ":7400", Advertise: string(m.id) + ":7400",
		PeerListen: string(m.id) + ":7401", PeerAdvertise: string(m.id) + ":7401",
		GossipListen: m.ip + ":7402", Join: m.join, BootstrapExpect: m.expect,
		Insecure: true, IdleAfter: m.w.plan.idleAfter, RepairAfter: m.w.plan.repairAfter,
		LogBudget: m.w.plan.logBudget, Replicas: m.w.plan.replicas,
		// Often enough to meet everything else, and to be done some times in a run.
		ScrubEvery: 15 * time.Second, CompareEvery: 7 * time.Second,
		Logger: m.w.log.With("at", l.name),
		Platform: &node.Platform{
			FS: m.disk, Log: commitlog.Options{SegmentBytes: m.w.plan.segment, LowWaterBytes: lowWater}, Raft: m.log, Identity: m.ident, Save: l.save,
			PeerListener: listener, PeerDial: port.dial, Gossip: port,
			Machine: cluster.MachineID([]byte(fmt.Sprintf("%-16s", m.id))), Clock: m.clocks.leases,
			Clocks: m.clocks.read,
		},
	}
	m.w.tell("%s starts", l.name)
	m.w.wg.Go(func() { l.run(cfg) })
	return l
}

// save is node.Platform.Save.
func (l *life) save(id node.Identity) error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.life != l {
		return errGone
	}
	l.m.ident = id
	return nil
}

// run is the process: from its start until its goroutines have ended.
func (l *life) run(cfg node.Config) {
	defer close(l.gone)
	n, err := node.Open(l.ctx, cfg)
	if err != nil {
		if l.isDead() {
			return
		}
		l.failed(err)
		return
	}
	l.node = n
	close(l.ready)
	l.m.w.tell("%s is ready", l.name)
	select {
	case err := <-n.Failed():
		l.failed(err)
	case <-l.dead:
	}
	// The process is cut off from disk, network and clients. What is left of it in
	// memory ends here.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.close(ctx)
}

// close closes the node once. Who comes second waits for who came first, on a
// channel: a bubble does not see waiting for a sync.Once.
func (l *life) close(ctx context.Context) {
	if l.closing.Swap(true) {
		<-l.closed
		return
	}
	defer close(l.closed)
	if err := l.node.Close(ctx); err != nil && ctx.Err() == nil {
		l.m.w.tell("%s: close: %v", l.name, err)
	}
}

// failed ends a process that said it must not go on.
func (l *life) failed(err error) {
	l.m.mu.Lock()
	meant := l.m.breaking
	l.m.mu.Unlock()
	if !meant {
		l.m.w.problem("%s stopped by itself: %v", l.name, err)
	}
	l.m.w.note("process stopped by itself")
	l.kill(fmt.Sprintf("it failed: %v", err), l.m.w.plan.loss(l.m.w.rand()))
	l.m.mu.Lock()
	l.m.fell = true
	l.m.mu.Unlock()
}

// kill ends the process at once: the disk keeps what loss says of what was not
// synced, nothing it sends arrives any more, and no client hears of it.
func (l *life) kill(why string, loss disk.Loss) {
	l.die.Do(func() {
		m := l.m
		m.mu.Lock()
		defer m.mu.Unlock()
		close(l.dead) // first: what is answered from here on nobody hears
		l.port.close()
		m.seen()
		m.disk = m.disk.Crash(m.w.rand(), loss)
		m.log = m.log.Crash()
		m.life, m.breaking = nil, false
		l.cancel()
		m.w.tell("%s is dead: %s", l.name, why)
	})
}

// stop ends the process in an orderly way.
func (l *life) stop(limit time.Duration) {
	if l.isReady() && !l.isDead() {
		// A process that dies while it closes has no time left.
		ctx, cancel := context.WithTimeout(l.ctx, limit)
		l.close(ctx)
		cancel()
	}
	l.kill("stopped", disk.KeepAll)
	<-l.gone
}

// current is the process that runs, nil if none does.
func (m *machine) current() *life {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

// wipe gives a machine that is off an empty disk, under the same id.
func (m *machine) wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disk, m.log, m.ident, m.read = disk.NewMem(), consensus.NewMemory(), node.NewIdentity(m.id), 0
	// Its operator has it join; told to begin a cluster it would begin another one.
	m.expect, m.join = 0, []string{"10.0.0.1:7402", "10.0.0.2:7402", "10.0.0.3:7402"}
}

// world is one run.
type world struct {
	plan  plan
	log   *slog.Logger
	net   *network
	began time.Time
	ids   atomic.Int64 // of writes

	moments   moments
	forgetful atomic.Int64   // percent of all answers that do not reach their clients
	doubt     atomic.Bool    // a clock was wrong: reads by lease may be old from here on (R41)
	wg        sync.WaitGroup // processes and sessions
	leave     sync.WaitGroup // nodes that are taken out of the cluster
	names     []facetSpec

	mu       sync.Mutex
	rng      *rand.Rand // of what is drawn at moments the seed does not order
	machines []*machine
	problems []string
	story    []string
	counts   map[string]int
	facets   map[string]*ledger
	finals   map[facet.Name][]int64 // what is in each facet in the end
	lasted   time.Duration          // virtual time of the run, once it is over
}

func newWorld(p plan, log *slog.Logger) *world {
	w := &world{
		plan: p, net: newNetwork(p.seed), began: time.Now(), counts: map[string]int{},
		rng: rand.New(rand.NewPCG(p.seed, 1)), facets: map[string]*ledger{}, finals: map[facet.Name][]int64{},
	}
	w.log = slog.New(&ear{Handler: log.Handler(), w: w})
	w.net.w = w
	w.fast()
	return w
}

// number is that of a new write.
func (w *world) number() int64 { return w.ids.Add(1) }

// rand makes a source of its own, so that users do not wait for each other.
func (w *world) rand() *rand.Rand {
	w.mu.Lock()
	defer w.mu.Unlock()
	return rand.New(rand.NewPCG(w.rng.Uint64(), w.rng.Uint64()))
}

// add makes a machine that has never run.
func (w *world) add(expect int, join []string) *machine {
	r := w.rand()
	w.mu.Lock()
	i := len(w.machines) + 1
	m := &machine{
		w: w, id: cluster.NodeID(fmt.Sprintf("n%d", i)), ip: fmt.Sprintf("10.0.0.%d", i), expect: expect, join: join,
		// Up to 0.4 % off: two machines differ by less than the rate at which the
		// watchdog turns lease reads off (R41).
		clocks: newClocks(1+(r.Float64()-0.5)*0.008, quorum.Instant(time.Duration(1+r.IntN(1000))*time.Hour)),
		disk:   disk.NewMem(), log: consensus.NewMemory(),
	}
	m.ident = node.NewIdentity(m.id)
	if w.plan.zones > 0 {
		m.zone = string(rune('a' + i%w.plan.zones))
	}
	w.machines = append(w.machines, m)
	w.mu.Unlock()
	w.net.add(m.id, m.ip)
	return m
}

// all gives the machines of the cluster, without those that were taken out.
func (w *world) all() []*machine {
	w.mu.Lock()
	list := slices.Clone(w.machines)
	w.mu.Unlock() // who holds a machine's lock tells the world things
	return slices.DeleteFunc(list, func(m *machine) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.out
	})
}

func (w *world) machine(id cluster.NodeID) *machine {
	for _, m := range w.all() {
		if m.id == id {
			return m
		}
	}
	return nil
}

// running gives the processes that answer.
func (w *world) running() (out []*life) {
	for _, m := range w.all() {
		if l := m.current(); l != nil && l.isReady() && !l.isDead() {
			out = append(out, l)
		}
	}
	return out
}

// leader is the process that leads placement, nil if none does.
func (w *world) leader() *life {
	for _, l := range w.running() {
		if l.node.Leads() {
			return l
		}
	}
	return nil
}

// tell writes down what happened, for the report of a run that failed.
func (w *world) tell(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	at := w.lasted
	if at == 0 {
		at = time.Since(w.began)
	}
	s = fmt.Sprintf("%10.3f  ", at.Seconds()) + s
	w.story = append(w.story, s)
}

// problem is something that must not be.
func (w *world) problem(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	w.tell("PROBLEM: %s", s)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, s)
}

// percent is true so often of a hundred times.
func (w *world) percent(part int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.Int64N(100) < part
}

// note counts a situation the run has met.
func (w *world) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

// until waits until f is true, or the time is up.
func (w *world) until(limit time.Duration, f func() bool) bool {
	for end := time.Now().Add(limit); ; {
		if f() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
}
