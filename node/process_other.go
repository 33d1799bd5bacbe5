//go:build !unix

package node

import "time"

// cpuTime cannot be told here.
func cpuTime() (time.Duration, bool) { return 0, false }
