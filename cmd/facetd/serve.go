package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node"
)

// closeTimeout bounds a graceful stop: what is not checkpointed by then is in the
// log.
const closeTimeout = 10 * time.Second

// nodeFlags are the flags dev and serve share.
type nodeFlags struct {
	cfg          node.Config
	memory       byteSize
	log          byteSize
	facet        byteSize
	scrub        byteSize
	logLevel     slog.LevelVar
	logFormat    string
	pprof        string
	stopWithIn   bool
	config       string
	defaultLevel slog.Level
}

func (n *nodeFlags) declare(fs *flag.FlagSet) {
	n.logLevel.Set(n.defaultLevel)
	fs.DurationVar(&n.cfg.IdleAfter, "idle-after", 0, "hibernate a facet after this `TIME` without requests (default 30s)")
	fs.DurationVar(&n.cfg.TxIdle, "tx-idle", 0, "roll an interactive transaction back after this `TIME` without statements (default 5s)")
	fs.DurationVar(&n.cfg.TxTotal, "tx-total", 0, "roll an interactive transaction back after this `TIME` in all (default 30s)")
	fs.DurationVar(&n.cfg.StatementTimeout, "statement-timeout", 0, "longest `TIME` one statement may run (default 10s)")
	fs.Var(&n.memory, "memory-budget", "`SIZE` of memory for open facets, 512MiB for example (default 1GiB)")
	fs.Var(&n.log, "log-budget", "`SIZE` of the commit log from which facets are checkpointed to shorten it (default 512MiB)")
	fs.Var(&n.facet, "facet-bytes", "largest `SIZE` of one database (default 1GiB)")
	fs.DurationVar(&n.cfg.ScrubEvery, "scrub-every", 0, "read everything on disk again, and check it, within this `TIME` (default 168h, a week)")
	fs.Var(&n.scrub, "scrub-rate", "read at most this `SIZE` a second for that (default 16MiB)")
	fs.DurationVar(&n.cfg.CompareEvery, "compare-every", 0, "compare the copies of each facet over the nodes that keep them within this `TIME` (default 1h)")
	fs.TextVar(&n.logLevel, "log-level", &n.logLevel, "least `LEVEL` of messages: debug, info, warn or error")
	fs.StringVar(&n.logFormat, "log-format", "text", "`FORMAT` of messages: text or json")
	fs.DurationVar(&n.cfg.SlowRequest, "slow-request", 0, "log requests that take this `TIME` or longer, with their SQL (default: none)")
	fs.StringVar(&n.cfg.OTLPEndpoint, "otlp-endpoint", "", "tell the collector of traces at `URL` (OTLP over HTTP) of requests their clients trace")
	fs.StringVar(&n.pprof, "pprof", "", "serve profiles on this loopback `ADDR`, 127.0.0.1:6060 for example")
	fs.BoolVar(&n.stopWithIn, "stop-on-eof", false, "stop when standard input ends: for programs that start a node as their child")
	fs.StringVar(&n.config, "config", "", "read settings from `FILE`: lines \"name = value\", named as the flags")
}

func (n *nodeFlags) finish(p *program) error {
	n.cfg.MemoryBudget, n.cfg.LogBudget, n.cfg.FacetBytes = int64(n.memory), int64(n.log), int64(n.facet)
	n.cfg.ScrubRate = int64(n.scrub)
	n.cfg.Version = versionText()
	opts := &slog.HandlerOptions{Level: &n.logLevel}
	switch n.logFormat {
	case "text":
		n.cfg.Logger = slog.New(slog.NewTextHandler(p.stderr, opts))
		n.cfg.Audit = slog.New(slog.NewTextHandler(p.stderr, nil))
	case "json":
		n.cfg.Logger = slog.New(slog.NewJSONHandler(p.stderr, opts))
		n.cfg.Audit = slog.New(slog.NewJSONHandler(p.stderr, nil))
	default:
		return usagef("--log-format is text or json, not %q", n.logFormat)
	}
	if w := broken.Warning(); w != "" {
		n.cfg.Logger.Error(w)
	}
	for _, f := range []struct {
		name string
		d    time.Duration
	}{{"idle-after", n.cfg.IdleAfter}, {"tx-idle", n.cfg.TxIdle}, {"tx-total", n.cfg.TxTotal}, {"statement-timeout", n.cfg.StatementTimeout}, {"scrub-every", n.cfg.ScrubEvery}, {"compare-every", n.cfg.CompareEvery}} {
		if f.d < 0 {
			return usagef("--%s is negative: %v", f.name, f.d)
		}
	}
	if n.pprof != "" && !node.IsLoopback(n.pprof) {
		return usagef("--pprof shows the inside of the process, so it listens on loopback only, not on %s", n.pprof)
	}
	return nil
}

