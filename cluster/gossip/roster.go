package gossip

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/facetd/facetd/cluster"
)

// record is what is known of one node id.
type record struct {
	member  cluster.Member // with the status it gives itself
	cluster cluster.ID
	addr    netip.AddrPort // where it gossips
	gone    bool
	since   time.Time // when it came or went
}

// left reports whether a gone member went on purpose.
func (r *record) left() bool { return r.gone && r.member.Status == cluster.StatusLeaving }

// roster is the members known, this node not among them: a plain value without
// clock or lock. Gossip guards it.
//
// Invariant: at most maxMembers-1 records.
type roster struct {
	self    cluster.Member // with its current status
	cluster cluster.ID
	addr    netip.AddrPort // where this node gossips
	left    bool           // this node has left
	known   map[cluster.NodeID]*record
}

// claim is a member as it was heard of.
type claim struct {
	member  cluster.Member
	cluster cluster.ID
	addr    netip.AddrPort
}

// foreign reports whether id is another cluster's.
func (r *roster) foreign(id cluster.ID) bool {
	return !id.IsZero() && !r.cluster.IsZero() && id != r.cluster
}

// judge decides whether c may be taken for the node it says it is. An alarm
// comes with each refusal.
func (r *roster) judge(c claim, now time.Time, reclaim time.Duration) (*Alarm, error) {
	id := c.member.ID
	if r.foreign(c.cluster) {
		return &Alarm{Kind: AlarmForeignCluster, Node: id, Claimed: c.member.Store, Addr: c.addr, Cluster: c.cluster},
			fmt.Errorf("%s at %s is of cluster %s: %w", id, c.addr, c.cluster, ErrForeign)
	}
	conflict := func(known cluster.StoreID, at netip.AddrPort) (*Alarm, error) {
		return &Alarm{Kind: AlarmStoreConflict, Node: id, Known: known, KnownAddr: at, Claimed: c.member.Store, Addr: c.addr},
			fmt.Errorf("%s with store %s at %s, known with store %s at %s: %w", id, c.member.Store, c.addr, known, at, ErrConflict)
	}
	if id == r.self.ID {
		// At our own address it is what we were before our disk was replaced:
		// the library refutes it. Elsewhere it is somebody else.
		if c.member.Store != r.self.Store && c.addr != r.addr {
			return conflict(r.self.Store, r.addr)
		}
		return nil, nil
	}
	k, ok := r.known[id]
	switch {
	case !ok:
		if len(r.known) >= maxMembers-1 && r.oldestGone() == nil {
			return &Alarm{Kind: AlarmFull, Node: id, Addr: c.addr}, fmt.Errorf("%s at %s: %d members are known, limit %d", id, c.addr, len(r.known)+1, maxMembers)
		}
	case k.member.Store == c.member.Store:
	case k.addr == c.addr: // nobody else can be at the known one's address
	case k.left():
	case k.gone && now.Sub(k.since) > reclaim:
	default:
		// R3: a member is a node and its store; the known one is kept.
		return conflict(k.member.Store, k.addr)
	}
	return nil, nil
}

// put takes c into the roster. It returns what was known under its id before.
func (r *roster) put(c claim, now time.Time) (before record, existed bool) {
	k, ok := r.known[c.member.ID]
	if ok {
		before = *k
	} else {
		if len(r.known) >= maxMembers-1 {
			old := r.oldestGone()
			if old == nil {
				return record{}, false
			}
			delete(r.known, old.member.ID)
		}
		k = &record{}
		r.known[c.member.ID] = k
	}
	since := k.since
	if !ok || k.gone {
		since = now
	}
	*k = record{member: c.member, cluster: c.cluster, addr: c.addr, since: since}
	return before, ok
}

// lose marks id as gone.
func (r *roster) lose(id cluster.NodeID, now time.Time) (record, bool) {
	k, ok := r.known[id]
	if !ok || k.gone {
		return record{}, false
	}
	k.gone, k.since = true, now
	return *k, true
}

// forget drops members that have been gone for long.
func (r *roster) forget(now time.Time, after time.Duration) (dropped int) {
	for id, k := range r.known {
		if k.gone && now.Sub(k.since) > after {
			delete(r.known, id)
			dropped++
		}
	}
	return dropped
}

func (r *roster) oldestGone() (oldest *record) {
	for _, k := range r.known {
		if k.gone && (oldest == nil || k.since.Before(oldest.since)) {
			oldest = k
		}
	}
	return oldest
}

// view returns what is known as a view. Members that turned out to be of
// another cluster, because this node learned its own only later, are not in it.
func (r *roster) view() cluster.View {
	members := make([]cluster.Member, 0, len(r.known)+1)
	self := r.self
	if r.left {
		self.Status = cluster.StatusGone
	}
	members = append(members, self)
	for _, k := range r.known {
		if r.foreign(k.cluster) {
			continue
		}
		m := k.member
		if k.gone {
			m.Status = cluster.StatusGone
		}
		members = append(members, m)
	}
	v, err := cluster.NewView(r.cluster, r.self.ID, members)
	if err != nil {
		panic("gossip: roster breaks its invariant: " + err.Error())
	}
	return v
}

// clusters are the clusters that living members name, sorted.
func (r *roster) clusters() (ids []cluster.ID) {
	for _, k := range r.known {
		if !k.gone && !k.cluster.IsZero() && !slices.Contains(ids, k.cluster) {
			ids = append(ids, k.cluster)
		}
	}
	slices.SortFunc(ids, func(a, b cluster.ID) int { return slices.Compare(a[:], b[:]) })
	return ids
}

// sight is what the rejoin loop needs to know.
type sight struct {
	alive map[netip.AddrPort]bool // where living members gossip
	lost  []netip.AddrPort        // where members gossiped that went without leaving
}

func (r *roster) sight() sight {
	s := sight{alive: make(map[netip.AddrPort]bool, len(r.known))}
	for _, k := range r.known {
		switch {
		case r.foreign(k.cluster) || k.left():
		case k.gone:
			s.lost = append(s.lost, k.addr)
		default:
			s.alive[k.addr] = true
		}
	}
	return s
}
