package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus/memnet"
	"github.com/facetd/facetd/cluster/gossip/gossiptest"
)

// network is everything between the machines: connections of the peer ports and
// gossip, which break together.
type network struct {
	peers  *memnet.Network
	gossip *gossiptest.Network
	w      *world

	mu    sync.Mutex
	hosts []cluster.NodeID
	ip    map[cluster.NodeID]string
	cut   map[[2]cluster.NodeID]bool // from, to
}

func newNetwork(seed uint64) *network {
	return &network{
		peers: memnet.New(seed), gossip: gossiptest.NewNetwork(seed),
		ip: map[cluster.NodeID]string{}, cut: map[[2]cluster.NodeID]bool{},
	}
}

func (n *network) add(id cluster.NodeID, ip string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts = append(n.hosts, id)
	n.ip[id] = ip
}

// set makes the cuts of the network those that f names: nothing goes from the first
// to the second. What is on its way waits for the path to heal, as TCP would have it.
func (n *network) set(f func(from, to cluster.NodeID) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gossip.Heal()
	for _, a := range n.hosts {
		for _, b := range n.hosts {
			if a == b {
				continue
			}
			k := [2]cluster.NodeID{a, b}
			was, is := n.cut[k], f(a, b)
			n.cut[k] = is
			if is {
				n.gossip.CutOneWay(n.gossip.Host(n.ip[a]), n.gossip.Host(n.ip[b]))
			}
			if was == is {
				continue
			}
			if is {
				n.peers.Cut(string(a), string(b))
			} else {
				n.peers.Heal(string(a), string(b))
			}
		}
	}
}

// cuts is what set was told last.
func (n *network) cuts() map[[2]cluster.NodeID]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[[2]cluster.NodeID]bool{}
	for k, v := range n.cut {
		if v {
			out[k] = true
		}
	}
	return out
}

// also cuts more, or heals some, beside what is cut already.
func (n *network) also(cut bool, f func(from, to cluster.NodeID) bool) {
	was := n.cuts()
	n.set(func(a, b cluster.NodeID) bool {
		if f(a, b) {
			return cut
		}
		return was[[2]cluster.NodeID{a, b}]
	})
}

// port is one process life's hold of the network: what it opened there ends with it.
type port struct {
	net  *network
	id   cluster.NodeID
	host *gossiptest.Host

	mu     sync.Mutex
	closed bool
	open   []interface{ Close() error }
}

var errGone = errors.New("the process is gone")

func (n *network) port(id cluster.NodeID) (*port, *memnet.Listener) {
	p := &port{net: n, id: id, host: n.gossip.Host(n.ip[id])}
	return p, n.peers.Host(string(id)).Listen()
}

// Dial connects to another node's peer port.
func (p *port) dial(ctx context.Context, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	c, err := p.keep(p.net.peers.Host(string(p.id)).Dial(ctx, host))
	if err != nil {
		return nil, err
	}
	return p.net.w.tapped(c, p.id, cluster.NodeID(host)), nil
}

// keep has what was opened end with the process.
func (p *port) keep(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return nil, errGone
	}
	return c, nil
}

// Listen implements gossip.Network.
func (p *port) Listen(addr netip.AddrPort) (net.PacketConn, net.Listener, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, errGone
	}
	pc, l, err := p.host.Listen(addr)
	if err == nil {
		p.open = append(p.open, pc, l)
	}
	return pc, l, err
}

// Dial implements gossip.Network.
func (p *port) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	return p.keep(p.host.Dial(ctx, addr))
}

// close ends all that the process has to do with the network. With reset the others
// are told by their systems; else they hear nothing any more, as when a machine loses
// its power, until the machine is there again.
func (p *port) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.open {
		c.Close()
	}
	p.net.peers.Kill(string(p.id))
}
