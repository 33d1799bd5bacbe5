package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/facetd/facetd/bench"
)

// sweepable are the flags of bench that a sweep may vary.
var sweepable = []string{"callers", "facets", "rows", "value-size", "connections", "rate", "theta", "nodes", "replicas"}

// errSweepTime ends a sweep that has had its time.
var errSweepTime = errors.New("the time of --max-time is over")

func benchSweepCommand() *command {
	return &command{
		name: "bench sweep", short: "measure how figures change with one setting",
		long: `Runs the same workloads again for every value of one flag of bench, each time on
nodes started for it and thrown away, or on those of --target, and prints a table
for each workload; --html draws the curves. --over takes one of these flags:

  ` + strings.Join(sweepable, ", ") + `

The other flags are those of bench, but for the limits, which are not measured. To
vary the size of a database, vary --rows with --facets 1: it is about rows times
value size. With --over nodes the nodes share this machine, so rates do not grow;
the processor time of one node for an operation (CPU node) tells what more machines
would do. When the time of --max-time is over, the value under way is given up and
those before it are reported.`,
		examples: []string{
			"facetd bench sweep --over callers=1,4,16,64,256,1024 --workloads write,read",
			"facetd bench sweep --over facets=1,100,10000,1000000 --rows 1 --max-time 20m --workloads write --html f.html",
			"facetd bench sweep --over rows=1000,10000,100000,1000000 --facets 1 --value-size 1000 --workloads write,read",
			"facetd bench sweep --over nodes=1,3,5,7 --workloads write,read --html nodes.html",
			"facetd bench sweep --over rate=1000,2000,4000,8000 --workloads write",
		},
		setup: func(fs *flag.FlagSet) action {
			var b benchFlags
			b.declare(fs)
			over := fs.String("over", "", "vary a flag: `NAME=VALUE,VALUE,...`")
			most := fs.Duration("max-time", time.Hour, "end after this `TIME` with what was measured until then")
			return func(ctx context.Context, p *program, _ []string) error {
				name, values, err := parseOver(*over)
				if err != nil {
					return err
				}
				if *most <= 0 {
					return usagef("--max-time is %v; it must be above 0", *most)
				}
				if len(b.target) > 0 && (name == "nodes" || name == "replicas") {
					return usagef("--over %s is for nodes that bench starts, not for --target", name)
				}
				// A value that cannot be is found before hours are spent on those before it.
				for _, v := range values {
					if err := fs.Set(name, v); err != nil {
						return usagef("--over %s=%s: %v", name, v, err)
					}
					if err := b.check(p); err != nil {
						return err
					}
				}
				ctx, stop := p.untilSignal(ctx)
				defer stop()
				ctx, cancel := context.WithTimeoutCause(ctx, *most, errSweepTime)
				defer cancel()
				s := bench.Sweep{Over: name, Command: b.cfg.Command}
				for _, v := range values {
					if err = fs.Set(name, v); err == nil {
						err = b.sweepOne(ctx, p, &s, v)
					}
					if err != nil {
						s.Stopped = fmt.Sprintf("%s=%s and what follows is missing: %v", name, v, err)
						if errors.Is(context.Cause(ctx), errSweepTime) {
							s.Stopped = fmt.Sprintf("%s=%s and what follows is missing: %v (%v)", name, v, errSweepTime, *most)
							err = nil
						}
						break
					}
				}
				if len(s.Points) == 0 {
					if err == nil {
						err = errSweepTime
					}
					return err
				}
				return errors.Join(err, b.out.writeSweep(p, &s), failedCalls(s.Points))
			}
		},
	}
}

// sweepOne measures one value, on nodes of its own.
func (b *benchFlags) sweepOne(ctx context.Context, p *program, s *bench.Sweep, value string) error {
	x, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return err
	}
	if !b.quiet {
		fmt.Fprintf(p.stderr, "%s=%s\n", s.Over, value)
	}
	n, dir, stop, err := b.start(ctx, p)
	if err != nil {
		return err
	}
	defer stop()
	cfg := b.cfg
	cfg.Node = n
	r, err := bench.Run(ctx, cfg)
	if err != nil {
		if ctx.Err() == nil {
			tailLog(n, p.stderr)
		}
		return err
	}
	r.Settings.Version, r.Settings.Data = versionText(), dir
	s.Points = append(s.Points, bench.Swept{Value: x, Report: r})
	return nil
}

// failedCalls is an error if calls failed.
func failedCalls(points []bench.Swept) error {
	for _, p := range points {
		if err := failed(p.Results); err != nil {
			return err
		}
	}
	return nil
}

// parseOver reads NAME=VALUE,VALUE,...
func parseOver(text string) (name string, values []string, err error) {
	name, list, ok := strings.Cut(text, "=")
	name = strings.TrimLeft(name, "-")
	switch {
	case !ok || list == "":
		return "", nil, usagef("--over NAME=VALUE,VALUE,... says what is varied; NAME is one of %s", strings.Join(sweepable, ", "))
	case !slices.Contains(sweepable, name):
		return "", nil, usagef("--over %.40s: a sweep varies one of %s", name, strings.Join(sweepable, ", "))
	}
	values = strings.Split(list, ",")
	if len(values) > bench.MaxPoints {
		return "", nil, usagef("--over has %d values, at most %d are allowed", len(values), bench.MaxPoints)
	}
	return name, values, nil
}
