package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/cluster/gossip"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/audit"
	"github.com/facetd/facetd/node/auth"
	"github.com/facetd/facetd/node/credentials"
	"github.com/facetd/facetd/node/follower"
	"github.com/facetd/facetd/node/httpapi"
	"github.com/facetd/facetd/node/keeper"
	"github.com/facetd/facetd/node/lease"
	"github.com/facetd/facetd/node/native"
	"github.com/facetd/facetd/node/owner"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/node/quota"
	"github.com/facetd/facetd/node/scrub"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/node/steward"
	"github.com/facetd/facetd/node/telemetry"
	"github.com/facetd/facetd/placement"
)

// Node is one running node.
type Node struct {
	cfg  Config
	log  *slog.Logger
	dir  *dataDir
	boot cluster.BootID

	belonged cluster.ID // the cluster of the data directory when the node was opened
	table    *placement.Table
	raft     atomic.Pointer[consensus.Node]
	replicas *replica.Store
	keeper   *keeper.Keeper
	peers    *peer.Transport // nil for a node that is alone
	gossip   *gossip.Gossip  // nil for a node that is alone
	view     atomic.Pointer[cluster.View]
	removed  sync.Map // of cluster.NodeID: removed while this node led
	acks     acks
	door     door
	court    *lease.Server
	rows     *proposals
	holder   *lease.Holder
	grants   *lease.Grants
	steward  *steward.Steward
	tenants  *quota.Tenants
	owners   *owner.Manager
	copies   *follower.Manager // reads of facets that others own
	scrubber *scrub.Scrubber
	auditor  atomic.Pointer[audit.Auditor] // nil for a node that is alone, and while it starts
	native   *native.Server
	keys     *auth.Keyring // of tokens; nil lets everybody in
	secrets  *credentials.Watcher
	tls      *credentials.API // nil: the API port and requests to those of others are plain
	requests *telemetry.Recorder
	registry *prometheus.Registry

	stopTraces func(context.Context) error // nil where none are exported
	limits     engine.Limits

	counts counts

	following sync.Mutex // held by catchUp
	changes   *placement.Watcher

	listener net.Listener
	server   *http.Server
	handler  atomic.Pointer[http.Handler] // nil while the node starts
	faces    *httpapi.Handler
	started  time.Time

	hinted  cluster.Member // of reconcile: what was told by gossip last
	stalled bool           // of reconcile: the lease is paused because the disk stalls

	ctx    context.Context // ends when the node closes
	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed chan error
	giveUp context.CancelCauseFunc // ends Open

	closing sync.Once
	closed  error
}

// startTimeout bounds the way from Open to a node that answers, for one that is
// alone. One that joins others waits for them as long as it is let.
const startTimeout = 30 * time.Second

// Open starts a node on its data directory. When it returns, the node answers.
// Before that its API port says that it is starting.
func Open(ctx context.Context, cfg Config) (n *Node, err error) {
	cfg.fill()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("start node: %w", err)
	}
	n = &Node{cfg: cfg, log: cfg.Logger, boot: cluster.NewBootID(), started: time.Now(), failed: make(chan error, 1)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	// A node that fails while it starts waits for nobody any more (rule R13).
	ctx, n.giveUp = context.WithCancelCause(ctx)
	defer n.giveUp(nil)
	defer func() {
		select {
		case failure := <-n.failed:
			err = failure
		default:
		}
		if err != nil {
			err = fmt.Errorf("start node: %w", errors.Join(err, n.stop(context.Background())))
			n = nil
		}
	}()
	if err := n.openSecrets(); err != nil {
		return n, err
	}
	if err := n.openMachine(); err != nil {
		return n, err
	}
	if n.alone() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, startTimeout)
		defer cancel()
	}
	if err := n.openStores(); err != nil {
		return n, err
	}
	if err := n.openTelemetry(); err != nil {
		return n, err
	}
	if err := n.openCluster(); err != nil {
		return n, err
	}
	if err := n.openLeases(); err != nil {
		return n, err
	}
	if err := n.enter(ctx); err != nil {
		return n, err
	}
	if err := n.openOwners(); err != nil {
		return n, err
	}
	if err := n.openScrub(); err != nil {
		return n, err
	}
	n.openMetrics()
	n.wg.Go(n.reconcile)
	n.open()
	n.log.Info("node is ready", "node", string(n.dir.Node), "cluster", n.dir.Cluster, "api", n.advertised(),
		"facets", n.table.Counts().Facets, "start_ms", time.Since(n.started).Milliseconds())
	return n, nil
}

