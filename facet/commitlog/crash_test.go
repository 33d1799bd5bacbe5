package commitlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/internal/disk"
)

var background = context.Background()

// history is what a workload did to a log, over several lives: each record ever
// appended by its number, in the order of the log.
type history struct {
	mu       sync.Mutex
	sizes    map[uint64]int // of every record whose Append returned nil, or may
	units    map[uint64]int // number of the first record of a unit → records in it
	acked    uint64         // records acknowledged: numbers below, since they are acknowledged in order
	next     uint64
	outOfUse bool
}

func newHistory() *history {
	return &history{sizes: map[uint64]int{}, units: map[uint64]int{}}
}

// Durable implements Waiter.
func (h *history) Durable(token uint64, _ Loc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.outOfUse || token != h.acked {
		panic(fmt.Sprintf("acknowledged %d, expected %d", token, h.acked))
	}
	h.acked++
}

// run appends n units with random sizes, waiting now and then, until the log
// refuses.
func (h *history) run(l *Log, rng *rand.Rand, n int) {
	for range n {
		count := 1
		if rng.IntN(5) == 0 {
			count = 2 + rng.IntN(3)
		}
		h.mu.Lock()
		first := h.next
		var recs []Record
		total := 0
		for i := range uint64(count) {
			size := rng.IntN(200)
			switch rng.IntN(12) {
			case 0:
				size = rng.IntN(3 * blockSize)
			case 1:
				size = rng.IntN(60000)
			}
			h.sizes[first+i] = size
			total += size
			recs = append(recs, record(first+i, size))
		}
		h.next += uint64(count)
		h.units[first] = count
		h.mu.Unlock()
		for {
			err := l.AppendMany(recs, first, h)
			if err == nil {
				break
			}
			if errors.Is(err, ErrBusy) {
				err = l.Wait(background, total+count*recordLen)
			}
			if err != nil {
				return
			}
		}
		if rng.IntN(3) == 0 {
			if l.Sync(background) != nil {
				return
			}
		}
	}
}

// check compares what a boot replayed with the history: a prefix of it, with all
// that was acknowledged, every record whole, no unit cut.
func (h *history) check(t testing.TB, what string, recs []got, acked uint64, r Report) {
	t.Helper()
	if uint64(len(recs)) < acked {
		t.Fatalf("%s: %d records acknowledged, %d found\n%+v", what, acked, len(recs), r)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, g := range recs {
		if size, ok := h.sizes[uint64(i)]; !ok || !same(g.rec, record(uint64(i), size)) {
			t.Fatalf("%s: record %d is not the one that was appended (seq %v)", what, i, g.rec.Seq)
		}
	}
	for i := uint64(0); i < uint64(len(recs)); i += uint64(h.units[i]) {
		if i+uint64(h.units[i]) > uint64(len(recs)) {
			t.Fatalf("%s: the unit of records %d and following was cut", what, i)
		}
	}
	for _, d := range r.Damage {
		if d.Kind != Uncertain {
			t.Fatalf("%s: a crash looks like corruption: %v", what, d)
		}
	}
}

// forget takes back what did not survive, before the next life.
func (h *history) forget(survived int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next, h.acked = uint64(survived), uint64(survived)
}

type crashPoint struct {
	image *disk.Mem
	acked uint64
	what  string
}

// TestCrashEverywhere runs a workload over several segments once, and takes
// crash images before every operation of the disk that changes something. Each
// image must boot to a sound prefix and take records. That second life is crashed
// once, and for every 16th image before each of its operations.
func TestCrashEverywhere(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			mem, h := disk.NewMem(), newHistory()
			points := crashPoints(t, mem, h, rng, func(opts Options) {
				l, _, _ := open(t, opts)
				h.run(l, rand.New(rand.NewPCG(seed, 1)), 60)
				closeLog(t, l)
			})
			if len(points) < 80 {
				t.Fatalf("only %d crash points", len(points))
			}
			boots := 0
			for i, p := range points {
				deep := i%16 == int(seed)
				boots += bootAndCrash(t, p, h, rng, deep)
			}
			t.Logf("%d crash points, %d boots, %d records", len(points), boots, h.next)
		})
	}
}

