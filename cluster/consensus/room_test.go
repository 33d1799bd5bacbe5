package consensus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/internal/disk/disktest"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// TestHighWater compares what is read of bbolt's file with what bbolt says.
func TestHighWater(t *testing.T) {
	for _, size := range []int{0, 16 << 10} { // pages of the system, and of another one
		path := filepath.Join(t.TempDir(), "bolt")
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: size, NoFreelistSync: true, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(1, 2))
		for i := range 300 {
			err := db.Update(func(tx *bbolt.Tx) error {
				b, err := tx.CreateBucketIfNotExists([]byte("b"))
				if err != nil {
					return err
				}
				key := binary.BigEndian.AppendUint64(nil, rng.Uint64N(50))
				if rng.IntN(3) == 0 {
					return b.Delete(key)
				}
				return b.Put(key, make([]byte, rng.IntN(40_000)))
			})
			if err != nil {
				t.Fatal(err)
			}
			used, page, err := highWater(f)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.View(func(tx *bbolt.Tx) error {
				if used != tx.Size() || page != int64(db.Info().PageSize) {
					t.Fatalf("after %d transactions %d bytes in pages of %d; bbolt says %d in pages of %d", i, used, page, tx.Size(), db.Info().PageSize)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(f.Close(), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := highWater(zeros{}); err == nil {
		t.Error("a file of zeros has a valid meta page")
	}
}

type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// TestCostBoundsWrites: entries of every size take no more of the file than was
// claimed for them, and the room that is kept is never touched.
func TestCostBoundsWrites(t *testing.T) {
	dir := t.TempDir()
	s := openTestStores(t, dir)
	defer s.close()
	room, rng := s.log.room, rand.New(rand.NewPCG(3, 4))
	index := uint64(0)
	for i := range 150 {
		var list []*raft.Log
		most := []int{20, 2000, 5000, MaxEntryBytes}[rng.IntN(4)]
		for range 1 + rng.IntN(maxAppendEntries) {
			index++
			list = append(list, &raft.Log{Index: index, Term: 1, Data: make([]byte, rng.IntN(most))})
		}
		before, err := room.left()
		if err != nil {
			t.Fatal(err)
		}
		size := room.size
		if err := s.log.StoreLogs(list); err != nil {
			t.Fatal(err)
		}
		after, err := room.left()
		if err != nil {
			t.Fatal(err)
		}
		if took := before + room.size - size - after; took > cost(list) {
			t.Errorf("%d entries of at most %d bytes took %d bytes, %d were claimed", len(list), most, took, cost(list))
		}
		if after < logFloor {
			t.Errorf("%d bytes are left", after)
		}
		if i%20 == 19 {
			if err := s.log.DeleteRange(0, index-uint64(rng.IntN(30))); err != nil {
				t.Fatal(err)
			}
		}
	}
	// All of the file has blocks, so a full disk changes nothing for it.
	if has, err := allocated(filepath.Join(dir, logFile)); err != nil || has < room.size {
		t.Errorf("%d bytes of %d have blocks, %v", has, room.size, err)
	}
}

func openTestStores(t *testing.T, dir string) *stores {
	t.Helper()
	cfg := Config{ID: "n1", Dir: dir, StateMachine: &ledger{}}
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	w := &watcher{log: cfg.Logger, fatal: func(err error) { t.Errorf("fatal: %v", err) }, short: func() {}}
	s, err := openStores(&cfg, &raftLogger{to: cfg.Logger, name: "raft"}, w)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRefusedOrFailed: only a write that the file system turned down for lack of
// room leaves a disk that may be trusted (rules R13, R15).
func TestRefusedOrFailed(t *testing.T) {
	write := func(err error) error { return &fs.PathError{Op: "write", Path: logFile, Err: err} }
	for _, c := range []struct {
		err  error
		want bool
	}{
		{write(syscall.ENOSPC), true},
		{write(syscall.EDQUOT), true},
		{fmt.Errorf("wrapped: %w", write(syscall.ENOSPC)), true},
		{ErrFull, true},
		{nil, false},
		{write(syscall.EIO), false},
		{syscall.ENOSPC, false}, // bbolt's fdatasync
		{&fs.PathError{Op: "sync", Path: logFile, Err: syscall.ENOSPC}, false},
		{errors.New("file resize error: no space left on device"), false},
	} {
		if got := refused(c.err); got != c.want {
			t.Errorf("%v: refused is %v", c.err, got)
		}
	}
	if err := CodeOf(fmt.Errorf("propose: %w", ErrFull)).Err("on the wire"); !errors.Is(err, ErrFull) {
		t.Errorf("over the wire: %v", err)
	}
}

// TestFullDiskRefuses: a node alone refuses by name while its log takes nothing,
// and goes on by itself.
func TestFullDiskRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, l := NewMemory(), &ledger{}
		n := open(t, Config{Memory: mem, StateMachine: l, Bootstrap: true, Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
		lead(t, n)
		propose(t, n, "a")
		free := mem.Fill()
		for i := range 20 {
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if _, err := n.Propose(ctx, []byte("b")); !errors.Is(err, ErrFull) || errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("proposal %d on a full disk: %v", i, err)
			}
			cancel()
			if took := time.Since(start); took > time.Second {
				t.Errorf("proposal %d was refused after %v", i, took)
			}
			time.Sleep(300 * time.Millisecond)
		}
		free()
		lead(t, n)
		if r := propose(t, n, "c"); r != "2:c" {
			t.Errorf("result %q: what was refused was applied", r)
		}
	})
}

// TestFullDiskOfOne: when the leader's disk is full another node leads, and
// proposals at the full node go there; when a follower's is full the others go on.
// It catches up when it has room.
func TestFullDiskOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		l := f.form(3)
		free := l.mem.Fill()
		for i := range 10 {
			start := time.Now()
			if err := f.propose(l, fmt.Sprintf("at the full node %d", i), 20*time.Second); err != nil && !errors.Is(err, ErrFull) {
				t.Errorf("%d: %v", i, err)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("%d: decided after %v", i, took)
			}
			time.Sleep(time.Second)
		}
		next := f.leader(20*time.Second, l.id)
		if err := f.propose(next, "at the leader", time.Second); err != nil {
			t.Error(err)
		}
		if err := f.propose(l, "at the full node, through the leader", time.Second); err != nil {
			t.Error(err)
		}
		if applied := l.node.Applied(); applied >= next.node.Applied() {
			t.Errorf("the full node applied %d, the leader %d", applied, next.node.Applied())
		}
		free()
		f.check()
		for _, b := range f.up() {
			if len(b.fatal) > 0 {
				t.Errorf("%s: %v", b.id, <-b.fatal)
			}
		}
	})
}

// counter is a state machine that stays small however long its log is.
type counter struct {
	index atomic.Uint64
	count atomic.Int64
}

func (c *counter) Check([]byte) error { return nil }

func (c *counter) Apply(index uint64, commands [][]byte) ([][]byte, error) {
	c.index.Store(index)
	out := make([][]byte, len(commands))
	for i := range out {
		out[i] = fmt.Appendf(nil, "%d", c.count.Add(1))
	}
	return out, nil
}

func (c *counter) Snapshot() (io.WriterTo, error) {
	return page{c.index.Load(), fmt.Sprint(c.count.Load())}, nil
}

func (c *counter) Restore(r io.Reader) error {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	var n int64
	if _, err := fmt.Fscan(r, &n); err != nil {
		return err
	}
	c.index.Store(binary.BigEndian.Uint64(b[:]))
	c.count.Store(n)
	return nil
}

// TestFullDiskForLong: on a disk without a byte left a node goes on deciding for as
// long as it likes, many times what was set aside: snapshots cut its log.
func TestFullDiskForLong(t *testing.T) {
	disk := disktest.Small(t, "64m")
	dir, sm := filepath.Join(disk, "raft"), &counter{}
	cfg := Config{Dir: dir, StateMachine: sm, Bootstrap: true, Trailing: 16, Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
	n := open(t, cfg)
	lead(t, n)
	propose(t, n, "first")
	deadline := time.Now().Add(time.Minute) // the ballast is set aside in the background
	for ; time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if info, err := os.Stat(filepath.Join(dir, ballastFile)); err == nil && info.Size() > 0 {
			break
		}
	}
	filler := filepath.Join(disk, "filler")
	disktest.Fill(t, filler)
	big, want := string(make([]byte, MaxCommandLen)), int64(1)
	for i := range 800 { // 50 MiB
		if _, err := n.Propose(t.Context(), []byte(big)); err != nil {
			t.Fatalf("proposal %d on a full disk: %v", i, err)
		}
		want++
		if i%200 == 0 {
			disktest.Fill(t, filler) // what was given up meanwhile is somebody else's
		}
	}
	if s := n.Stats().Snapshots; s < 5 {
		t.Errorf("%d snapshots", s)
	}
	// A start on the full disk.
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	again := &counter{}
	cfg.StateMachine = again
	n = open(t, cfg)
	lead(t, n)
	if got := again.count.Load(); got != want {
		t.Errorf("%d commands after a restart, want %d", got, want)
	}
}

// TestFullDiskWithoutEnd: when no snapshot can be taken either, proposals are
// refused by name before the log's file is full to the end, the node elects itself
// over and over meanwhile, also after a restart, and it goes on when there is room.
func TestFullDiskWithoutEnd(t *testing.T) {
	disk := disktest.Small(t, "64m")
	dir, l := filepath.Join(disk, "raft"), &ledger{}
	cfg := Config{Dir: dir, StateMachine: l, Bootstrap: true, Heartbeat: minHeartbeat, Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
	n := open(t, cfg)
	lead(t, n)
	filler := filepath.Join(disk, "filler")
	disktest.Fill(t, filler)
	// The ledger's snapshots are as large as its log, so none finds room.
	acked, refusals, term := 0, 0, uint64(0)
	for deadline := time.Now().Add(2 * time.Minute); ; {
		disktest.Fill(t, filler)
		size := MaxCommandLen
		if refusals > 0 {
			size = 100 // until there is no room for the entry of a new term
		}
		_, err := n.Propose(t.Context(), make([]byte, size))
		switch {
		case err == nil:
			acked++
		case errors.Is(err, ErrFull):
			if refusals++; refusals == 1 {
				term = n.Stats().Term
				if acked < 16 {
					t.Errorf("refused after %d commands of 64 KiB", acked)
				}
			}
		case !errors.Is(err, ErrNotLeader):
			t.Fatalf("after %d commands: %v", acked, err)
		}
		if refusals > 0 && n.Stats().Term >= term+20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %d commands and %d refusals term %d, was %d", acked, refusals, n.Stats().Term, term)
		}
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	l = &ledger{}
	cfg.StateMachine = l
	n = open(t, cfg)
	// Its own log is still full, but for what the start could cut.
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	lead(t, n)
	if _, err := n.Propose(t.Context(), []byte("room again")); err != nil {
		t.Error(err)
	}
	if got := len(l.all()); got != acked+1 {
		t.Errorf("%d commands in the end, want %d", got, acked+1)
	}
}
