package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// writeText writes the report for people, in Markdown.
func (r *report) writeText(w io.Writer) error {
	var b strings.Builder
	s, m := &r.Settings, &r.Machine
	fmt.Fprintf(&b, "# facetd beside others: results\n\nWritten by `%s` on %s. [peers/README.md](peers/README.md) tells what is measured and how to repeat it.\n", r.Command, r.Started)
	b.WriteString("\n## Machine and settings\n\n| | |\n|---|---|\n")
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "| %s | %s |\n", name, fmt.Sprintf(format, args...))
	}
	line("processor", "%s, %d CPUs, %s", orUnknown(m.CPU), m.CPUs, m.Arch)
	line("memory", "%.1f GiB", float64(m.Memory)/(1<<30))
	line("kernel", "%s %s", m.OS, orUnknown(m.Kernel))
	line("file system, disk", "%s on %s", orUnknown(m.FileSystem), orUnknown(m.Disk))
	line("fdatasync of 4 KiB, one writer", "p50 %s, p99 %s ms", millis(m.Sync), millis(m.SyncP99))
	line("load average before", "%.1f", m.Load)
	line("Go of the load", "%s", m.Go)
	line("load", "closed loop, %d callers, %d keys, %d-byte values, %v for each workload after %v that do not count, %d rounds",
		s.Callers, s.Keys, s.Size, s.Duration, s.Duration/warmShare, s.Rounds)
	b.WriteString("\nEvery round starts each peer anew with an empty disk, one after the other; only one runs at a time. " +
		"Servers and load share the machine's processors and its disk. Where there are three servers their figures are added up.\n")
	r.ratioTable(&b)
	b.WriteString("\n## Measurements\n\nEvery round is shown: " +
		"rates a second; server and client CPU in ms for 1,000 operations; bytes for each operation: on disk, and between servers; MiB resident in all servers afterwards. " +
		"Bytes on disk are those of the disk's own counter, for all servers together, file system and journal included, without what the disk got while nobody called (`idle`, KiB a second); " +
		"what a server holds back for a later checkpoint is not in them, and where others kept the disk busier than the load they are unknown. A library has no servers: its work is the client's. `?` is unknown.\n")
	for _, name := range workloadNames() {
		r.table(&b, name)
	}
	r.peersText(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// workloadNotes say what the workloads are.
var workloadNotes = map[string]string{
	createName:  "the first write to a key that does not exist, by all callers: a table and a row. Only of peers whose keys are databases of their own; a new key or row elsewhere is a write. `KiB each` is resident memory for each new database.",
	"write":     "a new value for one of all keys, durable.",
	"read":      "the value of one of all keys, as of now.",
	"hot_write": "all callers write one key.",
	"write_one": "one caller writes one key: latency alone.",
}

func (r *report) table(b *strings.Builder, name string) {
	fmt.Fprintf(b, "\n### %s\n\n%s\n", name, sentence(workloadNotes[name]))
	create := name == createName
	heads := []string{"peer", "round", "ops/s", "p50 ms", "p99 ms", "server CPU", "client CPU", "disk bytes", "idle", "between", "resident"}
	if create {
		heads = append(heads, "KiB each")
	}
	heads = append(heads, "errors", "load")
	fmt.Fprintf(b, "\n| %s |\n|%s\n", strings.Join(heads, " | "), strings.Repeat("---|", len(heads)))
	for _, p := range r.Peers {
		for _, m := range r.of(p.Name, name) {
			server := figure(m.ServerCPU, 1)
			if p.Processes == 0 {
				server = "-"
			}
			between := figure(m.Sent, 1)
			if p.Processes < 2 {
				between = "-"
			}
			var resident *float64
			if m.Resident != nil {
				x := float64(*m.Resident)
				resident = &x
			}
			cells := []string{m.Peer, fmt.Sprint(m.Round), number(m.OpsPerSecond), millis(m.P50), millis(m.P99), server, number(m.ClientCPU),
				figure(m.Disk, 1), number(m.DiskIdle / 1024), between, figure(resident, 1<<20)}
			if create {
				cells = append(cells, figure(m.PerKey, 1024))
			}
			fmt.Fprintf(b, "| %s |\n", strings.Join(append(cells, fmt.Sprint(m.Errors), fmt.Sprintf("%.1f", m.Load)), " | "))
		}
	}
	for _, m := range r.Measures {
		if m.Workload == name && m.FirstError != "" {
			fmt.Fprintf(b, "\nFirst error of %s in round %d: %s\n", m.Peer, m.Round, m.FirstError)
		}
	}
}

func (r *report) ratioTable(b *strings.Builder) {
	if len(r.Ratios) == 0 {
		return
	}
	b.WriteString("\n## Ratios\n\nTaken within a round: the median of the rounds, and their range. " +
		"Above 1 is in favour of facetd in every column: rate is facetd's by the peer's, the others are the peer's by facetd's.\n" +
		"\n| facetd | to | workload | rate | server CPU | CPU with client | disk bytes | memory of a database |\n|---|---|---|---|---|---|---|---|\n")
	for _, x := range r.Ratios {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", x.Ours, x.Peer, x.Workload, &x.Rate, x.ServerCPU, &x.CPU, x.Disk, x.PerKey)
	}
}

// String is the median and the range; nothing of a ratio that makes no sense.
func (s *spread) String() string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("**%.2f** (%.2f to %.2f)", s.Median, s.Min, s.Max)
}

// peersText tells how each peer was run.
func (r *report) peersText(b *strings.Builder) {
	b.WriteString("\n## Peers\n\nA write is answered when it is:\n\n| peer | durable | a key is | client | version |\n|---|---|---|---|---|\n")
	for _, p := range r.Peers {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", p.Name, p.Durable, p.Key, p.Client, p.Version)
	}
	for _, p := range r.Peers {
		fmt.Fprintf(b, "\n### %s\n\n", p.Name)
		if len(p.Launches) == 0 {
			b.WriteString("A library: no process of its own.\n")
			continue
		}
		var files []string
		b.WriteString("```\n")
		for _, l := range p.Launches {
			b.WriteString(l.Line + "\n")
			for name := range l.Files {
				files = append(files, name)
			}
		}
		b.WriteString("```\n")
		slices.Sort(files)
		for _, name := range files {
			for _, l := range p.Launches {
				content, ok := l.Files[name]
				switch {
				case !ok:
				case content == workerScript:
					fmt.Fprintf(b, "\n`%s` is [worker.js](peers/worker.js).\n", name)
				default:
					fmt.Fprintf(b, "\n`%s`:\n\n```\n%s\n```\n", name, strings.TrimSpace(content))
				}
			}
		}
	}
	if len(r.Missing) > 0 {
		b.WriteString("\n## Left out\n\n")
		for _, why := range r.Missing {
			fmt.Fprintf(b, "- %s\n", why)
		}
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "?"
	}
	return s
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func millis(us int64) string { return fmt.Sprintf("%.2f", float64(us)/1e3) }

// figure is a number by a unit, "?" where it is unknown.
func figure(v *float64, unit float64) string {
	if v == nil {
		return "?"
	}
	return number(*v / unit)
}

// number writes three digits of small ones, and all before the point of others.
func number(x float64) string {
	switch {
	case x < 10 && x > -10:
		return fmt.Sprintf("%.2f", x)
	case x < 100 && x > -100:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}
