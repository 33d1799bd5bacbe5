//go:build darwin || freebsd

package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

func openDirect(path string) (*os.File, error) { return os.Open(path) }

// dropCache has nothing to ask of these systems.
func dropCache(*os.File) error { return nil }

// datasync is a full sync: on darwin only that reaches the medium.
func datasync(f *os.File) error { return f.Sync() }

func allocate(f *os.File, size int64) error { return growTo(f, size) }

func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
