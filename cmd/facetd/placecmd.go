package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/facetd/facetd/client"
)

func facetStatCommand() *command {
	c := command{
		name: "facet stat", args: "TENANT/FACET", short: "tell about a facet", minArgs: 1, maxArgs: 1,
		long:     "Never makes a facet; exit code 1 where there is none.",
		examples: []string{"facetd facet stat acme/notes", "facetd facet stat --json acme/notes"},
	}
	c.setup = func(fs *flag.FlagSet) action {
		srv := serverFlags(fs)
		json_ := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, p *program, args []string) error {
			ctx, stop := p.untilSignal(ctx)
			defer stop()
			cl, f, err := srv.facet(ctx, args[0])
			if err != nil {
				return err
			}
			defer cl.Close()
			info, err := f.Stat(ctx)
			if err != nil || *json_ {
				if err == nil {
					err = printInfo(p, info, true)
				}
				return err
			}
			beside, cancel := context.WithTimeout(ctx, besideTimeout)
			defer cancel()
			cluster, err := cl.Cluster(beside)
			if err != nil {
				cluster = client.Cluster{} // the states of the nodes are only extra
			}
			return printStat(p, info, cluster)
		}
	}
	return &c
}

// printStat is a facet with what the cluster says of the facet's nodes.
func printStat(p *program, i client.Info, c client.Cluster) error {
	t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	writeInfo(t, i)
	fmt.Fprintf(t, "incarnation\t%s\n", i.Incarnation)
	alive := 0
	var copies []string
	for _, id := range i.Replicas {
		n, ok := c.Node(id)
		if !ok {
			copies = append(copies, id+" unknown")
			continue
		}
		if n.State != "gone" && n.State != "suspect" {
			alive++
		}
		copies = append(copies, id+" "+n.State)
	}
	if len(c.Nodes) > 0 {
		fmt.Fprintf(t, "copies\t%d of %d on nodes that live: %s\n", alive, len(i.Replicas), strings.Join(copies, ", "))
	}
	return t.Flush()
}

// facetPlaceCommand is a command that changes where a facet is.
func facetPlaceCommand(c command, do func(f *client.Facet, ctx context.Context, node string) (client.Info, error)) *command {
	return facetCommand(c, func(fs *flag.FlagSet) func(context.Context, *program, *client.Facet, []string) error {
		json_ := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, p *program, f *client.Facet, args []string) error {
			info, err := do(f, ctx, strings.Join(args, ""))
			if err != nil {
				return err
			}
			return printInfo(p, info, *json_)
		}
	})
}

func facetMoveCommand() *command {
	return facetPlaceCommand(command{
		name: "facet move", args: "TENANT/FACET NODE", short: "make a node the owner of a facet", minArgs: 2, maxArgs: 2,
		long: `Requests wait for some milliseconds meanwhile, and none fails. A node that keeps no
copy gets one first. Rebalancing may move the facet again; "facetd facet pin" keeps
it there.`,
		examples: []string{"facetd facet move acme/notes n2"},
	}, (*client.Facet).Move)
}

func facetPinCommand() *command {
	return facetPlaceCommand(command{
		name: "facet pin", args: "TENANT/FACET [NODE]", short: "keep a facet at its owner, or at a node", maxArgs: 2,
		long: `Rebalancing leaves the owner of a pinned facet alone. Draining and failover do not:
the facet stays pinned wherever it then is.`,
		examples: []string{"facetd facet pin acme/notes", "facetd facet pin acme/notes n2"},
	}, (*client.Facet).Pin)
}

func facetUnpinCommand() *command {
	return facetPlaceCommand(command{
		name: "facet unpin", args: "TENANT/FACET", short: "let rebalancing move a facet again", maxArgs: 1,
		examples: []string{"facetd facet unpin acme/notes"},
	}, func(f *client.Facet, ctx context.Context, _ string) (client.Info, error) { return f.Unpin(ctx) })
}

// replicasText lists the nodes that keep a facet, the owner first.
func replicasText(i client.Info) string {
	list := slices.Clone(i.Replicas)
	if at := slices.Index(list, i.Owner); at > 0 {
		list = slices.Insert(slices.Delete(list, at, at+1), 0, i.Owner)
	}
	return strings.Join(list, ", ")
}
