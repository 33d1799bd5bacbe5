//go:build facetd_later

package peer

// What a release after the next will speak: for tests of what must be refused
// (internal/e2e).
const (
	VersionMin = 3
	VersionMax = 3
)
