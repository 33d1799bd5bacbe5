package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	s := &r.Settings
	fmt.Fprintf(&b, "facetd bench: %s callers, %s facets, %s-byte values, %gs each; %d CPUs, %s/%s\n",
		count(s.Callers), count(s.Facets), count(s.ValueSize), s.Seconds, s.CPUs, s.OS, s.Arch)
	where, durable := "node: "+s.Target, "there"
	if s.Nodes > 1 {
		where, durable = fmt.Sprintf("%d nodes: %s", s.Nodes, strings.ReplaceAll(s.Target, ",", " ")), "by a majority"
		if s.Replicas > 0 {
			where += fmt.Sprintf("; %d copies of a facet", s.Replicas)
			durable += fmt.Sprintf(" of %d", s.Replicas)
		}
	}
	if s.Data != "" {
		where += fmt.Sprintf(", data in %s (every write is fsynced %s)", s.Data, durable)
	}
	fmt.Fprintln(&b, where)
	if s.Rate > 0 {
		fmt.Fprintf(&b, "open loop: %s calls a second are due, latency counts from then; up to %s wait for a caller\n", rate(s.Rate), count(s.Queue))
	}
	if s.Seed != 0 {
		fmt.Fprintf(&b, "seed %d\n", s.Seed)
	}
	if r.Interrupted {
		b.WriteString("INTERRUPTED: what follows is a part of the run\n")
	}
	if len(r.Results) > 0 {
		b.WriteByte('\n')
		row := func(name string, figures ...string) {
			fmt.Fprintf(&b, "%-10s", name)
			for _, f := range figures {
				b.WriteString(right(f, 9))
			}
			b.WriteByte('\n')
		}
		row("workload", "ops/s", "p50", "p99", "p99.9", "errors", "callers", "facets", "loop")
		for _, x := range r.Results {
			row(x.Workload, rate(x.OpsPerSecond), micros(x.P50), micros(x.P99), micros(x.P999), count(int(x.Errors)), count(x.Callers), count(x.Facets), x.loop())
		}
	}
	for _, x := range r.Results {
		if x.Mode == "open" {
			fmt.Fprintf(&b, "%s: of %s calls that were due %s began more than 1 ms late, and %s were dropped because the queue was full\n",
				x.Workload, count(int(x.Due)), count(int(x.Late)), count(int(x.Dropped)))
		}
		if v := x.Verified; v != nil {
			fmt.Fprintf(&b, "%s: counters rose by %s; %s increments were acknowledged, the outcome of %s is unknown\n",
				x.Workload, count(int(v.Found)), count(int(v.Acknowledged)), count(int(v.Unknown)))
		}
	}
	for _, x := range r.Results {
		if x.FirstError != "" {
			fmt.Fprintf(&b, "first error of %s: %s\n", x.Workload, x.FirstError)
		}
	}
	r.resourcesText(&b)
	r.referenceText(&b)
	r.limitsText(&b)
	if a := r.Active; a != nil {
		fmt.Fprintf(&b, "\n%s open facets: resident %s with none open, %s with all; %s bytes a facet\n",
			count(a.Facets), mebi(a.ClosedBytes), mebi(a.OpenBytes), rate(a.PerFacet))
	}
	if i := r.Idle; i != nil {
		fmt.Fprintf(&b, "\n%s idle facets\n", count(i.Facets))
		line := func(name string, value, note string) {
			fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("  %-38s%s  %s", name, right(value, 10), note), " "))
		}
		more := func(n int64) string { return fmt.Sprintf("%+.1f MiB", float64(n-i.EmptyBytes)/(1<<20)) }
		line("resident, empty node", mebi(i.EmptyBytes), "")
		line("resident, most while they were made", mebi(i.PeakBytes), "")
		line("resident, all hibernated", mebi(i.HibernateBytes), fmt.Sprintf("%s, %.0f bytes a facet", more(i.HibernateBytes), i.PerFacet))
		line("resident, after a restart", mebi(i.RestartBytes), more(i.RestartBytes))
		line("until all hibernated", fmt.Sprintf("%.3gs", i.Hibernated), "")
		line("start-up", fmt.Sprintf("%.3gs", i.Start), fmt.Sprintf("empty: %.3gs", i.EmptyStart))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// loop tells how the calls of a result were paced.
func (x *Result) loop() string {
	if x.Mode == "open" {
		return rate(x.Rate) + "/s"
	}
	return x.Mode
}

// costs are the figures of Resources as people read them, with the heads of their
// columns.
var costs = []struct {
	head string
	of   func(*Resources) (v float64, known bool)
}{
	{"CPU load", func(r *Resources) (float64, bool) { return times1000(r.ClientCPU) }},
	{"CPU nodes", func(r *Resources) (float64, bool) { return times1000(r.NodesCPU) }},
	{"log", func(r *Resources) (float64, bool) { return figure(r.Log) }},
	{"zeros", func(r *Resources) (float64, bool) { return figure(r.Zeroed) }},
	{"database", func(r *Resources) (float64, bool) { return figure(r.Database) }},
	{"nodes", func(r *Resources) (float64, bool) { return figure(r.Peers) }},
	{"sent", func(r *Resources) (float64, bool) { return figure(r.Sent) }},
	{"received", func(r *Resources) (float64, bool) { return figure(r.Received) }},
	{"resident", func(r *Resources) (float64, bool) { return mebis(r.Resident) }},
	{"open", func(r *Resources) (float64, bool) { return whole(r.Active) }},
}

func figure(v *float64) (float64, bool) {
	if v == nil {
		return 0, false
	}
	return *v, true
}

func times1000(v *float64) (float64, bool) {
	x, ok := figure(v)
	return 1000 * x, ok
}

