package consensus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/internal/disk"
)

// Node is this process's part in replicating the log.
type Node struct {
	cfg       Config
	id        *identity
	raft      *raft.Raft
	machine   *machine
	stores    *stores
	transport raft.Transport
	peers     *transport // the same, when it reaches others; else nil
	founding  *founding
	live      atomic.Pointer[raft.Raft]
	watch     *watcher

	queue     chan *proposal
	proposals sync.Pool     // of the node, not the package: a channel stays in its synctest bubble
	closing   chan struct{} // closed when Close begins
	stopped   chan struct{} // closed when the dispatching goroutine has ended
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup

	resume chan struct{} // a leader that stepped aside may go on
	wake   chan struct{} // the founding or reconciling goroutine has news

	leading atomic.Bool // the barrier of this term is applied here
	batches atomic.Uint64
	taken   atomic.Uint64 // commands in those batches
	snaps   atomic.Uint64

	forwarded atomic.Uint64 // commands sent to the leader
	asides    atomic.Uint64 // times this node stepped aside

	led uint64 // the newest term this node led in; of the goroutine that follows elections

	mu         sync.Mutex
	leadership Leadership    // guarded by mu
	changed    chan struct{} // guarded by mu; closed and replaced at a change
	rerouted   chan struct{} // guarded by mu; closed and replaced when proposals may go elsewhere
	view       cluster.View  // guarded by mu; the latest hint
	belongs    chan struct{} // closed when the cluster is known

	changing sync.Mutex // held through one change of the membership

	closeOnce sync.Once
	closeErr  error
}

// Leadership is what this node is in the current term.
type Leadership struct {
	// Leading says that this node decides: it was elected and has applied
	// everything that was decided before it.
	Leading bool
	Term    uint64
	// Since is when a node that leads had applied all that was decided before.
	Since time.Time
	// Heard is when the last entry of an earlier term came into this node's log: the
	// moment from which a new leader counts the leases it does not know of (rule
	// R39). A lease is granted on a committed entry that was proposed after the
	// renewal had come in (R36), so every renewal that an earlier leader granted, or
	// will yet grant, was sent before it. It may be later than that moment, never
	// earlier.
	Heard time.Time
}

// Open starts the node. It returns once the newest snapshot is restored; the
// log behind it is replayed when a leader is known (a single voter elects
// itself within milliseconds). WaitLeader waits for that.
func Open(cfg Config) (n *Node, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open consensus of node %s: %w", cfg.ID, err)
		}
	}()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n = &Node{
		cfg:      cfg,
		queue:    make(chan *proposal, maxQueue),
		closing:  make(chan struct{}),
		stopped:  make(chan struct{}),
		changed:  make(chan struct{}),
		rerouted: make(chan struct{}),
		belongs:  make(chan struct{}),
		resume:   make(chan struct{}, 1),
		wake:     make(chan struct{}, 1),
		machine:  &machine{sm: cfg.StateMachine, fatal: cfg.Fatal, due: make(chan struct{}, 1)},
	}
	n.watch = &watcher{log: cfg.Logger, fatal: func(err error) { n.machine.fail(err) }, short: n.machine.hurry}
	n.machine.restored = n.watch.heard.all
	n.watch.heard.all()
	ctx, cancel := context.WithCancel(context.Background())
	n.ctx, n.cancel = ctx, cancel
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	logger := &raftLogger{to: cfg.Logger, name: "raft"}
	if n.stores, err = openStores(&cfg, logger, n.watch); err != nil {
		return nil, err
	}
	if err := n.start(logger); err != nil {
		return nil, errors.Join(err, n.closeTransport(), n.stores.close())
	}
	return n, nil
}

func (n *Node) start(logger *raftLogger) (err error) {
	if n.id, err = n.stores.identify(&n.cfg); err != nil {
		return err
	}
	if n.founding, err = n.stores.openFounding(n.id, n.cfg.Expect, n.cfg.Cluster); err != nil {
		return err
	}
	size, restored, err := n.stores.newest()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	n.machine.limit.Store(max(n.cfg.SnapshotBytes, size))

	conf := raftConfig(n.cfg.ID, n.cfg.Heartbeat, logger)
	conf.TrailingLogs = n.cfg.Trailing
	here := n.openTransport(logger)
	if err := n.bootstrap(conf, here); err != nil {
		return err
	}
	n.raft, err = raft.NewRaft(conf, n.machine, n.stores.log, n.stores.stable, n.stores.snaps, n.transport)
	if err != nil {
		return errors.Join(err, n.machine.refused)
	}
	n.live.Store(n.raft)
	// Raft restored a snapshot before it started; which one, only its applied
	// index tells, and that may have moved on already.
	n.machine.moveTo(min(n.raft.AppliedIndex(), restored))
	if err := n.hurry(); err != nil {
		return errors.Join(err, n.raft.Shutdown().Error())
	}
	if member, _ := n.id.get(); !member.IsZero() {
		close(n.belongs)
	}
	n.wg.Go(n.dispatchLoop)
	n.wg.Go(n.leadershipLoop)
	n.wg.Go(n.snapshotLoop)
	if n.cfg.Exchange != nil {
		n.wg.Go(n.memberLoop)
	}
	return nil
}

