package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// busyTenant is what a tenant did, at one node or at all.
type busyTenant struct {
	Tenant   string `json:"tenant"`
	Requests int64  `json:"requests"`
	Writes   int64  `json:"writes"`
	Bytes    int64  `json:"bytes"`
	TimeMS   int64  `json:"time_ms"`
}

// busyOrders are what tenants can be compared by.
var busyOrders = map[string]func(*busyTenant) int64{
	"time":     func(b *busyTenant) int64 { return b.TimeMS },
	"requests": func(b *busyTenant) int64 { return b.Requests },
	"writes":   func(b *busyTenant) int64 { return b.Writes },
	"bytes":    func(b *busyTenant) int64 { return b.Bytes },
}

// maxBusiest is how many tenants each node is asked for: who is among the first of the
// cluster is among these of some node.
const maxBusiest = 500

func tenantTopCommand() *command {
	return &command{
		name: "tenant top", short: "list the busiest tenants of the last minute or two",
		long: `Asks all nodes and sums up, a second at a time: requests, those that wrote, bytes of
requests and answers, and milliseconds in SQLite. A tenant that is not among the first 500
of a node is not counted there.`,
		examples: []string{"facetd tenant top", "facetd tenant top --by writes --limit 5", "facetd tenant top --json"},
		setup: func(fs *flag.FlagSet) action {
			srv := serverFlags(fs)
			by := fs.String("by", "time", "compare `WHAT`: time, requests, writes or bytes")
			limit := fs.Int("limit", 20, "list `N` tenants")
			json_ := fs.Bool("json", false, "print JSON")
			return func(ctx context.Context, p *program, _ []string) error {
				value := busyOrders[*by]
				if value == nil {
					return usagef("--by is time, requests, writes or bytes, not %q", *by)
				}
				if *limit < 1 || *limit > maxBusiest {
					return usagef("--limit is %d; write 1 to %d", *limit, maxBusiest)
				}
				ctx, stop := p.untilSignal(ctx)
				defer stop()
				asker, err := srv.asker()
				if err != nil {
					return err
				}
				answers, problems := asker.Each(ctx, srv.endpoints(), fmt.Sprintf("/v1/busiest-tenants?by=%s&limit=%d", *by, maxBusiest))
				list, seconds, err := sumBusy(answers)
				if err != nil {
					return err
				}
				for _, node := range slices.Sorted(maps.Keys(problems)) {
					fmt.Fprintf(p.stderr, "%s is not counted: %v\n", node, problems[node])
				}
				if len(answers) == 0 {
					return &connectError{strings.Join(srv.endpoints(), ", "), fmt.Errorf("no node answered")}
				}
				slices.SortFunc(list, func(a, b busyTenant) int {
					return cmp.Or(cmp.Compare(value(&b), value(&a)), cmp.Compare(a.Tenant, b.Tenant))
				})
				list = list[:min(*limit, len(list))]
				if *json_ {
					return json.NewEncoder(p.stdout).Encode(map[string]any{"seconds": seconds, "tenants": list})
				}
				t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
				fmt.Fprint(t, "TENANT\tREQUESTS/S\tWRITES/S\tBYTES/S\tSQLITE MS/S\n")
				for _, b := range list {
					per := func(n int64) float64 { return float64(n) / float64(max(seconds, 1)) }
					fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.0f\t%.1f\n", b.Tenant, per(b.Requests), per(b.Writes), per(b.Bytes), per(b.TimeMS))
				}
				if err := t.Flush(); err != nil {
					return err
				}
				_, err = fmt.Fprintf(p.stdout, "over %v, at %d nodes\n", time.Duration(seconds)*time.Second, len(answers))
				return err
			}
		},
	}
}

// sumBusy adds up what nodes answered. The time it is over is the longest of theirs.
func sumBusy(answers map[string][]byte) (list []busyTenant, seconds int64, err error) {
	sums := map[string]*busyTenant{}
	for node, raw := range answers {
		var page struct {
			Seconds int64        `json:"seconds"`
			Tenants []busyTenant `json:"tenants"`
		}
		if err := json.Unmarshal(raw, &page); err != nil {
			return nil, 0, fmt.Errorf("answer of %s: %w", node, err)
		}
		seconds = max(seconds, page.Seconds)
		for _, b := range page.Tenants {
			sum := sums[b.Tenant]
			if sum == nil {
				sum = &busyTenant{Tenant: b.Tenant}
				sums[b.Tenant] = sum
			}
			sum.Requests += b.Requests
			sum.Writes += b.Writes
			sum.Bytes += b.Bytes
			sum.TimeMS += b.TimeMS
		}
	}
	for _, sum := range sums {
		list = append(list, *sum)
	}
	return list, seconds, nil
}
