package commitlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testStore = StoreID{1, 2, 3}

// testOptions are small enough for a test to see many segments.
func testOptions(t testing.TB, fsys disk.FS) Options {
	return Options{
		FS: fsys, Dir: "node/log", Store: testStore,
		SegmentBytes: 64 << 10, LowWaterBytes: -1, ReserveBytes: 8 << 10, PendingBytes: 1 << 20,
		Fatal:  func(err error) { t.Errorf("fatal: %v", err) },
		Logger: slog.New(slog.DiscardHandler),
	}
}

// got is a record as replay or the tests keep it.
type got struct {
	rec Record
	loc Loc
}

func open(t testing.TB, opts Options) (*Log, []got, Report) {
	t.Helper()
	l, recs, report, err := tryOpen(opts)
	if err != nil {
		t.Fatal(err)
	}
	return l, recs, report
}

func tryOpen(opts Options) (*Log, []got, Report, error) {
	var recs []got
	l, report, err := Open(opts, func(r Record, loc Loc) error {
		r.Payload = bytes.Clone(r.Payload)
		recs = append(recs, got{r, loc})
		return nil
	})
	return l, recs, report, err
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// acks is a Waiter that keeps what it is told.
type acks struct {
	mu     sync.Mutex
	tokens []uint64
	locs   []Loc
}

func (a *acks) Durable(token uint64, loc Loc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens, a.locs = append(a.tokens, token), append(a.locs, loc)
}

func (a *acks) list() ([]uint64, []Loc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.tokens), slices.Clone(a.locs)
}

// record makes the i-th record of a test: its content follows from i.
func record(i uint64, size int) Record {
	rng := rand.New(rand.NewPCG(i, 99))
	r := Record{Kind: Kind(1 + i%5), Epoch: facet.Epoch(i / 100), Seq: facet.Seq(i), Payload: make([]byte, size)}
	be.PutUint64(r.Incarnation[:], i%7+1)
	for j := range r.Payload {
		r.Payload[j] = byte(rng.Uint32())
	}
	return r
}

func same(a, b Record) bool {
	return a.Kind == b.Kind && a.Incarnation == b.Incarnation && a.Epoch == b.Epoch && a.Seq == b.Seq && bytes.Equal(a.Payload, b.Payload)
}

func syncLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// appendWait appends as a patient caller does.
func appendWait(l *Log, r Record, token uint64, w Waiter) error {
	for {
		err := l.Append(r, token, w)
		if !errors.Is(err, ErrBusy) {
			return err
		}
		if err := l.Wait(context.Background(), len(r.Payload)); err != nil {
			return err
		}
	}
}

// TestRoundTrip: records of every size around the block borders come back from
// replay and from Read, in order, over many segments and several lives.
func TestRoundTrip(t *testing.T) {
	for name, fsys := range map[string]disk.FS{"mem": disk.NewMem(), "os": disk.OS(t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			opts := testOptions(t, fsys)
			sizes := []int{0, 1, 300, 4096}
			for d := -3; d <= 3; d++ {
				first, next := blockSize-batchHeaderLen-recordLen, blockSize-blockHeaderLen
				sizes = append(sizes, first+d, first+next+d, first+2*next+d, next+d)
			}
			var want []Record
			var a acks
			for life := range 3 {
				l, recs, report := open(t, opts)
				if len(report.Damage) != 0 || report.Torn != 0 || int(report.Records) != len(want) {
					t.Fatalf("life %d: report %+v", life, report)
				}
				compare(t, recs, want)
				first := len(want)
				for range 3 {
					for _, size := range sizes {
						i := uint64(len(want))
						want = append(want, record(i, size))
						if err := appendWait(l, want[i], i, &a); err != nil {
							t.Fatal(err)
						}
						if i%4 == 0 {
							syncLog(t, l)
						}
					}
				}
				syncLog(t, l)
				tokens, locs := a.list()
				if len(tokens) != len(want) {
					t.Fatalf("%d acknowledged, want %d", len(tokens), len(want))
				}
				var buf []byte
				for i := range tokens {
					if tokens[i] != uint64(i) || i > 0 && !locs[i-1].Before(locs[i]) {
						t.Fatalf("acknowledgement %d: token %d at %v", i, tokens[i], locs[i])
					}
					payload, err := l.Read(locs[i], buf)
					if err != nil || !bytes.Equal(payload, want[i].Payload) {
						t.Fatalf("read record %d at %v: %d bytes, %v", i, locs[i], len(payload), err)
					}
					buf = payload[:0]
				}
				for i, r := range recs {
					if r.loc != locs[i] {
						t.Fatalf("record %d: replayed at %v, acknowledged at %v", i, r.loc, locs[i])
					}
				}
				if st := l.Stats(); int(st.Records) != len(want)-first || st.Bytes == 0 || st.SyncTotal == 0 {
					t.Fatalf("stats %+v", st)
				}
				if b, n := l.Pending(); b != 0 || n != 0 {
					t.Fatalf("pending %d bytes, %d records", b, n)
				}
				closeLog(t, l)
				closeLog(t, l)
				if err := l.Append(want[0], 0, nil); !errors.Is(err, ErrClosed) {
					t.Fatalf("append to a closed log: %v", err)
				}
			}
		})
	}
}

