package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// OpenTree implements TreeFS with syncfs. Since Linux 5.8 it reports every error of
// writing back that happened after the descriptor was opened.
func (o osFS) OpenTree() (Tree, error) {
	d, err := os.Open(o.root)
	if err != nil {
		return nil, err
	}
	return osTree{d}, nil
}

type osTree struct{ d *os.File }

func (t osTree) Sync() error {
	for {
		if err := unix.Syncfs(int(t.d.Fd())); err != unix.EINTR {
			if err != nil {
				return &os.PathError{Op: "syncfs", Path: t.d.Name(), Err: err}
			}
			return nil
		}
	}
}

func (t osTree) Close() error { return t.d.Close() }