func serveCommand() *command {
	n := &nodeFlags{}
	return &command{
		name: "serve", short: "run a node",
		long: `Runs one node until SIGINT or SIGTERM, which stop it gracefully within 10 s; a
second signal stops it at once. Either way nothing that was acknowledged is lost.

A cluster begins when the number of nodes that --bootstrap-expect names have found
each other through --join, all of them with the same number. Nodes that come later
say --join only. Data directory and --node-id belong together for life.

Whoever comes to the API port shows a token, signed with a key whose public half is in
the file --auth-keys names; "facetd token" makes keys and tokens. The file is read again
when it changes, and on SIGHUP. --insecure lets everybody in instead.

Ports that other machines reach are encrypted: the API port with --tls-cert, the peer
port with --peer-cert and --peer-ca, gossip with --gossip-keys; "facetd cert" makes
certificates. These files are read again when they change, and on SIGHUP.
--allow-plaintext goes without, on a network that is private.

Settings come from flags, then the environment (FACETD_DATA for --data), then the
file --config names, then the defaults.`,
		examples: []string{
			"facetd serve --auth-keys auth-keys.json --node-id n1 --data /var/lib/facetd",
			"facetd serve --config /etc/facetd.conf",
			"facetd serve --auth-keys auth-keys.json --node-id n1 --data /var/lib/facetd --listen 10.0.0.1:7400 \\",
			"    --peer-listen 10.0.0.1:7401 --gossip-listen 10.0.0.1:7402 --tls-cert n1.pem --tls-ca ca.pem \\",
			"    --peer-cert n1.pem --peer-ca ca.pem --gossip-keys gossip.keys \\",
			"    --join 10.0.0.1:7402,10.0.0.2:7402,10.0.0.3:7402 --bootstrap-expect 3",
		},
		setup: func(fs *flag.FlagSet) action {
			var id string
			var join list
			fs.StringVar(&id, "node-id", "", "`ID` of the node, for life (default: the one in the data directory, or node-1)")
			fs.StringVar(&n.cfg.Dir, "data", "", "data directory `DIR`; needed")
			fs.StringVar(&n.cfg.Listen, "listen", "127.0.0.1:7400", "`ADDR` of the API")
			fs.StringVar(&n.cfg.PeerListen, "peer-listen", "", "`ADDR` for other nodes (default in a cluster: that of the API, port + 1)")
			fs.StringVar(&n.cfg.GossipListen, "gossip-listen", "", "`ADDR` for gossip, TCP and UDP (default in a cluster: that of the API, port + 2)")
			fs.StringVar(&n.cfg.Advertise, "advertise", "", "`ADDR` clients are sent to (default: that of the API)")
			fs.Var(&join, "join", "find the cluster by the gossip addresses `ADDR,…` of some of its nodes; this one may be among them")
			fs.IntVar(&n.cfg.BootstrapExpect, "bootstrap-expect", 0, "begin a cluster when `N` nodes that say the same have met (default 1; with --join: never)")
			fs.IntVar(&n.cfg.Replicas, "replicas", 0, "keep `N` copies of a new facet (default 3, where there are as many nodes)")
			fs.StringVar(&n.cfg.TLS.Cert, "tls-cert", "", "PEM `FILE` with the certificate of the API port, which names where clients reach it")
			fs.StringVar(&n.cfg.TLS.Key, "tls-key", "", "PEM `FILE` with the key of --tls-cert (default: the file of the certificate)")
			fs.StringVar(&n.cfg.TLS.CA, "tls-ca", "", "PEM `FILE` with the CA of other nodes' --tls-cert (default: those of the system)")
			fs.StringVar(&n.cfg.TLSClientCA, "tls-client-ca", "", "want certificates of clients and nodes at the API port, good by the CA in this PEM `FILE`")
			fs.StringVar(&n.cfg.PeerTLS.Cert, "peer-cert", "", "PEM `FILE` with this node's certificate for other nodes, which names --node-id")
			fs.StringVar(&n.cfg.PeerTLS.Key, "peer-key", "", "PEM `FILE` with the key of --peer-cert (default: the file of the certificate)")
			fs.StringVar(&n.cfg.PeerTLS.CA, "peer-ca", "", "PEM `FILE` with the CA of all nodes' certificates")
			fs.BoolVar(&n.cfg.AllowPlaintext, "allow-plaintext", false, "let other machines reach ports that are not encrypted: for a private network")
			fs.StringVar(&n.cfg.GossipKeys, "gossip-keys", "", "`FILE` with keys of gossip in base64, one a line; the first encrypts")
			fs.StringVar(&n.cfg.ClusterName, "cluster-name", "", "`NAME` that keeps clusters on one network apart (default facetd)")
			fs.StringVar(&n.cfg.PeerAdvertise, "peer-advertise", "", "`ADDR` other nodes are told (default: that of --peer-listen)")
			fs.StringVar(&n.cfg.GossipAdvertise, "gossip-advertise", "", "`ADDR` gossip is told (default: that of --gossip-listen)")
			fs.StringVar(&n.cfg.Zone, "zone", "", "failure `ZONE` of the node")
			fs.StringVar(&n.cfg.AuthKeys, "auth-keys", "", "`FILE` with the public keys of tokens, a JWK set")
			fs.BoolVar(&n.cfg.Insecure, "insecure", false, "want no tokens: let everybody who reaches the API port do everything")
			n.declare(fs)
			return func(ctx context.Context, p *program, _ []string) error {
				switch {
				case n.cfg.Dir == "":
					return usagef("serve needs --data DIR")
				case n.cfg.BootstrapExpect < 0 || n.cfg.Replicas < 0:
					return usagef("--bootstrap-expect and --replicas are not negative")
				case n.cfg.BootstrapExpect > 1 && len(join) == 0:
					return usagef("--bootstrap-expect %d needs --join with the addresses of the other nodes", n.cfg.BootstrapExpect)
				case n.cfg.AuthKeys == "" && !n.cfg.Insecure:
					return usagef("serve needs --auth-keys FILE with the keys of tokens (\"facetd token keygen\" makes one), or --insecure to let everybody who reaches the port use every facet")
				case n.cfg.AuthKeys != "" && n.cfg.Insecure:
					return usagef("--auth-keys wants tokens and --insecure wants none; say one of them")
				}
				if id != "" {
					var err error
					if n.cfg.ID, err = cluster.ParseNodeID(id); err != nil {
						return usagef("--node-id: %v", err)
					}
				}
				if n.cfg.Join = join; len(join) > 0 {
					if err := n.clusterPorts(); err != nil {
						return err
					}
				}
				if err := n.cfg.Plaintext(); err != nil {
					return usagef("%v", err)
				}
				if err := n.finish(p); err != nil {
					return err
				}
				if !n.cfg.Insecure {
					return n.serve(ctx, p, serveReady)
				}
				warning := "INSECURE: there are no tokens; everybody who reaches the port can read, change and delete every facet"
				if !node.IsLoopback(n.cfg.Listen) {
					warning += ", and the port is not on loopback"
				}
				if _, told := p.env(underDev); told {
					n.cfg.Audit = nil // as with dev
				} else {
					n.cfg.Logger.Warn(warning, "listen", n.cfg.Listen)
				}
				return n.serve(ctx, p, serveReady)
			}
		},
	}
}

