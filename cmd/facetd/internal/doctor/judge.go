package doctor

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/facetd/facetd/client"
)

const (
	// clockWarn is by how much clocks may differ: tokens are judged with a leeway of 30 s,
	// and people compare logs. Leases need no common time.
	clockWarn = 2 * time.Second

	// diskLow is the free space from which to act: twice what is kept for the log.
	diskLow = 4 << 30

	fsyncSlow = 20 * time.Millisecond

	scrubLate = 8 * 24 * time.Hour

	// lagWarn is how many placement entries a node may be behind another: they are asked
	// one after the other while the table goes on.
	lagWarn = 5000

	certificateWarn = 7 * 24 * time.Hour

	filesWarn = 0.8 // of the open files a process may have
)

// Judge says what is wrong.
func (f *Facts) Judge() []Finding {
	r := &report{}
	reached := 0
	for i := range f.Nodes {
		if f.Nodes[i].judge(r) {
			reached++
		}
	}
	if reached > 0 {
		f.together(r)
	}
	return r.findings
}

// name is how the node is called in findings.
func (n *Node) name() string {
	if n.ID != "" {
		return n.ID
	}
	return n.URL
}

// judge looks at one node alone, and tells whether it answered.
func (n *Node) judge(r *report) bool {
	me := n.name()
	if n.Err != nil {
		r.fail(me, "reach", "see whether facetd runs there (systemctl status facetd), what its log says, and whether a firewall lies between", "%s: %v", n.URL, n.Err)
		return false
	}
	if len(n.Failing) > 0 {
		r.fail(me, "ready", "its log says more; OPERATIONS.md has a table of troubles", "%s", strings.Join(n.Failing, "; "))
	} else {
		r.ok(me, "ready", "serves requests")
	}
	if n.Denied != "" {
		r.warn(me, "token", "give --token or --token-file with the token of a supervisor (facetd token create --tenant '*' --access ro)", "it tells nothing more: %s", n.Denied)
	}
	if n.Open && !loopback(n.URL) {
		r.warn(me, "tokens", "start it with --auth-keys, and keep the port private until then", "everybody who reaches %s may do everything", n.URL)
	}
	if strings.HasPrefix(n.URL, "http://") && !loopback(n.URL) {
		r.warn(me, "encryption", "serve HTTPS, or keep the port on a private network", "what goes to %s can be read on the way", n.URL)
	}
	if d := n.Ahead.Abs() - n.Within; d > clockWarn {
		r.warn(me, "clock", "see to its time synchronisation (timedatectl, chronyc tracking)", "its clock differs from this machine's by %v", n.Ahead.Round(time.Second/2))
	}
	if n.Metrics != nil {
		n.figures(r)
	}
	return true
}

