package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/facetd/facetd/client"
)

func statusCommand() *command {
	return clientCommand(command{
		name: "status", short: "tell how the cluster is",
		long: `What one node knows: the first of --server that answers. Without a leader nobody
decides where facets are: those that have an owner go on, and none moves.

The state of a node is the last that holds of: alive, draining (owns nothing, or is
handing over), decommissioning (the same for its copies), suspect (misses probes),
gone.`,
		examples: []string{"facetd status", "facetd status --json", "facetd status --server http://10.0.0.2:7400"},
	}, func(fs *flag.FlagSet) func(context.Context, *program, *client.Client, []string) error {
		json_ := fs.Bool("json", false, "print JSON: what GET /v1/cluster tells, and the operations")
		return func(ctx context.Context, p *program, cl *client.Client, _ []string) error {
			c, err := cl.Cluster(ctx)
			if err != nil {
				return err
			}
			beside, cancel := context.WithTimeout(ctx, besideTimeout)
			defer cancel()
			ops, operr := cl.Operations(beside)
			if *json_ {
				if ops == nil {
					ops = []client.Operation{}
				}
				return json.NewEncoder(p.stdout).Encode(struct {
					client.Cluster
					Operations []client.Operation `json:"operations"`
				}{c, ops})
			}
			if err := printStatus(p.stdout, c, ops); err != nil {
				return err
			}
			if operr != nil {
				fmt.Fprintf(p.stderr, "which operations run is not known: %v\n", operr)
			}
			return nil
		}
	})
}

// printStatus prints the cluster, its nodes, and the operations that run.
func printStatus(w io.Writer, c client.Cluster, ops []client.Operation) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "cluster\t%s, as node %s knows it\n", c.ID, c.Self)
	leader := "none; facets stay where they are until the voters elect one"
	if c.Leader != "" {
		leader = c.Leader
	}
	fmt.Fprintf(t, "leader\t%s (term %d, entry %d)\n", leader, c.Term, c.Applied)
	copies := "copies"
	if c.Replicas == 1 {
		copies = "copy"
	}
	fmt.Fprintf(t, "facets\t%d, %d %s of new ones\n", c.Facets, c.Replicas, copies)
	fmt.Fprintf(t, "nodes\t%s\n", nodeSummary(c.Nodes))
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := printNodes(w, c.Nodes, false); err != nil {
		return err
	}
	var running []client.Operation
	for _, op := range ops {
		if op.State == client.OperationRunning {
			running = append(running, op)
		}
	}
	if len(running) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return printOperations(w, running)
}

// nodeSummary counts nodes by state: "3 (2 alive, 1 gone), 3 vote".
func nodeSummary(nodes []client.Node) string {
	voters := 0
	count := make(map[string]int)
	var states []string // as they come
	for _, n := range nodes {
		if n.Voter {
			voters++
		}
		if count[n.State]++; count[n.State] == 1 {
			states = append(states, n.State)
		}
	}
	for i, s := range states {
		states[i] = fmt.Sprintf("%d %s", count[s], s)
	}
	return fmt.Sprintf("%d (%s), %d vote", len(nodes), strings.Join(states, ", "), voters)
}

// printNodes prints a table of nodes; long adds what few look for.
func printNodes(w io.Writer, nodes []client.Node, long bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "NODE\tSTATE\tROLE\tOWNED\tHELD\tLEASE\tZONE\tAPI\tVERSION")
	if long {
		fmt.Fprint(t, "\tPEER\tBOOT\tSTORE")
	}
	fmt.Fprintln(t)
	for _, n := range nodes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s", n.ID, n.State, roleText(n), n.Owned, n.Held, leaseText(n.LeaseAgeMillis), dash(n.Zone), dash(n.API), dash(n.Version))
		if long {
			fmt.Fprintf(t, "\t%s\t%s\t%s", dash(n.Peer), dash(n.BootID), dash(n.StoreID))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func roleText(n client.Node) string {
	switch {
	case n.Leader:
		return "leader"
	case n.Voter:
		return "voter"
	}
	return "follower"
}

func leaseText(age *float64) string {
	if age == nil {
		return "-"
	}
	return time.Duration(*age * float64(time.Millisecond)).Round(100 * time.Millisecond).String()
}

func nodeListCommand() *command {
	return clientCommand(command{
		name: "node list", short: "list the nodes",
		examples: []string{"facetd node list", "facetd node list --long", "facetd node list --json"},
	}, func(fs *flag.FlagSet) func(context.Context, *program, *client.Client, []string) error {
		json_ := fs.Bool("json", false, "print one JSON object a line")
		long := fs.Bool("long", false, "print peer addresses, and the ids of process lives and disks, as well")
		return func(ctx context.Context, p *program, cl *client.Client, _ []string) error {
			c, err := cl.Cluster(ctx)
			if err != nil {
				return err
			}
			if !*json_ {
				return printNodes(p.stdout, c.Nodes, *long)
			}
			enc := json.NewEncoder(p.stdout)
			for _, n := range c.Nodes {
				if err := enc.Encode(n); err != nil {
					return err
				}
			}
			return nil
		}
	})
}

const waits = "It waits for the end; Ctrl-C stops waiting and leaves it running. It may be repeated."

func nodeDrainCommand() *command {
	return operation{kind: "drain", paced: true, next: "%[1]s owns nothing now; when it has been restarted: facetd node undrain %[1]s", command: command{
		name: "node drain", args: "NODE", short: "hand a node's facets over, for a restart", minArgs: 1, maxArgs: 1,
		long: `Hands every facet the node owns to another node that keeps a copy, without failing a
request. The node goes on keeping its copies, and gets no facets until "facetd node
undrain". ` + waits,
		examples: []string{"facetd node drain n2", "facetd node drain --rate 20 --no-wait n2", "facetd node drain --cancel n2"},
	}}.build()
}

func nodeUndrainCommand() *command {
	return operation{kind: "undrain", command: command{
		name: "node undrain", args: "NODE", short: "give a node work again", minArgs: 1, maxArgs: 1,
		long:     "Takes the mark of a drain or decommission off, and ends one that runs. Nothing moves\nback by itself: \"facetd rebalance\" does that.",
		examples: []string{"facetd node undrain n2"},
	}}.build()
}

func nodeDecommissionCommand() *command {
	return operation{
		kind: "decommission", paced: true, forced: "go on although facets will have fewer copies than they should",
		next: "%[1]s keeps nothing now; stop it, and then: facetd node remove %[1]s",
		command: command{
			name: "node decommission", args: "NODE", short: "move everything off a node, for good", minArgs: 1, maxArgs: 1,
			long: `Drains the node and then moves every copy it keeps to other nodes. The node may be
dead: its copies are made anew from the others. Then "facetd node remove".
` + waits,
			examples: []string{"facetd node decommission n2", "facetd node decommission --no-wait n2", "facetd node decommission --cancel n2"},
		},
	}.build()
}

func nodeRemoveCommand() *command {
	return operation{kind: "remove", forced: "remove it although it still answers", command: command{
		name: "node remove", args: "NODE", short: "take a decommissioned node out of the cluster", minArgs: 1, maxArgs: 1,
		long: `Forgets a node that keeps nothing any more. Stop it first. It cannot come back with its
data directory; an empty one makes it a new node.`,
		examples: []string{"facetd node remove n2"},
	}}.build()
}
