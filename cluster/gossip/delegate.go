package gossip

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/facetd/facetd/cluster"
)

// delegate is how the library calls back. It does so with its own lock held:
// nothing here blocks, does I/O, or calls the library.
type delegate struct{ g *Gossip }

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.AliveDelegate    = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
	_ memberlist.MergeDelegate    = delegate{}
)

// NodeMeta returns what this node tells about itself. The library panics on
// more than limit bytes, which encodeMeta has ruled out.
func (d delegate) NodeMeta(limit int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return d.g.meta
}

// User messages and user state are not used: what they carry is ignored.

func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}

// NotifyAlive is asked before anything is done about a living member. The
// message may be an old one, so nothing is learned from it yet.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	c, err := d.g.read(n)
	if err != nil {
		return err
	}
	return d.g.admit(c)
}

// NotifyMerge is asked before the state of a peer is merged when somebody joins.
// The state of another cluster is refused as a whole: it may hold bad news about
// a member that has the name of one of ours.
func (d delegate) NotifyMerge(peers []*memberlist.Node) error {
	for _, n := range peers {
		if n.State != memberlist.StateAlive {
			continue
		}
		id, m, err := decodeMeta(n.Name, n.Meta)
		if err != nil {
			continue // NotifyAlive refuses that one
		}
		d.g.mu.Lock()
		foreign := d.g.roster.foreign(id)
		d.g.mu.Unlock()
		if foreign {
			c := claim{member: m, cluster: id, addr: nodeAddr(n)}
			return d.g.admit(c)
		}
	}
	return nil
}

func (d delegate) NotifyJoin(n *memberlist.Node)   { d.g.heard(n) }
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.g.heard(n) }

func (d delegate) NotifyLeave(n *memberlist.Node) {
	g, id := d.g, cluster.NodeID(n.Name)
	g.mu.Lock()
	if id == g.roster.self.ID {
		g.roster.left = true
		g.changed()
		g.mu.Unlock()
		return
	}
	was, ok := g.roster.lose(id, time.Now())
	if ok {
		g.changed()
	}
	g.mu.Unlock()
	if ok {
		g.report.line(levelInfo, "member gone", "node", id, "store", was.member.Store, "addr", was.addr, "left", was.left())
		g.hurry()
	}
}

// NotifyConflict is told of a member at another address than the known one,
// which is not gone. NotifyAlive has let it pass, so the store is the same.
func (d delegate) NotifyConflict(known, other *memberlist.Node) {
	g := d.g
	id, m, err := decodeMeta(other.Name, other.Meta)
	if err != nil {
		return
	}
	g.mu.Lock()
	self := m.ID == g.roster.self.ID
	if self {
		g.contested = time.Now()
	}
	g.mu.Unlock()
	if self {
		// The others still know us where we were: tell them again soon.
		g.hurry()
	}
	g.report.alarm(Alarm{Kind: AlarmAddressConflict, Node: m.ID, Known: m.Store, Claimed: m.Store, Cluster: id,
		KnownAddr: nodeAddr(known), Addr: nodeAddr(other)})
}

// read decodes what n tells about itself.
func (g *Gossip) read(n *memberlist.Node) (claim, error) {
	id, m, err := decodeMeta(n.Name, n.Meta)
	addr := nodeAddr(n)
	if err == nil && (!addr.IsValid() || addr.Port() == 0) {
		err = fmt.Errorf("decode meta of %s: no gossip address: %w", m.ID, ErrBadMeta)
	}
	if err != nil {
		g.stats.refused.Add(1)
		g.report.alarm(Alarm{Kind: AlarmBadMeta, Addr: addr, Detail: err.Error()})
		return claim{}, err
	}
	return claim{member: m, cluster: id, addr: addr}, nil
}

// admit asks the roster whether c may be taken, and raises the alarm if not.
func (g *Gossip) admit(c claim) error {
	g.mu.Lock()
	alarm, err := g.roster.judge(c, time.Now(), g.set.Timings.Reclaim)
	g.mu.Unlock()
	if err != nil {
		g.stats.refused.Add(1)
		g.report.alarm(*alarm)
	}
	return err
}

// heard takes a member the library has found to be alive and news.
func (g *Gossip) heard(n *memberlist.Node) {
	c, err := g.read(n)
	if err != nil || c.member.ID == g.set.Self.ID {
		return
	}
	g.mu.Lock()
	before, existed := g.roster.put(c, time.Now())
	g.changed()
	g.mu.Unlock()
	if existed && before.member.Store != c.member.Store {
		g.report.alarm(Alarm{Kind: AlarmReplaced, Node: c.member.ID, Known: before.member.Store, KnownAddr: before.addr,
			Claimed: c.member.Store, Addr: c.addr})
	}
	if !existed || before.gone {
		g.report.line(levelInfo, "member alive", "node", c.member.ID, "store", c.member.Store, "addr", c.addr, "peer", c.member.Peer)
	}
}

// nodeAddr is where n gossips.
func nodeAddr(n *memberlist.Node) netip.AddrPort {
	ip, ok := netip.AddrFromSlice(n.Addr)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip.Unmap(), n.Port)
}