// openStores opens what is on disk.
func (n *Node) openStores() (err error) {
	var report replica.Report
	n.replicas, report, err = replica.Open(replica.Options{
		FS: n.cfg.Platform.FS, Dir: "data", StoreID: [16]byte(n.dir.store),
		Log: n.cfg.Platform.Log, LogBudget: n.cfg.LogBudget, Fatal: n.fail, Logger: n.log,
	})
	if err != nil {
		return fmt.Errorf("open replica store: %w", err)
	}
	if report.Holed+report.Uncertain > 0 {
		n.log.Error("the commit log was damaged; the facets named above are out of service here, or may lack their last commit, until their other replicas heal them",
			"out_of_service", report.Holed, "uncertain", report.Uncertain)
	}
	n.table = placement.NewTable()
	n.rows = &proposals{
		n: n, table: n.table, propose: n.propose,
		self: placement.Owner{Node: n.dir.Node, Boot: n.boot}, replicas: n.cfg.Replicas,
	}
	n.keeper, err = keeper.New(keeper.Options{
		Store: n.replicas, Table: n.table, Node: n.dir.Node, StoreID: n.dir.store, Logger: n.log,
	})
	return err
}

// openOwners starts to own facets.
func (n *Node) openOwners() (err error) {
	n.limits = engine.Limits{FacetBytes: n.cfg.FacetBytes, StatementTime: n.cfg.StatementTimeout}
	if n.tenants, err = quota.New(quota.Options{Table: n.table, Own: n.ownBytes, Others: n.othersBytes}); err != nil {
		return err
	}
	n.wg.Go(n.sweepTenants)
	opts := owner.Options{
		Self:      owner.Member{Node: n.dir.Node, Store: n.dir.store, Boot: n.boot},
		Placement: n.rows,
		Store:     n.replicas,
		Lease:     n.holder,
		Led:       n.led,
		Awake:     n.awake,
		Warm:      n.warm,
		Seen:      func(id cluster.NodeID) bool { return n.seen(id) == cluster.StatusAlive },
		Admit:     n.admit,
		Tenants:   n.tenants,
		Limits:    n.limits,
		IdleAfter: n.cfg.IdleAfter, MemoryBudget: n.cfg.MemoryBudget,
		TxIdle: n.cfg.TxIdle, TxTotal: n.cfg.TxTotal,
		Logger: n.log,
	}
	if n.peers != nil {
		opts.Peers = n.peers
	}
	if n.owners, err = owner.New(opts); err != nil {
		return err
	}
	n.copies, err = follower.New(follower.Options{
		Store: n.replicas, Table: n.table, Node: n.dir.Node, StoreID: n.dir.store,
		Owner: n.owners.Submit, Tell: n.askOwner, Tenants: n.tenants,
		Limits: n.limits, IdleAfter: n.cfg.IdleAfter, Logger: n.log,
	})
	if err != nil {
		return err
	}
	n.following.Lock()
	n.changes = n.table.Watch() // before the first session begins: orders come as soon as there are owners
	n.following.Unlock()
	n.acks.owners.Store(n.owners)
	n.wg.Go(n.follow)
	return nil
}

// serve answers clients on the API port: that the node is starting, until open.
func (n *Node) serve() {
	starting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := n.handler.Load(); h != nil {
			(*h).ServeHTTP(w, r)
			return
		}
		n.answerStarting(w, r)
	})
	n.server = httpapi.NewServer(starting, httpapi.ServerOptions{Log: n.log, MaxConns: maxConns()})
	serve := func() error { return n.server.Serve(n.listener) }
	if n.encrypted() {
		n.server.TLSConfig = n.tls.Server()
		serve = func() error { return n.server.ServeTLS(n.listener, "", "") }
	}
	n.wg.Go(func() {
		if err := serve(); err != nil && !errors.Is(err, http.ErrServerClosed) {
			n.fail(fmt.Errorf("serve clients: %w", err))
		}
	})
}

