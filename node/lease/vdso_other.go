//go:build linux && !amd64

package lease

import "golang.org/x/sys/unix"

// fastGettime is for processors with a way past the kernel.
func fastGettime(int32, *unix.Timespec) bool { return false }