func loopback(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// figures looks at the node's metrics.
func (n *Node) figures(r *report) {
	me, m := n.name(), n.Metrics
	before := len(r.findings)
	if m["facetd_disk_full"] > 0 {
		r.fail(me, "disk", "make room; writes go on by themselves", "refuses writes: the disk is full (%s free)", size(m["facetd_disk_free_bytes"]))
	} else if free, ok := m["facetd_disk_free_bytes"]; ok && free < diskLow {
		r.warn(me, "disk", "make room, or add a node and run facetd rebalance", "%s of disk are free", size(free))
	}
	if k := m["facetd_facets_endangered"]; k > 0 {
		r.fail(me, "copies", "bring back the nodes that are away, or run facetd repair", "%.0f of its facets have fewer sound copies than a majority", k)
	}
	if k := m["facetd_copies_damaged"]; k > 0 {
		r.warn(me, "copies", "they are being replaced; if more come, the disk is dying: smartctl, then facetd node decommission", "%.0f copies on its disk are damaged", k)
	}
	if k := m["facetd_facets_undecided_total"]; k > 0 {
		r.fail(me, "copies", "its log names the facets at level ERROR; export what each node has and compare", "copies of %.0f facets differ and none has a majority", k)
	}
	if k := m["facetd_scrub_damaged_total"]; k > 0 {
		r.warn(me, "disk", "look at the disk (smartctl) and its cables; replace it before it gets worse", "%.0f files or segments had rotted since it started", k)
	}
	if trusted, ok := m["facetd_clocks_trusted"]; ok && trusted == 0 {
		r.warn(me, "clock", "OPERATIONS.md, \"the clocks of this machine do not agree\"", "its clock does not run as others do: its reads ask a majority")
	}
	if age := time.Duration(m["facetd_scrub_oldest_seconds"] * float64(time.Second)); age > scrubLate {
		r.warn(me, "scrub", "raise --scrub-rate, or let the node run longer", "some data was not read for %v", age.Round(time.Hour))
	}
	if batches := m["facetd_log_batches_total"]; batches > 100 {
		if mean := time.Duration(m["facetd_log_fsync_seconds_total"] / batches * float64(time.Second)); mean > fsyncSlow {
			r.warn(me, "disk", "use a disk with lower latency: every commit waits for it", "an fsync takes %v on average", mean.Round(time.Millisecond))
		}
	}
	if k := m["facetd_token_keys_unusable_total"]; k > 0 {
		r.warn(me, "keys", "its log says what is wrong with the file; the keys from before are in force", "its file of token keys could not be used %.0f times", k)
	}
	for _, of := range []string{"api", "peer"} {
		ends, ok := m["facetd_certificate_expires_timestamp_seconds{"+of+"}"]
		if !ok {
			continue
		}
		left := time.Until(time.Unix(int64(ends), 0))
		switch do := "put another in its place, it is read within seconds (facetd cert node --replace)"; {
		case left <= 0:
			r.fail(me, "certificate", do, "that of its %s port has ended %v ago", of, -left.Round(time.Minute))
		case left < certificateWarn:
			r.warn(me, "certificate", do, "that of its %s port ends in %v", of, left.Round(time.Minute))
		}
	}
	if k := m["facetd_credentials_unusable_total"]; k > 0 {
		r.warn(me, "certificate", "its log says what is wrong; the content from before is in force", "files of certificates and keys could not be used %.0f times", k)
	}
	if most := m["process_max_fds"]; most > 0 && m["process_open_fds"] > filesWarn*most {
		r.warn(me, "files", "raise the limit (LimitNOFILE= of systemd, ulimit -n)", "%.0f of %.0f possible files are open", m["process_open_fds"], most)
	}
	if len(r.findings) == before {
		r.ok(me, "figures", "%s free, %.0f facets open, %s of memory", size(m["facetd_disk_free_bytes"]), m["facetd_facets_active"], size(m["process_resident_memory_bytes"]))
	}
}

// together compares what the nodes say of each other.
func (f *Facts) together(r *report) {
	const about = "cluster"
	leaders, clusters, versions := map[string][]string{}, map[string][]string{}, map[string][]string{}
	var best *client.Cluster // of the node that has applied most
	var least, most float64
	first := true
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if n.Cluster == nil || n.Cluster.ID == "" { // or a tenant's view of it
			continue
		}
		leaders[n.Cluster.Leader] = append(leaders[n.Cluster.Leader], n.name())
		clusters[n.Cluster.ID] = append(clusters[n.Cluster.ID], n.name())
		if best == nil || n.Cluster.Applied > best.Applied {
			best = n.Cluster
		}
		at := float64(n.Cluster.Applied)
		if first || at < least {
			least = at
		}
		if first || at > most {
			most = at
		}
		first = false
	}
	if best == nil {
		return
	}
	if len(clusters) > 1 {
		r.fail(about, "identity", "--server and --join must name nodes of one cluster", "these are nodes of different clusters: %s", listing(clusters))
		return
	}
	switch {
	case len(leaders) == 1 && best.Leader == "":
		r.fail(about, "leader", "a majority of the voting nodes must run and reach each other at their peer ports", "nobody leads placement; facets that are open go on, nothing can move")
	case len(leaders) > 1:
		r.warn(about, "leader", "ask again in a few seconds; if it stays so the peer ports of some nodes are cut off", "they name different leaders: %s", listing(leaders))
	default:
		r.ok(about, "leader", "%s leads placement, term %d", best.Leader, best.Term)
	}
	if most-least > lagWarn {
		r.warn(about, "placement", "look at the log of the node that is behind, and its network", "one node is %.0f entries of the placement log behind another", most-least)
	}
	f.members(r, best)
	for _, node := range best.Nodes {
		versions[node.Version] = append(versions[node.Version], node.ID)
	}
	if len(versions) > 1 {
		r.warn(about, "versions", "finish the upgrade: one node after the other", "they run different versions: %s", listing(versions))
	}
	for _, op := range f.Operations {
		if op.State == client.OperationFailed {
			r.warn(about, "operations", "see why (facetd operations) and start it again", "%s %s failed: %s", op.Kind, op.Node, op.Message)
		}
	}
}

// members looks at the nodes as the cluster knows them.
func (f *Facts) members(r *report, c *client.Cluster) {
	const about = "cluster"
	zones := map[string]int{}
	voters, keeping, alive := 0, 0, 0
	for _, n := range c.Nodes {
		zones[n.Zone]++
		if n.Voter {
			voters++
		}
		switch n.State {
		case "alive", "draining":
			keeping++
			alive++
		case "decommissioning":
			alive++
		default:
			r.fail(n.ID, "state", "start it again, or, if it is lost, facetd node decommission "+n.ID, "the others call it %s", n.State)
		}
		if n.State == "draining" || n.State == "decommissioning" {
			r.ok(n.ID, "state", "%s", n.State)
		}
	}
	switch {
	case keeping < c.Replicas:
		r.warn(about, "nodes", "start or add nodes, then facetd repair", "%d nodes can keep copies, and new facets should have %d", keeping, c.Replicas)
	case c.Replicas == 1 && len(c.Nodes) > 1:
		r.warn(about, "nodes", "start all nodes with --replicas 3", "new facets have one copy: the loss of a disk loses them")
	default:
		r.ok(about, "nodes", "%d nodes, %d copies of new facets", len(c.Nodes), c.Replicas)
	}
	if len(c.Nodes) > 1 && voters%2 == 0 {
		r.warn(about, "voters", "run three or five nodes that vote", "%d nodes vote: one fewer would survive as many losses", voters)
	}
	if len(zones) > 1 && zones[""] > 0 {
		r.warn(about, "zones", "start every node with --zone, or none", "%d nodes have no zone, and the others have: copies cannot be spread well", zones[""])
	}
	if named := len(zones); zones[""] == 0 && named > 1 && named < c.Replicas {
		r.warn(about, "zones", "use as many zones as there are copies", "there are %d zones and %d copies: two copies of a facet share one", named, c.Replicas)
	}
}

// listing writes groups of names in one line.
func listing(groups map[string][]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(groups)) {
		names := groups[k]
		if k == "" {
			k = "none"
		}
		parts = append(parts, k+" ("+strings.Join(names, ", ")+")")
	}
	return strings.Join(parts, ", ")
}

// size writes bytes for people.
func size(b float64) string {
	for _, u := range []string{"B", "KiB", "MiB", "GiB"} {
		if b < 1024 {
			return fmt.Sprintf("%.4g %s", b, u)
		}
		b /= 1024
	}
	return fmt.Sprintf("%.4g TiB", b)
}
