package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Mem is an FS in memory that keeps only synced bytes over a crash. What is
// modelled, and stricter than most devices:
//
//   - bytes written since the last Datasync of their file survive sector by
//     sector or not at all, in no order;
//   - a name made, renamed or removed since the last SyncDir of its directory
//     survives or not, in no order; one rename survives as a whole or not;
//   - a failed Datasync loses its bytes for good although reads still show them.
//
// A crash makes a new Mem (Crash, Restart), so goroutines and handles left over
// from before it cannot touch the disk after it.
type Mem struct {
	mu       sync.Mutex
	names    map[string]*node // now
	durable  map[string]*node // after a crash, for certain
	pending  []dirOp          // changes of names between the two, in order
	faults   []*armedFault
	observer func(Op, string)
	quota    int64 // bytes, negative: none
	used     int64 // bytes of the files in names
	ops      int64 // changing operations so far
	crashAt  int64 // the operation at which the disk dies, 0: none
	dead     bool
}

// defaultCapacity is what Free reports without a quota.
const defaultCapacity = 1 << 50

type node struct {
	name   string // the latest one
	linked bool   // it has that name now, and counts as used
	dir    bool
	data   content
}

// dirOp is one change of names: node n left the name from and got the name to;
// either may be empty.
type dirOp struct {
	n        *node
	from, to string
}

func (o dirOp) touches(dir string) bool {
	return o.from != "" && path.Dir(o.from) == dir || o.to != "" && path.Dir(o.to) == dir
}

func (o dirOp) apply(names map[string]*node) {
	if o.from != "" {
		delete(names, o.from)
	}
	if o.to != "" {
		names[o.to] = o.n
	}
}

// NewMem returns an empty disk.
func NewMem() *Mem {
	root := &node{dir: true}
	return &Mem{
		names:   map[string]*node{".": root},
		durable: map[string]*node{".": root},
		quota:   -1,
	}
}

// Loss says what a crash does to what was not synced.
type Loss uint8

const (
	LossAny     Loss = iota // one of the others, drawn
	LoseAll                 // nothing of it survives
	KeepAll                 // all of it survives
	KeepSome                // whole 4 KiB blocks and names survive or not
	Tear                    // each sector survives or not
	TearGarbage             // the same, and some sectors hold neither old nor new
)

// Crash cuts the power: every later operation on m fails with ErrCrashed, and
// the disk as found after the restart is returned, without faults, observer and
// crash point, with the same quota.
func (m *Mem) Crash(rng *rand.Rand, loss Loss) *Mem {
	m.mu.Lock()
	m.dead = true
	m.mu.Unlock()
	return m.Image(rng, loss)
}

// Image is what Crash would return, leaving m alive: one run of a workload can
// be crashed at each of its operations (see Observe).
func (m *Mem) Image(rng *rand.Rand, loss Loss) *Mem {
	if loss == LossAny {
		loss = LoseAll + Loss(rng.IntN(int(TearGarbage-LoseAll)+1))
	}
	c := m.clone()
	dropped := loss == LoseAll
	for _, op := range c.pending {
		if loss != LoseAll && loss != KeepAll {
			dropped = rng.IntN(2) == 0
		}
		if !dropped {
			op.apply(c.durable)
		}
	}
	// A name whose directory did not survive is gone with it.
	for name := range c.durable {
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			if c.durable[d] == nil {
				delete(c.durable, name)
				break
			}
		}
	}
	c.names, c.pending, c.used = maps.Clone(c.durable), nil, 0
	// In the order of names: the same seed must give the same disk.
	for _, name := range slices.Sorted(maps.Keys(c.names)) {
		n := c.names[name]
		if n.name, n.linked = name, true; !n.dir {
			n.data.settle(rng, loss)
			c.used += n.data.size
		}
	}
	return c
}

// Restart is the end of the process without a power cut (kill -9): every later
// operation on m fails, and the disk is returned with all that was written
// still readable and what was not synced still not synced.
func (m *Mem) Restart() *Mem {
	m.mu.Lock()
	m.dead = true
	m.mu.Unlock()
	return m.clone()
}

