package consensus

import (
	"bufio"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// machine stands between Raft and the StateMachine. Raft calls it from one
// goroutine.
type machine struct {
	sm    StateMachine
	fatal func(error)

	failed  atomic.Pointer[error] // set once; nothing is applied after it
	applied atomic.Uint64
	entries atomic.Uint64
	pending atomic.Int64  // log bytes since the last snapshot was begun
	limit   atomic.Int64  // pending that causes the next one
	due     chan struct{} // wakes the snapshot goroutine

	refused  error  // why the last snapshot was not taken; Raft only logs it
	restored func() // called when a snapshot has taken the place of entries

	applying stopwatch
}

var _ raft.BatchingFSM = (*machine)(nil)

// answer is what an entry's future carries.
type answer struct {
	results [][]byte
	err     error
}

// ApplyBatch gets commands and configuration entries alike: taking both keeps
// Raft's idea of the last applied index exact, which its snapshots need.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	for i, l := range logs {
		out[i] = m.Apply(l)
	}
	return out
}

// Apply carries out one entry.
func (m *machine) Apply(l *raft.Log) any {
	if err := m.failure(); err != nil {
		return answer{err: err}
	}
	if l.Type == raft.LogCommand {
		commands, err := decodeEntry(l.Data)
		var results [][]byte
		if err == nil {
			m.applying.start()
			results, err = m.sm.Apply(l.Index, commands)
			m.applying.stop()
		}
		if err == nil && len(results) != len(commands) {
			err = fmt.Errorf("state machine gave %d results for %d commands", len(results), len(commands))
		}
		if err != nil {
			return answer{err: m.fail(fmt.Errorf("apply entry %d: %w", l.Index, err))}
		}
		m.entries.Add(1)
		m.moveTo(l.Index)
		if m.pending.Add(int64(len(l.Data))+entryCost) >= m.limit.Load() {
			m.hurry()
		}
		return answer{results: results}
	}
	m.moveTo(l.Index)
	return answer{}
}

// hurry has the log cut behind a snapshot.
func (m *machine) hurry() {
	select {
	case m.due <- struct{}{}:
	default:
	}
}

func (m *machine) moveTo(index uint64) {
	for {
		now := m.applied.Load()
		if now >= index || m.applied.CompareAndSwap(now, index) {
			return
		}
	}
}

func (m *machine) failure() error {
	if p := m.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// fail stops the machine for good and says so, once.
func (m *machine) fail(err error) error {
	err = fmt.Errorf("%w: %w", ErrFailed, err)
	if m.failed.CompareAndSwap(nil, &err) {
		m.fatal(err)
	}
	return m.failure()
}

// Snapshot freezes the state machine. A failed one gives none: what it would
// freeze lacks an entry.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.failure(); err != nil {
		return nil, err
	}
	w, err := m.sm.Snapshot()
	if err != nil {
		return nil, err
	}
	m.pending.Store(0)
	return &frozen{m: m, w: w}, nil
}

// Restore replaces the state machine's state.
func (m *machine) Restore(from io.ReadCloser) error {
	if err := m.failure(); err != nil {
		return err
	}
	if m.refused = m.sm.Restore(from); m.refused != nil {
		return m.refused
	}
	m.pending.Store(0)
	m.restored()
	if sm, ok := m.sm.(interface{ Applied() uint64 }); ok {
		m.moveTo(sm.Applied())
	}
	return nil
}

type frozen struct {
	m *machine
	w io.WriterTo
}

// Persist writes the frozen state.
func (f *frozen) Persist(sink raft.SnapshotSink) error {
	out := bufio.NewWriterSize(sink, 64<<10)
	n, err := f.w.WriteTo(out)
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return err // Raft cancels the sink
	}
	f.m.limit.Store(max(f.m.limit.Load(), n))
	return nil
}

// Release has nothing to give back.
func (f *frozen) Release() {}
