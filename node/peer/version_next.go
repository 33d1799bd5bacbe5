//go:build facetd_next

package peer

// What the next release will speak: for tests of an upgrade (internal/e2e).
const (
	VersionMin = 1
	VersionMax = 2
)