func (m *Mem) clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	copies := make(map[*node]*node)
	cp := func(n *node) *node {
		if copies[n] == nil {
			copies[n] = &node{name: n.name, linked: n.linked, dir: n.dir, data: n.data.clone()}
		}
		return copies[n]
	}
	c := &Mem{names: make(map[string]*node), durable: make(map[string]*node), quota: m.quota, used: m.used}
	for name, n := range m.names {
		c.names[name] = cp(n)
	}
	for name, n := range m.durable {
		c.durable[name] = cp(n)
	}
	for _, op := range m.pending {
		c.pending = append(c.pending, dirOp{cp(op.n), op.from, op.to})
	}
	return c
}

// CrashAt lets the n-th changing operation from now be the last: it may or may
// not take effect (as for anything unsynced, Crash decides), and returns
// ErrCrashed like all later ones. Zero takes the crash point away.
func (m *Mem) CrashAt(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.crashAt = 0; n > 0 {
		m.crashAt = m.ops + n
	}
}

// Crashed reports whether the disk is dead.
func (m *Mem) Crashed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// Ops counts the changing operations so far (OpChanges), failed ones included.
func (m *Mem) Ops() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops
}

// Inject arms a fault; the function returned takes it away.
func (m *Mem) Inject(f Fault) (remove func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := &armedFault{Fault: f}
	m.faults = append(m.faults, a)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.faults = slices.DeleteFunc(m.faults, func(x *armedFault) bool { return x == a })
	}
}

// Observe lets f be called before every operation takes effect, without any
// lock, from the goroutine of the operation: f may call Image. Nil ends it.
func (m *Mem) Observe(f func(op Op, name string)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.observer = f
}

// SetQuota bounds the bytes of all files; beyond it operations fail with
// ENOSPC. A negative quota is none. A quota below what is used takes nothing
// away.
func (m *Mem) SetQuota(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.quota = bytes
}

// Used is the number of bytes of all files.
func (m *Mem) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// Corrupt changes bytes of a file behind everybody's back, durably: f gets the
// whole content and changes it in place.
func (m *Mem) Corrupt(name string, f func(data []byte)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[path.Clean(name)]
	if n == nil || n.dir {
		return &fs.PathError{Op: "corrupt", Path: name, Err: fs.ErrNotExist}
	}
	data := make([]byte, n.data.size)
	if len(data) > 0 {
		if _, err := n.data.readAt(data, 0); err != nil {
			return err
		}
	}
	f(data)
	n.data = content{}
	n.data.writeAt(data, 0)
	n.data.sync()
	return nil
}

// begin is the head of every operation. It returns with m.mu held. When apply
// is false the operation must not take effect; when err is not nil it must
// return err, whether it took effect or not.
func (m *Mem) begin(op Op, name string) (apply bool, err error) {
	m.mu.Lock()
	var delay time.Duration
	for _, f := range m.faults {
		if f.matches(op, name) {
			delay += f.Delay
			if f.Err != nil && err == nil {
				err = f.Err
			}
		}
	}
	observer := m.observer
	if delay > 0 || observer != nil {
		m.mu.Unlock()
		time.Sleep(delay)
		if observer != nil {
			observer(op, name)
		}
		m.mu.Lock()
	}
	if m.dead {
		return false, ErrCrashed
	}
	if op&OpChanges != 0 {
		m.ops++
		if m.crashAt > 0 && m.ops >= m.crashAt {
			m.dead = true
			// A sync in flight proves nothing; all else may have happened.
			return op&(OpDatasync|OpSyncDir) == 0, ErrCrashed
		}
	}
	return err == nil, err
}

func opError(op Op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op.String(), Path: name, Err: err}
}

// change runs one operation on names: lock, faults, effect.
func (m *Mem) change(op Op, name string, do func(name string) error) error {
	if err := checkName(op.String(), name); err != nil {
		return err
	}
	apply, err := m.begin(op, name)
	defer m.mu.Unlock()
	if apply {
		if e := do(path.Clean(name)); err == nil {
			err = e
		}
	}
	return opError(op, name, err)
}

// link records and applies a change of names.
func (m *Mem) link(n *node, from, to string) {
	if to != "" {
		if was := m.names[to]; was != nil {
			was.linked = false
			m.used -= was.data.size
		}
		n.name = to
	}
	n.linked = to != ""
	op := dirOp{n, from, to}
	op.apply(m.names)
	m.pending = append(m.pending, op)
}

func (m *Mem) parentOf(name string) error {
	if d := m.names[path.Dir(name)]; d == nil {
		return fs.ErrNotExist
	} else if !d.dir {
		return syscall.ENOTDIR
	}
	return nil
}

