//go:build facetd_next

package wire

// What the next release will speak: for tests of an upgrade (internal/e2e).
const (
	VersionMin = 1
	VersionMax = 2
)
