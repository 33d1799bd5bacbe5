package gossip

import "errors"

var (
	// ErrClosed: the gossip was closed, or the node has left; open it anew.
	ErrClosed = errors.New("gossip is closed")

	// ErrMetaTooLong: addresses, zone and version together do not fit what one
	// node may tell about itself; shorten them.
	ErrMetaTooLong = errors.New("member does not fit into 512 bytes of gossip")

	// ErrBadMeta: what a member tells about itself cannot be read.
	ErrBadMeta = errors.New("member meta is malformed")

	// ErrForeign: a member of another cluster.
	ErrForeign = errors.New("member of another cluster")

	// ErrConflict: two stores claim one node id (rule R3).
	ErrConflict = errors.New("node id is claimed by two stores")

	// ErrKey: a key has a wrong length or form, or may not be used this way.
	ErrKey = errors.New("bad gossip key")
)
