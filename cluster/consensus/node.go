package consensus

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/facetd/facetd/cluster"
)

// Node is this process's part in replicating the log.
type Node struct {
	cfg       Config
	clusterID cluster.ID
	raft      *raft.Raft
	machine   *machine
	stores    *stores
	transport raft.Transport

	queue     chan *proposal
	proposals sync.Pool     // of the node, not the package: a channel stays in its synctest bubble
	closing   chan struct{} // closed when Close begins
	stopped   chan struct{} // closed when the batching goroutine has ended
	wg        sync.WaitGroup

	leading atomic.Bool // the barrier of this term is applied here
	batches atomic.Uint64
	taken   atomic.Uint64 // commands in those batches
	snaps   atomic.Uint64

	mu         sync.Mutex
	leadership Leadership    // guarded by mu
	changed    chan struct{} // guarded by mu; closed and replaced at a change

	closeOnce sync.Once
	closeErr  error
}

// Leadership is what this node is in the current term.
type Leadership struct {
	// Leading says that this node decides: it was elected and has applied
	// everything that was decided before it.
	Leading bool
	Term    uint64
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
		cfg:     cfg,
		queue:   make(chan *proposal, maxQueue),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
		changed: make(chan struct{}),
		machine: &machine{sm: cfg.StateMachine, fatal: cfg.Fatal, due: make(chan struct{}, 1)},
	}
	logger := &raftLogger{to: cfg.Logger, name: "raft"}
	if n.stores, err = openStores(&cfg, logger, func(err error) { n.machine.fail(err) }); err != nil {
		return nil, err
	}
	if err := n.start(logger); err != nil {
		return nil, errors.Join(err, n.closeTransport(), n.stores.close())
	}
	return n, nil
}

func (n *Node) start(logger *raftLogger) (err error) {
	if n.clusterID, err = n.stores.identify(&n.cfg); err != nil {
		return err
	}
	size, restored, err := n.stores.newest()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	n.machine.limit.Store(max(n.cfg.SnapshotBytes, size))

	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(n.cfg.ID)
	conf.Logger = logger
	conf.ShutdownOnRemove = false
	conf.HeartbeatTimeout, conf.ElectionTimeout = heartbeatTimeout, electionTimeout
	conf.LeaderLeaseTimeout, conf.CommitTimeout = leaseTimeout, commitTimeout
	conf.MaxAppendEntries = maxAppendEntries
	conf.TrailingLogs = n.cfg.Trailing
	// Snapshots are taken by bytes, see snapshotLoop; Raft's own count of
	// entries says nothing when an entry has 1 or 512 commands.
	conf.SnapshotThreshold = 1 << 62
	conf.SnapshotInterval = 24 * time.Hour

	address := n.openTransport(logger)
	if n.cfg.Bootstrap {
		if err := n.bootstrap(conf, address); err != nil {
			return err
		}
	}
	n.raft, err = raft.NewRaft(conf, n.machine, n.stores.log, n.stores.stable, n.stores.snaps, n.transport)
	if err != nil {
		return err
	}
	// Raft restored a snapshot before it started; which one, only its applied
	// index tells, and that may have moved on already.
	n.machine.moveTo(min(n.raft.AppliedIndex(), restored))
	if err := n.hurry(); err != nil {
		return errors.Join(err, n.raft.Shutdown().Error())
	}
	n.wg.Go(n.batchLoop)
	n.wg.Go(n.leadershipLoop)
	n.wg.Go(n.snapshotLoop)
	return nil
}

// openTransport gives the address others know this node by.
func (n *Node) openTransport(logger *raftLogger) raft.ServerAddress {
	if n.cfg.Stream == nil {
		address, t := raft.NewInmemTransport(raft.ServerAddress(n.cfg.ID))
		n.transport = t
		return address
	}
	address := n.cfg.Address
	if address == "" {
		address = n.cfg.Stream.Addr().String()
	}
	conf := &raft.NetworkTransportConfig{
		Stream: streamLayer{n.cfg.Stream, address}, MaxPool: peerPool, Timeout: peerTimeout, Logger: logger,
	}
	if n.cfg.AddressOf != nil {
		conf.ServerAddressProvider = addressProvider{of: n.cfg.AddressOf, self: conf.Stream.Addr().String(), id: raft.ServerID(n.cfg.ID)}
	}
	n.transport = raft.NewNetworkTransportWithConfig(conf)
	return raft.ServerAddress(address)
}

