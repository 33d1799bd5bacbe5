// Package scrub reads everything a node keeps again before rot spreads (rule R52).
//
// It owns when which part of the store is read, at what pace, and the memory of that
// across restarts. It refuses to judge: package replica says what is damaged and takes
// it out of service, and whoever made the Scrubber has it replaced. The node calls it.
//
// # How it goes through
//
// The facets are parted by the first byte of their ids into 256 parts, and each part has
// the time it was last read whole. The oldest part is read next, when its interval is
// over: so a node that is up for an hour a day goes on where it was, one that was down
// for a week catches up at the full pace, and one that is new spreads its parts over the
// interval. An idle facet costs a look for each round. The interval is six sevenths of
// what is promised, so that a part that is late, or read again because the node was
// stopped in the middle of it, is still in time. Segments of the commit log, which are
// read whole at every start, have their times in memory.
//
// One goroutine reads; at most one chunk of a file is in memory, and what checkpoints
// overwrite of the file that is being read.
//
// # The file
//
//	0     8  "facetscr"
//	8     4  version, 1
//	12 2048  256 times: Unix seconds, the parts in order; zero was never read
//	2060  4  CRC-32C of all before
//
// Integers are big-endian. A file that is not like this is of no use, and of no harm: all
// parts begin anew.
package scrub