// raftConfig is how Raft is to work here.
func raftConfig(id cluster.NodeID, heartbeat time.Duration, logger hclog.Logger) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(id)
	conf.Logger = logger
	conf.ShutdownOnRemove = false
	conf.NoLegacyTelemetry = true
	conf.HeartbeatTimeout, conf.ElectionTimeout = heartbeat, heartbeat
	conf.LeaderLeaseTimeout = heartbeat * 9 / 10 // standNow makes the heartbeat timeout a little shorter
	conf.CommitTimeout = commitTimeout
	conf.MaxAppendEntries = maxAppendEntries
	// Snapshots are taken by bytes, see snapshotLoop; Raft's own count of
	// entries says nothing when an entry has 1 or 512 commands.
	conf.SnapshotThreshold = 1 << 62
	conf.SnapshotInterval = 24 * time.Hour
	return conf
}

// openTransport gives the place others know this node by.
func (n *Node) openTransport(logger *raftLogger) place {
	if n.cfg.Stream == nil {
		address, t := raft.NewInmemTransport(raft.ServerAddress(n.cfg.ID))
		n.transport = t
		return place{address: string(address)}
	}
	here := place{address: n.cfg.Address, log: n.id.log}
	if here.address == "" {
		here.address = n.cfg.Stream.Addr().String()
	}
	s := &streams{Stream: n.cfg.Stream, self: n.id, address: here.String(), outcast: n.outcast, open: map[net.Conn]struct{}{}}
	n.peers = &transport{
		streams: s, addressOf: n.cfg.AddressOf, committed: n.committed,
		peers: map[raft.ServerID]*peer{}, closing: make(chan struct{}),
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			// One batch is on its way at a time, so there is nothing to pipeline.
			Stream: s, MaxPool: peerPool, MaxRPCsInFlight: 1, Timeout: peerTimeout, Logger: logger,
		}),
	}
	n.transport = n.peers
	return here
}

// committed is the commit index, also for the goroutines that Raft starts
// before it is known here.
func (n *Node) committed() uint64 {
	if r := n.live.Load(); r != nil {
		return r.CommitIndex()
	}
	return 0
}

// outcast ends a node that was left behind: it must not meet others like it and
// lead a cluster of the past.
func (n *Node) outcast(by string) {
	n.machine.fail(fmt.Errorf("%w, as node %.64s says: set its directory aside and join it anew", ErrLeftBehind, by))
}

func (n *Node) closeTransport() error {
	if c, ok := n.transport.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

// bootstrap writes the first entry of a cluster's log if it is this node's turn:
// as the only voter, or as one of those that founded it together, when it went
// down just then.
func (n *Node) bootstrap(conf *raft.Config, here place) error {
	var servers []raft.Server
	if member, _ := n.id.get(); n.founding.pledged() && n.founding.pledge.Cluster == member {
		servers = n.founding.pledge.servers()
	} else if n.cfg.Bootstrap {
		servers = []raft.Server{{Suffrage: raft.Voter, ID: conf.LocalID, Address: raft.ServerAddress(here.String())}}
	}
	if servers == nil {
		return nil
	}
	has, err := raft.HasExistingState(n.stores.log, n.stores.stable, n.stores.snaps)
	if err != nil {
		return fmt.Errorf("look for existing state: %w", err)
	}
	if has {
		return nil
	}
	err = raft.BootstrapCluster(conf, n.stores.log, n.stores.stable, n.stores.snaps, n.transport, raft.Configuration{Servers: servers})
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// hurry lets a single voter stand for election now rather than after a
// heartbeat timeout: there is no leader it could hear from. Raft re-reads its
// timer when the timeout is lowered, by however little.
func (n *Node) hurry() error {
	servers := n.configuration().Servers
	alone := len(servers) == 1 && servers[0].ID == raft.ServerID(n.cfg.ID)
	switch {
	case alone:
		return n.standNow()
	case len(servers) > 0 && n.cfg.Stream == nil:
		return ErrNeedsStream
	}
	return nil
}

// standNow lets this node stand for election at once, if it hears of no leader.
func (n *Node) standNow() error {
	rc := n.raft.ReloadableConfig()
	rc.HeartbeatTimeout -= time.Millisecond
	return n.raft.ReloadConfig(rc)
}

// configuration is the newest one in this node's log.
func (n *Node) configuration() raft.Configuration {
	f := n.raft.GetConfiguration()
	if f.Error() != nil { // it has none to give: the value is kept beside Raft's goroutine
		return raft.Configuration{}
	}
	return f.Configuration()
}

// Close stops the node. What is on its way is finished or told its fate first.
// It may be called twice.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		close(n.closing)
		n.cancel()
		// Raft runs until the last future of ours is answered: once it is shut
		// down it may leave one unanswered.
		n.wg.Wait()
		n.setLeadership(Leadership{Term: n.raft.CurrentTerm()})
		n.closeErr = errors.Join(n.raft.Shutdown().Error(), n.closeTransport(), n.stores.close())
	})
	return n.closeErr
}

