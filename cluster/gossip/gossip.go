package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/facetd/facetd/cluster"
)

// Gossip is this node's part in the gossip. Open makes it, Close ends it.
type Gossip struct {
	set    settings
	addr   netip.AddrPort // where the others reach it
	ring   *ring
	report *reporter
	trans  *transport
	list   *memberlist.Memberlist

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // maintain, and Leave
	wake   chan struct{}  // of maintain; room for one
	urgent atomic.Bool    // somebody was lost, or holds us to be elsewhere

	// speak is held (one token) by whoever announces or leaves: it waits for
	// datagrams to go out. A channel, since a mutex held for that long would
	// stop virtual time. Before mu.
	speak chan struct{}

	mu        sync.Mutex // taken inside the library's lock: leaf, nothing blocks under it
	roster    roster
	meta      []byte // of self
	stale     bool   // meta was changed and not announced yet
	view      *cluster.View
	news      chan struct{} // closed at the next change; nil if nobody asked
	contested time.Time     // when somebody last held us to be elsewhere
	leaving   bool
	closed    bool

	stats counters
}

type counters struct {
	refused, joins, joinsFailed atomic.Uint64
}

// Open starts to gossip. It fails on a wrong Config or a port that cannot be
// had; seeds that do not answer are no error, it goes on trying them.
func Open(c Config) (*Gossip, error) {
	set, err := c.validate()
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	meta, err := encodeMeta(set.Cluster, &set.Self)
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	ring, err := newRing(set.Keys)
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	g := &Gossip{set: set, ring: ring, meta: meta, wake: make(chan struct{}, 1), speak: make(chan struct{}, 1)}
	g.roster = roster{self: set.Self, cluster: set.Cluster, known: make(map[cluster.NodeID]*record)}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if err := g.start(); err != nil {
		g.cancel()
		return nil, fmt.Errorf("open gossip on %s: %w", set.Listen, err)
	}
	g.wg.Go(g.maintain)
	return g, nil
}

// start opens the port and the library. It leaves nothing open when it fails.
func (g *Gossip) start() error {
	ctx, cancel := context.WithTimeout(g.ctx, g.set.Timings.Stream)
	defer cancel()
	listen, err := g.set.listenAddr(ctx)
	if err != nil {
		return err
	}
	pc, ln, err := g.set.Network.Listen(listen)
	if err != nil {
		return err
	}
	g.addr, err = g.set.advertiseAddr(ctx, addrPort(pc.LocalAddr()))
	if err != nil {
		return errors.Join(err, pc.Close(), ln.Close())
	}
	g.roster.addr = g.addr
	g.report = newReporter(g.set.Logger, g.set.Alarm)
	g.trans, err = newTransport(g.set.Network, pc, ln, g.addr, g.set.Label, g.report)
	if err != nil {
		g.report.close()
		return errors.Join(err, pc.Close(), ln.Close())
	}
	g.list, err = memberlist.Create(g.library())
	if err != nil {
		g.trans.Shutdown()
		g.report.close()
		return err
	}
	return nil
}

// library is the library's configuration, every field of it chosen here: its
// own defaults name a node after its host and reach for DNS in unusual ways.
func (g *Gossip) library() *memberlist.Config {
	t, d := &g.set.Timings, delegate{g}
	return &memberlist.Config{
		Name:                 string(g.set.Self.ID),
		Transport:            g.trans,
		Label:                g.set.Label,
		BindPort:             int(g.addr.Port()), // for members that name no port
		AdvertiseAddr:        g.addr.Addr().String(),
		AdvertisePort:        int(g.addr.Port()),
		ProtocolVersion:      memberlist.ProtocolVersionMax,
		Keyring:              g.ring.lib,
		GossipVerifyIncoming: true,
		GossipVerifyOutgoing: true,

		ProbeInterval:           t.Probe,
		ProbeTimeout:            t.ProbeTimeout,
		IndirectChecks:          3,
		AwarenessMaxMultiplier:  4, // a node under load probes up to 4 times slower
		SuspicionMult:           t.Suspicion,
		SuspicionMaxTimeoutMult: 3, // without confirmation by others
		GossipInterval:          t.Spread,
		GossipNodes:             3,
		GossipToTheDeadTime:     t.Reclaim,
		RetransmitMult:          4,
		PushPullInterval:        t.Sync,
		TCPTimeout:              t.Stream,
		DeadNodeReclaimTime:     t.Reclaim,

		UDPBufferSize:      maxDatagram,
		HandoffQueueDepth:  handoffDepth,
		QueueCheckInterval: time.Minute,
		EnableCompression:  false, // costs more than it saves on messages this small

		Delegate: d,
		Alive:    d,
		Events:   d,
		Conflict: d,
		Merge:    d,
		Logger:   log.New(g.report, "", 0),
	}
}

