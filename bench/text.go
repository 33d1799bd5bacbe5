package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	s := &r.Settings
	fmt.Fprintf(&b, "facetd bench: %s callers, %s facets, %s-byte values, %gs each; %d CPUs, %s/%s\n",
		count(s.Callers), count(s.Facets), count(s.ValueSize), s.Seconds, s.CPUs, s.OS, s.Arch)
	if s.Data != "" {
		fmt.Fprintf(&b, "node: %s, data in %s (every write is fsynced there)\n", s.Target, s.Data)
	} else {
		fmt.Fprintf(&b, "node: %s\n", s.Target)
	}
	if r.Interrupted {
		b.WriteString("INTERRUPTED: what follows is a part of the run\n")
	}
	if len(r.Results) > 0 {
		b.WriteByte('\n')
		t := table(&b)
		fmt.Fprintln(t, "workload\tops/s\tp50\tp99\tp99.9\terrors\tcallers\tfacets\t")
		for _, x := range r.Results {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t\n", x.Workload, rate(x.OpsPerSecond), micros(x.P50), micros(x.P99), micros(x.P999), x.Errors, x.Callers, count(x.Facets))
		}
		t.Flush()
	}
	for _, x := range r.Results {
		if x.FirstError != "" {
			fmt.Fprintf(&b, "first error of %s: %s\n", x.Workload, x.FirstError)
		}
	}
	r.limitsText(&b)
	if i := r.Idle; i != nil {
		fmt.Fprintf(&b, "\n%s idle facets\n", count(i.Facets))
		t := table(&b)
		fmt.Fprintf(t, "  resident, empty node\t%s\t\n", mebi(i.EmptyBytes))
		if i.PeakBytes > 0 {
			fmt.Fprintf(t, "  resident, peak while they were made\t%s\t\n", mebi(i.PeakBytes))
		}
		fmt.Fprintf(t, "  resident, all hibernated\t%s\t%+.1f MiB, %.0f bytes a facet; hibernated after %.3gs\n", mebi(i.HibernateBytes), float64(i.HibernateBytes-i.EmptyBytes)/(1<<20), i.PerFacet, i.Hibernated)
		fmt.Fprintf(t, "  resident, after a restart\t%s\t%+.1f MiB\n", mebi(i.RestartBytes), float64(i.RestartBytes-i.EmptyBytes)/(1<<20))
		fmt.Fprintf(t, "  start-up\t%.3gs\tempty: %.3gs\n", i.Start, i.EmptyStart)
		t.Flush()
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) limitsText(b *strings.Builder) {
	l, q := r.Limits, r.Ratios
	if l == nil || q == nil {
		return
	}
	b.WriteString("\nlimits of this machine, measured in this run\n")
	t := table(b)
	fmt.Fprintln(t, "  \tper second\twrite\tread\t")
	line := func(name string, limit, write, read float64) {
		if limit > 0 {
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t\n", name, rate(limit), factor(write), factor(read))
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
	t.Flush()
	if q.HotWrite > 0 || q.HotRead > 0 {
		fmt.Fprintf(b, "one facet compared with all: writes %s, reads %s\n", factor(q.HotWrite), factor(q.HotRead))
	}
}

func table(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
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