// serveReady is the line that scripts wait for.
func serveReady(w io.Writer, nd *node.Node) {
	fmt.Fprintf(w, "ready: node %s at %s/\n", nd.ID(), nd.URL())
}

// clusterPorts fills in the addresses for other nodes where none are given.
func (n *nodeFlags) clusterPorts() error {
	host, text, err := net.SplitHostPort(n.cfg.Listen)
	if err != nil {
		return usagef("--listen: %v", err)
	}
	port, err := strconv.Atoi(text)
	for i, addr := range []*string{&n.cfg.PeerListen, &n.cfg.GossipListen} {
		if *addr != "" {
			continue
		}
		if err != nil || port == 0 || port+i+1 > 1<<16-1 {
			return usagef("with --listen %s, --peer-listen and --gossip-listen are needed", n.cfg.Listen)
		}
		*addr = net.JoinHostPort(host, strconv.Itoa(port+i+1))
	}
	return nil
}

func devCommand() *command {
	n := &nodeFlags{defaultLevel: slog.LevelWarn}
	return &command{
		name: "dev", short: "start a node on this machine, for trying and developing",
		long: `Runs a node on loopback, without tokens, and prints how to reach it. Data stay in
the data directory; delete it to begin anew. What is acknowledged is on disk: kill
it any time.

With --nodes N it runs a cluster of N, each a process of its own with its data in
DIR/node-k: node k listens at port + 10*(k-1), for its peers and for gossip at the
two ports after it. What a node writes stands behind its name. When one ends, or is
killed, the others go on; all of them end with this command.`,
		examples: []string{"facetd dev", "facetd dev --nodes 3", "facetd dev --data /tmp/try --listen 127.0.0.1:9000"},
		setup: func(fs *flag.FlagSet) action {
			fs.StringVar(&n.cfg.Dir, "data", "./facetd-data", "data directory `DIR`")
			fs.StringVar(&n.cfg.Listen, "listen", "127.0.0.1:7400", "loopback `ADDR` of the API")
			nodes := fs.Int("nodes", 1, "number `N` of nodes to run")
			n.declare(fs)
			return func(ctx context.Context, p *program, _ []string) error {
				switch {
				case *nodes < 1 || *nodes > maxDevNodes:
					return usagef("--nodes is %d; write 1 to %d", *nodes, maxDevNodes)
				case !node.IsLoopback(n.cfg.Listen):
					return usagef("dev lets everybody in, so it listens on loopback only, not on %q; use \"facetd serve --insecure\" to open a port to others", n.cfg.Listen)
				}
				if err := n.finish(p); err != nil {
					return err
				}
				if *nodes > 1 {
					return n.serveCluster(ctx, p, *nodes, passedOn(fs))
				}
				if _, err := os.Stat(filepath.Join(n.cfg.Dir, "node-1", "node.json")); err == nil {
					return usagef("%s holds the data of a cluster; say --nodes, or give the node another directory with --data", n.cfg.Dir)
				}
				n.cfg.Insecure = true
				n.cfg.Audit = nil // whoever is at the terminal knows; it shows what goes wrong only
				return n.serve(ctx, p, func(w io.Writer, nd *node.Node) { banner(w, nd.Addr().String(), n.cfg.Dir) })
			}
		},
	}
}

