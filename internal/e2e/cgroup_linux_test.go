package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// starve gives a process so much of every 100 ms on a processor, until fed is called.
// Where the system lets nobody do that, it says why.
func starve(pid int, share time.Duration) (fed func() error, err error) {
	const period = 100 * time.Millisecond
	group := fmt.Sprintf("facetd-e2e-%d", pid)
	v1, v2 := "/sys/fs/cgroup/cpu", "/sys/fs/cgroup"
	root, limit, value := v1, "cpu.cfs_quota_us", fmt.Sprint(share.Microseconds())
	if _, err := os.Stat(filepath.Join(v1, limit)); err != nil {
		root, limit, value = v2, "cpu.max", fmt.Sprintf("%d %d", share.Microseconds(), period.Microseconds())
	}
	dir := filepath.Join(root, group)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	put := func(file, text string) error { return os.WriteFile(file, []byte(text), 0) }
	fed = func() error {
		_ = put(filepath.Join(root, "cgroup.procs"), fmt.Sprint(pid)) // it may be gone
		return os.Remove(dir)
	}
	if err := put(filepath.Join(dir, limit), value); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	if err := put(filepath.Join(dir, "cgroup.procs"), fmt.Sprint(pid)); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return fed, nil
}