func whole(v *int64) (float64, bool) {
	if v == nil {
		return 0, false
	}
	return float64(*v), true
}

func mebis(v *int64) (float64, bool) {
	x, ok := whole(v)
	return x / (1 << 20), ok
}

// cost writes one figure, "?" where it is unknown.
func cost(v float64, known bool) string {
	switch {
	case !known:
		return "?"
	case v != 0 && v < 100 && v > -100:
		return fmt.Sprintf("%.3g", v)
	}
	return rate(v)
}

// CostsNote says what the figures of resources count.
const CostsNote = "processor time in ms for 1,000 operations, of the load and of all nodes; bytes for each operation: " +
	"written into the commit logs of all nodes, zeros written into their segments before that, and what checkpoints wrote into database files; sent from node to node, sent and received by the load; " +
	"then MiB resident in all nodes and facets open"

func (r *Report) resourcesText(b *strings.Builder) {
	var unknown []string
	head := false
	for _, x := range r.Results {
		if x.Resources == nil {
			continue
		}
		if !head {
			head = true
			fmt.Fprintf(b, "\n%s\n%-10s", wrapText(CostsNote, 88), "cost")
			for _, c := range costs {
				b.WriteString(right(c.head, 10))
			}
			b.WriteByte('\n')
		}
		fmt.Fprintf(b, "%-10s", x.Workload)
		for _, c := range costs {
			b.WriteString(right(cost(c.of(x.Resources)), 10))
		}
		b.WriteByte('\n')
		if x.Resources.Unknown != "" && !slices.Contains(unknown, x.Resources.Unknown) {
			unknown = append(unknown, x.Resources.Unknown)
		}
	}
	for _, u := range unknown {
		fmt.Fprintf(b, "? is unknown: %s\n", u)
	}
	if head && r.Settings.Data == "" {
		b.WriteString("the nodes were running before: what they did for others meanwhile is in their figures\n")
	}
}

// wrapText breaks lines at blanks.
func wrapText(s string, width int) string {
	var b strings.Builder
	n := 0
	for i, w := range strings.Fields(s) {
		switch {
		case i == 0:
		case n+1+len(w) > width:
			b.WriteByte('\n')
			n = 0
		default:
			b.WriteByte(' ')
			n++
		}
		b.WriteString(w)
		n += len(w)
	}
	return b.String()
}

func (r *Report) referenceText(b *strings.Builder) {
	f := r.Reference
	if f == nil {
		return
	}
	b.WriteString("\none caller, one facet: the shortest way of a write, measured in between\n")
	line := func(name string, us float64, note string) {
		if us > 0 {
			fmt.Fprintln(b, strings.TrimRight(fmt.Sprintf("  %-38s%s%s", name, right(fmt.Sprintf("%.1fµs", us), 10), right(note, 9)), " "))
		}
	}
	line("round trip to the owner, p50", f.Owner, "")
	line("round trip to a replica, p50", f.Replica, "")
	line("fdatasync of 4 KiB, p50", f.Fsync, "")
	line("together", f.Sum, "")
	line("write_one, p50", f.Write, factor(f.Ratio))
}

func (r *Report) limitsText(b *strings.Builder) {
	l, q := r.Limits, r.Ratios
	if l == nil || q == nil {
		return
	}
	b.WriteString("\nlimits of this machine, measured in this run\n")
	row := func(name, limit, write, read string) {
		fmt.Fprintln(b, strings.TrimRight(fmt.Sprintf("  %-38s%s%s%s", name, right(limit, 10), right(write, 9), right(read, 9)), " "))
	}
	row("", "per second", "write is", "read is")
	line := func(name string, limit, write, read float64) {
		if limit > 0 {
			row(name, rate(limit), factor(write), factor(read))
		}
	}
	line("E  echo, framed and multiplexed", l.Echo, q.WriteEcho, q.ReadEcho)
	line("W  engine alone, writes", l.Writes, q.WriteW, 0)
	line("R  engine alone, reads", l.Reads, 0, q.ReadR)
	line("1/(1/W+1/E)", l.CombinedWrites, q.Write, 0)
	line("1/(1/R+1/E)", l.CombinedReads, 0, q.Read)
	line("group fdatasync", l.Fsync, q.WriteSync, 0)
	line("fdatasync, one writer", l.FsyncSingle, 0, 0)
	line("stock SQLite, WAL, synchronous=FULL", l.Stock, q.WriteStock, 0)
	line("echo through the SDK", l.SDKEcho, 0, 0)
	line("engine alone, writes to one facet", l.HotWrites, 0, 0)
	line("engine alone, reads of one facet", l.HotReads, 0, 0)
	if q.HotWrite > 0 {
		fmt.Fprintf(b, "writes to one facet are %s of those to all\n", factor(q.HotWrite))
	}
	if q.HotRead > 0 {
		fmt.Fprintf(b, "reads of one facet are %s of those of all\n", factor(q.HotRead))
	}
}

// right aligns a column of figures.
func right(s string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s))) + s
}

func factor(x float64) string {
	switch {
	case x == 0:
		return ""
	case x >= 10:
		return fmt.Sprintf("%.0fx", x)
	}
	return fmt.Sprintf("%.2fx", x)
}

func micros(us int64) string {
	switch {
	case us >= 10_000_000:
		return fmt.Sprintf("%.1fs", float64(us)/1e6)
	case us >= 10_000:
		return fmt.Sprintf("%.0fms", float64(us)/1e3)
	case us >= 1000:
		return fmt.Sprintf("%.2fms", float64(us)/1e3)
	}
	return fmt.Sprintf("%dµs", us)
}

func mebi(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

func rate(x float64) string { return count(int(x + 0.5)) }

// count writes a number with commas.
func count(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
