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
	"github.com/facetd/facetd/bench/limits"
	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/node"
)

// maxYardstick bounds each part of what write_one is compared with, each time.
const maxYardstick = 100 * time.Millisecond

func benchCommand() *command {
	var about strings.Builder
	for _, w := range bench.Workloads {
		fmt.Fprintf(&about, "  %-10s %s\n", w.Name, w.About)
	}
	return &command{
		name: "bench", short: "measure a node or a cluster, and what this machine could do at best",
		long: `Without --target it starts a node, or with --nodes N a cluster, as child processes
on free loopback ports, with the data in a new directory under --data, and throws
all of it away in the end. The limits are measured in the same run: what a framed
connection can echo (E), what the engine alone can write (W) and read (R) without
network and disk, what a group of callers can get fsynced, and what one stock
SQLite database does. write_one is compared with the shortest way a write can take,
measured in turns with it: a round trip to the owner, one to a replica, and an
fdatasync. Figures of different runs differ by up to 1.5 times; the ratios are
steadier. The nodes of a cluster share this machine, its cores and its disk, with
each other and with the load: that is a comparison, not a capacity.

In a closed loop, the usual one, every caller calls again when it has its answer. With
--rate calls are due at fixed times and latency counts from then, so that a stall shows
in every call it delayed. Calls that no caller is free for wait; those that find the
queue full are dropped and counted. Workloads that run once over all facets (create,
cold, first, idle), active and write_one have no rate.

What an operation costs, in processor time and bytes, comes from the nodes' metrics and
from the load itself; what is unknown is printed as ? or null.

Workloads:
` + about.String(),
		examples: []string{
			"facetd bench",
			"facetd bench --json --duration 5s --workloads write,read > report.json",
			"facetd bench --nodes 3 --workloads create,write,read,write_one",
			"facetd bench --target http://10.0.0.5:7400,http://10.0.0.6:7400 --workloads create,write,read",
			"facetd bench --workloads idle --facets 100000",
			"facetd bench --rate 5000 --workloads write,mixed,zipf",
			"facetd bench --nodes 3 --workloads all --json --html three.html > three.json",
			"facetd bench report one.json three.json --html both.html",
		},
		setup: func(fs *flag.FlagSet) action {
			var cfg bench.Config
			var names list
			var out benchOutput
			fs.BoolVar(&out.json, "json", false, "print the report as JSON")
			fs.StringVar(&out.html, "html", "", "write the report with plots to this `FILE`, one page that needs no network")
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
			fs.Var(&names, "workloads", "run these `NAMES`, or all (no active, idle) (default create,write,read,hot_write,hot_read,write_one,cold)")
			fs.DurationVar(&cfg.Settle, "settle", 5*time.Second, "in workload idle, wait until memory has not fallen for this `TIME`")
			fs.BoolVar(&cfg.Keep, "keep", false, "do not delete the facets of the run from --target")
			fs.StringVar(&cfg.Token, "token", "", "`TOKEN` to show --target")
			ca := fs.String("ca", "", "trust the CA in this PEM `FILE`, no other, where --target is https")
			var target list
			fs.Var(&target, "target", "measure the node or cluster at these `URLS`, with commas between, instead of a new one")
			data := fs.String("data", ".", "make the data directory under this `DIR`")
			withLimits := fs.Bool("limits", true, "measure the limits of this machine as well; with --target only when given")
			pprof := fs.String("pprof", "", "have the node serve profiles on this loopback `ADDR`, node k of a cluster at port + k-1")
			nodes := fs.Int("nodes", 1, "start `N` nodes")
			replicas := fs.Int("replicas", 0, "have the nodes of a cluster keep `N` copies of a facet (default theirs)")
			quiet := fs.Bool("quiet", false, "print no progress")
			return func(ctx context.Context, p *program, _ []string) error {
				if *nodes < 1 || *nodes > maxDevNodes {
					return usagef("--nodes is %d; write 1 to %d", *nodes, maxDevNodes)
				}
				if *replicas < 0 || *replicas > *nodes {
					return usagef("--replicas is %d; write 1 to the number of --nodes", *replicas)
				}
				if len(names) > 0 {
					ws, err := bench.Select(names...)
					if err != nil {
						return usagef("--workloads: %v", err)
					}
					cfg.Workloads = ws
				}
				if !*quiet {
					cfg.Progress = p.stderr
				}
				if cfg.Queue != 0 && cfg.Rate == 0 {
					return usagef("--queue is for an open loop; give it a --rate")
				}
				cfg.Command = benchLine(p.args)
				ctx, stop := p.untilSignal(ctx)
				defer stop()
				explicit := false
				fs.Visit(func(f *flag.Flag) { explicit = explicit || f.Name == "limits" })
				if *ca != "" {
					var err error
					if cfg.TLS, err = client.LoadTLS(*ca, "", ""); err != nil {
						return err
					}
				}
				if len(target) > 0 {
					if !explicit {
						*withLimits = false
					}
					return runBench(ctx, p, cfg, foreign(target), "", *withLimits, out)
				}
				if *pprof != "" && !node.IsLoopback(*pprof) {
					return usagef("--pprof listens on loopback only, not on %s", *pprof)
				}
				dir, err := benchDir(*data)
				if err != nil {
					return err
				}
				defer os.RemoveAll(dir)
				if memoryBacked(dir) {
					fmt.Fprintf(p.stderr, "WARNING: %s is in memory, where fsync costs nothing; give --data a directory on a real disk\n", dir)
				}
				var n bench.Node
				what := "a node"
				if *nodes == 1 {
					child := &childNode{dir: filepath.Join(dir, "node"), env: p.env, log: filepath.Join(dir, "node.log"), pprof: *pprof}
					defer child.stop()
					n = child
				} else {
					all := &clusterNodes{dir: filepath.Join(dir, "nodes"), logFile: filepath.Join(dir, "nodes.log"), nodes: *nodes, replicas: *replicas, pprof: *pprof}
					defer all.close()
					n, what = all, fmt.Sprintf("%d nodes", *nodes)
				}
				if !*quiet {
					fmt.Fprintf(p.stderr, "starting %s with the data in %s\n", what, dir)
				}
				// The run that measures hibernation starts the nodes its own way; the
				// start here is the usual one.
				if _, err := n.Restart(ctx, 0); err != nil {
					if log, ok := n.(logged); ok {
						log.tail(p.stderr)
					}
					return err
				}
				return runBench(ctx, p, cfg, n, dir, *withLimits && !onlyIdle(cfg.Workloads), out)
			}
		},
	}
}

