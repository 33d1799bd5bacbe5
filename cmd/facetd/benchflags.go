package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/facetd/facetd/bench"
	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/node"
)

// benchFlags are the flags that bench and bench sweep share, and the nodes they ask
// for.
type benchFlags struct {
	cfg      bench.Config
	names    list
	out      benchOutput
	target   list
	data     string
	pprof    string
	nodes    int
	replicas int
	quiet    bool
	ca       string
}

func (b *benchFlags) declare(fs *flag.FlagSet) {
	cfg := &b.cfg
	fs.BoolVar(&b.out.json, "json", false, "print the report as JSON")
	fs.StringVar(&b.out.html, "html", "", "write the report with plots to this `FILE`, one page that needs no network")
	fs.Float64Var(&cfg.Rate, "rate", 0, "open loop: have `N` calls a second due, whatever became of those before")
	fs.IntVar(&cfg.Queue, "queue", 0, "with --rate, let `N` calls wait for a caller and drop more (default 16 for each caller)")
	fs.Float64Var(&cfg.Theta, "theta", 0.99, "skew of workload zipf, a `NUMBER` between 0 and 1")
	fs.Uint64Var(&cfg.Seed, "seed", 1, "`NUMBER` that all choices of facets and rows follow from")
	fs.DurationVar(&cfg.Duration, "duration", 10*time.Second, "measure each workload for this `TIME`")
	fs.IntVar(&cfg.Facets, "facets", 1000, "spread the load over `N` facets")
	fs.IntVar(&cfg.Callers, "callers", 64, "keep `N` requests under way")
	fs.IntVar(&cfg.ValueSize, "value-size", 256, "write values of `N` bytes")
	fs.IntVar(&cfg.Rows, "rows", 100, "fill each facet with `N` rows before")
	fs.IntVar(&cfg.Conns, "connections", 2, "keep `N` connections to each node")
	fs.Var(&b.names, "workloads", "run these `NAMES`, or all (default create,write,read,hot_write,hot_read,write_one,cold)")
	fs.DurationVar(&cfg.Settle, "settle", 5*time.Second, "in workload idle, wait until memory has not fallen for this `TIME`")
	fs.BoolVar(&cfg.Keep, "keep", false, "do not delete the facets of the run from --target")
	fs.StringVar(&cfg.Token, "token", "", "`TOKEN` to show --target")
	fs.StringVar(&b.ca, "ca", "", "trust the CA in this PEM `FILE`, no other, where --target is https")
	fs.Var(&b.target, "target", "measure the node or cluster at these `URLS`, with commas between, instead of a new one")
	fs.StringVar(&b.data, "data", ".", "make the data directory under this `DIR`")
	fs.StringVar(&b.pprof, "pprof", "", "have the node serve profiles on this loopback `ADDR`, node k of a cluster at port + k-1")
	fs.IntVar(&b.nodes, "nodes", 1, "start `N` nodes")
	fs.IntVar(&b.replicas, "replicas", 0, "have the nodes of a cluster keep `N` copies of a facet (default theirs)")
	fs.BoolVar(&b.quiet, "quiet", false, "print no progress")
}

// check looks at what package bench does not know, and completes the Config.
func (b *benchFlags) check(p *program) error {
	if err := b.checkNodes(); err != nil {
		return err
	}
	if len(b.names) > 0 {
		ws, err := bench.Select(b.names...)
		if err != nil {
			return usagef("--workloads: %v", err)
		}
		b.cfg.Workloads = ws
	}
	if b.ca != "" {
		var err error
		if b.cfg.TLS, err = client.LoadTLS(b.ca, "", ""); err != nil {
			return err
		}
	}
	if !b.quiet {
		b.cfg.Progress = p.stderr
	}
	if b.pprof != "" && len(b.target) == 0 && !node.IsLoopback(b.pprof) {
		return usagef("--pprof listens on loopback only, not on %s", b.pprof)
	}
	b.cfg.Command = benchLine(p.args)
	return nil
}

func (b *benchFlags) checkNodes() error {
	if b.nodes < 1 || b.nodes > maxDevNodes {
		return usagef("--nodes is %d; write 1 to %d", b.nodes, maxDevNodes)
	}
	if b.replicas < 0 || b.replicas > b.nodes {
		return usagef("--replicas is %d; write 1 to the number of --nodes", b.replicas)
	}
	if b.cfg.Queue != 0 && b.cfg.Rate == 0 {
		return usagef("--queue is for an open loop; give it a --rate")
	}
	return nil
}

// start starts the nodes that are to be measured. dir is where their data is, empty
// for those of --target. stop ends them and removes their data.
func (b *benchFlags) start(ctx context.Context, p *program) (n bench.Node, dir string, stop func(), err error) {
	if len(b.target) > 0 {
		return foreign(b.target), "", func() {}, nil
	}
	if dir, err = benchDir(b.data); err != nil {
		return nil, "", nil, err
	}
	if memoryBacked(dir) {
		fmt.Fprintf(p.stderr, "WARNING: %s is in memory, where fsync costs nothing; give --data a directory on a real disk\n", dir)
	}
	what, end := "a node", func() {}
	if b.nodes == 1 {
		child := &childNode{dir: filepath.Join(dir, "node"), env: p.env, log: filepath.Join(dir, "node.log"), pprof: b.pprof}
		n, end = child, func() { child.stop() }
	} else {
		all := &clusterNodes{dir: filepath.Join(dir, "nodes"), logFile: filepath.Join(dir, "nodes.log"), nodes: b.nodes, replicas: b.replicas, pprof: b.pprof}
		n, end, what = all, func() { all.close() }, fmt.Sprintf("%d nodes", b.nodes)
	}
	stop = func() {
		end()
		os.RemoveAll(dir)
	}
	if !b.quiet {
		fmt.Fprintf(p.stderr, "starting %s with the data in %s\n", what, dir)
	}
	// The run that measures hibernation starts the nodes its own way; the start here
	// is the usual one.
	if _, err := n.Restart(ctx, 0); err != nil {
		tailLog(n, p.stderr)
		stop()
		return nil, "", nil, err
	}
	return n, dir, stop, nil
}

// foreign are the nodes at these URLs.
func foreign(urls []string) (out foreignNodes) {
	for _, u := range urls {
		out = append(out, strings.TrimSuffix(u, "/"))
	}
	return out
}

// tailLog prints the last messages of nodes that have any at hand.
func tailLog(n bench.Node, w io.Writer) {
	if l, ok := n.(logged); ok {
		l.tail(w)
	}
}

// logged is a bench.Node whose messages are at hand.
type logged interface{ tail(w io.Writer) }

func benchDir(parent string) (string, error) {
	parent, err := filepath.Abs(parent)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(parent, "facetd-bench-*")
	if err != nil {
		return "", fmt.Errorf("make a data directory; --data chooses where: %w", err)
	}
	return dir, nil
}
