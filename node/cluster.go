package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/cluster/gossip"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node/owner"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

// openCluster opens what connects this node with others, and the placement log. A
// node without a peer address is a cluster of size one with the same log.
func (n *Node) openCluster() (err error) {
	alone, on := n.alone(), n.cfg.Platform
	n.belonged = n.dir.cluster
	cfg := consensus.Config{
		ID: n.dir.Node, Memory: on.Raft, Cluster: n.dir.cluster,
		Bootstrap:    len(n.cfg.Join) == 0 && n.cfg.BootstrapExpect <= 1 && !n.dir.rejoining(),
		StateMachine: n.table, Logger: n.log, Fatal: n.fail,
	}
	if on.Raft == nil {
		cfg.Dir = filepath.Join(n.dir.path, raftDir)
	}
	if !alone {
		if err := n.listenPeers(peer.Config{
			Node: n.dir.Node, Boot: n.boot, Store: n.dir.store,
			Cluster: n.clusterID, Address: n.cfg.PeerListen, AddressOf: n.peerAddress,
			Handler: n.keeper, Inspector: n.keeper, Snapshots: n.keeper, Placement: &n.door, Orders: orders{n}, Comparer: n.comparer, Meter: n.meter, Acks: &n.acks,
			Answer: n.answer, Listener: on.PeerListener, Dial: on.PeerDial, Log: n.log,
		}); err != nil {
			return err
		}
		if len(n.cfg.Join) > 0 {
			cfg.Expect = n.cfg.BootstrapExpect
		}
		cfg.Exchange, cfg.Forward = n.peers.Exchange, n.forward
		cfg.Stream, cfg.Address = n.peers.Raft(), n.peerAdvertised()
		cfg.AddressOf = func(id cluster.NodeID) (string, bool) {
			address, ok := n.peerAddress(id)
			return peer.NodeAddress(id, address), ok
		}
	}
	raft, err := consensus.Open(cfg)
	if err != nil {
		return fmt.Errorf("open placement log: %w", err)
	}
	n.raft.Store(raft)
	if alone {
		return nil
	}
	var keys []gossip.Key
	if n.cfg.GossipKeys != "" {
		if keys, err = gossipKeys(n.cfg.GossipKeys); err != nil {
			return err
		}
	}
	if n.gossip, err = gossip.Open(gossip.Config{
		Self: n.member(), Cluster: n.dir.cluster, Label: n.cfg.ClusterName,
		Listen: n.cfg.GossipListen, Advertise: n.cfg.GossipAdvertise, Join: n.cfg.Join, Known: n.known(),
		Keys: keys, Insecure: len(keys) == 0, Network: on.Gossip, Logger: n.log,
	}); err != nil {
		return fmt.Errorf("open gossip: %w", err)
	}
	if n.cfg.GossipKeys != "" {
		if err := n.watchGossipKeys(); err != nil {
			return err
		}
	}
	n.wg.Go(n.watchView)
	return nil
}

// consensus is the node's part in the placement log, nil while it is being opened.
func (n *Node) consensus() *consensus.Node { return n.raft.Load() }

func (n *Node) clusterID() cluster.ID {
	if r := n.consensus(); r != nil {
		return r.ClusterID()
	}
	return n.belonged // while the log is being opened
}

// answer answers what nodes ask that may not belong to the cluster yet.
func (n *Node) answer(_ peer.Remote, question []byte) ([]byte, error) {
	if r := n.consensus(); r != nil {
		return r.Answer(question)
	}
	return nil, errors.New("the node is starting")
}

// peerAddress is where a node's peer port is: as gossip sees it now, else as the
// node last told the placement table.
func (n *Node) peerAddress(id cluster.NodeID) (string, bool) {
	if v := n.view.Load(); v != nil {
		if m, ok := v.Member(id); ok && m.Peer != "" {
			return m.Peer, true
		}
	}
	if m, ok := n.table.Node(id); ok && m.Peer != "" {
		return m.Peer, true
	}
	return "", false
}

func (n *Node) peerAdvertised() string {
	switch {
	case n.cfg.PeerAdvertise != "":
		return n.cfg.PeerAdvertise
	case n.peers != nil:
		return n.peers.Addr().String()
	}
	return ""
}

// member is this node as it tells the others by gossip.
func (n *Node) member() cluster.Member {
	return cluster.Member{
		ID: n.dir.Node, Store: n.dir.store, API: n.advertised(), Peer: n.peerAdvertised(),
		Zone: n.cfg.Zone, Version: n.cfg.Version, Status: cluster.StatusAlive,
	}
}

