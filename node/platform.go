package node

import (
	"context"
	"net"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/cluster/gossip"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node/lease"
)

// Platform is what a node runs on: a disk, a network, clocks. The real one is the
// machine; package internal/sim puts whole clusters on one in memory. A field that
// is nil is the machine's, but that a platform that is given has no API port: its
// users ask Node.Service.
type Platform struct {
	FS   disk.FS           // of the data directory; needed
	Log  commitlog.Options // sizes of the commit log; zero means its defaults
	Raft *consensus.Memory // the placement log

	// Identity is what the data directory says of itself; Save keeps it. Both, or
	// neither.
	Identity Identity
	Save     func(Identity) error

	PeerListener net.Listener
	PeerDial     func(ctx context.Context, address string) (net.Conn, error)
	Gossip       gossip.Network

	Machine cluster.MachineID
	Clock   lease.Clock
	Clocks  func() lease.Reading
}

// NewIdentity is the identity of a fresh data directory.
func NewIdentity(id cluster.NodeID) Identity {
	store := cluster.NewStoreID()
	return Identity{Format: dataFormat, Node: id, Store: store.String(), store: store}
}

func (n *Node) machine() cluster.MachineID {
	if n.cfg.Platform.Save != nil {
		return n.cfg.Platform.Machine
	}
	return machineID()
}
