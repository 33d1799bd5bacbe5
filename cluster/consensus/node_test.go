package consensus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/facetd/facetd/cluster"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("CONSENSUS_TEST_VICTIM"); dir != "" {
		victim(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// ledger is a state machine that remembers every command. Results are the
// command's place in the ledger.
type ledger struct {
	mu      sync.Mutex
	lines   []string
	batches []int
	index   uint64
	fail    atomic.Bool
	old     atomic.Bool // of a release that knows no "future" command
}

func (l *ledger) Check(c []byte) error {
	if l.old.Load() && string(c) == "future" {
		return errors.New("unknown command")
	}
	if bytes.HasPrefix(c, []byte("bad")) {
		return errors.New("bad command")
	}
	return nil
}

func (l *ledger) Apply(index uint64, commands [][]byte) ([][]byte, error) {
	if l.fail.Load() {
		return nil, errors.New("cannot read it")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if index <= l.index {
		return nil, fmt.Errorf("entry %d after %d", index, l.index)
	}
	l.index = index
	var out [][]byte
	for _, c := range commands {
		l.lines = append(l.lines, string(c))
		out = append(out, fmt.Appendf(nil, "%d:%s", len(l.lines), c))
	}
	l.batches = append(l.batches, len(commands))
	return out, nil
}

func (l *ledger) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

type page struct {
	index uint64
	text  string
}

func (p page) WriteTo(w io.Writer) (int64, error) {
	b := append(binary.BigEndian.AppendUint64(nil, p.index), p.text...)
	n, err := w.Write(b)
	return int64(n), err
}

func (l *ledger) Snapshot() (io.WriterTo, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return page{l.index, strings.Join(l.lines, "\n")}, nil
}

func (l *ledger) Restore(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil || len(b) < 8 {
		return fmt.Errorf("short ledger: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index = binary.BigEndian.Uint64(b)
	l.lines = nil
	if len(b) > 8 {
		l.lines = strings.Split(string(b[8:]), "\n")
	}
	return nil
}

func open(t *testing.T, cfg Config) *Node {
	t.Helper()
	if cfg.ID == "" {
		cfg.ID = "n1"
	}
	n, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func lead(t *testing.T, n *Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := n.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
}

func propose(t *testing.T, n *Node, c string) string {
	t.Helper()
	r, err := n.Propose(t.Context(), []byte(c))
	if err != nil {
		t.Fatal(err)
	}
	return string(r)
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	var id cluster.ID
	want := 0
	for boot := range 3 {
		l := &ledger{}
		start := time.Now()
		n := open(t, Config{Dir: dir, StateMachine: l, Bootstrap: boot == 0})
		lead(t, n)
		t.Logf("leader after %v", time.Since(start).Round(100*time.Microsecond))
		if got := len(l.all()); got != want {
			t.Fatalf("boot %d: %d commands, want %d", boot, got, want)
		}
		n.Trim() // changes nothing that can be seen
		for i := range 10 {
			want++
			if r := propose(t, n, fmt.Sprintf("c%d", i)); r != fmt.Sprintf("%d:c%d", want, i) {
				t.Errorf("result %q, want %d:c%d", r, want, i)
			}
		}
		if err := n.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := n.Stats()
		if s.State != "leader" || s.Voters != 1 || s.Commands != 10 || s.Applied == 0 || s.Applied > s.LastLog {
			t.Errorf("stats %+v", s)
		}
		if who, _, ok := n.Leader(); !ok || who != "n1" {
			t.Errorf("leader %q, %v", who, ok)
		}
		if boot == 0 {
			id = n.ClusterID()
		}
		if n.ClusterID() != id || id.IsZero() {
			t.Errorf("cluster id %v, want %v", n.ClusterID(), id)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if now, _ := n.Leadership(); now.Leading {
			t.Error("a closed node leads")
		}
	}
	for _, cfg := range []Config{
		{ID: "n1", Dir: dir, StateMachine: &ledger{}, Cluster: cluster.NewID()},
		{ID: "n2", Dir: dir, StateMachine: &ledger{}},
	} {
		if n, err := Open(cfg); !errors.Is(err, ErrOtherCluster) {
			t.Errorf("opened another's directory: %v, %v", n, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for i, cfg := range []Config{
		{}, {ID: "n1"}, {ID: "n1", StateMachine: &ledger{}}, {ID: "-", StateMachine: &ledger{}, Memory: NewMemory()},
		{ID: "n1", StateMachine: &ledger{}, Memory: NewMemory(), Dir: t.TempDir()},
	} {
		if _, err := Open(cfg); err == nil {
			t.Errorf("config %d was accepted", i)
		}
	}
	dir := t.TempDir()
	open(t, Config{Dir: dir, StateMachine: &ledger{}, Bootstrap: true})
	if _, err := Open(Config{ID: "n1", Dir: dir, StateMachine: &ledger{}}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("two nodes in one directory: %v", err)
	}
}

func TestWithoutBootstrapNothingHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := open(t, Config{Memory: NewMemory(), StateMachine: &ledger{}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := n.WaitLeader(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an empty node leads: %v", err)
		}
		var nl *NotLeaderError
		if _, err := n.Propose(t.Context(), []byte("c")); !errors.Is(err, ErrNotLeader) || !errors.As(err, &nl) || nl.Leader != "" {
			t.Errorf("propose: %v", err)
		}
	})
}

// TestInBubble runs a node in virtual time, in memory, over two lives.
func TestInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := NewMemory()
		for life := range 2 {
			l := &ledger{}
			start := time.Now()
			n := open(t, Config{Memory: mem, StateMachine: l, Bootstrap: true, SnapshotBytes: 1})
			lead(t, n)
			if took := time.Since(start); took > 100*time.Millisecond {
				t.Errorf("single voter took %v of virtual time to lead", took)
			}
			if got := len(l.all()); got != 5*life {
				t.Errorf("life %d: %d commands", life, got)
			}
			for i := range 5 {
				propose(t, n, fmt.Sprint(i))
			}
			time.Sleep(time.Hour) // nothing happens, for long
			if now, _ := n.Leadership(); !now.Leading {
				t.Error("leadership was lost in silence")
			}
			if n.Stats().Snapshots == 0 {
				t.Error("no snapshot was taken")
			}
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// gate holds Apply up until it is opened.
type gate struct {
	ledger
	entered chan struct{}
	open    chan struct{}
}

func (g *gate) Apply(index uint64, commands [][]byte) ([][]byte, error) {
	select {
	case g.entered <- struct{}{}:
	default:
	}
	<-g.open
	return g.ledger.Apply(index, commands)
}

// TestBatching holds one entry up: what is proposed meanwhile becomes one entry
// (or as many as its limits need), in order of arrival.
func TestBatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{entered: make(chan struct{}, 1), open: make(chan struct{})}
		stalls := 0
		n := open(t, Config{Memory: NewMemory(), StateMachine: g, Bootstrap: true,
			Stalled: func(time.Duration) { stalls++ }})
		lead(t, n)
		const callers = MaxBatch + 100
		var wg sync.WaitGroup
		start := func(c string) {
			wg.Go(func() {
				r, err := n.Propose(t.Context(), []byte(c))
				if _, cmd, _ := strings.Cut(string(r), ":"); err != nil || cmd != c {
					t.Errorf("%s: got %q, %v", c, r, err)
				}
			})
			synctest.Wait()
		}
		start("first")
		<-g.entered
		for i := range callers {
			start(fmt.Sprintf("c%04d", i))
		}
		wg.Go(func() {
			if err := n.Barrier(t.Context()); err != nil {
				t.Error(err)
			}
		})
		// A caller that gives up before its command is taken leaves no trace.
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			if _, err := n.Propose(ctx, []byte("never")); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("given up in the queue: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		time.Sleep(defaultStall + time.Second) // virtual: the watchdog speaks
		close(g.open)
		wg.Wait()
		if got := fmt.Sprint(g.batches); got != fmt.Sprint([]int{1, MaxBatch, callers - MaxBatch}) {
			t.Errorf("batches %v", got)
		}
		lines := g.all()
		for i := range callers {
			if lines[1+i] != fmt.Sprintf("c%04d", i) {
				t.Fatalf("line %d is %s", 1+i, lines[1+i])
			}
		}
		if len(lines) != 1+callers {
			t.Errorf("%d lines, want %d", len(lines), 1+callers)
		}
		if stalls != 1 {
			t.Errorf("%d stalls, want 1", stalls)
		}
	})
}

func TestBatchBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{entered: make(chan struct{}, 1), open: make(chan struct{})}
		n := open(t, Config{Memory: NewMemory(), StateMachine: g, Bootstrap: true})
		lead(t, n)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := n.Propose(t.Context(), make([]byte, MaxCommandLen)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		close(g.open)
		wg.Wait()
		if got := fmt.Sprint(g.batches); got != "[1 3 3 3]" {
			t.Errorf("batches %v", got)
		}
	})
}

func TestUnknownOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{entered: make(chan struct{}, 1), open: make(chan struct{})}
		n := open(t, Config{Memory: NewMemory(), StateMachine: g, Bootstrap: true})
		lead(t, n)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := n.Propose(ctx, []byte("late"))
		if !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("given up under way: %v", err)
		}
		close(g.open)
		if err := n.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := g.all(); len(got) != 1 {
			t.Errorf("ledger %v", got)
		}
	})
}

func TestProposeRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		n := open(t, Config{Memory: NewMemory(), StateMachine: l, Bootstrap: true})
		lead(t, n)
		for _, c := range [][]byte{nil, []byte("bad"), make([]byte, MaxCommandLen+1)} {
			if _, err := n.Propose(t.Context(), c); !errors.Is(err, ErrInvalid) {
				t.Errorf("%d bytes: %v", len(c), err)
			}
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Propose(t.Context(), []byte("c")); !errors.Is(err, ErrClosed) {
			t.Errorf("after close: %v", err)
		}
		if err := n.Barrier(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("barrier after close: %v", err)
		}
		if err := n.WaitLeader(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("wait after close: %v", err)
		}
		if len(l.all()) != 0 {
			t.Errorf("ledger %v", l.all())
		}
	})
}