// serveCluster runs a cluster of child processes.
func (n *nodeFlags) serveCluster(ctx context.Context, p *program, nodes int, extra []string) error {
	if n.pprof != "" {
		return usagef("--pprof is the address of one process; start the nodes with facetd serve to look into one")
	}
	d, err := newDevCluster(p, n.cfg.Dir, n.cfg.Listen, nodes, extra)
	if err != nil {
		return err
	}
	return d.run(ctx, p, n.stdinEnds(p), func(w io.Writer, list []*devNode) { clusterBanner(w, list, n.cfg.Dir) })
}

// stdinEnds gives a channel that is closed with the end of standard input, if that
// is to stop a node.
func (n *nodeFlags) stdinEnds(p *program) <-chan struct{} {
	eof := make(chan struct{})
	if n.stopWithIn {
		go func() {
			io.Copy(io.Discard, p.stdin) // an error ends it as well
			close(eof)
		}()
	}
	return eof
}

// banner tells a person how to reach the node.
func banner(w io.Writer, addr, dir string) {
	fmt.Fprintf(w, "facetd %s is ready at http://%s/\ndata in %s; no tokens, loopback only; Ctrl-C stops it\n", versionText(), addr, absolute(dir))
	howTo(w, addr)
}

// clusterBanner tells a person how to reach the nodes.
func clusterBanner(w io.Writer, nodes []*devNode, dir string) {
	fmt.Fprintf(w, "facetd %s is ready: %d nodes, any of which answers for all\n", versionText(), len(nodes))
	first := ""
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, n := range nodes {
		switch {
		case n.ended:
			fmt.Fprintf(t, "  %s\thas ended\n", n.name)
		default:
			fmt.Fprintf(t, "  %s\t%s/\tpid %d\n", n.name, n.url, n.pid)
			if first == "" {
				first = strings.TrimPrefix(n.url, "http://")
			}
		}
	}
	t.Flush()
	fmt.Fprintf(w, "data in %s; no tokens, loopback only; Ctrl-C stops them all\n", absolute(dir))
	howTo(w, first)
	flag := serverFlag(first)
	fmt.Fprintf(w, "  look    facetd status%[1]s; facetd node drain%[1]s node-2; facetd node undrain%[1]s node-2; or kill -9 one of them\n\n", flag)
}

func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

