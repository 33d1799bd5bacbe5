package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/httpapi"
	"github.com/facetd/facetd/node/native"
	"github.com/facetd/facetd/node/owner"
	"github.com/facetd/facetd/placement"
)

// Node is one running node.
type Node struct {
	cfg  Config
	log  *slog.Logger
	dir  *dataDir
	boot cluster.BootID

	table    *placement.Table
	raft     *consensus.Node
	replicas *replica.Store
	rows     *proposals
	owners   *owner.Manager
	native   *native.Server
	limits   engine.Limits

	listener net.Listener
	server   *http.Server
	started  time.Time

	ctx    context.Context // ends when the node closes
	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed chan error

	closing sync.Once
	closed  error
}

// startTimeout bounds the way from Open to a node that answers.
const startTimeout = 30 * time.Second

// Open starts a node on its data directory. When it returns, the node answers.
func Open(ctx context.Context, cfg Config) (n *Node, err error) {
	cfg.fill()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("start node: %w", err)
	}
	n = &Node{cfg: cfg, log: cfg.Logger, boot: cluster.NewBootID(), started: time.Now(), failed: make(chan error, 1)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = fmt.Errorf("start node: %w", errors.Join(err, n.release()))
			n = nil
		}
	}()
	if n.dir, err = openDataDir(cfg.Dir, cfg.ID); err != nil {
		return n, err
	}
	// The port first: two nodes told to use one port should fail before they
	// recover anything.
	if n.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
		return n, fmt.Errorf("listen for clients: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := n.openStores(ctx); err != nil {
		return n, err
	}
	if err := n.join(ctx); err != nil {
		return n, err
	}
	n.serve()
	n.wg.Go(n.reconcile)
	n.log.Info("node is ready", "node", string(n.dir.Node), "cluster", n.dir.Cluster, "api", n.Addr().String(),
		"facets", n.table.Counts().Facets, "start_ms", time.Since(n.started).Milliseconds())
	return n, nil
}

// openStores opens what is on disk.
func (n *Node) openStores(ctx context.Context) (err error) {
	var report replica.Report
	n.replicas, report, err = replica.Open(replica.Options{
		FS: disk.OS(n.dir.path), Dir: "data", StoreID: [16]byte(n.dir.store),
		SingleNode: true, LogBudget: n.cfg.LogBudget, Fatal: n.fail, Logger: n.log,
	})
	if err != nil {
		return fmt.Errorf("open replica store: %w", err)
	}
	if report.Holed+report.Uncertain > 0 {
		n.log.Error("the commit log was damaged; the facets named above are out of service or may lack their last commit",
			"out_of_service", report.Holed, "uncertain", report.Uncertain)
	}
	n.table = placement.NewTable()
	n.raft, err = consensus.Open(consensus.Config{
		ID: n.dir.Node, Dir: filepath.Join(n.dir.path, "raft"), Cluster: n.dir.cluster,
		Bootstrap: true, StateMachine: n.table, Logger: n.log, Fatal: n.fail,
	})
	if err != nil {
		return fmt.Errorf("open placement log: %w", err)
	}
	if err := n.raft.WaitLeader(ctx); err != nil {
		return fmt.Errorf("wait for a placement leader: %w", err)
	}
	return n.raft.Barrier(ctx)
}

// join announces this process life and starts the owners.
func (n *Node) join(ctx context.Context) error {
	set, err := placement.NewSet(placement.Member{Node: n.dir.Node, Store: n.dir.store})
	if err != nil {
		return err
	}
	n.rows = &proposals{
		table:    n.table,
		proposer: placement.Proposer{Propose: n.raft.Propose},
		self:     placement.Owner{Node: n.dir.Node, Boot: n.boot},
		set:      set,
	}
	if err := n.rows.register(ctx, n.dir.cluster, machineID(), n.advertised(), n.cfg.PeerListen, n.cfg.Zone, n.cfg.Version, n.dir.store); err != nil {
		return err
	}
	n.limits = engine.Limits{FacetBytes: n.cfg.FacetBytes, StatementTime: n.cfg.StatementTimeout}
	n.owners, err = owner.New(owner.Options{
		Placement: n.rows,
		Replica:   n.ownCopy,
		Admit:     n.admit,
		Limits:    n.limits,
		IdleAfter: n.cfg.IdleAfter, MemoryBudget: n.cfg.MemoryBudget,
		TxIdle: n.cfg.TxIdle, TxTotal: n.cfg.TxTotal,
		Logger: n.log,
	})
	return err
}

