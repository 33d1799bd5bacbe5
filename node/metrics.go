package node

import (
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/node/service"
)

// openMetrics makes the registry of the node: requests, the node's own figures, the
// process and the Go runtime.
func (n *Node) openMetrics() {
	n.registry = prometheus.NewRegistry()
	n.requests.Register(n.registry)
	n.registry.MustRegister(figures{n}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// Metrics implements service.Service: the Prometheus text format, base units, no
// label per tenant.
func (s svc) Metrics(w io.Writer) error {
	families, err := s.n.registry.Gather()
	if err != nil {
		return err
	}
	enc := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			return err
		}
	}
	return nil
}

// figures are what the parts of a node count by themselves.
type figures struct{ n *Node }

// Describe implements prometheus.Collector: which figures there are is known when they
// are collected only.
func (figures) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (all figures) Collect(ch chan<- prometheus.Metric) {
	s := svc(all)
	labeled := func(name string, kind prometheus.ValueType, help string, v float64, labels prometheus.Labels) {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, labels), kind, v)
	}
	gauge := func(name, help string, v float64) { labeled(name, prometheus.GaugeValue, help, v, nil) }
	counter := func(name, help string, v float64) { labeled(name, prometheus.CounterValue, help, v, nil) }
	o, l, counts := s.n.owners.Stats(), s.n.replicas.Log().Stats(), s.n.table.Counts()
	gauge("facetd_facets", "Facets in the placement table.", float64(counts.Facets))
	gauge("facetd_facets_active", "Facets open for work at this node.", float64(o.Active))
	gauge("facetd_facets_memory_bytes", "Memory of open facets.", float64(o.Memory))
	counter("facetd_facets_created_total", "Facets this node created since it started.", float64(o.Created))
	counter("facetd_facet_activations_total", "Facets this node opened since it started.", float64(o.Opened))
	f := s.n.copies.Stats()
	gauge("facetd_follower_views", "Copies of facets of other nodes that are open for reading.", float64(f.Open))
	counter("facetd_follower_reads_total", "Requests answered from such copies since the node started.", float64(f.Reads))
	counter("facetd_follower_handed_on_total", "Requests for reads of followers that were left to the owner.", float64(f.HandedOn))
	gauge("facetd_log_bytes", "Size of the commit log on disk.", float64(s.n.replicas.Log().Size()))
	counter("facetd_log_written_bytes_total", "Bytes written to the commit log, padding included.", float64(l.Bytes))
	counter("facetd_log_zeroed_bytes_total", "Bytes of zeros written into segments of the commit log before they are used.", float64(l.Zeroed))
	counter("facetd_database_written_bytes_total", "Bytes written into database files, by checkpoints and as snapshots.", float64(s.n.replicas.Written()))
	counter("facetd_log_records_total", "Records made durable.", float64(l.Records))
	counter("facetd_log_batches_total", "Batches written, each with one fsync.", float64(l.Batches))
	counter("facetd_log_fsync_seconds_total", "Time spent in fsync of the commit log.", l.SyncTotal.Seconds())
	sc := s.n.scrubber.Stats()
	_, damaged := s.n.replicas.Damaged(0)
	counter("facetd_scrub_files_total", "Database files read again and checked.", float64(sc.Facets))
	counter("facetd_scrub_segments_total", "Segments of the commit log read again and checked.", float64(sc.Segments))
	counter("facetd_scrub_bytes_total", "Bytes read for that.", float64(sc.Bytes))
	counter("facetd_scrub_damaged_total", "Files and segments that failed the check.", float64(sc.Damaged))
	counter("facetd_scrub_missed_total", "Files that were being written whenever they were to be read.", float64(sc.Missed))
	gauge("facetd_scrub_oldest_seconds", "Time since the part of the facets that was read longest ago was read.", sc.Oldest.Seconds())
	gauge("facetd_copies_damaged", "Copies at this node that are damaged, or may lack something, and are being replaced.", float64(damaged))
	if a := s.n.auditor.Load(); a != nil {
		st := a.Stats()
		counter("facetd_compared_nodes_total", "Comparisons of the copies of facets this node owns with those of another node.", float64(st.Compared))
		counter("facetd_compared_facets_total", "Facets that were looked at one by one in them.", float64(st.Asked))
		counter("facetd_copies_outvoted_total", "Copies that differed from what a majority has.", float64(st.Outvoted))
		counter("facetd_facets_undecided_total", "Facets seen whose copies differ without a majority.", float64(st.Undecided))
		counter("facetd_facets_woken_total", "Idle facets opened because a copy was behind.", float64(st.Woken))
		gauge("facetd_facets_endangered", "Facets this node owns that have fewer sound copies than a majority of their members, as last seen.", float64(st.Endangered))
	}
	trusted := 0.0
	if s.n.holder.Trusted() {
		trusted = 1
	}
	gauge("facetd_clocks_trusted", "1 while the clocks of this machine agree with one another and with the placement leader's, 0 while reads need a quorum because they do not.", trusted)
	var between peer.Traffic
	if s.n.peers != nil {
		between = s.n.peers.Traffic()
	}
	counter("facetd_peer_sent_bytes_total", "Bytes sent to other nodes over the peer port, Raft's among them, gossip's not.", float64(between.Sent))
	counter("facetd_peer_received_bytes_total", "Bytes received from other nodes the same way.", float64(between.Received))
	if s.n.keys != nil {
		k := s.n.keys.Stats()
		gauge("facetd_token_keys", "Keys of tokens in force.", float64(k.Keys))
		gauge("facetd_token_revocations", "Tokens and keys that are revoked.", float64(k.Revoked))
		counter("facetd_token_keys_unusable_total", "Contents of the file of keys that could not be used since the node started.", float64(k.Failures))
	}
	gauge("facetd_tenants_in_use", "Tenants with a facet in use here, or a moment ago.", float64(s.n.tenants.Len()))
	for _, st := range s.n.secrets.States() {
		of := prometheus.Labels{"credentials": st.Name}
		if !st.Ends.IsZero() {
			labeled("facetd_certificate_expires_timestamp_seconds", prometheus.GaugeValue, "When the certificate in force ends, in Unix time; of the API port (api) and between nodes (peer).", float64(st.Ends.Unix()), of)
		}
		labeled("facetd_credentials_unusable_total", prometheus.CounterValue, "Contents of the files of certificates and keys that could not be used since the node started.", float64(st.Failures), of)
	}
	gauge("facetd_placement_applied_index", "Last Raft index applied to the placement table.", float64(s.n.table.Applied()))
	gauge("facetd_uptime_seconds", "Time since the node started.", time.Since(s.n.started).Seconds())
	labeled("facetd_build_info", prometheus.GaugeValue, "1; the label says what runs.", 1, prometheus.Labels{"version": s.n.cfg.Version})
	leading := 0.0
	if now, _ := s.n.consensus().Leadership(); now.Leading {
		leading = 1
	}
	gauge("facetd_placement_leading", "1 while this node leads placement.", leading)
	if free, err := s.n.cfg.Platform.FS.Free(); err == nil {
		gauge("facetd_disk_free_bytes", "Free space of the file system with the data directory.", float64(free))
	}
	refused := 0.0
	if s.n.admit() != nil {
		refused = 1
	}
	gauge("facetd_disk_full", "1 while writes are refused because the disk is full.", refused)
	states := map[service.NodeState]float64{service.NodeAlive: 0}
	for _, node := range s.n.table.Nodes() {
		states[s.n.stateOf(node)]++
	}
	for state, k := range states {
		labeled("facetd_nodes", prometheus.GaugeValue, "Nodes of the cluster as this one knows them, by state.", k, prometheus.Labels{"state": string(state)})
	}
}
