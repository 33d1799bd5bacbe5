package bench

import (
	"embed"
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"
)

//go:embed parts.html report.html sweep.html
var pageFiles embed.FS

// pages are report.html and sweep.html, which share parts.html.
var pages = template.Must(template.ParseFS(pageFiles, "*.html"))

// Named is a report with the name it has beside others.
type Named struct {
	Name string
	*Report
}

// WriteHTML writes one page with the reports side by side: tables, and plots as SVG.
// It needs nothing but itself: no network and no script.
func WriteHTML(w io.Writer, reports []Named) error {
	if len(reports) == 0 || len(reports) > MaxReports {
		return fmt.Errorf("a page compares 1 to %d reports, not %d", MaxReports, len(reports))
	}
	d := pageData{CostsNote: CostsNote}
	for _, c := range costs {
		d.CostHeads = append(d.CostHeads, c.head)
	}
	var names []string // of workloads, in the order they first appear
	at := make(map[string]int)
	for i, r := range reports {
		d.Runs = append(d.Runs, newRun(i, r))
		for _, x := range r.Results {
			if _, ok := at[x.Workload]; !ok {
				at[x.Workload] = len(names)
				names = append(names, x.Workload)
			}
		}
	}
	d.Workloads = make([]pageWorkload, len(names))
	for k, name := range names {
		d.Workloads[k] = newWorkload(name, reports)
	}
	return pages.ExecuteTemplate(w, "report.html", d)
}

type pageData struct {
	Runs      []pageRun
	Workloads []pageWorkload
	CostHeads []string
	CostsNote string
}

// pageRun is one report: its settings, and all it says as text.
type pageRun struct {
	Class, Name string
	Interrupted bool
	Settings    [][2]string
	Text        string
}

func newRun(i int, n Named) pageRun {
	s := &n.Settings
	loop := "closed"
	if s.Rate > 0 {
		loop = fmt.Sprintf("open, %s calls a second, up to %s wait", rate(s.Rate), count(s.Queue))
	}
	machine := fmt.Sprintf("%d CPUs, %s/%s", s.CPUs, s.OS, s.Arch)
	if s.CPU != "" {
		machine += ", " + s.CPU
	}
	if s.Memory > 0 {
		machine += ", " + mebi(s.Memory)
	}
	nodes := count(s.Nodes) + " at " + strings.ReplaceAll(s.Target, ",", " ")
	if s.Replicas > 0 {
		nodes += fmt.Sprintf("; %d copies of a facet", s.Replicas)
	}
	var text strings.Builder
	n.WriteText(&text) // a Builder takes everything
	return pageRun{
		Class: "r" + strconv.Itoa(i), Name: n.Name, Interrupted: n.Interrupted, Text: text.String(),
		Settings: [][2]string{
			{"command", s.Command}, {"started", s.Started}, {"version", s.Version}, {"machine of the load", machine}, {"go", s.Go},
			{"nodes", nodes}, {"loop", loop}, {"callers", count(s.Callers)}, {"facets", count(s.Facets)}, {"rows before", count(s.Rows)},
			{"value", count(s.ValueSize) + " bytes"}, {"connections to a node", count(s.Conns)}, {"duration", fmt.Sprintf("%gs", s.Seconds)},
			{"seed", strconv.FormatUint(s.Seed, 10)}, {"theta", fmt.Sprintf("%g", s.Theta)},
		},
	}
}

// pageWorkload is one workload in all reports.
type pageWorkload struct {
	Name, About string
	Rows        []pageRow
	Plots       []*plot
}

type pageRow struct {
	Class, Name string
	Cells       []string // rate, latencies, errors, loop
	Notes       []string
	Costs       []string
}

func newWorkload(name string, reports []Named) pageWorkload {
	w := pageWorkload{Name: name, About: aboutWorkload(name)}
	var rates, latencies, distribution []curve
	for i, r := range reports {
		for k := range r.Results {
			x := &r.Results[k]
			if x.Workload != name {
				continue
			}
			class := "r" + strconv.Itoa(i)
			w.Rows = append(w.Rows, newRow(class, r.Name, x))
			through := curve{Class: class, Name: r.Name}
			p50, p99 := curve{Class: class, Name: r.Name + ", p50"}, curve{Class: class + " far", Name: r.Name + ", p99"}
			for _, p := range x.Series {
				if !(p.Seconds > 0) {
					continue
				}
				middle := p.At + p.Seconds/2
				through.add(middle, float64(p.Ops)/p.Seconds)
				if p.Ops > 0 {
					p50.add(middle, float64(p.P50))
					p99.add(middle, float64(p.P99))
				}
			}
			tail := curve{Class: class, Name: r.Name}
			for _, p := range x.Percentiles {
				if p.Percent >= 0 && p.Percent < 100 {
					tail.add(100/(100-p.Percent), float64(p.Micros))
				}
			}
			rates, latencies, distribution = append(rates, through), append(latencies, p50, p99), append(distribution, tail)
		}
	}
	for _, p := range []*plot{throughput(rates), byPercentile(distribution), overTime(latencies)} {
		if p != nil {
			p.Title = name + ": " + p.Title
			w.Plots = append(w.Plots, p)
		}
	}
	return w
}

func (c *curve) add(x, y float64) { c.x, c.y = append(c.x, x), append(c.y, y) }

func newRow(class, name string, x *Result) pageRow {
	row := pageRow{Class: class, Name: name, Cells: []string{
		rate(x.OpsPerSecond), micros(x.P50), micros(x.P90), micros(x.P99), micros(x.P999), micros(x.Max),
		count(int(x.Errors)), count(x.Callers), count(x.Facets), x.loop(),
	}}
	note := func(format string, args ...any) { row.Notes = append(row.Notes, fmt.Sprintf(format, args...)) }
	if x.Mode == "open" {
		note("%s calls were due, %s began more than 1 ms late, %s were dropped", count(int(x.Due)), count(int(x.Late)), count(int(x.Dropped)))
	}
	if v := x.Verified; v != nil {
		note("counters rose by %s; %s increments were acknowledged, the outcome of %s is unknown", count(int(v.Found)), count(int(v.Acknowledged)), count(int(v.Unknown)))
	}
	if x.FirstError != "" {
		note("first error: %s", x.FirstError)
	}
	for _, c := range costs {
		text := "unknown"
		if x.Resources != nil {
			if v, known := c.of(x.Resources); known {
				text = cost(v, true)
			}
		}
		row.Costs = append(row.Costs, text)
	}
	if x.Resources != nil && x.Resources.Unknown != "" {
		note("unknown cost: %s", x.Resources.Unknown)
	}
	return row
}
