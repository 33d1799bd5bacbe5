package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// report is all of a run; its JSON is for scripts.
type report struct {
	Started  string    `json:"started"`
	Nodes    int       `json:"nodes"`
	Callers  int       `json:"callers"`
	Keys     int       `json:"keys"`
	Value    int       `json:"value_size"`
	Seconds  float64   `json:"duration_seconds"`
	CPUs     int       `json:"cpus"`
	OS       string    `json:"os"`
	Arch     string    `json:"arch"`
	Data     string    `json:"data"`
	Peers    []about   `json:"peers"`
	Measures []measure `json:"measures"`
	Ratios   []ratio   `json:"ratios"`
}

// about is how a peer was run.
type about struct {
	Peer     string   `json:"peer"`
	Version  string   `json:"version"`
	Client   string   `json:"client"`
	Commands []string `json:"commands"`
}

// ratio compares facetd with a peer, round by round.
type ratio struct {
	Peer     string  `json:"peer"`
	Workload string  `json:"workload"`
	Median   float64 `json:"facetd_to_peer_median"`
	Min      float64 `json:"facetd_to_peer_min"`
	Max      float64 `json:"facetd_to_peer_max"`
	// CPU is the servers' processor time an operation costs, the peer's by facetd's.
	CPU float64 `json:"server_cpu_peer_to_facetd_median"`
}

// of gives the measures of a peer and workload, by round.
func (r *report) of(peer, workload string) (list []measure) {
	for _, m := range r.Measures {
		if m.Peer == peer && m.Workload == workload {
			list = append(list, m)
		}
	}
	return list
}

// compare fills in the ratios: each round of a peer with facetd's of the same round.
func (r *report) compare() {
	for _, p := range r.Peers {
		for _, w := range workloads {
			ours, theirs := r.of("facetd", w), r.of(p.Peer, w)
			if p.Peer == "facetd" || len(ours) == 0 || len(theirs) == 0 {
				continue
			}
			var rates, cpu []float64
			for i := range min(len(ours), len(theirs)) {
				if theirs[i].OpsPerSecond > 0 && ours[i].ServerCPU > 0 {
					rates = append(rates, ours[i].OpsPerSecond/theirs[i].OpsPerSecond)
					cpu = append(cpu, theirs[i].ServerCPU/ours[i].ServerCPU)
				}
			}
			if len(rates) > 0 {
				r.Ratios = append(r.Ratios, ratio{Peer: p.Peer, Workload: w, Median: median(rates),
					Min: slices.Min(rates), Max: slices.Max(rates), CPU: median(cpu)})
			}
		}
	}
}

func median(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

func (r *report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// writeText writes the report for people, in Markdown.
func (r *report) writeText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d nodes each on one machine with %d CPUs (%s/%s), %d callers, %d keys, %d-byte values, %gs a measurement, %s\n",
		r.Nodes, r.CPUs, r.OS, r.Arch, r.Callers, r.Keys, r.Value, r.Seconds, r.Started)
	b.WriteString("\n| workload | round | peer   |    ops/s | p50 ms | p99 ms | server CPU ms/1,000 | client CPU ms/1,000 | errors | load |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, wl := range workloads {
		for _, m := range r.Measures {
			if m.Workload == wl {
				fmt.Fprintf(&b, "| %-8s | %5d | %-6s | %8.0f | %6.2f | %6.2f | %19.1f | %19.1f | %6d | %4.1f |\n", wl, m.Round, m.Peer,
					m.OpsPerSecond, float64(m.P50)/1e3, float64(m.P99)/1e3, m.ServerCPU, m.ClientCPU, m.Errors, m.Load)
			}
		}
	}
	if len(r.Ratios) > 0 {
		b.WriteString("\n| facetd to | workload | rate, median of rounds | lowest | highest | server CPU an operation, peer's to facetd's |\n|---|---|---|---|---|---|\n")
		for _, x := range r.Ratios {
			fmt.Fprintf(&b, "| %s | %s | %.2f | %.2f | %.2f | %.2f |\n", x.Peer, x.Workload, x.Median, x.Min, x.Max, x.CPU)
		}
	}
	for _, m := range r.Measures {
		if m.FirstError != "" {
			fmt.Fprintf(&b, "\nfirst error of %s, %s, round %d: %s\n", m.Peer, m.Workload, m.Round, m.FirstError)
		}
	}
	for _, p := range r.Peers {
		fmt.Fprintf(&b, "\n%s (%s): %s\n", p.Peer, p.Version, p.Client)
		for _, l := range p.Commands {
			fmt.Fprintf(&b, "    %s\n", l)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
