package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// syncs is how often the disk is asked, syncBytes with how much each time.
	syncs     = 40
	syncBytes = 4096

	// syncNoWait is what no disk and no network storage takes: whoever is faster keeps the
	// bytes in memory.
	syncNoWait = 8 * time.Microsecond

	// filesWanted is the limit of open files from which a node is not held back.
	filesWanted = 65536
)

// Disk is what was measured of the disk of a data directory.
type Disk struct {
	Dir      string
	Missing  bool        // there is no such directory yet; its parent was measured
	Mode     fs.FileMode // of the directory
	NodeFile bool        // there is a node's data in it
	Sync     []time.Duration
	Err      error
	System   System
}

// System is what the operating system tells; zero where it does not.
type System struct {
	FileSystem   string // "nfs", "tmpfs" …; empty for one that is fine
	Free, Total  uint64
	MaxFiles     uint64
	ClockUnknown bool
	ClockSynced  bool
}

// Machine measures the machine of a data directory.
func Machine(dir string) Disk {
	d := Disk{Dir: dir}
	info, err := os.Stat(dir)
	at := dir
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.Missing = true
		if at = filepath.Dir(filepath.Clean(dir)); !isDir(at) {
			d.Err = err
			return d
		}
	case err != nil:
		d.Err = err
		return d
	case !info.IsDir():
		d.Err = &fs.PathError{Op: "open", Path: dir, Err: errors.New("it is no directory")}
		return d
	default:
		d.Mode = info.Mode()
		_, err := os.Stat(filepath.Join(dir, "node.json"))
		d.NodeFile = err == nil
	}
	d.System = system(at)
	d.Sync, d.Err = measure(at)
	return d
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// measure writes and syncs a file, which it removes.
func measure(dir string) (took []time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".facetd-doctor-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	buf := make([]byte, syncBytes)
	for i := range syncs {
		buf[0] = byte(i)
		if _, err := f.WriteAt(buf, int64(i)*syncBytes); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := f.Sync(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}

// Judge says what is wrong with the machine.
func (d *Disk) Judge() []Finding {
	r := &report{}
	const about = "machine"
	switch {
	case d.Err != nil:
		r.fail(about, "data", "let the user that runs facetd own the directory", "%v", d.Err)
	case d.Missing:
		r.ok(about, "data", "%s does not exist yet; facetd makes it", d.Dir)
	case d.Mode.Perm()&0o077 != 0:
		r.warn(about, "data", "chmod 700 "+d.Dir, "others may read %s: its mode is %04o", d.Dir, d.Mode.Perm())
	case d.NodeFile:
		r.ok(about, "data", "%s holds the data of a node", d.Dir)
	default:
		r.ok(about, "data", "%s can be used", d.Dir)
	}
	if fsys := d.System.FileSystem; fsys != "" {
		r.fail(about, "disk", "put the data on ext4 or XFS on a disk of this machine", "%s is on %s, which does not keep what is synced, or keeps no locks", d.Dir, fsys)
	}
	if d.System.Total > 0 {
		free := float64(d.System.Free)
		if free < diskLow {
			r.warn(about, "disk", "make room", "%s of disk are free", size(free))
		} else {
			r.ok(about, "disk", "%s of %s are free", size(free), size(float64(d.System.Total)))
		}
	}
	if n := len(d.Sync); n > 0 {
		mid, worst := d.Sync[n/2], d.Sync[n-1]
		switch {
		case mid < syncNoWait:
			r.fail(about, "fsync", "use storage that keeps what is synced: commits there do not survive a loss of power", "an fsync takes %v: nothing reaches a disk in that time", mid)
		case mid > fsyncSlow:
			r.warn(about, "fsync", "use a disk with lower latency: every commit waits for it", "an fsync of 4 KiB takes %v, at worst %v", mid.Round(10*time.Microsecond), worst.Round(10*time.Microsecond))
		default:
			r.ok(about, "fsync", "an fsync of 4 KiB takes %v, at worst %v", mid.Round(10*time.Microsecond), worst.Round(10*time.Microsecond))
		}
	}
	if k := d.System.MaxFiles; k > 0 && k < filesWanted {
		r.warn(about, "files", "ulimit -n 65536, or LimitNOFILE=65536 in the unit", "a process started like this one may open %d files", k)
	}
	if !d.System.ClockUnknown && !d.System.ClockSynced {
		r.warn(about, "clock", "run a time service (chrony, systemd-timesyncd)", "nothing keeps the clock of this machine right")
	}
	return r.findings
}