func compare(t testing.TB, recs []got, want []Record) {
	t.Helper()
	if len(recs) != len(want) {
		t.Fatalf("%d records replayed, want %d", len(recs), len(want))
	}
	for i := range want {
		if !same(recs[i].rec, want[i]) {
			t.Fatalf("record %d differs", i)
		}
	}
}

// TestAppendMany: the records of one call lie in one batch whatever their size,
// and each is reported with its own token.
// TestSegmentsGrow: a new log does not begin with a large segment beside the first.
func TestSegmentsGrow(t *testing.T) {
	opts := testOptions(t, disk.NewMem())
	opts.SegmentBytes, opts.ReserveBytes = DefaultSegmentBytes, DefaultReserveBytes
	l, _, _ := open(t, opts)
	defer closeLog(t, l)
	for i, want := range []int64{firstSegmentBytes, growSegments * firstSegmentBytes, DefaultSegmentBytes} {
		for {
			l.mu.Lock()
			plan, wanted := l.plan, l.want()
			l.mu.Unlock()
			if plan != nil && plan.size >= want {
				if plan.size != want {
					t.Fatalf("segment %d has %d bytes, want %d", i, plan.size, want)
				}
				if next := min(growSegments*want, DefaultSegmentBytes); wanted != 0 && wanted != next {
					t.Fatalf("after %d bytes a segment of %d is made, want %d", want, wanted, next)
				}
				break
			}
			if err := appendWait(l, record(uint64(i), 1<<20), 0, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.Trim()
	syncLog(t, l)
}

func TestAppendMany(t *testing.T) {
	opts := testOptions(t, disk.NewMem())
	l, _, _ := open(t, opts)
	var a acks
	recs := []Record{record(0, 10), record(1, 20000), record(2, 0)}
	if err := l.AppendMany(recs, 7, &a); err != nil {
		t.Fatal(err)
	}
	if err := l.AppendMany(nil, 0, &a); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	if tokens, _ := a.list(); !slices.Equal(tokens, []uint64{7, 8, 9}) {
		t.Fatalf("tokens %v", tokens)
	}
	l, back, report := open(t, opts)
	compare(t, back, recs)
	if report.Batches != 2 { // and the marker of the orderly close
		t.Fatalf("%d batches", report.Batches)
	}
	if err := l.AppendMany([]Record{{Payload: make([]byte, MaxPayload+1)}}, 0, nil); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	half := make([]byte, maxUnit/2)
	if err := l.AppendMany([]Record{{Payload: half}, {Payload: half}}, 0, nil); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	closeLog(t, l)
}

// TestOversized: a record larger than a segment gets a segment of its own, also
// after a crash, and small ones go on around it.
func TestOversized(t *testing.T) {
	mem := disk.NewMem()
	opts := testOptions(t, mem)
	opts.PendingBytes = 64 << 10
	l, _, _ := open(t, opts)
	want := []Record{record(0, 100), record(1, 300<<10), record(2, 100), record(3, 2<<20), record(4, 100)}
	var a acks
	for i, r := range want {
		if err := appendWait(l, r, uint64(i), &a); err != nil {
			t.Fatal(err)
		}
	}
	syncLog(t, l)
	_, locs := a.list()
	for i := range want {
		payload, err := l.Read(locs[i], nil)
		if err != nil || !bytes.Equal(payload, want[i].Payload) {
			t.Fatalf("read %d: %v", i, err)
		}
	}
	crashed := mem.Crash(rand.New(rand.NewPCG(1, 1)), disk.LoseAll)
	opts.Fatal = func(error) {} // the old log's disk is gone
	l.opts.Fatal = opts.Fatal
	_ = l.Close()
	opts.FS = crashed
	l, recs, _ := open(t, opts)
	compare(t, recs, want)
	closeLog(t, l)
}

// TestRemove: removed segments are gone for Read and for the next boot, the
// newest stays, and no hole is seen whatever a crash does to the removals.
func TestRemove(t *testing.T) {
	mem := disk.NewMem()
	opts := testOptions(t, mem)
	l, _, _ := open(t, opts)
	var a acks
	for i := range uint64(60) {
		if err := appendWait(l, record(i, 5000), i, &a); err != nil {
			t.Fatal(err)
		}
	}
	syncLog(t, l)
	segs := l.Segments()
	waitForSpare(t, l)
	if len(segs) < 5 || segs[len(segs)-1].Sealed || !segs[0].Sealed || l.Size() < 4*opts.SegmentBytes {
		t.Fatalf("segments %v", segs)
	}
	_, locs := a.list()
	rng := rand.New(rand.NewPCG(5, 5))
	var images []*disk.Mem
	mem.Observe(func(op disk.Op, _ string) {
		if op&disk.OpChanges != 0 {
			for range 12 {
				images = append(images, mem.Image(rng, disk.LossAny))
			}
		}
	})
	if err := l.Remove(segs[3].ID); err != nil {
		t.Fatal(err)
	}
	mem.Observe(nil)
	if _, err := l.Read(locs[0], nil); !errors.Is(err, ErrRemoved) {
		t.Fatalf("read from a removed segment: %v", err)
	}
	if err := l.Remove(1 << 30); err != nil {
		t.Fatal(err)
	}
	if left := l.Segments(); len(left) != 1 || left[0].ID != segs[len(segs)-1].ID {
		t.Fatalf("segments left %v", left)
	}
	closeLog(t, l)
	for _, im := range images {
		o := opts
		o.FS = im
		l, recs, report := open(t, o)
		if len(report.Damage) != 0 || len(recs) == 0 || recs[len(recs)-1].rec.Seq != 59 {
			t.Fatalf("after a crash while removing: %+v", report)
		}
		closeLog(t, l)
	}
	l, recs, report := open(t, opts)
	if len(report.Damage) != 0 || len(recs) == 0 || recs[len(recs)-1].rec.Seq != 59 {
		t.Fatalf("after removing: %+v", report)
	}
	closeLog(t, l)
}

// TestConcurrentAppenders: every appender's records keep its order, and all come
// back once.
func TestConcurrentAppenders(t *testing.T) {
	const appenders, each = 16, 200
	opts := testOptions(t, disk.NewMem())
	l, _, _ := open(t, opts)
	var wg sync.WaitGroup
	waiters := make([]acks, appenders)
	for a := range appenders {
		wg.Go(func() {
			for i := range uint64(each) {
				r := record(uint64(a)<<32|i, int(i*7)%900)
				if err := appendWait(l, r, i, &waiters[a]); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	closeLog(t, l)
	for a := range waiters {
		tokens, locs := waiters[a].list()
		if len(tokens) != each {
			t.Fatalf("appender %d: %d acknowledged", a, len(tokens))
		}
		for i := range tokens {
			if tokens[i] != uint64(i) || i > 0 && !locs[i-1].Before(locs[i]) {
				t.Fatalf("appender %d: token %d at %v in place %d", a, tokens[i], locs[i], i)
			}
		}
	}
	l, recs, _ := open(t, opts)
	next := make([]uint64, appenders)
	for _, g := range recs {
		a, i := uint64(g.rec.Seq)>>32, uint64(g.rec.Seq)&0xffffffff
		if i != next[a] || !same(g.rec, record(uint64(g.rec.Seq), len(g.rec.Payload))) {
			t.Fatalf("appender %d: record %d in place %d", a, i, next[a])
		}
		next[a]++
	}
	for a, n := range next {
		if n != each {
			t.Fatalf("appender %d: %d records replayed", a, n)
		}
	}
	closeLog(t, l)
}

// TestOneWriteOneSync counts what the disk is asked for by a caller that appends
// and waits.
func TestOneWriteOneSync(t *testing.T) {
	mem := disk.NewMem()
	opts := testOptions(t, mem)
	opts.SegmentBytes = 4 << 20
	l, _, _ := open(t, opts)
	appendSync := func(i uint64) {
		if err := appendWait(l, record(i, 300), i, nil); err != nil {
			t.Fatal(err)
		}
		syncLog(t, l)
	}
	appendSync(0) // begins the segment
	waitForSpare(t, l)
	var mu sync.Mutex
	ops := map[string]int{}
	mem.Observe(func(op disk.Op, _ string) {
		mu.Lock()
		defer mu.Unlock()
		ops[op.String()]++
	})
	for i := range uint64(20) {
		appendSync(1 + i)
	}
	mem.Observe(nil)
	mu.Lock()
	if len(ops) != 2 || ops["write"] != 20 || ops["datasync"] != 20 {
		t.Fatalf("20 appends asked for %v", ops)
	}
	mu.Unlock()
	// Nothing was removed: what was zeroed is there.
	if n := l.Stats().Zeroed; int64(n) != l.Size() {
		t.Errorf("%d bytes were zeroed for segments of %d", n, l.Size())
	}
	closeLog(t, l)
}

// waitForSpare waits until the allocator has nothing to do.
// TestZerosGiveWay: filling the next segment with zeros leaves most of the disk's time
// to commits, unless somebody waits for it.
func TestZerosGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		mem.Inject(disk.Fault{Ops: disk.OpDatasync, Path: spareTmp, Delay: time.Millisecond})
		opts := testOptions(t, mem)
		opts.SegmentBytes, opts.PendingBytes = 2*firstSegmentBytes, DefaultPendingBytes
		const busy = 2 * firstSegmentBytes / zeroChunk * time.Millisecond // of the disk, a segment
		began := time.Now()
		l, _, _ := open(t, opts)
		if took := time.Since(began); took > busy/2 {
			t.Errorf("the start took %v, zeros for it %v", took, busy/2)
		}
		defer closeLog(t, l)
		if err := l.Append(record(0, 100), 0, nil); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		waitForSpare(t, l)
		if took := time.Since(began); took < zeroRest*busy-zeroRest*busy/8 || took > 2*zeroRest*busy {
			t.Errorf("nobody waits: a segment was made in %v; it is %v for the disk", took, busy)
		}
		var err error
		for n := uint64(1); err == nil; n++ {
			err = l.Append(record(n, 100<<10), 0, nil) // faster than any disk
		}
		if !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		began = time.Now()
		if err := l.Wait(t.Context(), 100<<10); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > busy+zeroRest*time.Millisecond {
			t.Errorf("a record waited %v for a segment; it is %v for the disk", took, busy)
		}
	})
}

func waitForSpare(t testing.TB, l *Log) {
	t.Helper()
	for {
		l.mu.Lock()
		changed, want, full := l.changedLocked(), l.want(), l.full
		l.mu.Unlock()
		if want == 0 || full != nil {
			return
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Fatal("no spare after 10 s")
		}
	}
}

// TestAppendAllocatesNothing in the steady state.
func TestAppendAllocatesNothing(t *testing.T) {
	opts := testOptions(t, disk.OS(t.TempDir()))
	opts.SegmentBytes, opts.PendingBytes = 8<<20, 8<<20
	l, _, _ := open(t, opts)
	defer closeLog(t, l)
	r := record(1, 300)
	done := make(chan struct{}, 1)
	w := signal{done}
	round := func() {
		if err := l.Append(r, 1, w); err != nil {
			t.Fatal(err)
		}
		<-done
	}
	for range 50 {
		round()
	}
	waitForSpare(t, l)
	if n := testing.AllocsPerRun(200, round); n >= 1 {
		t.Errorf("%v allocations for one durable append", n)
	}
}

type signal struct{ c chan struct{} }

func (s signal) Durable(uint64, Loc) { s.c <- struct{}{} }

// TestBusy: the bound on what is pending holds, and one record may exceed it.
func TestBusy(t *testing.T) {
	mem := disk.NewMem()
	opts := testOptions(t, mem)
	opts.PendingBytes = 10000
	l, _, _ := open(t, opts)
	waitForSpare(t, l)
	release := make(chan struct{})
	defer mem.Observe(nil)
	mem.Observe(func(op disk.Op, _ string) {
		if op == disk.OpDatasync {
			<-release
		}
	})
	if err := l.Append(record(0, 20000), 0, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(record(1, 10), 1, nil); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v", err)
	}
	if err := l.Admit(10); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Wait(ctx, 10); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if err := l.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	close(release)
	if err := l.Wait(context.Background(), 10); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(record(1, 10), 1, nil); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
}

func TestOpenRefuses(t *testing.T) {
	mem := disk.NewMem()
	opts := testOptions(t, mem)
	l, _, _ := open(t, opts)
	if err := l.Append(record(0, 10), 0, nil); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)

	other := opts
	other.Store = StoreID{9}
	if _, _, _, err := tryOpen(other); !errors.Is(err, ErrStore) {
		t.Fatalf("another store: %v", err)
	}
	stop := errors.New("stop")
	if _, _, err := Open(opts, func(Record, Loc) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("replay error: %v", err)
	}
	for i, bad := range []Options{
		{},
		{FS: mem, Store: testStore},
		{FS: mem, Fatal: opts.Fatal},
		{FS: mem, Fatal: opts.Fatal, Store: testStore, SegmentBytes: 1},
		{FS: mem, Fatal: opts.Fatal, Store: testStore, SegmentBytes: maxSegmentBytes + 1},
	} {
		if _, _, _, err := tryOpen(bad); err == nil {
			t.Errorf("options %d were accepted", i)
		}
	}
	name := fmt.Sprintf("node/log/%s", segmentName(1))
	if err := mem.Corrupt(name, func(data []byte) {
		data[11] = 2
		be.PutUint32(data[blockSize-4:], crcUpdate(0, data[:blockSize-4]))
	}); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := tryOpen(opts); !errors.Is(err, ErrVersion) {
		t.Fatalf("another version: %v", err)
	}
}

func TestReadRefuses(t *testing.T) {
	mem := disk.NewMem()
	opts := testOptions(t, mem)
	l, _, _ := open(t, opts)
	var a acks
	if err := l.Append(record(0, 10000), 0, &a); err != nil {
		t.Fatal(err)
	}
	syncLog(t, l)
	_, locs := a.list()
	loc := locs[0]
	for _, bad := range []Loc{
		{loc.Segment, loc.Offset, loc.Len - 1}, {loc.Segment, loc.Offset + 1, loc.Len}, {loc.Segment, 0, 0},
		{loc.Segment, loc.Offset, 1 << 31}, {loc.Segment, loc.Offset, 60000}, {loc.Segment, 60 << 10, 10}, {loc.Segment, 1 << 31, 10},
	} {
		if _, err := l.Read(bad, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("read %v: %v", bad, err)
		}
	}
	if _, err := l.Read(Loc{77, 8192, 1}, nil); !errors.Is(err, ErrRemoved) {
		t.Errorf("read of a segment that never was: %v", err)
	}
	if err := mem.Corrupt("node/log/"+segmentName(1), func(data []byte) { data[loc.Offset+5000] ^= 1 }); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Read(loc, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read of a rotten record: %v", err)
	}
	closeLog(t, l)
}
