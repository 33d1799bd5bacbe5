package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
)

// State is where a facet is in its life.
type State uint8

const (
	// Creating: named, never activated; its members hold no data yet.
	Creating State = 1
	// Recovering: an epoch was issued and its owner has not been activated.
	Recovering State = 2
	// Active: the owner of the epoch may serve.
	Active State = 3
	// Deleting: the epoch was raised without an owner; the name stays taken
	// until the tombstone, so that nobody meets old and new at once.
	Deleting State = 4
	// Retired: another incarnation has taken the name; the tombstone is next.
	Retired State = 5
)

var stateNames = [...]string{"none", "creating", "recovering", "active", "deleting", "retired"}

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state_%d", uint8(s))
}

// live reports whether a facet in this state may get an owner.
func (s State) live() bool { return s == Creating || s == Recovering || s == Active }

// Member is one keeper of a facet: a node and the store it had when it was
// chosen. A node with another store is no member (rule R3).
type Member struct {
	Node  cluster.NodeID
	Store cluster.StoreID
}

// Set is a replica set. The zero Set is empty. A Set is immutable and cheap to
// copy; equal sets of one table share their memory.
//
// Invariant: members are sorted by node, each node once, at most MaxMembers.
type Set struct{ m *members }

type members struct {
	list []Member
	key  string // encoded form, see codec.go
}

// NewSet makes a set of the given members, in any order.
func NewSet(list ...Member) (Set, error) {
	if len(list) > MaxMembers {
		return Set{}, fmt.Errorf("make replica set: %d members, limit %d", len(list), MaxMembers)
	}
	if len(list) == 0 {
		return Set{}, nil
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Member) int { return strings.Compare(string(a.Node), string(b.Node)) })
	for i, m := range list {
		if _, err := cluster.ParseNodeID(string(m.Node)); err != nil {
			return Set{}, fmt.Errorf("make replica set: %w", err)
		}
		if m.Store.IsZero() {
			return Set{}, fmt.Errorf("make replica set: member %s has no store", m.Node)
		}
		if i > 0 && list[i-1].Node == m.Node {
			return Set{}, fmt.Errorf("make replica set: member %s appears twice", m.Node)
		}
	}
	return Set{&members{list: list, key: encodeMembers(list)}}, nil
}

// Len is the number of members.
func (s Set) Len() int {
	if s.m == nil {
		return 0
	}
	return len(s.m.list)
}

// IsZero reports whether s is the empty set.
func (s Set) IsZero() bool { return s.m == nil }

// Members lists the members, sorted by node. The slice belongs to the set and
// must not be changed.
func (s Set) Members() []Member {
	if s.m == nil {
		return nil
	}
	return s.m.list
}

// Member finds the member on a node.
func (s Set) Member(node cluster.NodeID) (Member, bool) {
	for _, m := range s.Members() {
		if m.Node == node {
			return m, true
		}
	}
	return Member{}, false
}

// Has reports whether a node is a member, with whatever store.
func (s Set) Has(node cluster.NodeID) bool {
	_, ok := s.Member(node)
	return ok
}

// Equal reports whether both sets have the same members.
func (s Set) Equal(o Set) bool {
	return s.m == o.m || s.m != nil && o.m != nil && s.m.key == o.m.key
}

func (s Set) String() string {
	var b strings.Builder
	for i, m := range s.Members() {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(string(m.Node))
	}
	return b.String()
}

// Owner is a node in one process life. Epochs are bound to it (rule R2).
type Owner struct {
	Node cluster.NodeID
	Boot cluster.BootID
}

// IsZero reports whether nobody is the owner.
func (o Owner) IsZero() bool { return o == Owner{} }

// Facet is one row of the table, as a value.
type Facet struct {
	Name        facet.Name
	Incarnation facet.Incarnation
	State       State
	// Bound says that Name leads to this incarnation. A detached or retired
	// row only remembers the name it was or will be.
	Bound bool
	// Pinned is the operator's wish that the owner stays where it is: no
	// rebalance moves it. Failover and decommissioning do.
	Pinned bool
	Epoch  facet.Epoch
	// Owner holds Epoch; zero after Release, Delete and Bind.
	Owner Owner
	// Holder is the process life that was activated last, until it says that
	// it serves no more (Release, or Acquire with its word). Others may have
	// held epochs since and never served. Its read lease must be over before
	// the next Activate (rule R21) and before a deletion is answered (R47).
	// Zero: nobody was ever activated, or nobody may serve reads.
	Holder Owner
	// Next is the set the owner of Epoch replicates to; Active is the set that
	// was activated last and the only one whose promises count (rule R16).
	Next        Set
	Active      Set
	ActiveEpoch facet.Epoch
	// Lineage is zero for a facet that began empty or with an imported file.
	Lineage facet.Lineage
	// Index is the log index of the last change of this row.
	Index uint64
}

// NodeState is what a node is there for.
type NodeState uint8

const (
	// NodeActive takes facets.
	NodeActive NodeState = 0
	// NodeDraining owns no facets after a while and gets no new ones; it keeps
	// the copies it has, and votes with them.
	NodeDraining NodeState = 1
	// NodeDecommissioning is to own and to keep nothing any more, and to be
	// removed then.
	NodeDecommissioning NodeState = 2
)

var nodeStateNames = [...]string{"active", "draining", "decommissioning"}

func (s NodeState) String() string {
	if int(s) < len(nodeStateNames) {
		return nodeStateNames[s]
	}
	return fmt.Sprintf("node_state_%d", uint8(s))
}

// Node is one registered node.
type Node struct {
	ID      cluster.NodeID
	Store   cluster.StoreID
	Boot    cluster.BootID
	Machine cluster.MachineID
	API     string
	Peer    string
	Zone    string
	Version string
	State   NodeState
	Index   uint64 // log index of the last change
}

// epochOf is the first epoch of a generation.
func epochOf(generation uint16) facet.Epoch { return facet.Epoch(generation)<<48 | 1 }

// nextEpoch is the epoch issued after e in a generation (rule R2); ok is false when
// there is none left, which no cluster lives to see.
func nextEpoch(e facet.Epoch, generation uint16) (next facet.Epoch, ok bool) {
	if e == ^facet.Epoch(0) {
		return 0, false
	}
	if broken.Is(broken.EpochStands) {
		return e, true
	}
	if broken.Is(broken.NoGeneration) {
		generation = 0
	}
	return max(e.Next(), epochOf(generation)), true
}