// crashPoints runs f on mem and returns an image before each changing operation
// and one of the end.
func crashPoints(t testing.TB, mem *disk.Mem, h *history, rng *rand.Rand, f func(Options)) []crashPoint {
	var mu sync.Mutex
	var points []crashPoint
	take := func(op disk.Op, name string) {
		if op&disk.OpChanges == 0 {
			return
		}
		h.mu.Lock()
		acked := h.acked // told before the image is taken: must be in it
		h.mu.Unlock()
		mu.Lock()
		defer mu.Unlock()
		points = append(points, crashPoint{mem.Image(rng, disk.LossAny), acked, fmt.Sprintf("crash %d before %v %s", len(points), op, name)})
	}
	mem.Observe(take)
	f(testOptions(t, mem))
	mem.Observe(nil)
	take(disk.OpWrite, "(end)")
	return points
}

// bootAndCrash boots a crash image, checks it, appends, and crashes again: at
// one point, or (deep) before each operation of that second life.
func bootAndCrash(t testing.TB, p crashPoint, h *history, rng *rand.Rand, deep bool) (boots int) {
	const mark = 1 << 40
	life := func(opts Options, second *history) {
		l, recs, report, err := tryOpen(opts)
		if err != nil {
			t.Fatalf("%s: %v", p.what, err)
		}
		h.check(t, p.what, recs, p.acked, report)
		second.mu.Lock()
		second.acked = uint64(len(recs)) // once replayed, it stays
		second.mu.Unlock()
		// The log goes on after what survived.
		if err := appendWait(l, record(mark, 5000), 0, nil); err != nil {
			t.Fatalf("%s: append after boot: %v", p.what, err)
		}
		closeLog(t, l)
		boots++
	}
	second := newHistory()
	var again []crashPoint
	if deep {
		again = crashPoints(t, p.image, second, rng, func(opts Options) { life(opts, second) })
	} else {
		life(testOptions(t, p.image), second)
		again = []crashPoint{{p.image.Image(rng, disk.LossAny), second.acked, "crash at the end"}}
	}
	for i, q := range again {
		l, recs, report, err := tryOpen(testOptions(t, q.image))
		if err != nil {
			t.Fatalf("%s, then %s: %v", p.what, q.what, err)
		}
		n := len(recs)
		marked := n > 0 && recs[n-1].rec.Seq == mark
		if marked {
			recs = recs[:n-1]
		} else if i == len(again)-1 {
			t.Fatalf("%s, then %s: the record of the second life is gone: %+v", p.what, q.what, report)
		}
		h.check(t, p.what+", then "+q.what, recs, max(p.acked, q.acked), report)
		closeLog(t, l)
		boots++
	}
	return boots
}

// TestCrashLives kills one log again and again, at random operations, by power
// cut or kill -9, boots in between included.
func TestCrashLives(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 2))
		mem, h := disk.NewMem(), newHistory()
		for life := range 12 {
			opts := testOptions(t, mem)
			opts.Fatal = func(error) {}
			mem.CrashAt(1 + rng.Int64N(120))
			what := fmt.Sprintf("seed %d, life %d", seed, life)
			l, recs, report, err := tryOpen(opts)
			if err == nil {
				h.check(t, what, recs, h.acked, report)
				h.forget(len(recs))
				h.run(l, rng, rng.IntN(40))
				_ = l.Close() // fails if the disk is dead
			} else if !errors.Is(err, disk.ErrCrashed) {
				t.Fatalf("%s: %v", what, err)
			}
			if rng.IntN(3) == 0 {
				mem = mem.Restart()
			} else {
				mem = mem.Crash(rng, disk.LossAny)
			}
		}
	}
}

// TestReportedSurvivesAPowerCut: what was reported durable is there after a power cut
// that takes everything the disk was not told to keep (R9).
func TestReportedSurvivesAPowerCut(t *testing.T) {
	mem := disk.NewMem()
	l, _, _ := open(t, testOptions(t, mem))
	if err := appendWait(l, record(0, 300), 0, nil); err != nil {
		t.Fatal(err)
	}
	syncLog(t, l)
	cut := mem.Image(rand.New(rand.NewPCG(1, 1)), disk.LoseAll)
	closeLog(t, l)
	l, recs, _ := open(t, testOptions(t, cut))
	if len(recs) != 1 {
		t.Fatalf("%d records after the power cut, 1 was reported", len(recs))
	}
	closeLog(t, l)
}

