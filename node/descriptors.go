package node

import (
	"syscall"

	"github.com/facetd/facetd/node/httpapi"
)

const (
	// connShare is the part of the process's descriptors that HTTP may have, and the
	// native protocol as much again: files, the log and other nodes share the rest.
	connShare = 4
	// leastConns is served in any case.
	leastConns = 64
)

// maxConns is how many connections each of the two protocols of clients may have. A
// process that runs out of descriptors cannot open the next segment of its log, and then
// must end (rule R13).
func maxConns() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return httpapi.DefaultMaxConns
	}
	return int(max(min(uint64(l.Cur)/connShare, httpapi.DefaultMaxConns), leastConns))
}