func (n *Node) closeTransport() error {
	if c, ok := n.transport.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

// streamLayer is a Stream in Raft's words. Its address is the one others use:
// Raft tells it to them as the leader's.
type streamLayer struct {
	Stream
	address string
}

func (s streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.Stream.Dial(string(address), timeout)
}

func (s streamLayer) Addr() net.Addr { return advertised(s.address) }

type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

type addressProvider struct {
	of   func(cluster.NodeID) (string, bool)
	id   raft.ServerID
	self string
}

func (p addressProvider) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if id == p.id {
		return raft.ServerAddress(p.self), nil
	}
	if a, ok := p.of(cluster.NodeID(id)); ok {
		return raft.ServerAddress(a), nil
	}
	return "", fmt.Errorf("no address of node %s is known", id)
}

// bootstrap makes this node the only voter, unless there is state already.
func (n *Node) bootstrap(conf *raft.Config, address raft.ServerAddress) error {
	has, err := raft.HasExistingState(n.stores.log, n.stores.stable, n.stores.snaps)
	if err != nil {
		return fmt.Errorf("look for existing state: %w", err)
	}
	if has {
		return nil
	}
	err = raft.BootstrapCluster(conf, n.stores.log, n.stores.stable, n.stores.snaps, n.transport, raft.Configuration{
		Servers: []raft.Server{{Suffrage: raft.Voter, ID: conf.LocalID, Address: address}},
	})
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	return nil
}

// hurry lets a single voter stand for election now rather than after a
// heartbeat timeout: there is no leader it could hear from. Raft re-reads its
// timer when the timeout is lowered, by however little.
func (n *Node) hurry() error {
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	servers := f.Configuration().Servers
	alone := len(servers) == 1 && servers[0].ID == raft.ServerID(n.cfg.ID)
	switch {
	case alone:
		rc := n.raft.ReloadableConfig()
		rc.HeartbeatTimeout -= time.Millisecond
		return n.raft.ReloadConfig(rc)
	case len(servers) > 0 && n.cfg.Stream == nil:
		return ErrNeedsStream
	}
	return nil
}

// Close stops the node. What is on its way is finished or told its fate first.
// It may be called twice.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		close(n.closing)
		// Raft runs until the last future of ours is answered: once it is shut
		// down it may leave one unanswered.
		n.wg.Wait()
		n.setLeadership(Leadership{Term: n.raft.CurrentTerm()})
		n.closeErr = errors.Join(n.raft.Shutdown().Error(), n.closeTransport(), n.stores.close())
	})
	return n.closeErr
}

// ClusterID is the id of the cluster, zero on a node that belongs to none yet.
func (n *Node) ClusterID() cluster.ID { return n.clusterID }

// Applied is the index of the last entry applied on this node.
func (n *Node) Applied() uint64 { return n.machine.applied.Load() }

// Leader tells who leads as far as this node knows, and where.
func (n *Node) Leader() (id cluster.NodeID, address string, ok bool) {
	a, i := n.raft.LeaderWithID()
	return cluster.NodeID(i), string(a), i != ""
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
	Entries   uint64 // command entries applied since Open
	Batches   uint64 // entries this node proposed
	Commands  uint64 // commands in them
	Queued    int    // proposals waiting for the batch in flight
	Snapshots uint64 // snapshots taken since Open
	LogBytes  int64  // log since the last snapshot
}

// Stats looks at the numbers.
func (n *Node) Stats() Stats {
	s := Stats{
		State: n.State(), Term: n.raft.CurrentTerm(), Applied: n.Applied(), Committed: n.raft.CommitIndex(),
		LastLog: n.raft.LastIndex(), Entries: n.machine.entries.Load(), Batches: n.batches.Load(),
		Commands: n.taken.Load(), Queued: len(n.queue), Snapshots: n.snaps.Load(), LogBytes: n.machine.pending.Load(),
	}
	if f := n.raft.GetConfiguration(); f.Error() == nil {
		for _, srv := range f.Configuration().Servers {
			if srv.Suffrage == raft.Voter {
				s.Voters++
			}
		}
	}
	return s
}

// snapshotLoop takes a snapshot whenever the log behind the last one has grown
// as large as it may.
func (n *Node) snapshotLoop() {
	for {
		select {
		case <-n.machine.due:
		case <-n.closing:
			return
		}
		switch err := n.raft.Snapshot().Error(); {
		case err == nil:
			n.snaps.Add(1)
		case errors.Is(err, raft.ErrNothingNewToSnapshot), errors.Is(err, raft.ErrRaftShutdown):
		default:
			n.cfg.Logger.Warn("placement snapshot failed; the log grows until one succeeds", "err", err)
		}
	}
}
