package commitlog

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"syscall"
	"testing"

	"github.com/facetd/facetd/internal/disk"
)

var update = flag.Bool("update", false, "write testdata anew")

// damaged is a log whose batches hold one unit each, for tests that break it.
type damaged struct {
	mem   *disk.Mem
	opts  Options
	recs  []Record
	locs  []Loc
	unit  []int // record → index of its batch
	start []Loc // batch → place of its first block
	size  []int // batch → bytes
}

// newDamaged writes batches of records with the sizes given, and ends without an
// orderly close: the last batch is the last.
func newDamaged(t testing.TB, batches [][]int) *damaged {
	t.Helper()
	d := &damaged{mem: disk.NewMem()}
	d.opts = testOptions(t, d.mem)
	d.opts.Fatal = func(error) {}
	l, _, _ := open(t, d.opts)
	var a acks
	for b, sizes := range batches {
		var unit []Record
		total := 0
		for _, size := range sizes {
			unit = append(unit, record(uint64(len(d.recs)+len(unit)), size))
			total += size + recordLen
		}
		if err := l.Wait(background, total); err != nil {
			t.Fatal(err)
		}
		if err := l.AppendMany(unit, uint64(len(d.recs)), &a); err != nil {
			t.Fatal(err)
		}
		syncLog(t, l)
		_, locs := a.list()
		first := locs[len(d.recs)]
		d.start = append(d.start, Loc{Segment: first.Segment, Offset: first.Offset / blockSize * blockSize})
		d.size = append(d.size, batchBytes(total))
		for range unit {
			d.unit = append(d.unit, b)
		}
		d.recs = append(d.recs, unit...)
		d.locs = locs
	}
	waitForSpare(t, l)
	d.mem = d.mem.Crash(rand.New(rand.NewPCG(1, 1)), disk.LoseAll)
	_ = l.Close() // its disk is gone
	d.opts = testOptions(t, d.mem)
	return d
}

func (d *damaged) name(segment uint32) string { return path.Join(d.opts.Dir, segmentName(segment)) }

func (d *damaged) corrupt(t testing.TB, segment uint32, f func(data []byte)) {
	t.Helper()
	if err := d.mem.Corrupt(d.name(segment), f); err != nil {
		t.Fatal(err)
	}
}

// boot opens the log and checks that exactly the records of the batches that are
// not lost come back, twice: the second boot reports the same damage.
func (d *damaged) boot(t testing.TB, lost func(batch int) bool) Report {
	t.Helper()
	var want []Record
	for i, r := range d.recs {
		if !lost(d.unit[i]) {
			want = append(want, r)
		}
	}
	var first Report
	for boot := range 3 {
		l, recs, report := open(t, d.opts)
		compare(t, recs, want)
		if boot == 0 {
			first = report
		} else if len(report.Damage) != len(first.Damage) {
			t.Fatalf("boot %d reports %v, the first %v", boot, report.Damage, first.Damage)
		} else {
			for i := range first.Damage {
				if a, b := first.Damage[i], report.Damage[i]; a.Kind != b.Kind || a.Segment != b.Segment || a.Offset != b.Offset || a.FirstBatch != b.FirstBatch {
					t.Fatalf("boot %d reports %v, the first %v", boot, b, a)
				}
			}
		}
		// New records land behind, and are no proof against the dropped tail.
		r := record(uint64(5000+boot), 700)
		want = append(want, r)
		if err := appendWait(l, r, 0, nil); err != nil {
			t.Fatal(err)
		}
		closeLog(t, l)
	}
	return first
}

func (d *damaged) ids(batches ...int) []RecordID {
	var ids []RecordID
	for i, r := range d.recs {
		if slices.Contains(batches, d.unit[i]) {
			ids = append(ids, RecordID{r.Kind, r.Incarnation, r.Epoch, r.Seq})
		}
	}
	return ids
}

var threeBatches = [][]int{{300, 200}, {100, 10000, 50}, {400, 6000, 30}}