// howTo shows the ways to use a facet.
func howTo(w io.Writer, addr string) {
	fmt.Fprintf(w, `
Any name of the form tenant/facet is a SQLite database, made by the first write:

  shell   facetd sql%[2]s acme/notes

  curl    curl http://%[1]s/v1/db/acme/notes/exec -d "CREATE TABLE note(id INTEGER PRIMARY KEY, body TEXT)"
          curl http://%[1]s/v1/db/acme/notes/exec -d "INSERT INTO note(body) VALUES ('hello')"
          curl http://%[1]s/v1/db/acme/notes/exec -d "SELECT * FROM note"

  Go      c, err := client.Open(ctx, []string{"http://%[1]s"}, client.Options{})  // github.com/facetd/facetd/client
          f, err := c.Facet("acme/notes")
          _, err = f.Exec(ctx, "INSERT INTO note(body) VALUES (?)", "hello")

  libSQL  createClient({ url: "http://%[1]s/v1/db/acme/notes/" })  // @libsql/client; mind the slash at the end

`, addr, serverFlag(addr))
}

// serverFlag is how other commands find a node that is not at the usual place.
func serverFlag(addr string) string {
	if addr == "127.0.0.1:7400" {
		return ""
	}
	return " --server http://" + addr
}

// syncProcs is how many processors Go is told of beyond those there are: a thread
// inside fsync keeps its own until the scheduler's monitor takes it away, and the
// commit log is inside fsync most of the time. On two cores two more gave a quarter
// to a third more durable writes.
const syncProcs = 2

// serve runs a node until a signal, the end of standard input, or its failure.
func (n *nodeFlags) serve(ctx context.Context, p *program, ready func(io.Writer, *node.Node)) error {
	if _, set := p.env("GOMAXPROCS"); !set {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + syncProcs)
	}
	if n.pprof == "" {
		runtime.MemProfileRate = 0 // nobody can ask for the profile
	}
	opening, stop := p.untilSignal(ctx)
	nd, err := node.Open(opening, n.cfg)
	stop()
	if err != nil {
		return err
	}
	closeNode := func() error {
		// Not the context that just ended: the stop has time of its own.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		return nd.Close(ctx)
	}
	if n.pprof != "" {
		closeProfiles, err := profiles(n.pprof, n.cfg.Logger)
		if err != nil {
			return errors.Join(err, closeNode())
		}
		defer closeProfiles()
	}
	if n.reloads() {
		stop := reloadOnHangup(nd)
		defer stop()
	}
	ready(p.stdout, nd)
	notify(n.cfg.Logger, daemon.SdNotifyReady)
	eof := n.stdinEnds(p)
	select {
	case err := <-nd.Failed():
		// Nothing may be flushed or acknowledged any more (rule R13): the process
		// ends as it is.
		return fmt.Errorf("the node failed and stopped: %w", err)
	case <-p.signals:
	case <-eof:
	case <-ctx.Done():
	}
	notify(n.cfg.Logger, daemon.SdNotifyStopping)
	closed := make(chan error, 1)
	go func() { closed <- closeNode() }()
	select {
	case err := <-closed:
		if err != nil {
			return fmt.Errorf("stop node: %w", err)
		}
		return nil
	case err := <-nd.Failed():
		return fmt.Errorf("the node failed while it stopped: %w", err)
	case s := <-p.signals:
		return fmt.Errorf("stopped at once by a second signal (%v)", s)
	}
}

// reloads reports whether the node has files that may change while it runs. One without
// is ended by SIGHUP, as any program of a terminal.
func (n *nodeFlags) reloads() bool {
	c := &n.cfg
	return c.AuthKeys != "" || c.GossipKeys != "" || c.TLSClientCA != "" || !c.TLS.IsZero() || !c.PeerTLS.IsZero()
}

// notify tells a supervisor that asks for it (systemd, Type=notify) how far the node is.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("the supervisor of the process cannot be told", "state", state, "error", err)
	}
}

// reloadOnHangup has a node read its keys and certificates again on SIGHUP.
func reloadOnHangup(nd *node.Node) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-hangups:
				nd.Reload()
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(done)
		<-ended
	}
}

// profiles serves net/http/pprof on a listener of its own.
func profiles(addr string, log *slog.Logger) (func(), error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for profiles: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("serve profiles", "error", err)
		}
	}()
	log.Info("profiles", "url", "http://"+l.Addr().String()+"/debug/pprof/")
	return func() {
		srv.Close()
		<-done
	}, nil
}
