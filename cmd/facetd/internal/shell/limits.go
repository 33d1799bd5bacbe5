package shell

import "github.com/facetd/facetd/facet"

// Bounds of the shell, with their reasons.
const (
	// maxStatement is the longest statement that is gathered: the server takes no
	// longer one.
	maxStatement = facet.MaxSQLLen

	// maxLine bounds one line of input: a statement on a line of its own.
	maxLine = maxStatement + 4<<10

	// bundleLen is up to how many bytes of statements without rows are sent
	// together when nobody waits for each.
	bundleLen = 64 << 10

	// tableRows and tableBytes bound the rows held back to find the widths of a
	// table; later rows are fitted to those.
	tableRows  = 1000
	tableBytes = 4 << 20

	// minColumn is the narrowest a column is cut to on a terminal.
	minColumn = 6

	// importRows and importBytes bound one batch of .import.
	importRows  = 500
	importBytes = 1 << 20

	// maxReadDepth bounds .read inside files that are read.
	maxReadDepth = 16
)