// ClusterID is the id of the cluster, zero on a node that belongs to none yet.
func (n *Node) ClusterID() cluster.ID {
	id, _ := n.id.get()
	return id
}

// Generation is how often the cluster was recovered by force. Epochs issued
// after a recovery must lie above all before it (rule R2), so a leader raises
// the generation of the placement table to at least this.
func (n *Node) Generation() uint32 {
	_, g := n.id.get()
	return g
}

// WaitCluster waits until the node belongs to a cluster.
func (n *Node) WaitCluster(ctx context.Context) (cluster.ID, error) {
	select {
	case <-n.belongs:
		return n.ClusterID(), nil
	case <-ctx.Done():
		return cluster.ID{}, ctx.Err()
	case <-n.closing:
		return cluster.ID{}, ErrClosed
	}
}

// Applied is the index of the last entry applied on this node.
func (n *Node) Applied() uint64 { return n.machine.applied.Load() }

// Leader tells who leads as far as this node knows, and where.
func (n *Node) Leader() (id cluster.NodeID, address string, ok bool) {
	a, i := n.raft.LeaderWithID()
	return cluster.NodeID(i), parsePlace(a).address, i != ""
}

// State is Raft's state in a word: follower, candidate, leader or shutdown.
func (n *Node) State() string {
	switch n.raft.State() {
	case raft.Leader:
		return "leader"
	case raft.Candidate:
		return "candidate"
	case raft.Follower:
		return "follower"
	}
	return "shutdown"
}

// Stats is a look at the numbers.
type Stats struct {
	State     string
	Term      uint64
	Applied   uint64 // index applied here
	Committed uint64 // index known to be committed
	LastLog   uint64 // index of the newest entry
	Voters    int
	Members   int    // voters and those that only follow
	Entries   uint64 // command entries applied since Open
	Batches   uint64 // entries this node proposed
	Commands  uint64 // commands in them
	Forwarded uint64 // commands this node sent to a leader
	Asides    uint64 // times this node led and stepped aside
	Queued    int    // proposals waiting for the batch in flight
	Snapshots uint64 // snapshots taken since Open
	LogBytes  int64  // log since the last snapshot
}

// Stats looks at the numbers.
func (n *Node) Stats() Stats {
	s := Stats{
		State: n.State(), Term: n.raft.CurrentTerm(), Applied: n.Applied(), Committed: n.raft.CommitIndex(),
		LastLog: n.raft.LastIndex(), Entries: n.machine.entries.Load(), Batches: n.batches.Load(),
		Commands: n.taken.Load(), Forwarded: n.forwarded.Load(), Asides: n.asides.Load(), Queued: len(n.queue), Snapshots: n.snaps.Load(), LogBytes: n.machine.pending.Load(),
	}
	for _, srv := range n.configuration().Servers {
		if s.Members++; srv.Suffrage == raft.Voter {
			s.Voters++
		}
	}
	return s
}

// Trim gives memory back that an idle node does without: the pages of the log file
// that it has mapped, and read long ago. It may be called at any time.
func (n *Node) Trim() {
	if n.cfg.Dir != "" {
		pageOut(filepath.Join(n.cfg.Dir, logFile))
	}
}

// snapshotLoop takes a snapshot whenever the log behind the last one has grown
// as large as it may, or its file has no room for more.
func (n *Node) snapshotLoop() {
	n.keepBallast()
	var said time.Time
	for {
		select {
		case <-n.machine.due:
		case <-n.closing:
			return
		}
		for n.peers != nil && n.peers.installing() && n.machine.pending.Load() < holdFactor*n.machine.limit.Load() {
			select {
			case <-time.After(holdPause):
			case <-n.closing:
				return
			}
		}
		for {
			err := n.raft.Snapshot().Error()
			if err != nil && n.stores.ballast.drop() {
				err = n.raft.Snapshot().Error() // Raft tells in words only what went wrong
			}
			n.keepBallast()
			if err == nil {
				n.snaps.Add(1)
			}
			if err == nil || errors.Is(err, raft.ErrNothingNewToSnapshot) || errors.Is(err, raft.ErrRaftShutdown) {
				break
			}
			if time.Since(said) > sayAgain {
				said = time.Now()
				n.cfg.Logger.Warn("placement snapshot failed; the log grows until one succeeds", "err", err)
			}
			select {
			case <-time.After(snapshotRetry):
			case <-n.closing:
				return
			}
		}
	}
}

// keepBallast sets room aside for the next snapshot: what the newest one took, and
// what the log since may add.
func (n *Node) keepBallast() {
	size, _, err := n.stores.newest()
	if err == nil {
		err = n.stores.ballast.keep(size + n.cfg.SnapshotBytes/4)
	}
	if err != nil && !disk.IsFull(err) {
		n.cfg.Logger.Warn("no room is set aside for the next placement snapshot", "err", err)
	}
}