// answerStarting is all a node says that has not met its cluster yet.
func (n *Node) answerStarting(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/livez" {
		fmt.Fprintln(w, `{"live":true}`)
		return
	}
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintln(w, `{"error":{"code":"unavailable","message":"the node is starting: it waits for its cluster or replays its log; try again, or ask another node"}}`)
}

// open lets clients in.
func (n *Node) open() {
	if n.listener == nil {
		return // a platform without ports asks Service
	}
	onWire := native.Options{
		Node: string(n.dir.Node), Cluster: n.dir.Cluster, Software: "facetd/" + n.cfg.Version, Log: n.log,
		MaxConns: maxConns(),
	}
	host, _, _ := net.SplitHostPort(n.Addr().String())
	ip := net.ParseIP(host)
	onHTTP := httpapi.Options{
		Log: n.log, Audit: n.cfg.Audit, NativePath: wire.Path, Version: n.cfg.Version,
		LoopbackHosts: n.keys == nil && ip != nil && ip.IsLoopback(), BatonSecret: n.batonSecret(),
		Operator: svc{n}, Tenants: svc{n},
	}
	if n.tls != nil {
		onHTTP.ForwardTLS = n.tls.Client
	}
	if n.keys != nil {
		onHTTP.Grant = n.keys.Verify
		onWire.Authenticate = func(tok string) (native.Bearer, error) {
			b, err := n.keys.Bearer(tok)
			if err != nil {
				return nil, err
			}
			return b, nil
		}
	}
	n.native = native.New(svc{n}, onWire)
	if n.keys != nil {
		n.keys.OnChange(n.native.Recheck)
	}
	onHTTP.Native = n.native
	n.faces = httpapi.New(svc{n}, onHTTP)
	var handler http.Handler = n.faces
	n.handler.Store(&handler)
}

// openTelemetry makes what watches requests.
func (n *Node) openTelemetry() error {
	opt := telemetry.Options{Slow: n.cfg.SlowRequest, Log: n.log}
	if n.cfg.OTLPEndpoint != "" {
		var err error
		if opt.TracerProvider, n.stopTraces, err = telemetry.Export(n.ctx, n.cfg.OTLPEndpoint, string(n.dir.Node), n.cfg.Version, n.log); err != nil {
			return err
		}
	}
	n.requests = telemetry.New(opt)
	return nil
}

// batonSecret is the same on every node, so that a libSQL stream survives a move of
// its facet. It is no secret and keeps nobody out: the token is judged for every
// request of a stream, against the facet the stream is of, and which stream a baton
// names is 128 random bits that only its client was told.
func (n *Node) batonSecret() []byte {
	sum := sha256.Sum256([]byte("facetd baton " + n.dir.Cluster))
	return sum[:]
}

// openMachine takes hold of what the node runs on.
func (n *Node) openMachine() (err error) {
	if n.cfg.Platform != nil {
		n.dir = &dataDir{Identity: n.cfg.Platform.Identity, save: n.cfg.Platform.Save}
		return nil
	}
	if n.dir, err = openDataDir(n.cfg.Dir, n.cfg.ID); err != nil {
		return err
	}
	n.cfg.Platform = &Platform{FS: disk.OS(n.dir.path)}
	// The port first: two nodes told to use one port should fail before they
	// recover anything.
	if n.listener, err = net.Listen("tcp", n.cfg.Listen); err != nil {
		return fmt.Errorf("listen for clients: %w", err)
	}
	n.serve()
	return nil
}

// alone reports whether the node can never have others beside it.
func (n *Node) alone() bool { return n.cfg.PeerListen == "" }

// admit says whether an ordinary commit would find room in the log (rule R15).
func (n *Node) admit() error {
	err := n.replicas.Admit(admitBytes)
	if errors.Is(err, replica.ErrBusy) {
		return nil // it will be taken, a little later
	}
	return owner.CopyError(err)
}

// admitBytes is the size of commit asked for: larger ones find the reserve.
const admitBytes = 64 << 10

// Service is the node without its faces.
func (n *Node) Service() service.Service { return svc{n} }

// Addr is the address the API port is bound to, nil on a platform without ports.
func (n *Node) Addr() net.Addr {
	if n.listener == nil {
		return nil
	}
	return n.listener.Addr()
}

