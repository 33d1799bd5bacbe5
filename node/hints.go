package node

import (
	"math/bits"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/node/steward"
)

// What nodes tell one another of their room and load, by gossip, for who gets new
// facets and members. It is two bytes, coarse, so that it changes now and then and not
// all the time; nothing but the choice among nodes that are equally right hangs on it.

const (
	// hintsEvery is how often a node looks whether it has something new to tell.
	hintsEvery = time.Minute
	// alike is by how many powers of two the room of nodes may differ that are treated
	// alike: one at least, for equal disks may lie at both sides of a border.
	alike = 1
	// busy is from what load on, in eighths, a node gets less than others. Below, what is
	// open at a moment is no reason to place a facet elsewhere for its life.
	busy = 6
)

// tellHints tells the others by gossip how much room this node has, if that changed.
func (n *Node) tellHints() {
	if n.gossip == nil {
		return
	}
	m := n.member()
	m.Room, m.Load = n.hinted.Room, load(n.owners.Stats().Memory, n.cfg.MemoryBudget)
	if free, err := n.cfg.Platform.FS.Free(); err == nil {
		m.Room = room(free, n.hinted.Room)
	}
	if m == n.hinted {
		return
	}
	if err := n.gossip.Update(m); err != nil {
		n.log.Debug("tell room and load by gossip", "error", err)
		return
	}
	n.hinted = m
}

// room is the logarithm of free bytes. It stays what it was while they are near the
// border.
func room(free int64, was uint8) uint8 {
	log := func(b int64) uint8 { return uint8(max(bits.Len64(uint64(b))-1, 0)) }
	free = max(free, 2) // zero stands for not known
	if lower, upper := log(max(free-free/8, 2)), log(free+free/8); was >= lower && was <= upper {
		return was
	}
	return log(free)
}

// load is the part of a budget that is used, in eighths.
func load(used, budget int64) uint8 {
	if budget <= 0 {
		return 0
	}
	return uint8(min(max(used, 0)/max(budget/cluster.MaxLoad, 1), cluster.MaxLoad))
}

// hints is what gossip says of the nodes, for those who choose among them. A node that
// says nothing has as much room as the roomiest: one that is away for a moment keeps its
// share.
func (n *Node) hints() map[cluster.NodeID]steward.Hint {
	v := n.view.Load()
	if v == nil {
		return nil
	}
	return hintsOf(v.Members)
}

func hintsOf(members []cluster.Member) map[cluster.NodeID]steward.Hint {
	most := uint8(0)
	for _, m := range members {
		most = max(most, m.Room)
	}
	out := make(map[cluster.NodeID]steward.Hint, len(members))
	for _, m := range members {
		var h steward.Hint
		if most > 0 {
			h.FreeBytes = 1 << most
			if m.Room > 0 && m.Room+alike < most {
				h.FreeBytes = 1 << m.Room
			}
		}
		if m.Load >= busy {
			h.Load = float64(min(m.Load, cluster.MaxLoad-1)) / cluster.MaxLoad
		}
		out[m.ID] = h
	}
	return out
}

// tableHints is steward.Config.Hints: those of all nodes of the table.
func (n *Node) tableHints() map[cluster.NodeID]steward.Hint {
	seen, out := n.hints(), map[cluster.NodeID]steward.Hint{}
	for _, node := range n.table.Nodes() {
		out[node.ID] = hintOf(seen, node.ID)
	}
	return out
}

// hintOf is the hint about a node that may be missing among them.
func hintOf(hints map[cluster.NodeID]steward.Hint, id cluster.NodeID) steward.Hint {
	if h, ok := hints[id]; ok {
		return h
	}
	var h steward.Hint
	for _, o := range hints {
		h.FreeBytes = max(h.FreeBytes, o.FreeBytes)
	}
	return h
}