// TestKillThenPowerCut: what a boot after kill -9 replayed may have been acted
// on, so a power cut right after Open must not take it.
func TestKillThenPowerCut(t *testing.T) {
	mem := disk.NewMem()
	opts := testOptions(t, mem)
	opts.Fatal = func(error) {}
	opts.SegmentBytes = 4 << 20 // no switch of segments among the operations counted
	l, _, _ := open(t, opts)
	h := newHistory()
	h.run(l, rand.New(rand.NewPCG(8, 8)), 20)
	syncLog(t, l)
	waitForSpare(t, l)
	mem.CrashAt(2) // the write happens, its sync does not
	if err := l.Append(record(h.next, 300), h.next, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); !errors.Is(err, ErrFailed) {
		t.Fatalf("close: %v", err)
	}
	killed := mem.Restart()
	opts = testOptions(t, killed)
	l, recs, _ := open(t, opts)
	if uint64(len(recs)) != h.next+1 {
		t.Fatalf("%d records after the kill, want %d", len(recs), h.next+1)
	}
	cut := killed.Image(rand.New(rand.NewPCG(1, 1)), disk.LoseAll)
	closeLog(t, l)
	l, recs, _ = open(t, testOptions(t, cut))
	if uint64(len(recs)) != h.next+1 {
		t.Fatalf("%d records after the power cut, want %d", len(recs), h.next+1)
	}
	closeLog(t, l)
}

// TestFatalOnce: an error of each operation the writer needs ends the log:
// Fatal once, nothing acknowledged or accepted after it, and after the restart
// what had been acknowledged is there.
func TestFatalOnce(t *testing.T) {
	for _, fault := range []disk.Fault{
		{Ops: disk.OpDatasync, Path: "*.seg"}, {Ops: disk.OpWrite, Path: "*.seg"},
		{Ops: disk.OpDatasync, Path: "*.seg", Times: 1}, {Ops: disk.OpRename}, {Ops: disk.OpSyncDir},
		{Ops: disk.OpDatasync, Path: "spare.tmp"}, {Ops: disk.OpWrite, Path: "spare-*"}, {Ops: disk.OpFree},
	} {
		for after := range 6 {
			fault.After, fault.Err = after*after, syscall.EIO
			mem, h := disk.NewMem(), newHistory()
			opts := testOptions(t, mem)
			fatal := make(chan error, 10)
			opts.Fatal = func(err error) { fatal <- err }
			l, _, _ := open(t, opts)
			waitForSpare(t, l)
			mem.Inject(fault)
			for l.stateErrNow() == nil {
				h.run(l, rand.New(rand.NewPCG(uint64(after), 3)), 30)
				if l.stateErrNow() == nil && h.next > 5000 {
					t.Fatalf("fault %+v never hit", fault)
				}
			}
			if err := <-fatal; !errors.Is(err, syscall.EIO) {
				t.Fatalf("fatal error %v", err)
			}
			if err := l.Append(record(0, 1), 0, nil); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("append after the failure: %v", err)
			}
			if err := l.Sync(background); err != nil && !errors.Is(err, ErrFailed) {
				t.Fatalf("sync after the failure: %v", err)
			}
			if err := l.Close(); !errors.Is(err, ErrFailed) {
				t.Fatalf("close after the failure: %v", err)
			}
			if len(fatal) != 0 {
				t.Fatalf("fatal called again: %v", <-fatal)
			}
			h.outOfUse = true
			l, recs, report := open(t, testOptions(t, mem.Crash(rand.New(rand.NewPCG(uint64(after), 4)), disk.LossAny)))
			h.check(t, fmt.Sprintf("after fault %v on %s", fault.Ops, fault.Path), recs, h.acked, report)
			closeLog(t, l)
		}
	}
}

// blockingWaiter holds the worker that tells in its first call.
type blockingWaiter struct {
	acks
	entered, release chan struct{}
}

func (w *blockingWaiter) Durable(token uint64, loc Loc) {
	w.acks.Durable(token, loc)
	if token == 0 {
		close(w.entered)
		<-w.release
	}
}