// PeerAddr is the address the peer port is bound to, nil on a node that is alone.
func (n *Node) PeerAddr() net.Addr {
	if n.peers == nil {
		return nil
	}
	return n.peers.Addr()
}

// ID is the node's id.
func (n *Node) ID() cluster.NodeID { return n.dir.Node }

// advertised is where clients are told to come: an address, with a scheme before it
// where that is not http.
func (n *Node) advertised() string {
	at := n.cfg.Advertise
	switch {
	case at == "" && n.listener == nil:
		return ""
	case at == "":
		at = n.Addr().String()
	case strings.Contains(at, "://"):
		return at
	}
	if n.encrypted() {
		return "https://" + at
	}
	return at
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
	n.giveUp(err)
}

// Close stops the node: facets in use are handed to other nodes, requests under way
// are answered, new ones are refused, open facets are checkpointed as far as ctx
// allows. What is not checkpointed is in the log. It may be called twice.
func (n *Node) Close(ctx context.Context) error {
	n.closing.Do(func() {
		n.log.Info("node is stopping")
		n.closed = n.stop(ctx)
	})
	return n.closed
}

const (
	// leaveTimeout is how long a node that stops hands its facets over.
	leaveTimeout = 10 * time.Second
	// ownersTimeout is how long Close checkpoints open facets.
	ownersTimeout = 8 * time.Second
	// goodbyeTimeout bounds telling the others by gossip.
	goodbyeTimeout = time.Second
	// tracesTimeout bounds sending the last traces.
	tracesTimeout = 2 * time.Second
)

// stop gives everything back, in the reverse order of Open. It works on a node that
// was opened in part.
func (n *Node) stop(ctx context.Context) error {
	var errs []error
	if n.owners != nil {
		n.leave(ctx)
	}
	if n.keys != nil {
		n.keys.Close()
	}
	if n.secrets != nil {
		n.secrets.Close()
	}
	if n.native != nil {
		// The native connections are taken over from the HTTP server and drain on
		// their own.
		if err := n.native.Close(ctx); err != nil && !errors.Is(err, ctx.Err()) {
			errs = append(errs, err)
		}
	}
	if n.server != nil {
		if err := n.server.Shutdown(ctx); err != nil {
			n.server.Close()
		}
	}
	if n.faces != nil {
		n.faces.Close()
	}
	n.cancel()
	if n.copies != nil {
		errs = append(errs, n.copies.Close())
	}
	if a := n.auditor.Load(); a != nil {
		errs = append(errs, a.Close())
	}
	if n.scrubber != nil {
		errs = append(errs, n.scrubber.Close())
	}
	if n.owners != nil {
		ctx, cancel := context.WithTimeout(context.Background(), ownersTimeout)
		if err := n.owners.Close(ctx); err != nil {
			n.log.Info("some facets were not checkpointed; their commits are in the log", "reason", err)
		}
		cancel()
	}
	errs = append(errs, n.stopCluster())
	n.wg.Wait()
	if n.changes != nil {
		n.changes.Close()
	}
	if n.replicas != nil {
		errs = append(errs, n.replicas.Close())
	}
	if n.dir != nil {
		errs = append(errs, n.dir.Close())
	}
	if n.stopTraces != nil {
		ctx, cancel := context.WithTimeout(context.Background(), tracesTimeout)
		if err := n.stopTraces(ctx); err != nil {
			n.log.Warn("the last traces are lost", "error", err)
		}
		cancel()
	}
	return errors.Join(errs...)
}

// stopCluster ends what connects this node with others.
func (n *Node) stopCluster() error {
	var errs []error
	if n.gossip != nil {
		ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
		_ = n.gossip.Leave(ctx) // whoever did not hear finds out
		cancel()
	}
	if n.steward != nil {
		errs = append(errs, n.steward.Close())
	}
	if n.peers != nil {
		errs = append(errs, n.peers.Close())
	}
	if n.holder != nil {
		errs = append(errs, n.holder.Close())
	}
	if n.grants != nil {
		errs = append(errs, n.court.Close(), n.grants.Close())
	}
	if r := n.consensus(); r != nil {
		errs = append(errs, r.Close())
	}
	if n.keeper != nil {
		errs = append(errs, n.keeper.Close())
	}
	if n.gossip != nil {
		errs = append(errs, n.gossip.Close())
	}
	return errors.Join(errs...)
}
