package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"
)

// Memory keeps the log, the votes and the newest snapshot of one node in
// memory. It outlives the Node, so a test or a simulator can restart one.
type Memory struct {
	log  raft.LogStore // disk, or what a test puts before it
	disk *memDisk
}

// NewMemory is an empty Memory.
func NewMemory() *Memory {
	d := &memDisk{entries: map[uint64]raft.Log{}, keys: map[string][]byte{}}
	return &Memory{log: d, disk: d}
}

// Crash gives what the machine holds if it dies at this moment: all that was
// written, since every write is durable before it returns. What the process of
// before still writes to m is not in it; cut it off the network first.
func (m *Memory) Crash() *Memory {
	d := m.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &memDisk{entries: maps.Clone(d.entries), keys: maps.Clone(d.keys), first: d.first, last: d.last, snaps: slices.Clone(d.snaps)}
	return &Memory{log: c, disk: c}
}

// Stall holds every write of the log up until the function it returns is
// called: a disk that hangs.
func (m *Memory) Stall() (resume func()) {
	gate := make(chan struct{})
	m.disk.mu.Lock()
	m.disk.stall = gate
	m.disk.mu.Unlock()
	return sync.OnceFunc(func() {
		m.disk.mu.Lock()
		m.disk.stall = nil
		m.disk.mu.Unlock()
		close(gate)
	})
}

// Fill has every write of entries turned down, as by a file system without room,
// until the function it returns is called. Term and vote go on: they have room of
// their own (rule R15).
func (m *Memory) Fill() (free func()) {
	set := func(full bool) {
		m.disk.mu.Lock()
		m.disk.full = full
		m.disk.mu.Unlock()
	}
	set(true)
	return func() { set(false) }
}

// memDisk is Memory as Raft sees it.
type memDisk struct {
	mu          sync.Mutex
	stall       chan struct{} // not nil while writes hang
	full        bool          // entries are turned down
	entries     map[uint64]raft.Log
	first, last uint64
	keys        map[string][]byte
	snaps       []memSnap // newest first, retainSnapshots of them
}

type memSnap struct {
	meta raft.SnapshotMeta
	data []byte
}

var (
	_ raft.LogStore      = (*memDisk)(nil)
	_ raft.StableStore   = (*memDisk)(nil)
	_ raft.SnapshotStore = (*memDisk)(nil)
)

// write runs f once the disk moves.
func (d *memDisk) write(f func()) error {
	d.mu.Lock()
	gate := d.stall
	d.mu.Unlock()
	if gate != nil {
		<-gate
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	return nil
}

func (d *memDisk) FirstIndex() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.first, nil
}

func (d *memDisk) LastIndex() (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last, nil
}

func (d *memDisk) GetLog(index uint64, into *raft.Log) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.entries[index]
	if !ok {
		return raft.ErrLogNotFound
	}
	*into = e
	return nil
}

func (d *memDisk) StoreLog(e *raft.Log) error { return d.StoreLogs([]*raft.Log{e}) }

func (d *memDisk) StoreLogs(entries []*raft.Log) error {
	d.mu.Lock()
	full := d.full
	d.mu.Unlock()
	if full {
		return &fs.PathError{Op: "write", Path: logFile, Err: syscall.ENOSPC}
	}
	return d.write(func() {
		for _, e := range entries {
			d.entries[e.Index] = *e
			if d.first == 0 {
				d.first = e.Index
			}
			d.last = max(d.last, e.Index)
		}
	})
}

func (d *memDisk) DeleteRange(from, to uint64) error {
	return d.write(func() {
		for i := from; i <= to; i++ {
			delete(d.entries, i)
		}
		if from <= d.first {
			d.first = to + 1
		}
		if to >= d.last {
			d.last = from - 1
		}
		if d.first > d.last {
			d.first, d.last = 0, 0
		}
	})
}

func (d *memDisk) Set(key, value []byte) error {
	return d.write(func() { d.keys[string(key)] = bytes.Clone(value) })
}

func (d *memDisk) Get(key []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.keys[string(key)]
	if !ok {
		return nil, errNoKey
	}
	return bytes.Clone(v), nil
}

// errNoKey has the words Raft looks for.
var errNoKey = errors.New("not found")

func (d *memDisk) SetUint64(key []byte, v uint64) error {
	return d.Set(key, fmt.Append(nil, v))
}

func (d *memDisk) GetUint64(key []byte) (v uint64, err error) {
	b, err := d.Get(key)
	if errors.Is(err, errNoKey) {
		return 0, errNoKey
	}
	if err == nil {
		_, err = fmt.Sscan(string(b), &v)
	}
	return v, err
}

// Create begins a snapshot. It is there once it is closed.
func (d *memDisk) Create(v raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if v != 1 {
		return nil, fmt.Errorf("snapshot version %d, want 1", v)
	}
	return &memSink{disk: d, snap: memSnap{meta: raft.SnapshotMeta{
		Version: v, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term,
		Configuration: conf.Clone(), ConfigurationIndex: confIndex,
	}}}, nil
}

func (d *memDisk) List() ([]*raft.SnapshotMeta, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*raft.SnapshotMeta
	for _, s := range d.snaps {
		out = append(out, &s.meta)
	}
	return out, nil
}

func (d *memDisk) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.snaps {
		if s.meta.ID == id {
			return &s.meta, io.NopCloser(bytes.NewReader(s.data)), nil
		}
	}
	return nil, nil, fmt.Errorf("open snapshot %s: it is not there", id)
}

type memSink struct {
	disk *memDisk
	snap memSnap
}

func (s *memSink) ID() string { return s.snap.meta.ID }

func (s *memSink) Write(b []byte) (int, error) {
	s.snap.data = append(s.snap.data, b...)
	return len(b), nil
}

func (s *memSink) Cancel() error { return nil }

func (s *memSink) Close() error {
	s.snap.meta.Size = int64(len(s.snap.data))
	return s.disk.write(func() {
		keep := slices.DeleteFunc(slices.Clone(s.disk.snaps), func(o memSnap) bool { return o.meta.ID == s.snap.meta.ID })
		keep = append(keep, s.snap)
		slices.SortStableFunc(keep, func(a, b memSnap) int {
			if a.meta.Term != b.meta.Term {
				return int(b.meta.Term) - int(a.meta.Term)
			}
			return int(b.meta.Index) - int(a.meta.Index)
		})
		s.disk.snaps = keep[:min(len(keep), retainSnapshots)]
	})
}