// TestNothingAfterFatal: not even what was durable before the failure is
// acknowledged after Fatal was called.
func TestNothingAfterFatal(t *testing.T) {
	mem := disk.NewMem()
	opts := testOptions(t, mem)
	fatal := make(chan struct{})
	opts.Fatal = func(error) { close(fatal) }
	l, _, _ := open(t, opts)
	w := &blockingWaiter{entered: make(chan struct{}), release: make(chan struct{})}
	if err := l.AppendMany([]Record{record(0, 1), record(1, 1)}, 0, w); err != nil {
		t.Fatal(err)
	}
	<-w.entered
	mem.Inject(disk.Fault{Ops: disk.OpDatasync, Path: "*.seg", Err: syscall.EIO})
	if err := l.Append(record(2, 1), 2, w); err != nil {
		t.Fatal(err)
	}
	<-fatal
	close(w.release)
	if err := l.Close(); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	if tokens, _ := w.list(); len(tokens) != 1 {
		t.Fatalf("acknowledged %v", tokens)
	}
}

func (l *Log) stateErrNow() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stateErr()
}

// TestFailedSyncIsNotBelieved: after a failed fsync the page cache shows bytes
// that are not on the device. A boot in the same machine life must not replay
// them, for a later crash would take them.
func TestFailedSyncIsNotBelieved(t *testing.T) {
	mem, h := disk.NewMem(), newHistory()
	opts := testOptions(t, mem)
	opts.Fatal = func(error) {}
	l, _, _ := open(t, opts)
	h.run(l, rand.New(rand.NewPCG(8, 8)), 20)
	syncLog(t, l)
	remove := mem.Inject(disk.Fault{Ops: disk.OpDatasync, Path: "*.seg", Err: syscall.EIO, Times: 1})
	if err := l.Append(record(h.next, 300), h.next, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	remove()
	again := mem.Restart()
	l, first, _ := open(t, testOptions(t, again))
	cut := again.Image(rand.New(rand.NewPCG(1, 1)), disk.LoseAll)
	closeLog(t, l)
	l, second, _ := open(t, testOptions(t, cut))
	closeLog(t, l)
	if uint64(len(first)) != h.next || len(second) != len(first) {
		t.Fatalf("replayed %d records, after a power cut %d; durable were %d", len(first), len(second), h.next)
	}
}

// TestFullDisk: without space ordinary records are refused before anything is
// written, the reserve goes on, reads go on, and it heals by itself.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		mem.SetQuota(300 << 10)
		opts := testOptions(t, mem)
		l, _, _ := open(t, opts)
		var a acks
		n := uint64(0)
		var err error
		for ; err == nil; n++ {
			if err = appendWait(l, record(n, 3000), n, &a); err == nil {
				syncLog(t, l)
			}
		}
		n-- // the last one was refused
		var full *FullError
		if !errors.Is(err, ErrFull) || !errors.As(err, &full) || full.Free >= full.Needed {
			t.Fatalf("on a full disk: %v", err)
		}
		if err := l.Admit(1); !errors.Is(err, ErrFull) {
			t.Fatalf("admit on a full disk: %v", err)
		}
		// The reserve of 8 KiB: two fsyncs of one block.
		var promises uint64
		for {
			if err := l.Append(Record{Kind: 1 | Reserve, Payload: make([]byte, 100)}, n+promises, &a); err != nil {
				if !errors.Is(err, ErrFull) {
					t.Fatal(err)
				}
				break
			}
			promises++
			syncLog(t, l)
		}
		if promises < 2 {
			t.Fatalf("the reserve took %d records", promises)
		}
		tokens, locs := a.list()
		if uint64(len(tokens)) != n+promises {
			t.Fatalf("%d acknowledged, %d accepted", len(tokens), n+promises)
		}
		if _, err := l.Read(locs[3], nil); err != nil {
			t.Fatal(err)
		}
		// Space returns: by the operator, or by removal.
		if n%2 == 0 {
			mem.SetQuota(1 << 20)
		}
		if err := l.Remove(l.Segments()[1].ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * retryMax)
		synctest.Wait()
		if err := l.Admit(3000); err != nil {
			t.Fatalf("admit after space returned: %v", err)
		}
		if err := l.Append(record(n, 3000), n+promises, &a); err != nil {
			t.Fatal(err)
		}
		closeLog(t, l)
		l, recs, report := open(t, opts)
		if len(report.Damage) != 0 || !same(recs[len(recs)-1].rec, record(n, 3000)) {
			t.Fatalf("after the full disk: %+v", report)
		}
		closeLog(t, l)
	})
}