// TestCloseUnderLoad closes while callers propose: whoever got a result is in
// the ledger, whoever was refused is not.
func TestCloseUnderLoad(t *testing.T) {
	l := &ledger{}
	n := open(t, Config{Dir: t.TempDir(), StateMachine: l, Bootstrap: true})
	lead(t, n)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done, refused := map[string]bool{}, map[string]bool{}
	busy := make(chan struct{}, 1)
	for caller := range 32 {
		wg.Go(func() {
			for i := 0; ; i++ {
				c := fmt.Sprintf("%d/%d", caller, i)
				_, err := n.Propose(t.Context(), []byte(c))
				mu.Lock()
				switch {
				case err == nil:
					if done[c] = true; len(done) == 500 {
						busy <- struct{}{}
					}
				case errors.Is(err, ErrClosed), errors.Is(err, ErrNotLeader):
					refused[c] = true
				default:
					t.Errorf("%s: %v", c, err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	<-busy
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for _, c := range l.all() {
		if refused[c] {
			t.Errorf("%s was refused and is there", c)
		}
		delete(done, c)
	}
	if len(done) != 0 {
		t.Errorf("%d results were lost", len(done))
	}
}

// TestApplyFailureStops: a node that cannot follow the log says so once and
// applies, answers and snapshots nothing any more.
func TestApplyFailureStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		fatal := make(chan error, 10)
		n := open(t, Config{Memory: NewMemory(), StateMachine: l, Bootstrap: true, Fatal: func(err error) { fatal <- err }})
		lead(t, n)
		propose(t, n, "a")
		applied := n.Applied()
		l.fail.Store(true)
		for range 3 {
			if _, err := n.Propose(t.Context(), []byte("b")); !errors.Is(err, ErrFailed) {
				t.Errorf("propose: %v", err)
			}
			l.fail.Store(false)
		}
		if len(fatal) != 1 || len(l.all()) != 1 || n.Applied() != applied {
			t.Errorf("fatal %d times, ledger %v, applied %d", len(fatal), l.all(), n.Applied())
		}
		if err := n.raft.Snapshot().Error(); err == nil {
			t.Error("a snapshot of a failed state was taken")
		}
	})
}

// brokenDisk refuses to write from some moment on.
type brokenDisk struct {
	raft.LogStore
	broken atomic.Bool
}

func (d *brokenDisk) StoreLogs(e []*raft.Log) error {
	if d.broken.Load() {
		return errors.New("input/output error")
	}
	return d.LogStore.StoreLogs(e)
}

// TestWriteErrorIsFatal: after a failed write of the log nobody gets a result,
// and the process is told to exit (rule R13).
func TestWriteErrorIsFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := NewMemory()
		disk := &brokenDisk{LogStore: mem.log}
		mem.log = disk
		l := &ledger{}
		fatal := make(chan error, 10)
		n := open(t, Config{Memory: mem, StateMachine: l, Bootstrap: true, Fatal: func(err error) { fatal <- err }})
		lead(t, n)
		propose(t, n, "a")
		disk.broken.Store(true)
		if _, err := n.Propose(t.Context(), []byte("b")); !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("propose on a broken disk: %v", err)
		}
		if len(fatal) != 1 || len(l.all()) != 1 {
			t.Fatalf("fatal %d times, ledger %v", len(fatal), l.all())
		}
		if err := <-fatal; !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "input/output error") {
			t.Errorf("fatal: %v", err)
		}
	})
}