// watchView hands what gossip sees to those it is a hint for.
func (n *Node) watchView() {
	var written []netip.AddrPort
	for {
		changed := n.gossip.Changed()
		n.refreshView()
		written = n.remember(written)
		select {
		case <-changed:
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) refreshView() {
	if n.gossip == nil {
		return
	}
	v := n.gossip.View()
	n.view.Store(&v)
	n.consensus().SetView(n.withoutRemoved(v))
}

// withoutRemoved leaves out members that are gone and that the table does not know:
// they were removed for good, or never came in. A member leaves the log when it is
// decommissioned, and gives its vote to another one as soon as that is decided. One
// that only says that it leaves is taken for one that is gone: a node that is stopped
// says so too, and comes back, and the log must not lose a voter with each restart.
func (n *Node) withoutRemoved(v cluster.View) cluster.View {
	kept := make([]cluster.Member, 0, len(v.Members))
	for _, m := range v.Members {
		row, known := n.table.Node(m.ID)
		_, removed := n.removed.Load(m.ID)
		switch {
		case !known || removed:
		case row.State == placement.NodeDecommissioning && m.Status != cluster.StatusGone:
			m.Status = cluster.StatusLeaving
		case row.State != placement.NodeDecommissioning && m.Status == cluster.StatusLeaving:
			m.Status = cluster.StatusGone
		}
		if known || m.Status != cluster.StatusGone && !removed {
			kept = append(kept, m)
		}
	}
	v.Members = kept
	return v
}

// seen reports what gossip thinks of a node. It is a hint.
func (n *Node) seen(id cluster.NodeID) cluster.Status {
	if id == n.dir.Node {
		return cluster.StatusAlive
	}
	if v := n.view.Load(); v != nil {
		if m, ok := v.Member(id); ok {
			return m.Status
		}
	}
	return cluster.StatusUnknown
}

// enter waits until the node belongs to a cluster and its copy of the table is as
// new as the node's own registration in it.
func (n *Node) enter(ctx context.Context) error {
	raft := n.consensus()
	id, err := raft.WaitCluster(ctx)
	if err != nil {
		return fmt.Errorf("wait for the cluster: %w", err)
	}
	if err := n.dir.join(id); err != nil {
		return err
	}
	if n.gossip != nil {
		if err := n.gossip.SetCluster(id); err != nil {
			return fmt.Errorf("tell gossip the cluster: %w", err)
		}
	}
	if err := n.register(ctx, id); err != nil {
		return err
	}
	return n.dir.rejoined()
}

// register announces this process life (rules R2, R3). The table must know it
// before anything here may own or acknowledge.
func (n *Node) register(ctx context.Context, id cluster.ID) error {
	if err := n.patiently(ctx, func(ctx context.Context) error {
		_, err := n.rows.do(ctx, placement.SetClusterID{ID: id})
		return err
	}); err != nil {
		return fmt.Errorf("set cluster id: %w", err)
	}
	// The table here holds all that was registered before that entry.
	if row, ok := n.table.Node(n.dir.Node); ok && row.Store == n.dir.store && !n.dir.knows(row.Boot) {
		return fmt.Errorf("data directory %s is an older copy of the one node %s had: the cluster has seen a start of this node that the copy knows nothing of, so it lacks what the node promised and acknowledged since; never put a data directory back: start the node with an empty one, which the other nodes fill", n.dir.path, n.dir.Node)
	}
	if err := n.dir.begins(n.boot); err != nil {
		return fmt.Errorf("note the start: %w", err)
	}
	if err := n.patiently(ctx, func(ctx context.Context) error {
		_, err := n.rows.do(ctx, placement.RegisterNode{
			Node: n.dir.Node, Store: n.dir.store, Boot: n.boot, Machine: n.machine(),
			API: n.advertised(), Peer: n.peerAdvertised(), Zone: n.cfg.Zone, Version: n.cfg.Version,
			// A directory that never was registered may take the place of one that is
			// lost: as another store, which is no member of anything (rule R3).
			ReplaceStore: !n.dir.Registered,
		})
		return err
	}); err != nil {
		return fmt.Errorf("register node: %w", err)
	}
	if n.dir.Registered {
		return nil
	}
	n.dir.Registered = true
	return n.dir.write()
}

// patiently does what any member may be unable to do for a while, again until it is
// done, refused for good, or ctx ends.
func (n *Node) patiently(ctx context.Context, f func(context.Context) error) error {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		try, cancel := context.WithTimeout(ctx, registerTry)
		err := f(try)
		cancel()
		if err == nil {
			return nil
		}
		var refused *placement.Refusal
		if errors.As(err, &refused) && refused.Outcome != placement.RefusedLease {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(wait):
		}
	}
}

// registerTry bounds one try to change the table while starting: a lease to wait
// out, and an election.
const registerTry = 8 * time.Second

// acks passes what peers answer to the owners, once there are any.
type acks struct{ owners atomic.Pointer[owner.Manager] }

func (a *acks) Ready(to peer.Remote) {
	if m := a.owners.Load(); m != nil {
		m.Ready(to)
	}
}

func (a *acks) Acked(from peer.Remote, list []peer.Ack) {
	if m := a.owners.Load(); m != nil {
		m.Acked(from, list)
	}
}

func (a *acks) Lost(to peer.Remote, cause error) {
	if m := a.owners.Load(); m != nil {
		m.Lost(to, cause)
	}
}

// follow tells the owners what the table says, as soon as it says it: a replaced
// owner stops (rule R24).
func (n *Node) follow() {
	for {
		n.catchUp()
		n.holder.Wake()
		select {
		case <-n.changes.Wake():
		case <-n.ctx.Done():
			return
		}
	}
}

// told is what a renewal says that this node knows: when it returns every session here
// was told of all up to that entry (rule R40).
func (n *Node) told() uint64 {
	if broken.Is(broken.ToldEarly) {
		return n.table.Applied()
	}
	return n.catchUp()
}

// catchUp tells the owners what is new in the table and gives the index of which
// every session here was told (rule R40). An entry that changes nothing wakes nobody,
// so the holder of the lease asks too, before it renews.
func (n *Node) catchUp() uint64 {
	n.following.Lock()
	defer n.following.Unlock()
	if n.changes == nil {
		return 0 // no owners yet
	}
	c := n.changes.Take()
	if len(c.Rows) > 0 || c.All || c.Nodes {
		n.owners.Changed(c.Rows, c.All || c.Nodes)
	}
	if c.Tenants {
		n.owners.TenantsChanged()
		n.copies.TenantsChanged()
	}
	if c.Nodes && n.ctx.Err() == nil {
		n.refreshView() // one may be decommissioned
		if _, known := n.table.Node(n.dir.Node); !known {
			n.fail(errors.New("this node was removed from the cluster; its data stay in its directory, and an empty directory may join again"))
		}
	}
	return c.Index
}
