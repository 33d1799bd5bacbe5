package main

import "golang.org/x/sys/unix"

// memoryBacked reports whether a directory lives in memory.
func memoryBacked(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && (int64(st.Type) == unix.TMPFS_MAGIC || int64(st.Type) == unix.RAMFS_MAGIC)
}