// TestFlippedBit flips one bit in every block of every batch: in the middle it
// is a hole, in the last batch it is uncertain, and what can be named is named.
func TestFlippedBit(t *testing.T) {
	whole := newDamaged(t, threeBatches)
	for b := range threeBatches {
		for at := 0; at < whole.size[b]; at += blockSize {
			for _, in := range []int{0, 4, 9, 20, 37, 600, 4095} {
				d := *whole
				d.mem = whole.mem.Image(rand.New(rand.NewPCG(1, 1)), disk.KeepAll)
				d.opts = testOptions(t, d.mem)
				place := int(d.start[b].Offset) + at
				d.corrupt(t, d.start[b].Segment, func(data []byte) { data[place+in] ^= 4 })
				report := d.boot(t, func(batch int) bool { return batch == b })
				if len(report.Damage) != 1 || report.Torn != 0 {
					t.Fatalf("batch %d, byte %d+%d: %+v", b, at, in, report)
				}
				got := report.Damage[0]
				kind := Hole
				if b == len(threeBatches)-1 {
					kind = Uncertain
				}
				if got.Kind != kind || got.FirstBatch != uint64(b+1) || got.LastBatch != uint64(b+1) || got.Offset != d.start[b].Offset {
					t.Fatalf("batch %d, byte %d+%d: %v", b, at, in, got)
				}
				// Records whose frames are behind the bad block are named too,
				// if the frames before tell where; else anonymity is admitted.
				ids := d.ids(b)
				if at == 0 {
					ids = nil
				}
				for i, id := range got.Named {
					if i >= len(ids) || id != ids[i] {
						t.Fatalf("batch %d, byte %d+%d: named %v, lost are %v", b, at, in, got.Named, ids)
					}
				}
				if complete := len(got.Named) == len(d.ids(b)); complete == got.Anonymous {
					t.Fatalf("batch %d, byte %d+%d: %d of %d named, anonymous %v", b, at, in, len(got.Named), len(d.ids(b)), got.Anonymous)
				}
				if b == 1 && at == blockSize && got.Anonymous { // inside the large payload
					t.Fatalf("frames around a bad payload were not read: %v", got)
				}
			}
		}
	}
}

// TestTornTail zeroes each subset of the blocks of the last batch: a crash did
// that, and nothing is damaged. With one bad block that is not zero beside them
// it may have been acknowledged.
func TestTornTail(t *testing.T) {
	whole := newDamaged(t, threeBatches)
	last := len(threeBatches) - 1
	blocks := whole.size[last] / blockSize
	if blocks < 2 {
		t.Fatal("the last batch must have several blocks")
	}
	for set := 1; set < 1<<blocks; set++ {
		for _, rot := range []bool{false, true} {
			d := *whole
			d.mem = whole.mem.Image(rand.New(rand.NewPCG(1, 1)), disk.KeepAll)
			d.opts = testOptions(t, d.mem)
			if rot && set == 1<<blocks-1 {
				continue // no block left to rot
			}
			d.corrupt(t, d.start[last].Segment, func(data []byte) {
				for i := range blocks {
					block := data[int(d.start[last].Offset)+i*blockSize:][:blockSize]
					if set&(1<<i) != 0 {
						clear(block)
					} else if rot {
						block[2000] ^= 1
					}
				}
			})
			report := d.boot(t, func(b int) bool { return b == last })
			switch {
			case rot && (len(report.Damage) != 1 || report.Damage[0].Kind != Uncertain):
				t.Fatalf("zero blocks %b, the others bad: %+v", set, report)
			case !rot && (len(report.Damage) != 0 || report.Torn != 1 && set != 1<<blocks-1):
				t.Fatalf("zero blocks %b: %+v", set, report)
			}
		}
	}
}

// manyBatches span several segments.
func manyBatches() [][]int {
	var batches [][]int
	for range 12 {
		batches = append(batches, []int{20000})
	}
	return batches
}

