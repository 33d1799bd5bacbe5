package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/facetd/facetd/bench"
	"github.com/facetd/facetd/bench/limits"
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
			var b benchFlags
			b.declare(fs)
			withLimits := fs.Bool("limits", true, "measure the limits of this machine as well; with --target only when given")
			return func(ctx context.Context, p *program, _ []string) error {
				if err := b.check(p); err != nil {
					return err
				}
				explicit := false
				fs.Visit(func(f *flag.Flag) { explicit = explicit || f.Name == "limits" })
				ctx, stop := p.untilSignal(ctx)
				defer stop()
				n, dir, closeNodes, err := b.start(ctx, p)
				if err != nil {
					return err
				}
				defer closeNodes()
				wanted := *withLimits && !onlyIdle(b.cfg.Workloads)
				if len(b.target) > 0 {
					wanted = *withLimits && explicit
				}
				return runBench(ctx, p, b.cfg, n, dir, wanted, b.out)
			}
		},
	}
}

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
	if err != nil {
		tailLog(n, p.stderr)
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
	return failed(report.Results)
}

// failed is an error if calls of a workload failed.
func failed(results []bench.Result) error {
	for _, r := range results {
		if r.Errors > 0 {
			return fmt.Errorf("%d calls of workload %s failed", r.Errors, r.Workload)
		}
	}
	return nil
}
