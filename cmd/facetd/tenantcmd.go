package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// limitFlag is a limit as a flag: a number, a size or a time, "none", or "default".
type limitFlag struct {
	name  string // in facet.LimitNames
	flag  string
	usage string
	parse func(string) (uint64, error)
	show  func(uint64) string
}

// limitFlags are in the order of facet.LimitNames.
var limitFlags = []limitFlag{
	{"facets", "facets", "most `N` facets", parseCount, showCount},
	{"facet_bytes", "facet-bytes", "largest `SIZE` of one facet", parseSize, showSize},
	{"total_bytes", "bytes", "largest `SIZE` of all facets together", parseSize, showSize},
	{"requests_per_second", "requests", "most `N` requests a second, at each node", parseCount, showCount},
	{"rows_per_second", "rows", "most `N` rows read and written a second, at each node", parseCount, showCount},
	{"concurrent_requests", "concurrent", "most `N` requests under way, at each node", parseCount, showCount},
	{"statement_ms", "statement-time", "longest `TIME` of one statement", parseMillis, showMillis},
	{"memory_bytes", "memory", "most memory of SQLite for an open facet, as a `SIZE`", parseSize, showSize},
}

func parseCount(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n == 0 {
		return 0, errors.New("write a number of 1 or more, none, or default")
	}
	return n, nil
}

func parseSize(s string) (uint64, error) {
	var b byteSize
	if err := b.Set(s); err != nil || b == 0 {
		return 0, errors.New("write a size such as 512MiB, none, or default")
	}
	return uint64(b), nil
}

func parseMillis(s string) (uint64, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Millisecond {
		return 0, errors.New("write a time such as 500ms or 5s, none, or default")
	}
	return uint64(d / time.Millisecond), nil
}

func showCount(n uint64) string  { return strconv.FormatUint(n, 10) }
func showMillis(n uint64) string { return (time.Duration(min(n, 1<<40)) * time.Millisecond).String() }

// showSize is exact where the size is round, else to a tenth.
func showSize(n uint64) string {
	b := byteSize(min(n, 1<<62))
	if n == 0 {
		return "0"
	}
	if s := b.String(); strings.HasSuffix(s, "iB") && n < 1<<20 || n%(1<<20) == 0 {
		return s
	}
	return fmt.Sprintf("%.1fMiB", float64(n)/(1<<20))
}

// changeFlags declares the flags of a change.
func changeFlags(fs *flag.FlagSet) *client.TenantChange {
	change := new(client.TenantChange)
	for _, l := range limitFlags {
		fs.Func(l.flag, l.usage+", none, or default", func(s string) error {
			switch s {
			case "none":
				return change.Set(l.name, facet.NoLimit)
			case "default":
				return change.Set(l.name, 0)
			}
			n, err := l.parse(s)
			if err != nil {
				return err
			}
			return change.Set(l.name, n)
		})
	}
	return change
}

// tenantCommand is a command whose answer is a tenant.
func tenantCommand(c command, run func(fs *flag.FlagSet) func(ctx context.Context, cl *client.Client, tenant string) (client.Tenant, error)) *command {
	c.args, c.minArgs, c.maxArgs = "TENANT", 1, 1
	return clientCommand(c, func(fs *flag.FlagSet) func(context.Context, *program, *client.Client, []string) error {
		json_ := fs.Bool("json", false, "print JSON")
		do := run(fs)
		return func(ctx context.Context, p *program, cl *client.Client, args []string) error {
			t, err := do(ctx, cl, args[0])
			switch {
			case err != nil:
				return err
			case *json_:
				return json.NewEncoder(p.stdout).Encode(t)
			}
			return printTenant(p.stdout, t)
		}
	})
}

func tenantStatCommand() *command {
	return tenantCommand(command{
		name: "tenant stat", short: "tell what a tenant has, does and may",
		long: `Limits that are not the tenant's own are marked as default. What is told for a second
is of the last one. A token for all facets of the tenant may ask as well.`,
		examples: []string{"facetd tenant stat acme", "facetd tenant stat --json acme"},
	}, func(*flag.FlagSet) func(context.Context, *client.Client, string) (client.Tenant, error) {
		return func(ctx context.Context, cl *client.Client, tenant string) (client.Tenant, error) {
			return cl.Tenant(ctx, tenant)
		}
	})
}

func tenantSetCommand() *command {
	return tenantCommand(command{
		name: "tenant set", short: "set limits of a tenant",
		long: `Sets the limits given and leaves the others as they are. "none" is no limit, whatever
the defaults say; "default" takes a limit back to the default. What a tenant has
above a lowered limit stays: it can be read and deleted.`,
		examples: []string{"facetd tenant set acme --facets 100 --bytes 10GiB --requests 1000", "facetd tenant set acme --facets none --rows default"},
	}, func(fs *flag.FlagSet) func(context.Context, *client.Client, string) (client.Tenant, error) {
		change := changeFlags(fs)
		return func(ctx context.Context, cl *client.Client, tenant string) (client.Tenant, error) {
			if change.IsZero() {
				return client.Tenant{}, usagef("tenant set needs a limit, such as --facets 100")
			}
			return cl.SetTenant(ctx, tenant, *change)
		}
	})
}

func tenantFreezeCommand() *command {
	return tenantCommand(command{
		name: "tenant freeze", short: "refuse every request of a tenant, at once",
		long: `New requests are refused, requests that run are interrupted, open transactions are
rolled back, on all nodes. The data stay as they are. With --reads only what changes
something is refused. It ends with "facetd tenant unfreeze".`,
		examples: []string{"facetd tenant freeze acme", "facetd tenant freeze --reads acme"},
	}, func(fs *flag.FlagSet) func(context.Context, *client.Client, string) (client.Tenant, error) {
		reads := fs.Bool("reads", false, "let reads go on")
		return func(ctx context.Context, cl *client.Client, tenant string) (client.Tenant, error) {
			return cl.FreezeTenant(ctx, tenant, *reads)
		}
	})
}

