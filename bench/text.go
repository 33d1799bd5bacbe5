package bench

import (
	"fmt"
	"io"
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
		row("workload", "ops/s", "p50", "p99", "p99.9", "errors", "callers", "facets")
		for _, x := range r.Results {
			row(x.Workload, rate(x.OpsPerSecond), micros(x.P50), micros(x.P99), micros(x.P999), count(int(x.Errors)), count(x.Callers), count(x.Facets))
		}
	}
	for _, x := range r.Results {
		if x.FirstError != "" {
			fmt.Fprintf(&b, "first error of %s: %s\n", x.Workload, x.FirstError)
		}
	}
	r.referenceText(&b)
	r.limitsText(&b)
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
