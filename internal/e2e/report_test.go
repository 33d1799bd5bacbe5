//go:build unix

package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

var chaosOut = flag.String("chaos.out", "", "write what a long run did as JSON to this file")

// report is what a run of chaos did: what was asked and answered, what went wrong, and
// what must never happen and did.
type report struct {
	begun time.Time

	mu     sync.Mutex
	ops    map[string]*opCount    // guarded by mu, as all below
	faults map[string]*faultCount // by name
	runs   []clusterRun
	wrong  []string // violations
}

// opCount counts the operations of one kind by what their callers were told.
type opCount struct {
	OK      int64 `json:"ok"`
	Refused int64 `json:"refused"` // told that it did not happen
	Unknown int64 `json:"unknown"` // it may have happened
}

// faultCount is what one kind of fault did.
type faultCount struct {
	Count    int     `json:"count"`
	Pause    seconds `json:"longest_write"`    // the longest a write waited that ended under the fault or the healing
	Recovery seconds `json:"longest_recovery"` // from the healing until every facet took a write
}

// clusterRun is one cluster of the run.
type clusterRun struct {
	Seed    uint64  `json:"seed"`
	Lived   seconds `json:"lived"`
	Failed  bool    `json:"failed"`
	Facets  int     `json:"facets"`
	Entries int     `json:"entries"` // all checked against what callers were told
}

// seconds is a duration that is written as a number of seconds.
type seconds time.Duration

func (s seconds) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", time.Duration(s).Seconds()), nil
}

func (s seconds) String() string { return time.Duration(s).Round(10 * time.Millisecond).String() }

func newReport() *report {
	return &report{begun: time.Now(), ops: make(map[string]*opCount), faults: make(map[string]*faultCount)}
}

// op counts an answer.
func (r *report) op(name string, o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.ops[name]
	if c == nil {
		c = new(opCount)
		r.ops[name] = c
	}
	switch o {
	case done:
		c.OK++
	case unknown:
		c.Unknown++
	default:
		c.Refused++
	}
}

// fault counts a fault that is healed.
func (r *report) fault(name string, pause, recovery time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.faults[name]
	if f == nil {
		f = new(faultCount)
		r.faults[name] = f
	}
	f.Count++
	f.Pause, f.Recovery = max(f.Pause, seconds(pause)), max(f.Recovery, seconds(recovery))
}

func (r *report) violation(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	const most = 1000 // a cluster that lost its mind says the same again and again
	if len(r.wrong) < most {
		r.wrong = append(r.wrong, what)
	}
}

func (r *report) run(c clusterRun) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runs = append(r.runs, c)
}

// show prints the tables, and writes the file where one is wanted.
func (r *report) show(t testing.TB) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	var all opCount
	fmt.Fprintln(w, "operation\tok\trefused\tunknown\t")
	for _, name := range slices.Sorted(maps.Keys(r.ops)) {
		c := r.ops[name]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t\n", name, c.OK, c.Refused, c.Unknown)
		all.OK, all.Refused, all.Unknown = all.OK+c.OK, all.Refused+c.Refused, all.Unknown+c.Unknown
	}
	fmt.Fprintf(w, "all\t%d\t%d\t%d\t\n\t\t\t\t\n", all.OK, all.Refused, all.Unknown)
	count := 0
	fmt.Fprintln(w, "fault\tcount\tlongest write\tlongest recovery\t")
	for _, name := range slices.Sorted(maps.Keys(r.faults)) {
		f := r.faults[name]
		count += f.Count
		fmt.Fprintf(w, "%s\t%d\t%v\t%v\t\n", name, f.Count, f.Pause, f.Recovery)
	}
	fmt.Fprintf(w, "%d kinds\t%d\t\t\t\n", len(r.faults), count)
	w.Flush()
	entries := 0
	for _, c := range r.runs {
		entries += c.Entries
		if c.Failed {
			fmt.Fprintf(&b, "the cluster of seed %d failed\n", c.Seed)
		}
	}
	took := time.Since(r.begun)
	fmt.Fprintf(&b, "%v, %d clusters, %d entries checked, %d violations\n", took.Round(time.Second), len(r.runs), entries, len(r.wrong))
	t.Log("\n" + b.String())
	if *chaosOut == "" {
		return
	}
	text, err := json.MarshalIndent(map[string]any{
		"build": buildOf(), "begun": r.begun.UTC(), "lasted": seconds(took), "operations": r.ops, "faults": r.faults, "clusters": r.runs,
		"violations": append([]string{}, r.wrong...),
	}, "", "  ")
	if err == nil {
		err = os.WriteFile(*chaosOut, append(text, '\n'), 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

// buildOf is the commit under test.
func buildOf() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return ""
}

// witness is a test whose complaints are violations of a report.
type witness struct {
	testing.TB
	report *report
}

func (w *witness) Error(args ...any) {
	w.TB.Helper()
	w.report.violation(fmt.Sprintln(args...))
	w.TB.Error(args...)
}

func (w *witness) Errorf(format string, args ...any) {
	w.TB.Helper()
	w.report.violation(fmt.Sprintf(format, args...))
	w.TB.Errorf(format, args...)
}

func (w *witness) Fatal(args ...any) {
	w.TB.Helper()
	w.report.violation(fmt.Sprintln(args...))
	w.TB.Fatal(args...)
}

func (w *witness) Fatalf(format string, args ...any) {
	w.TB.Helper()
	w.report.violation(fmt.Sprintf(format, args...))
	w.TB.Fatalf(format, args...)
}
