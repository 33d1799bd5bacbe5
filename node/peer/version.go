//go:build !facetd_next && !facetd_later

package peer

// The protocol versions this release speaks. A release speaks its own and the
// one before, so that a cluster can be upgraded node by node.
const (
	VersionMin = 1
	VersionMax = 1
)
