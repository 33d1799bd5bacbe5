package sqlite

import "golang.org/x/sys/unix"

// populate brings fresh memory in at once, rather than by one page fault for each
// page. Where the kernel cannot (before Linux 5.14) the faults come as usual.
func populate(p, n uintptr) {
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, p, n, unix.MADV_POPULATE_WRITE)
}