// serve answers clients on the API port.
func (n *Node) serve() {
	n.native = native.New(svc{n}, native.Options{
		Node: string(n.dir.Node), Cluster: n.dir.Cluster, Software: "facetd/" + n.cfg.Version, Log: n.log,
	})
	host, _, _ := net.SplitHostPort(n.Addr().String())
	ip := net.ParseIP(host)
	handler := httpapi.New(svc{n}, httpapi.Options{
		Log: n.log, Native: n.native, NativePath: wire.Path, Version: n.cfg.Version,
		LoopbackHosts: ip != nil && ip.IsLoopback(),
	})
	n.server = httpapi.NewServer(handler, httpapi.ServerOptions{Log: n.log})
	n.wg.Go(func() {
		if err := n.server.Serve(n.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			n.fail(fmt.Errorf("serve clients: %w", err))
		}
	})
}

// admit says whether an ordinary commit would find room in the log (rule R15).
func (n *Node) admit() error {
	err := n.replicas.Admit(admitBytes)
	if errors.Is(err, replica.ErrBusy) {
		return nil // it will be taken, a little later
	}
	return copyError(err)
}

// admitBytes is the size of commit asked for: larger ones find the reserve.
const admitBytes = 64 << 10

// Addr is the address the API port is bound to.
func (n *Node) Addr() net.Addr { return n.listener.Addr() }

// ID is the node's id.
func (n *Node) ID() cluster.NodeID { return n.dir.Node }

// advertised is where clients are told to come.
func (n *Node) advertised() string {
	if n.cfg.Advertise != "" {
		return n.cfg.Advertise
	}
	return n.Addr().String()
}

// Failed gives the error after which the node must not go on (rule R13): the
// process is to exit at once, without Close.
func (n *Node) Failed() <-chan error { return n.failed }

// fail is called by whatever can no longer keep its promises. Nothing is
// acknowledged after it.
func (n *Node) fail(err error) {
	n.log.Error("node failed; exiting without further acknowledgement", "error", err)
	select {
	case n.failed <- err:
	default:
	}
}

// Close stops the node: requests under way are answered, new ones are refused,
// open facets are checkpointed as far as ctx allows. What is not checkpointed is in
// the log. It may be called twice.
func (n *Node) Close(ctx context.Context) error {
	n.closing.Do(func() {
		n.log.Info("node is stopping")
		var errs []error
		// The native connections are taken over from the HTTP server and drain on
		// their own.
		if err := n.native.Close(ctx); err != nil && !errors.Is(err, ctx.Err()) {
			errs = append(errs, err)
		}
		if err := n.server.Shutdown(ctx); err != nil {
			n.server.Close()
		}
		errs = append(errs, n.release())
		n.closed = errors.Join(errs...)
	})
	return n.closed
}

// ownersTimeout is how long Close checkpoints open facets.
const ownersTimeout = 8 * time.Second

// release gives everything back, in the reverse order of Open. It works on a node
// that was opened in part.
func (n *Node) release() error {
	n.cancel()
	var errs []error
	if n.owners != nil {
		ctx, cancel := context.WithTimeout(context.Background(), ownersTimeout)
		if err := n.owners.Close(ctx); err != nil {
			n.log.Info("some facets were not checkpointed; their commits are in the log", "reason", err)
		}
		cancel()
	}
	if n.listener != nil && n.server == nil {
		errs = append(errs, n.listener.Close())
	}
	n.wg.Wait()
	if n.raft != nil {
		errs = append(errs, n.raft.Close())
	}
	if n.replicas != nil {
		errs = append(errs, n.replicas.Close())
	}
	if n.dir != nil {
		errs = append(errs, n.dir.Close())
	}
	return errors.Join(errs...)
}