// foreign are the nodes at these URLs.
func foreign(urls []string) (out foreignNodes) {
	for _, u := range urls {
		out = append(out, strings.TrimSuffix(u, "/"))
	}
	return out
}

// logged is a bench.Node whose messages are at hand.
type logged interface{ tail(w io.Writer) }

// onlyIdle reports whether the run measures memory only, which no limit is
// compared with.
func onlyIdle(ws []bench.Workload) bool {
	for _, w := range ws {
		if w.Op != bench.OpIdle && w.Op != bench.OpActive {
			return false
		}
	}
	return len(ws) > 0
}

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

func runBench(ctx context.Context, p *program, cfg bench.Config, n bench.Node, dir string, withLimits bool, out benchOutput) error {
	cfg.Node = n
	// Limits and yardstick measure the disk of the nodes, where the nodes are ours.
	at := dir
	if at == "" && withLimits {
		var err error
		if at, err = benchDir("."); err != nil {
			return err
		}
		defer os.RemoveAll(at)
	}
	if at != "" {
		cfg.Yardstick = func(ctx context.Context, s bench.Settings, endpoints []string) (bench.Yardstick, error) {
			return limits.NewReference(ctx, limits.Config{
				Dir: filepath.Join(at, "reference"), Token: cfg.Token, ValueSize: s.ValueSize, Duration: min(cfg.Duration/60, maxYardstick),
			}, endpoints)
		}
	}
	if withLimits {
		cfg.Limits = func(ctx context.Context, s bench.Settings, endpoint string, progress func(string)) (bench.Limits, error) {
			return limits.Measure(ctx, limits.Config{
				Endpoint: endpoint, Dir: filepath.Join(at, "limits"), Token: cfg.Token,
				Facets: s.Facets, Callers: s.Callers, ValueSize: s.ValueSize, Rows: s.Rows, Progress: progress,
				Duration: min(cfg.Duration, limits.DefaultDuration),
			})
		}
	}
	report, err := bench.Run(ctx, cfg)
	report.Settings.Version = versionText()
	report.Settings.Data = dir
	if log, ok := n.(logged); ok && err != nil {
		log.tail(p.stderr)
	}
	if err != nil && len(report.Results) == 0 && report.Idle == nil && report.Active == nil {
		return err
	}
	werr := out.write(p, report)
	if err != nil {
		return err
	}
	if werr != nil {
		return fmt.Errorf("write report: %w", werr)
	}
	for _, r := range report.Results {
		if r.Errors > 0 {
			return fmt.Errorf("%d calls of workload %s failed", r.Errors, r.Workload)
		}
	}
	return nil
}
