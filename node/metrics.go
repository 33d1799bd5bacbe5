package node

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"time"

	"github.com/facetd/facetd/node/peer"
)

// Metrics implements service.Service: the Prometheus text format, base units, no
// label per tenant.
func (s svc) Metrics(w io.Writer) error {
	var b bytes.Buffer
	one := func(name, kind, help string, v any) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n%s %v\n", name, help, name, kind, name, v)
	}
	o, l, counts := s.n.owners.Stats(), s.n.replicas.Log().Stats(), s.n.table.Counts()
	one("facetd_facets", "gauge", "Facets in the placement table.", counts.Facets)
	one("facetd_facets_active", "gauge", "Facets open for work at this node.", o.Active)
	one("facetd_facets_memory_bytes", "gauge", "Memory of open facets.", o.Memory)
	one("facetd_facets_created_total", "counter", "Facets this node created since it started.", o.Created)
	one("facetd_facet_activations_total", "counter", "Facets this node opened since it started.", o.Opened)
	f := s.n.copies.Stats()
	one("facetd_follower_views", "gauge", "Copies of facets of other nodes that are open for reading.", f.Open)
	one("facetd_follower_reads_total", "counter", "Requests answered from such copies since the node started.", f.Reads)
	one("facetd_follower_handed_on_total", "counter", "Requests for reads of followers that were left to the owner.", f.HandedOn)
	one("facetd_log_bytes", "gauge", "Size of the commit log on disk.", s.n.replicas.Log().Size())
	one("facetd_log_written_bytes_total", "counter", "Bytes written to the commit log, padding included.", l.Bytes)
	one("facetd_log_records_total", "counter", "Records made durable.", l.Records)
	one("facetd_log_batches_total", "counter", "Batches written, each with one fsync.", l.Batches)
	one("facetd_log_fsync_seconds_total", "counter", "Time spent in fsync of the commit log.", l.SyncTotal.Seconds())
	sc := s.n.scrubber.Stats()
	_, damaged := s.n.replicas.Damaged(0)
	one("facetd_scrub_files_total", "counter", "Database files read again and checked.", sc.Facets)
	one("facetd_scrub_segments_total", "counter", "Segments of the commit log read again and checked.", sc.Segments)
	one("facetd_scrub_bytes_total", "counter", "Bytes read for that.", sc.Bytes)
	one("facetd_scrub_damaged_total", "counter", "Files and segments that failed the check.", sc.Damaged)
	one("facetd_scrub_missed_total", "counter", "Files that were being written whenever they were to be read.", sc.Missed)
	one("facetd_scrub_oldest_seconds", "gauge", "Time since the part of the facets that was read longest ago was read.", int64(sc.Oldest.Seconds()))
	one("facetd_copies_damaged", "gauge", "Copies at this node that are damaged, or may lack something, and are being replaced.", damaged)
	if a := s.n.auditor.Load(); a != nil {
		st := a.Stats()
		one("facetd_compared_nodes_total", "counter", "Comparisons of the copies of facets this node owns with those of another node.", st.Compared)
		one("facetd_compared_facets_total", "counter", "Facets that were looked at one by one in them.", st.Asked)
		one("facetd_copies_outvoted_total", "counter", "Copies that differed from what a majority has.", st.Outvoted)
		one("facetd_facets_undecided_total", "counter", "Facets seen whose copies differ without a majority.", st.Undecided)
		one("facetd_facets_woken_total", "counter", "Idle facets opened because a copy was behind.", st.Woken)
		one("facetd_facets_endangered", "gauge", "Facets this node owns that have fewer sound copies than a majority of their members, as last seen.", st.Endangered)
	}
	trusted := 0
	if s.n.holder.Trusted() {
		trusted = 1
	}
	one("facetd_clocks_trusted", "gauge", "1 while the clocks of this machine agree with one another and with the placement leader's, 0 while reads need a quorum because they do not.", trusted)
	var between peer.Traffic
	if s.n.peers != nil {
		between = s.n.peers.Traffic()
	}
	one("facetd_peer_sent_bytes_total", "counter", "Bytes sent to other nodes over the peer port, Raft's among them, gossip's not.", between.Sent)
	one("facetd_peer_received_bytes_total", "counter", "Bytes received from other nodes the same way.", between.Received)
	if s.n.keys != nil {
		k := s.n.keys.Stats()
		one("facetd_token_keys", "gauge", "Keys of tokens in force.", k.Keys)
		one("facetd_token_revocations", "gauge", "Tokens and keys that are revoked.", k.Revoked)
		one("facetd_token_keys_unusable_total", "counter", "Contents of the file of keys that could not be used since the node started.", k.Failures)
	}
	one("facetd_tenants_in_use", "gauge", "Tenants with a facet in use here, or a moment ago.", s.n.tenants.Len())
	one("facetd_placement_applied_index", "gauge", "Last Raft index applied to the placement table.", s.n.table.Applied())
	one("facetd_goroutines", "gauge", "Goroutines of the process.", runtime.NumGoroutine())
	one("facetd_uptime_seconds", "gauge", "Time since the node started.", strconv.FormatFloat(time.Since(s.n.started).Seconds(), 'f', 3, 64))
	for _, m := range process() {
		one(m.name, m.kind, m.help, m.value)
	}
	_, err := w.Write(b.Bytes())
	return err
}
