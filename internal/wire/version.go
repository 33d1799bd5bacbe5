//go:build !facetd_next && !facetd_later

package wire

// The versions of the protocol inside the handshake that this release speaks; a later
// change that both sides can negotiate raises the upper one.
const (
	VersionMin = 1
	VersionMax = 1
)