// TestLowWater: the log stops before the disk is full, and its reserve may use
// what it left.
func TestLowWater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		mem.SetQuota(1 << 20)
		opts := testOptions(t, mem)
		opts.LowWaterBytes = 512 << 10
		l, _, _ := open(t, opts)
		var err error
		for n := uint64(0); err == nil; n++ {
			err = appendWait(l, record(n, 3000), n, nil)
		}
		if !errors.Is(err, ErrFull) || mem.Used() > 512<<10 {
			t.Fatalf("%d bytes used, %v", mem.Used(), err)
		}
		// Far more than the 8 KiB of one reserve.
		for i := range 40 {
			if err := l.Append(Record{Kind: 1 | Reserve, Payload: make([]byte, 100)}, 0, nil); err != nil {
				t.Fatalf("reserve record %d: %v", i, err)
			}
			syncLog(t, l)
			time.Sleep(2 * retryMax)
			synctest.Wait()
		}
		closeLog(t, l)
		// A boot on the full disk can still be fenced.
		l, _, _ = open(t, opts)
		synctest.Wait()
		if err := l.Append(Record{Kind: 1, Payload: make([]byte, 100)}, 0, nil); !errors.Is(err, ErrFull) {
			t.Fatalf("ordinary record: %v", err)
		}
		if err := l.Append(Record{Kind: 1 | Reserve, Payload: make([]byte, 100)}, 0, nil); err != nil {
			t.Fatal(err)
		}
		closeLog(t, l)
	})
}

// TestAdmitRefusesFirst: below the low-water mark nothing new is let in, while what was
// let in before still has its place (R15).
func TestAdmitRefusesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		opts := testOptions(t, mem)
		l, _, _ := open(t, opts)
		synctest.Wait()
		mem.SetQuota(mem.Used())
		for n := uint64(0); ; n++ {
			synctest.Wait()
			refused := l.Admit(100)
			if refused != nil && !errors.Is(refused, ErrFull) {
				t.Fatal(refused)
			}
			if err := l.Append(record(n, 100), n, nil); err != nil {
				t.Fatalf("record %d was not refused before, and finds no place: %v", n, err)
			}
			if refused != nil {
				break
			}
			syncLog(t, l)
		}
		closeLog(t, l)
	})
}

// TestBootWithoutAnySpace: the log can be read, and says why it takes nothing.
func TestBootWithoutAnySpace(t *testing.T) {
	mem := disk.NewMem()
	opts := testOptions(t, mem)
	mem.SetQuota(0)
	l, _, _ := open(t, opts)
	for _, kind := range []Kind{1, 1 | Reserve} {
		if err := l.Append(Record{Kind: kind}, 0, nil); !errors.Is(err, ErrFull) {
			t.Fatalf("kind %x: %v", kind, err)
		}
	}
	closeLog(t, l)
}

// TestStalledSync: a sync that hangs shows in the statistics while it does, and
// what gathered meanwhile goes out with the next one.
func TestStalledSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		opts := testOptions(t, mem)
		l, _, _ := open(t, opts)
		if err := l.Append(record(0, 10), 0, nil); err != nil {
			t.Fatal(err)
		}
		syncLog(t, l)
		synctest.Wait()
		mem.Inject(disk.Fault{Ops: disk.OpDatasync, Delay: 3 * time.Second, Times: 1})
		var a acks
		if err := l.Append(record(1, 10), 1, &a); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		for i := range uint64(100) {
			if err := l.Append(record(2+i, 10), 2+i, &a); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if st := l.Stats(); st.InFlight != 2*time.Second {
			t.Fatalf("in flight for %v", st.InFlight)
		}
		if tokens, _ := a.list(); len(tokens) != 0 {
			t.Fatalf("acknowledged before the sync: %v", tokens)
		}
		if _, n := l.Pending(); n != 101 {
			t.Fatalf("%d records pending", n)
		}
		start := time.Now()
		syncLog(t, l)
		if tokens, _ := a.list(); len(tokens) != 101 || !slices.IsSorted(tokens) || time.Since(start) != time.Second {
			t.Fatalf("acknowledged %v after %v", tokens, time.Since(start))
		}
		if st := l.Stats(); st.Batches != 3 || st.InFlight != 0 || st.SyncTotal < 3*time.Second {
			t.Fatalf("stats %+v", st)
		}
		closeLog(t, l)
	})
}
