package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Sweep is how the figures of workloads change with one setting. Its JSON is a
// contract with scripts, as that of Report.
type Sweep struct {
	Over    string  `json:"over"`
	Command string  `json:"command,omitempty"`
	Points  []Swept `json:"points"`
	Stopped string  `json:"stopped,omitempty"` // why values are missing
}

// Swept is what was measured with one value of the setting, on nodes of its own.
type Swept struct {
	Value float64 `json:"value"`
	Report
}

// WriteJSON writes the sweep as scripts read it.
func (s *Sweep) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(s)
}

// sweepHeads are the columns of a sweep's tables behind the value.
func sweepHeads() []string {
	heads := []string{"ops/s", "p50", "p99", "errors"}
	for _, c := range costs {
		heads = append(heads, c.head)
	}
	return append(heads, "CPU node")
}

// SweepNote says what the columns are that a report does not have.
const SweepNote = CostsNote + "; CPU node is that of one node on average"

// sweepRow are the figures of a workload with one value.
func (p *Swept) sweepRow(x *Result) []string {
	row := []string{rate(x.OpsPerSecond), micros(x.P50), micros(x.P99), count(int(x.Errors))}
	for _, c := range costs {
		text := "?"
		if x.Resources != nil {
			text = cost(c.of(x.Resources))
		}
		row = append(row, text)
	}
	return append(row, cost(p.nodeCPU(x)))
}

// nodeCPU is processor milliseconds for 1,000 operations, of one node on average.
func (p *Swept) nodeCPU(x *Result) (float64, bool) {
	if x.Resources == nil || p.Settings.Nodes == 0 {
		return 0, false
	}
	v, known := times1000(x.Resources.NodesCPU)
	return v / float64(p.Settings.Nodes), known
}

// result finds a workload among those of a value.
func (p *Swept) result(name string) *Result {
	i := slices.IndexFunc(p.Results, func(x Result) bool { return x.Workload == name })
	if i < 0 {
		return nil
	}
	return &p.Results[i]
}

// workloads are the names of all, in the order they first appear.
func (s *Sweep) workloads() (names []string) {
	for _, p := range s.Points {
		for _, x := range p.Results {
			if !slices.Contains(names, x.Workload) {
				names = append(names, x.Workload)
			}
		}
	}
	return names
}

func aboutWorkload(name string) string {
	i := slices.IndexFunc(Workloads, func(w Workload) bool { return w.Name == name })
	if i < 0 {
		return ""
	}
	return Workloads[i].About
}

// WriteText writes the sweep for people: a table for each workload.
func (s *Sweep) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "facetd bench sweep over %s\n", s.Over)
	if s.Command != "" {
		fmt.Fprintln(&b, s.Command)
	}
	if len(s.Points) > 0 {
		c := &s.Points[0].Settings
		fmt.Fprintf(&b, "with the first value: nodes %s, callers %s, facets %s, rows before %s, bytes of a value %s, %gs each; %d CPUs, %s/%s\n",
			count(c.Nodes), count(c.Callers), count(c.Facets), count(c.Rows), count(c.ValueSize), c.Seconds, c.CPUs, c.OS, c.Arch)
	}
	for _, name := range s.workloads() {
		fmt.Fprintf(&b, "\n%s: %s\n%10s", name, aboutWorkload(name), s.Over)
		for _, h := range sweepHeads() {
			b.WriteString(right(h, 10))
		}
		b.WriteByte('\n')
		for i := range s.Points {
			p := &s.Points[i]
			if x := p.result(name); x != nil {
				b.WriteString(right(plainValue(p.Value), 10))
				for _, f := range p.sweepRow(x) {
					b.WriteString(right(f, 10))
				}
				b.WriteByte('\n')
			}
		}
	}
	for _, p := range s.Points {
		for _, x := range p.Results {
			if x.FirstError != "" {
				fmt.Fprintf(&b, "\nfirst error of %s with %s %s: %s", x.Workload, s.Over, plainValue(p.Value), x.FirstError)
			}
		}
	}
	fmt.Fprintf(&b, "\n%s\n", wrapText(SweepNote, 88))
	if s.Stopped != "" {
		fmt.Fprintf(&b, "INCOMPLETE: %s\n", s.Stopped)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// plainValue writes a value of the setting.
func plainValue(v float64) string {
	if v == float64(int(v)) {
		return count(int(v))
	}
	return fmt.Sprintf("%g", v)
}

// WriteHTML writes the sweep as one page with tables and plots. It needs nothing but
// itself.
func (s *Sweep) WriteHTML(w io.Writer) error {
	d := sweepPage{Over: s.Over, Stopped: s.Stopped, Note: SweepNote, Heads: append([]string{s.Over}, sweepHeads()...)}
	if len(s.Points) > 0 {
		d.Settings = newRun(0, Named{Report: &s.Points[0].Report}).Settings
		d.Settings[0][1] = s.Command
	}
	for _, name := range s.workloads() {
		d.Workloads = append(d.Workloads, s.page(name))
	}
	return pages.ExecuteTemplate(w, "sweep.html", d)
}

type sweepPage struct {
	Over, Stopped, Note string
	Settings            [][2]string // with the first value
	Heads               []string
	Workloads           []sweptWorkload
}

type sweptWorkload struct {
	Name, About string
	Rows        [][]string
	Plots       []*plot
}

func (s *Sweep) page(name string) sweptWorkload {
	w := sweptWorkload{Name: name, About: aboutWorkload(name)}
	points := slices.Clone(s.Points)
	slices.SortStableFunc(points, func(a, b Swept) int { return cmp.Compare(a.Value, b.Value) })
	rates := curve{Class: "r0", Name: "operations a second"}
	p50, p99 := curve{Class: "r0", Name: "p50"}, curve{Class: "r0 far", Name: "p99"}
	all, each := curve{Class: "r0", Name: "all nodes"}, curve{Class: "r0 far", Name: "one node on average"}
	for i := range points {
		p := &points[i]
		x := p.result(name)
		if x == nil {
			continue
		}
		w.Rows = append(w.Rows, append([]string{plainValue(p.Value)}, p.sweepRow(x)...))
		if !(p.Value > 0) {
			continue // has no place on an axis of decades
		}
		rates.add(p.Value, x.OpsPerSecond)
		if x.Ops > 0 {
			p50.add(p.Value, float64(x.P50))
			p99.add(p.Value, float64(x.P99))
		}
		if one, known := p.nodeCPU(x); known {
			each.add(p.Value, one)
			all.add(p.Value, one*float64(p.Settings.Nodes))
		}
	}
	for _, p := range []*plot{
		against("operations a second", s.Over, []curve{rates}, false),
		against("latency: p50, p99 broken", s.Over, []curve{p50, p99}, true),
		against("CPU ms for 1,000 operations: all nodes, one node broken", s.Over, []curve{all, each}, false),
	} {
		if p != nil {
			p.Title = name + ": " + p.Title
			w.Plots = append(w.Plots, p)
		}
	}
	return w
}

// against draws curves over the values of a setting. latency says that they are
// microseconds, which are drawn over decades.
func against(title, over string, curves []curve, latency bool) *plot {
	low, high, ok := extent(curves, xs)
	least, most, _ := extent(curves, ys)
	if !ok {
		return nil
	}
	p := newPlot(title, over)
	x, xt := decades(low, high, p.X0, p.X1, plainLabel)
	y, yt := linear(most, p.Y0, p.Y1, plainLabel)
	if latency {
		y, yt = decades(least, most, p.Y0, p.Y1, timeLabel)
	}
	p.XTicks, p.YTicks = xt, yt
	return p.draw(curves, x, y)
}
