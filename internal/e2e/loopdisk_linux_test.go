package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/facetd/facetd/internal/disk/disktest"
)

// diskSize is what a node with all its facets needs, and some room to fill.
const diskSize = 1 << 30

// disks are real file systems that can break: each node has an ext4 on a loop device of
// its own, over a file in memory. What goes wrong with it goes wrong in the kernel, for
// everything a node keeps, the placement log too.
type disks struct {
	t    testing.TB
	dir  string // where the files of the devices are
	list []*loopDisk
}

// newDisks makes room for the files of the devices. Where no device can be made, why
// tells the reason.
func newDisks(t testing.TB) (d *disks, why error) {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("disks that break need root")
	}
	d = &disks{t: t, dir: disktest.Small(t, "6g")}
	t.Cleanup(d.close)
	probe, err := d.make("probe", 16<<20)
	if err != nil {
		return nil, err
	}
	probe.remove()
	d.list = nil
	return d, nil
}

func (d *disks) close() {
	for _, l := range d.list {
		l.remove()
	}
}

// thaw lets all disks go on: a process that waits for one cannot be killed.
func (d *disks) thaw() {
	for _, l := range d.list {
		l.thaw()
	}
}

// loopDisk is one of them.
type loopDisk struct {
	t      testing.TB
	dir    string // where it is mounted
	dev    string
	frozen atomic.Bool
	broken bool // it has failed, and was not repaired
}

// add makes a disk.
func (d *disks) add(name string) *loopDisk {
	d.t.Helper()
	l, err := d.make(name, diskSize)
	if err != nil {
		d.t.Fatal(err)
	}
	return l
}

func (d *disks) make(name string, size int64) (*loopDisk, error) {
	image := filepath.Join(d.dir, name+".img")
	f, err := os.Create(image)
	if err == nil {
		err = f.Truncate(size)
		f.Close()
	}
	if err != nil {
		return nil, err
	}
	// All of it is written now: what is written lazily would come back as an error of
	// a disk that is sound again.
	if _, err := command("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image); err != nil {
		return nil, err
	}
	dev, err := command("losetup", "--find", "--show", image)
	if err != nil {
		return nil, err
	}
	l := &loopDisk{t: d.t, dir: filepath.Join(d.dir, name), dev: strings.TrimSpace(dev)}
	d.list = append(d.list, l)
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		return nil, err
	}
	return l, l.mount()
}

func command(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (l *loopDisk) must(name string, args ...string) {
	l.t.Helper()
	if _, err := command(name, args...); err != nil {
		l.t.Fatal(err)
	}
}

func (l *loopDisk) mount() error {
	_, err := command("mount", "-o", "errors=continue", l.dev, l.dir)
	return err
}

func (l *loopDisk) remove() {
	l.thaw()
	for _, args := range [][]string{{"umount", "--lazy", l.dir}, {"losetup", "--detach", l.dev}} {
		if _, err := command(args[0], args[1:]...); err != nil {
			l.t.Log(err)
		}
	}
}

// limit makes all of the device but its first bytes fail with EIO; 0 makes it sound.
func (l *loopDisk) limit(size uint64) {
	l.t.Helper()
	f, err := os.OpenFile(l.dev, os.O_RDWR, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err == nil {
		info.Sizelimit = size
		for try := 0; ; try++ {
			// The kernel wants the device's cache empty for it.
			if err = unix.IoctlLoopSetStatus64(int(f.Fd()), info); err != unix.EAGAIN || try == 100 {
				break
			}
			time.Sleep(pollEvery)
		}
	}
	if err != nil {
		l.t.Fatalf("limit %s: %v", l.dev, err)
	}
}

// fail lets every read and write of the device fail from now on.
func (l *loopDisk) fail() { l.t.Helper(); l.broken = true; l.limit(4096) }

// work ends that. What failed meanwhile is lost, and the file system may refuse to go
// on: it is repaired before it is used again.
func (l *loopDisk) work() { l.t.Helper(); l.limit(0) }

// repair is what an operator does with a file system whose device works again. Nobody
// may use it meanwhile.
func (l *loopDisk) repair() {
	l.t.Helper()
	if !l.broken {
		return
	}
	l.work()
	l.must("umount", l.dir)
	// Exit status 1 says that something was repaired.
	if out, err := exec.Command("e2fsck", "-fy", l.dev).CombinedOutput(); err != nil {
		if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != 1 {
			l.t.Fatalf("e2fsck: %v\n%s", err, out)
		}
	}
	if err := l.mount(); err != nil {
		l.t.Fatal(err)
	}
	l.broken = false
}

// The ioctls of fsfreeze(8), which wants a process for each.
const ioctlFreeze, ioctlThaw = 0xC0045877, 0xC0045878

func (l *loopDisk) ioctl(what uint) error {
	f, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetInt(int(f.Fd()), what, 0)
}

// freeze lets every write wait until thaw.
func (l *loopDisk) freeze() {
	l.t.Helper()
	if l.frozen.Swap(true) {
		return
	}
	if err := l.ioctl(ioctlFreeze); err != nil {
		l.t.Fatalf("freeze %s: %v", l.dir, err)
	}
}

func (l *loopDisk) thaw() {
	l.t.Helper()
	if !l.frozen.Swap(false) {
		return
	}
	if err := l.ioctl(ioctlThaw); err != nil {
		l.t.Fatalf("thaw %s: %v", l.dir, err)
	}
}

// fill uses up every byte; empty gives them back.
func (l *loopDisk) fill()  { l.t.Helper(); disktest.Fill(l.t, filepath.Join(l.dir, "filler")) }
func (l *loopDisk) empty() { os.Remove(filepath.Join(l.dir, "filler")) }