func tenantUnfreezeCommand() *command {
	return tenantCommand(command{
		name: "tenant unfreeze", short: "end the freeze of a tenant",
		examples: []string{"facetd tenant unfreeze acme"},
	}, func(*flag.FlagSet) func(context.Context, *client.Client, string) (client.Tenant, error) {
		return func(ctx context.Context, cl *client.Client, tenant string) (client.Tenant, error) {
			return cl.UnfreezeTenant(ctx, tenant)
		}
	})
}

func tenantListCommand() *command {
	return clientCommand(command{
		name: "tenant list", short: "list the tenants with settings of their own",
		long:     "Tenants for which nothing was set have the defaults and are not listed.",
		examples: []string{"facetd tenant list", "facetd tenant list --json"},
	}, func(fs *flag.FlagSet) func(context.Context, *program, *client.Client, []string) error {
		json_ := fs.Bool("json", false, "print one JSON object a line")
		return func(ctx context.Context, p *program, cl *client.Client, _ []string) error {
			enc := json.NewEncoder(p.stdout)
			t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
			if !*json_ {
				fmt.Fprint(t, "TENANT\tFACETS\tFROZEN\tLIMITS\n")
			}
			for after, more := "", true; more; {
				var list []client.Tenant
				var err error
				if list, more, err = cl.Tenants(ctx, after, tenantPage); err != nil {
					return err
				}
				for _, x := range list {
					after = x.Tenant
					if !*json_ {
						fmt.Fprintf(t, "%s\t%d\t%s\t%s\n", x.Tenant, x.Facets, x.Frozen, limitsText(x.Limits))
					} else if err := enc.Encode(x); err != nil {
						return err
					}
				}
				more = more && len(list) > 0
			}
			return t.Flush()
		}
	})
}

// tenantPage is how many tenants are asked for at a time.
const tenantPage = 500

func tenantDefaultsCommand() *command {
	return clientCommand(command{
		name: "tenant defaults", short: "tell or set the limits of all tenants without their own",
		long: `Without a limit it tells them. "none" and "default" both take a limit away: where a node
has a setting of its own (--facet-bytes, --statement-timeout), that one is in force.`,
		examples: []string{"facetd tenant defaults", "facetd tenant defaults --facets 10000 --requests 2000"},
	}, func(fs *flag.FlagSet) func(context.Context, *program, *client.Client, []string) error {
		json_ := fs.Bool("json", false, "print JSON")
		change := changeFlags(fs)
		return func(ctx context.Context, p *program, cl *client.Client, _ []string) error {
			l, err := client.TenantLimits{}, error(nil)
			if change.IsZero() {
				l, err = cl.TenantDefaults(ctx)
			} else {
				l, err = cl.SetTenantDefaults(ctx, *change)
			}
			switch {
			case err != nil:
				return err
			case *json_:
				return json.NewEncoder(p.stdout).Encode(l)
			}
			t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
			for i, v := range l.All() {
				fmt.Fprintf(t, "%s\t%s\n", facet.LimitNames[i], limitText(i, *v))
			}
			return t.Flush()
		}
	})
}

// limitText is a limit in words.
func limitText(i int, v uint64) string {
	if v == 0 || v == facet.NoLimit {
		return "none"
	}
	return limitFlags[i].show(v)
}

// limitsText is the limits that are set, in one line.
func limitsText(l client.TenantLimits) string {
	var parts []string
	for i, v := range l.All() {
		if *v != 0 {
			parts = append(parts, facet.LimitNames[i]+"="+limitText(i, *v))
		}
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, " ")
}

// printTenant prints what a tenant uses beside what it may.
func printTenant(w io.Writer, x client.Tenant) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "tenant\t%s\n", x.Tenant)
	frozen := "no"
	switch x.Frozen {
	case "all":
		frozen = "yes: nothing is answered"
	case "writes":
		frozen = "writes: nothing is changed, reads go on"
	}
	fmt.Fprintf(t, "frozen\t%s\n\n", frozen)
	fmt.Fprint(t, "LIMIT\tUSE\tMOST\n")
	u := &x.Use
	use := [facet.LimitCount]string{
		showCount(x.Facets), "-", showSize(u.Bytes), showCount(u.RequestsPerSecond),
		showCount(u.RowsPerSecond), showCount(u.ConcurrentRequests), "-", showSize(u.MemoryBytes),
	}
	force, own := x.InForce.All(), x.Limits.All()
	for i, name := range facet.LimitNames {
		most := limitText(i, *force[i])
		if *own[i] == 0 && *force[i] != 0 {
			most += " (default)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", name, use[i], most)
	}
	if len(x.Nodes) > 0 {
		fmt.Fprint(t, "\nNODE\tFACETS\tOPEN\tBYTES\tREQUESTS/s\tREFUSED/s\tROWS/s\tUNDER WAY\n")
		for _, n := range x.Nodes {
			if n.Problem != "" {
				fmt.Fprintf(t, "%s\tdid not answer: %s\n", n.Node, n.Problem)
				continue
			}
			u := &n.Use
			fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%d\t%d\t%d\t%d", n.Node, u.Facets, u.Open, showSize(u.Bytes), u.RequestsPerSecond, u.RefusedPerSecond, u.RowsPerSecond, u.ConcurrentRequests)
			if n.Frozen != x.Frozen {
				fmt.Fprintf(t, "\tknows frozen=%s", n.Frozen)
			}
			fmt.Fprintln(t)
		}
	}
	return t.Flush()
}
