package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// Status is what the others believe about a member. It is a hint (it comes
// from gossip): no facet moves because of it.
type Status uint8

const (
	StatusUnknown Status = 0 // nothing heard yet
	StatusAlive   Status = 1 // answers probes
	StatusSuspect Status = 2 // missed probes, not given up yet
	StatusLeaving Status = 3 // is being drained and will go
	StatusGone    Status = 4 // left, or given up
)

var statusNames = [...]string{"unknown", "alive", "suspect", "leaving", "gone"}

func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status_%d", uint8(s))
}

// Member is one node as the cluster sees it. Addresses are names or literals
// with a port; they are resolved when they are dialled, never stored resolved.
type Member struct {
	ID      NodeID
	Store   StoreID
	API     string // where clients reach it (port 7400): host:port for http, or a URL
	Peer    string // where nodes reach it (port 7401)
	Zone    string // failure domain, empty when the operator named none
	Version string // release it runs
	Status  Status
	// Room and Load are hints for who gets new data: the logarithm to base 2 of the bytes
	// free on its disk, zero when it does not say, and the share of its memory for open
	// facets that is in use, in eighths rounded down.
	Room, Load uint8
}

// Bounds of the hints of a member.
const (
	MaxRoom = 63
	MaxLoad = 8
)

// Validate checks every field against its limit.
func (m *Member) Validate() error {
	if _, err := ParseNodeID(string(m.ID)); err != nil {
		return err
	}
	if m.Room > MaxRoom || m.Load > MaxLoad {
		return fmt.Errorf("validate member %s: room %d and load %d, limits %d and %d", m.ID, m.Room, m.Load, MaxRoom, MaxLoad)
	}
	for _, f := range [...]struct {
		what, value string
		limit       int
	}{
		{"API address", m.API, MaxAddressLen},
		{"peer address", m.Peer, MaxAddressLen},
		{"zone", m.Zone, MaxZoneLen},
		{"version", m.Version, MaxVersionLen},
	} {
		if len(f.value) > f.limit {
			return fmt.Errorf("validate member %s: %s has %d bytes, limit %d", m.ID, f.what, len(f.value), f.limit)
		}
	}
	return nil
}

// View is the members of a cluster at one moment.
//
// Invariant: Members is sorted by ID, each ID once.
type View struct {
	Cluster ID
	Self    NodeID
	Members []Member
}

// NewView sorts and checks members. It keeps the slice.
func NewView(cluster ID, self NodeID, members []Member) (View, error) {
	if len(members) > MaxNodes {
		return View{}, fmt.Errorf("make view: %d members, limit %d", len(members), MaxNodes)
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(string(a.ID), string(b.ID)) })
	for i := range members {
		if err := members[i].Validate(); err != nil {
			return View{}, err
		}
		if i > 0 && members[i-1].ID == members[i].ID {
			return View{}, fmt.Errorf("make view: member %s appears twice", members[i].ID)
		}
	}
	return View{Cluster: cluster, Self: self, Members: members}, nil
}

// Member finds a member by its id.
func (v View) Member(id NodeID) (Member, bool) {
	i, ok := slices.BinarySearchFunc(v.Members, id, func(m Member, id NodeID) int {
		return strings.Compare(string(m.ID), string(id))
	})
	if !ok {
		return Member{}, false
	}
	return v.Members[i], true
}