// TestLostSegment: a whole segment is gone, or its blocks are all zero, or it is
// of garbage: a hole with the right numbers.
func TestLostSegment(t *testing.T) {
	whole := newDamaged(t, manyBatches())
	victim := uint32(2)
	in := func(b int) bool { return whole.start[b].Segment == victim }
	var first, last int
	for b := range whole.start {
		if in(b) {
			if last == 0 {
				first = b + 1
			}
			last = b + 1
		}
	}
	for name, breakIt := range map[string]func(d *damaged){
		"removed": func(d *damaged) {
			if err := d.mem.Remove(d.name(victim)); err != nil {
				t.Fatal(err)
			}
		},
		"zero":    func(d *damaged) { d.corrupt(t, victim, func(data []byte) { clear(data) }) },
		"batches": func(d *damaged) { d.corrupt(t, victim, func(data []byte) { clear(data[blockSize:]) }) },
		"garbage": func(d *damaged) {
			d.corrupt(t, victim, func(data []byte) {
				for i := range data {
					data[i] = byte(i * 7)
				}
			})
		},
		"short": func(d *damaged) {
			f, err := d.mem.OpenFile(d.name(victim), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Truncate(5000); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		},
		"misdirected": func(d *damaged) { // another segment's content under its name
			var other []byte
			d.corrupt(t, 3, func(data []byte) { other = bytes.Clone(data) })
			d.corrupt(t, victim, func(data []byte) { copy(data, other) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := *whole
			d.mem = whole.mem.Image(rand.New(rand.NewPCG(1, 1)), disk.KeepAll)
			d.opts = testOptions(t, d.mem)
			breakIt(&d)
			report := d.boot(t, in)
			var hole *Damage
			for i := range report.Damage {
				if report.Damage[i].Kind == Hole {
					hole = &report.Damage[i]
				}
			}
			if hole == nil || hole.FirstBatch != uint64(first) || hole.LastBatch != uint64(last) || !hole.Anonymous {
				t.Fatalf("lost are batches %d to %d: %+v", first, last, report)
			}
		})
	}
}

// TestRottenHeader: without its header a segment still gives all its records.
func TestRottenHeader(t *testing.T) {
	for segment := uint32(1); segment <= 3; segment++ {
		d := newDamaged(t, manyBatches())
		d.corrupt(t, segment, func(data []byte) { data[17] ^= 1 })
		report := d.boot(t, func(int) bool { return false })
		if len(report.Damage) != 1 || report.Damage[0].Kind != Header || report.Damage[0].Segment != segment {
			t.Fatalf("segment %d: %+v", segment, report)
		}
	}
}

// TestUnreadableBlock: a block the device cannot read is a bad block.
func TestUnreadableBlock(t *testing.T) {
	d := newDamaged(t, threeBatches)
	first := d.mem.Inject(disk.Fault{Ops: disk.OpRead, Path: "*.seg", Err: syscall.EIO, Times: 1})
	defer first()
	// Block by block then; 1 is the first batch.
	second := d.mem.Inject(disk.Fault{Ops: disk.OpRead, Path: "*.seg", Err: syscall.EIO, After: 2, Times: 1})
	defer second()
	l, recs, report := open(t, d.opts)
	closeLog(t, l)
	compare(t, recs, d.recs[2:])
	if len(report.Damage) != 1 || report.Damage[0].Kind != Hole || report.Damage[0].FirstBatch != 1 {
		t.Fatalf("%+v", report)
	}
}

// TestOrderlyCloseProvesTheLastBatch: after it, losing the last batch is a hole
// even where it left zeros.
func TestOrderlyCloseProvesTheLastBatch(t *testing.T) {
	mem := disk.NewMem()
	opts := testOptions(t, mem)
	l, _, _ := open(t, opts)
	if err := l.Append(record(0, 100), 0, nil); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	if err := mem.Corrupt("node/log/"+segmentName(1), func(data []byte) { clear(data[blockSize : 2*blockSize]) }); err != nil {
		t.Fatal(err)
	}
	l, recs, report := open(t, opts)
	closeLog(t, l)
	if len(recs) != 0 || len(report.Damage) != 1 || report.Damage[0].Kind != Hole {
		t.Fatalf("%+v", report)
	}
}

// TestDeadEndIsNoDamage: rot in the unused end of a segment that the same
// process followed with another one concerns nobody.
func TestDeadEndIsNoDamage(t *testing.T) {
	var batches [][]int
	for range 6 {
		batches = append(batches, []int{24000}) // two fill a segment but for three blocks
	}
	d := newDamaged(t, batches)
	d.corrupt(t, 1, func(data []byte) { data[len(data)-10] = 1 })
	if report := d.boot(t, func(int) bool { return false }); len(report.Damage) != 0 {
		t.Fatalf("%+v", report)
	}
}

// TestDroppedStaysDropped: a last batch that was dropped does not come back when
// its blocks turn out to be readable later, for another one has its number.
func TestDroppedStaysDropped(t *testing.T) {
	d := newDamaged(t, threeBatches)
	last := len(threeBatches) - 1
	flip := func(data []byte) { data[int(d.start[last].Offset)+100] ^= 1 }
	d.corrupt(t, d.start[last].Segment, flip)
	l, recs, _ := open(t, d.opts)
	want := append(d.recs[:len(recs):len(recs)], record(7000, 10))
	if err := appendWait(l, want[len(recs)], 0, nil); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	d.corrupt(t, d.start[last].Segment, flip)
	l, recs, report := open(t, d.opts)
	closeLog(t, l)
	compare(t, recs, want)
	for _, x := range report.Damage {
		if x.Kind != Uncertain {
			t.Fatal(x)
		}
	}
}

// TestHalfMadeSpare: a spare that got its header but not its name as a segment
// holds no batch, and is not used.
func TestHalfMadeSpare(t *testing.T) {
	mem := disk.NewMem()
	opts := testOptions(t, mem)
	l, _, _ := open(t, opts)
	waitForSpare(t, l)
	closeLog(t, l)
	entries, err := mem.ReadDir(opts.Dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	if err := mem.Corrupt(path.Join(opts.Dir, entries[0].Name), func(data []byte) {
		segmentHeader{id: 1, first: 1}.put(data[:blockSize], testStore)
		data[3*blockSize] = 1
	}); err != nil {
		t.Fatal(err)
	}
	l, _, _ = open(t, opts)
	if err := l.Append(record(0, 10), 0, nil); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	l, recs, report := open(t, opts)
	closeLog(t, l)
	if len(recs) != 1 || len(report.Damage) != 0 {
		t.Fatalf("%d records, %+v", len(recs), report)
	}
	if err := mem.Corrupt("node/log/"+segmentName(1), func(data []byte) {
		if !zero(data[3*blockSize:]) {
			t.Error("the segment was made from the spare with a header")
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// goldenSegment is a segment with every feature of the format, by the encoder.
func goldenSegment() []byte {
	data := make([]byte, 6*blockSize)
	seg := &segment{id: 42, seed: segmentSeed(testStore, 42)}
	segmentHeader{id: 42, first: 7, continues: true}.put(data[:blockSize], testStore)
	at, prev := blockSize, uint32(0xfeedface)
	for i, sizes := range [][]int{{0, 300}, {10, 5000, 20}, nil} {
		b := &batch{}
		b.reset(0)
		b.no, b.seg, b.off = uint64(7+i), seg, int64(at)
		total := 0
		for _, size := range sizes {
			total += recordLen + size
		}
		b.reserve(max(batchBytes(total), blockSize))
		for j, size := range sizes {
			r := record(uint64(10*i+j), size)
			b.add(&r, 0, nil)
		}
		prev = b.seal(uint64(6+i), prev)
		at += copy(data[at:], b.buf)
	}
	return data
}

// TestBrokenChain: a sound batch that is not the one the next batch was written
// after (an old copy of the block came back) is no sound batch.
func TestBrokenChain(t *testing.T) {
	data := goldenSegment()
	block := data[blockSize : 2*blockSize]
	block[batchHeaderLen+recordLen+recordLen+5] ^= 1
	be.PutUint32(block, crcUpdate(segmentSeed(testStore, 42), block[4:]))
	sc := &scanner{store: testStore, replay: func(Record, Loc) error { return nil }}
	if _, err := sc.segment(42, data, successor{}); err != nil {
		t.Fatal(err)
	}
	if len(sc.report.Damage) != 1 || sc.report.Damage[0].Kind != Hole || sc.report.Damage[0].FirstBatch != 7 || !sc.report.Damage[0].Anonymous {
		t.Fatalf("%+v", sc.report)
	}
}

// TestGolden fixes the format: old logs must be readable for ever, and new
// writers must write the same.
func TestGolden(t *testing.T) {
	const file = "testdata/segment-v1.golden"
	if *update {
		if err := os.WriteFile(file, goldenSegment(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(golden, goldenSegment()) {
		t.Error("the encoder does not write the format of version 1")
	}
	var want, recs []Record
	for i, sizes := range [][]int{{0, 300}, {10, 5000, 20}} {
		for j, size := range sizes {
			want = append(want, record(uint64(10*i+j), size))
		}
	}
	sc := &scanner{store: testStore, replay: func(r Record, _ Loc) error {
		r.Payload = bytes.Clone(r.Payload)
		recs = append(recs, r)
		return nil
	}}
	used, err := sc.segment(42, golden, successor{})
	if err != nil || used != 5*blockSize || sc.next != 10 || len(sc.report.Damage) != 0 || len(recs) != len(want) {
		t.Fatalf("used %d, next %d, %d records, %+v, %v", used, sc.next, len(recs), sc.report, err)
	}
	for i := range want {
		if !same(recs[i], want[i]) {
			t.Errorf("record %d differs", i)
		}
	}
}

// FuzzSegment feeds the scanner segments with changed bytes. With resign the
// CRCs of all blocks are made right again, so that what lies behind them is
// reached too. Whatever comes: no panic, records in bounds, and a second scan of
// the part to keep gives the same.
func FuzzSegment(f *testing.F) {
	golden := goldenSegment()
	f.Add([]byte{}, true, uint64(0))
	f.Add([]byte{0, 4096 >> 8, 1, 9}, false, uint64(9))
	f.Add([]byte{0, 0x10, 28, 255, 0, 0x20, 5, 1}, true, uint64(8))
	f.Fuzz(func(t *testing.T, edits []byte, resign bool, limit uint64) {
		data := bytes.Clone(golden)
		for ; len(edits) >= 4; edits = edits[4:] {
			at := int(edits[0])<<16 | int(edits[1])<<8 | int(edits[2])
			data[at%len(data)] = edits[3]
		}
		if resign {
			seed := segmentSeed(testStore, 42)
			be.PutUint32(data[blockSize-4:], crcUpdate(0, data[:blockSize-4]))
			var body uint32
			for at := len(data) - blockSize; at > 0; at -= blockSize {
				block := data[at : at+blockSize]
				if block[4] == blockFirst {
					be.PutUint32(block[36:], body)
					body = 0
				}
				be.PutUint32(block, crcUpdate(seed, block[4:]))
				if block[4] == blockNext {
					body = crcUpdate(body, block[:4]) // right for one following block
				}
			}
		}
		scan := func(data []byte) (*scanner, int, int, error) {
			n := 0
			sc := &scanner{store: testStore}
			sc.replay = func(r Record, loc Loc) error {
				n++
				if len(r.Payload) > len(data) || int(loc.Len) != len(r.Payload) || int(loc.Offset) >= len(data) {
					t.Fatalf("record of %d bytes at %v", len(r.Payload), loc)
				}
				return nil
			}
			used, err := sc.segment(42, data, successor{first: limit})
			return sc, used, n, err
		}
		sc, used, n, err := scan(data)
		if used < 0 || used > len(data) {
			t.Fatalf("keep %d of %d bytes", used, len(data))
		}
		if err != nil {
			return
		}
		again, _, m, err := scan(data[:used])
		if err != nil || n != m || again.next != sc.next {
			t.Fatalf("%d records and batch %d, in the part to keep %d and %d, %v", n, sc.next, m, again.next, err)
		}
	})
}