// Addr is the address the others reach this node's gossip at.
func (g *Gossip) Addr() netip.AddrPort { return g.addr }

// Others are the addresses at which other members are in sight now, sorted.
func (g *Gossip) Others() []netip.AddrPort {
	s := g.sight()
	return slices.SortedFunc(maps.Keys(s.alive), netip.AddrPort.Compare)
}

// View returns the members as known now, this node among them. It costs nothing
// while nothing changes.
func (g *Gossip) View() cluster.View {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.view == nil {
		v := g.roster.view()
		g.view = &v
	}
	return *g.view
}

// Changed returns a channel that is closed when View changes after this call.
// Take the channel first, then the view. After Close it is never closed.
func (g *Gossip) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.news == nil {
		g.news = make(chan struct{})
	}
	return g.news
}

// changed drops the view made before. g.mu is held.
func (g *Gossip) changed() {
	g.view = nil
	if g.news != nil && !g.closed {
		close(g.news)
		g.news = nil
	}
}

// Clusters are the clusters that living members say they belong to: how a node
// that has none yet learns which one it is about to join. More than one is a
// mistake of the operator.
func (g *Gossip) Clusters() []cluster.ID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.roster.clusters()
}

// SetCluster tells the cluster of a node that was opened without one. From now
// on members of others are refused.
func (g *Gossip) SetCluster(id cluster.ID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed || g.leaving:
		return fmt.Errorf("set cluster: %w", ErrClosed)
	case id == g.roster.cluster:
		return nil
	case !g.roster.cluster.IsZero():
		return fmt.Errorf("set cluster %s: this node is of cluster %s: %w", id, g.roster.cluster, ErrForeign)
	}
	meta, err := encodeMeta(id, &g.roster.self)
	if err != nil {
		return fmt.Errorf("set cluster: %w", err)
	}
	g.roster.cluster = id
	g.tell(meta)
	return nil
}

// Update changes what this node tells about itself: addresses, zone, version,
// and whether it is leaving (being drained). View shows it at once; the others
// hear of it within a second.
func (g *Gossip) Update(m cluster.Member) error {
	if m.Status == cluster.StatusUnknown {
		m.Status = cluster.StatusAlive
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.update(m)
}

// update is Update with g.mu held.
func (g *Gossip) update(m cluster.Member) error {
	if g.closed || g.leaving {
		return fmt.Errorf("update gossip: %w", ErrClosed)
	}
	if m.ID != g.roster.self.ID || m.Store != g.roster.self.Store {
		return fmt.Errorf("update gossip: member %s with store %s is not this node, %s with store %s",
			m.ID, m.Store, g.roster.self.ID, g.roster.self.Store)
	}
	meta, err := encodeMeta(g.roster.cluster, &m)
	if err != nil {
		return fmt.Errorf("update gossip: %w", err)
	}
	g.roster.self = m
	g.tell(meta)
	return nil
}

// tell makes meta what this node says. g.mu is held.
func (g *Gossip) tell(meta []byte) {
	g.meta, g.stale = meta, true
	g.changed()
	g.wakeUp()
}

// hurry has maintain look for the missing soon.
func (g *Gossip) hurry() {
	g.urgent.Store(true)
	g.wakeUp()
}

func (g *Gossip) wakeUp() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// announce sends meta if it was changed, and reports whether it was.
func (g *Gossip) announce() bool {
	g.speak <- struct{}{}
	defer func() { <-g.speak }()
	g.mu.Lock()
	stale := g.stale
	g.stale = false
	g.mu.Unlock()
	if !stale {
		return false
	}
	if err := g.list.UpdateNode(announceTimeout); err != nil {
		// It is queued all the same, and part of every exchange of states.
		g.report.line(levelDebug, "update is spreading slowly", "error", err)
	}
	return true
}

// Leave tells the others that this node goes for good, or until it is opened
// again, so that they neither suspect nor look for it. It returns when the news
// were sent, or ctx ends, or after 5 s; Close is still to be called.
func (g *Gossip) Leave(ctx context.Context) error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return fmt.Errorf("leave gossip: %w", ErrClosed)
	}
	if !g.leaving {
		m := g.roster.self
		m.Status = cluster.StatusLeaving // tells who left from who was lost
		if err := g.update(m); err != nil {
			g.mu.Unlock()
			return err
		}
		g.leaving = true
	}
	done := make(chan error, 1)
	g.wg.Go(func() { // under g.mu, so that it is not after Close has waited
		g.announce()
		g.speak <- struct{}{}
		defer func() { <-g.speak }()
		done <- g.list.Leave(leaveTimeout)
	})
	g.mu.Unlock()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("leave gossip: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("leave gossip: %w", ctx.Err())
	}
}

