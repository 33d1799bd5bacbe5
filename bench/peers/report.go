package main

import (
	"encoding/json"
	"io"
	"slices"
)

// report is all of a comparison; its JSON is for scripts.
type report struct {
	Started  string        `json:"started"`
	Command  string        `json:"command"`
	Settings settings      `json:"settings"`
	Machine  machineReport `json:"machine"`
	Peers    []peerReport  `json:"peers"`
	Missing  []string      `json:"missing,omitempty"` // peers left out, and why
	Measures []measure     `json:"measures"`
	Ratios   []ratio       `json:"ratios"`
}

// peerReport is how a peer was run.
type peerReport struct {
	about
	Version  string  `json:"version"`
	Launches []shown `json:"launches,omitempty"` // of the last round
}

// ratio compares a facetd with a peer, round by round.
type ratio struct {
	Ours     string `json:"facetd"`
	Peer     string `json:"peer"`
	Workload string `json:"workload"`
	Rate     spread `json:"facetd_to_peer_rate"`
	// ServerCPU and CPU are processor time per operation, the peer's by facetd's: of
	// the servers, and of servers and client together. Unknown where one is a library.
	ServerCPU *spread `json:"peer_to_facetd_server_cpu"`
	CPU       spread  `json:"peer_to_facetd_cpu"`
	Disk      *spread `json:"peer_to_facetd_disk_bytes"`
	PerKey    *spread `json:"peer_to_facetd_resident_per_database"`
}

// spread is the median and the range of ratios, each taken within a round.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
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

// workloadNames are those of the report's tables, in their order.
func workloadNames() []string {
	names := []string{createName}
	for _, w := range workloads {
		names = append(names, w.name)
	}
	return names
}

// compare fills in the ratios: each round of a peer with facetd's of the same round.
func (r *report) compare() {
	for _, p := range r.Peers {
		if p.Against == "" {
			continue
		}
		for _, w := range workloadNames() {
			ours, theirs := r.of(p.Against, w), r.of(p.Name, w)
			n := min(len(ours), len(theirs))
			of := func(value func(m, by *measure) (float64, float64)) *spread {
				var list []float64
				for i := range n {
					if a, b := value(&ours[i], &theirs[i]); a > 0 && b > 0 {
						list = append(list, a/b)
					}
				}
				if len(list) == 0 {
					return nil
				}
				return &spread{Median: median(list), Min: slices.Min(list), Max: slices.Max(list)}
			}
			known := func(v *float64) float64 {
				if v == nil {
					return 0
				}
				return *v
			}
			all := func(m *measure) float64 { return known(m.ServerCPU) + m.ClientCPU }
			rates := of(func(o, t *measure) (float64, float64) { return o.OpsPerSecond, t.OpsPerSecond })
			cpu := of(func(o, t *measure) (float64, float64) { return all(t), all(o) })
			if rates == nil || cpu == nil {
				continue
			}
			r.Ratios = append(r.Ratios, ratio{Ours: p.Against, Peer: p.Name, Workload: w, Rate: *rates, CPU: *cpu,
				ServerCPU: of(func(o, t *measure) (float64, float64) { return known(t.ServerCPU), known(o.ServerCPU) }),
				Disk:      of(func(o, t *measure) (float64, float64) { return known(t.Disk), known(o.Disk) }),
				PerKey:    of(func(o, t *measure) (float64, float64) { return known(t.PerKey), known(o.PerKey) })})
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