// TestSnapshotAndRestore takes snapshots by bytes and starts from one with the
// log behind it cut.
func TestSnapshotAndRestore(t *testing.T) {
	dir := t.TempDir()
	l := &ledger{}
	n := open(t, Config{Dir: dir, StateMachine: l, Bootstrap: true, SnapshotBytes: 4000, Trailing: 5})
	lead(t, n)
	for i := 0; n.Stats().Snapshots < 2; i++ {
		propose(t, n, fmt.Sprintf("c%06d", i))
	}
	want := l.all()
	first, err := n.stores.log.FirstIndex()
	if err != nil || first < 20 {
		t.Errorf("log begins at %d, %v: it was not cut", first, err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	l = &ledger{}
	n = open(t, Config{Dir: dir, StateMachine: l})
	if n.Applied() == 0 {
		t.Error("no snapshot was restored")
	}
	lead(t, n)
	if got := l.all(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%d commands, want %d", len(got), len(want))
	}
}

// victim proposes until it is killed, and says what was acknowledged.
func victim(dir string) {
	n, err := Open(Config{ID: "n1", Dir: dir, StateMachine: &ledger{}, Bootstrap: true, SnapshotBytes: 20_000})
	if err == nil {
		err = n.WaitLeader(context.Background())
	}
	for i := 0; err == nil; i++ {
		if _, err = n.Propose(context.Background(), fmt.Appendf(nil, "c%06d", i)); err == nil {
			fmt.Println(i)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// TestKill kills a process without warning, three times, and looks for what it
// had acknowledged.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	want := 0
	for range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CONSENSUS_TEST_VICTIM="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acked := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if acked++; acked == 700 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the victim ended by itself")
		}
		if acked < 700 {
			t.Fatalf("the victim acknowledged %d commands", acked)
		}
		l := &ledger{}
		n := open(t, Config{Dir: dir, StateMachine: l})
		lead(t, n)
		got := l.all()
		// One more than acknowledged may be there: the last was under way.
		if extra := len(got) - want - acked; extra < 0 || extra > 1 {
			t.Fatalf("%d commands, want %d", len(got), want+acked)
		}
		for i, c := range got[want:] {
			if c != fmt.Sprintf("c%06d", i) {
				t.Fatalf("command %d is %s", i, c)
			}
		}
		want = len(got)
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