// Close stops to gossip, without a word to the others. It waits for a Leave
// under way, 6 s at most. It may be called twice; each call returns when all is
// closed.
func (g *Gossip) Close() error {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	g.trans.hangUp() // a round may wait for somebody's answer
	g.wg.Wait()
	if !first {
		g.report.wg.Wait()
		return nil
	}
	err := g.list.Shutdown()
	g.report.close()
	if err != nil {
		return fmt.Errorf("close gossip: %w", err)
	}
	return nil
}

// Keys are the keys of the ring; the first one encrypts.
func (g *Gossip) Keys() []Key { return g.ring.list() }

// SetKeys makes keys the ring; the first one encrypts. A rotation is three of them, each
// on every node before the next: the new key behind the old one, the new key before it,
// the new key alone.
func (g *Gossip) SetKeys(keys []Key) error {
	if err := g.ring.set(keys); err != nil {
		return fmt.Errorf("set gossip keys: %w", err)
	}
	return nil
}

// Stats are counters since Open, and the state now.
type Stats struct {
	Alive, Gone int // members, this node among them

	// Health is 0 when this node keeps the pace, and grows when its own probes
	// fail: then it, not the others, is in trouble.
	Health int

	// Payload, without the 28 (IPv6: 48) bytes of UDP and IP a datagram.
	SentPackets, SentBytes         uint64
	ReceivedPackets, ReceivedBytes uint64
	Streams, StreamBytes           uint64 // both ways

	Joins, JoinsFailed uint64 // attempts to reach a seed or lost member

	Refused        uint64 // members refused: foreign, conflicting, malformed
	ForeignPackets uint64 // datagrams with another label
	Undecrypted    uint64 // messages that no key opens
	RefusedStreams uint64 // above the limit of open streams
	Alarms         uint64
	DroppedReports uint64 // alarms and log lines that found their queue full
}

// Stats returns the counters.
func (g *Gossip) Stats() Stats {
	s := Stats{
		Health:      g.list.GetHealthScore(),
		SentPackets: g.trans.sentPackets.Load(), SentBytes: g.trans.sentBytes.Load(),
		ReceivedPackets: g.trans.receivedPackets.Load(), ReceivedBytes: g.trans.receivedBytes.Load(),
		Streams: g.trans.streamCount.Load(), StreamBytes: g.trans.streamBytes.Load(),
		Joins: g.stats.joins.Load(), JoinsFailed: g.stats.joinsFailed.Load(),
		Refused:        g.stats.refused.Load(),
		ForeignPackets: g.trans.foreignPackets.Load(),
		Undecrypted:    g.report.undecrypted.Load(),
		RefusedStreams: g.trans.refusedStreams.Load(),
		Alarms:         g.report.alarms.Load(),
		DroppedReports: g.report.dropped.Load(),
	}
	for _, m := range g.View().Members {
		if m.Status == cluster.StatusGone {
			s.Gone++
		} else {
			s.Alive++
		}
	}
	return s
}