// OpenFile implements FS.
func (m *Mem) OpenFile(name string, flag int, _ fs.FileMode) (File, error) {
	direct := flag&Direct != 0
	writable := flag&(os.O_RDWR|os.O_WRONLY) != 0
	if direct && flag != Direct|os.O_RDONLY {
		return nil, opError(OpOpen, name, errors.New("direct access is for reading only"))
	}
	op := OpOpen
	m.mu.Lock()
	if _, exists := m.names[path.Clean(name)]; !exists && flag&os.O_CREATE != 0 {
		op = OpCreate
	}
	m.mu.Unlock()
	var f *memFile
	err := m.change(op, name, func(clean string) error {
		if err := m.parentOf(clean); err != nil {
			return err
		}
		n := m.names[clean]
		switch {
		case n == nil && flag&os.O_CREATE == 0:
			return fs.ErrNotExist
		case n == nil:
			n = &node{}
			m.link(n, "", clean)
		case n.dir:
			return syscall.EISDIR
		case flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
			return fs.ErrExist
		case flag&os.O_TRUNC != 0 && writable:
			m.used -= n.data.size
			n.data.truncate(0)
		}
		if direct {
			n.data.dropCache()
		}
		f = &memFile{m: m, n: n, writable: writable, direct: direct}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Rename implements FS.
func (m *Mem) Rename(oldName, newName string) error {
	if err := checkName("rename", newName); err != nil {
		return err
	}
	return m.change(OpRename, oldName, func(from string) error {
		to := path.Clean(newName)
		n := m.names[from]
		if n == nil {
			return fs.ErrNotExist
		}
		if n.dir {
			return fmt.Errorf("renaming a directory: %w", errors.ErrUnsupported)
		}
		if err := m.parentOf(to); err != nil {
			return err
		}
		if was := m.names[to]; was != nil && was.dir {
			return syscall.EISDIR
		}
		if from != to {
			m.link(n, from, to)
		}
		return nil
	})
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	return m.change(OpRemove, name, func(clean string) error {
		n := m.names[clean]
		switch {
		case n == nil:
			return fs.ErrNotExist
		case n.dir:
			for other := range m.names {
				if other != "." && path.Dir(other) == clean {
					return syscall.ENOTEMPTY
				}
			}
		default:
			m.used -= n.data.size
		}
		m.link(n, clean, "")
		return nil
	})
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(name string, _ fs.FileMode) error {
	return m.change(OpMkdir, name, func(clean string) error {
		at := ""
		for _, part := range strings.Split(clean, "/") {
			at = path.Join(at, part)
			switch n := m.names[at]; {
			case n == nil:
				m.link(&node{dir: true}, "", at)
			case !n.dir:
				return syscall.ENOTDIR
			}
		}
		return nil
	})
}

// SyncDir implements FS.
func (m *Mem) SyncDir(name string) error {
	return m.change(OpSyncDir, name, func(clean string) error {
		if n := m.names[clean]; n == nil || !n.dir {
			return fs.ErrNotExist
		}
		m.pending = slices.DeleteFunc(m.pending, func(op dirOp) bool {
			if op.touches(clean) {
				op.apply(m.durable)
				return true
			}
			return false
		})
		return nil
	})
}

// ReadDir implements FS.
func (m *Mem) ReadDir(name string) ([]Entry, error) {
	var entries []Entry
	err := m.change(OpReadDir, name, func(clean string) error {
		if n := m.names[clean]; n == nil || !n.dir {
			return fs.ErrNotExist
		}
		for other, n := range m.names {
			if other != "." && path.Dir(other) == clean {
				entries = append(entries, Entry{Name: path.Base(other), Size: n.data.size, Dir: n.dir})
			}
		}
		slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
		return nil
	})
	return entries, err
}

// Stat implements FS.
func (m *Mem) Stat(name string) (size int64, err error) {
	err = m.change(OpStat, name, func(clean string) error {
		n := m.names[clean]
		if n == nil {
			return fs.ErrNotExist
		}
		size = n.data.size
		return nil
	})
	return size, err
}

// Free implements FS.
func (m *Mem) Free() (free int64, err error) {
	err = m.change(OpFree, ".", func(string) error {
		if free = defaultCapacity - m.used; m.quota >= 0 {
			free = max(0, m.quota-m.used)
		}
		return nil
	})
	return free, err
}
