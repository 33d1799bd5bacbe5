package commitlog

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facetd/facetd/internal/disk"
)

// BenchmarkAppend appends 300-byte records and waits for each, on a real disk
// (TMPDIR decides which). Compare BenchmarkDatasync: what the disk gives to one
// writer that does nothing else.
func BenchmarkAppend(b *testing.B) {
	for _, appenders := range []int{1, 64} {
		b.Run(fmt.Sprintf("appenders=%d", appenders), func(b *testing.B) {
			opts := testOptions(b, disk.OS(b.TempDir()))
			opts.SegmentBytes, opts.ReserveBytes, opts.PendingBytes = 0, 0, 0
			l, _, _ := open(b, opts)
			defer closeLog(b, l)
			waitForSpare(b, l)
			rec := record(1, 300)
			var left atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			left.Store(int64(b.N))
			done := make(chan struct{})
			for range appenders {
				go func() {
					w := signal{make(chan struct{}, 1)}
					for left.Add(-1) >= 0 {
						if err := appendWait(l, rec, 1, w); err != nil {
							b.Error(err)
							break
						}
						<-w.c
					}
					done <- struct{}{}
				}()
			}
			for range appenders {
				<-done
			}
			b.StopTimer()
			st := l.Stats()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(st.Bytes)/b.Elapsed().Seconds()/1e6, "MB/s")
			b.ReportMetric(float64(st.Records)/float64(st.Batches), "records/batch")
		})
	}
}

// BenchmarkAppendOnly is the cost of Append alone: nobody waits for durability.
func BenchmarkAppendOnly(b *testing.B) {
	opts := testOptions(b, disk.OS(b.TempDir()))
	opts.SegmentBytes, opts.ReserveBytes, opts.PendingBytes = 0, 0, 0
	l, _, _ := open(b, opts)
	defer closeLog(b, l)
	waitForSpare(b, l)
	rec := record(1, 300)
	b.ReportAllocs()
	b.SetBytes(300)
	for b.Loop() {
		if err := appendWait(l, rec, 1, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDatasync is the floor: pwrite and fdatasync into a zeroed file.
func BenchmarkDatasync(b *testing.B) {
	for _, size := range []int{4 << 10, 16 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			fsys := disk.OS(b.TempDir())
			f, err := fsys.OpenFile("f", os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			const length = 64 << 20
			zeros := make([]byte, length)
			if _, err := f.WriteAt(zeros, 0); err != nil {
				b.Fatal(err)
			}
			if err := f.Datasync(); err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, size)
			for i := range buf {
				buf[i] = byte(i)
			}
			at := int64(0)
			b.SetBytes(int64(size))
			b.ResetTimer()
			start := time.Now()
			for range b.N {
				if _, err := f.WriteAt(buf, at%length); err != nil {
					b.Fatal(err)
				}
				if err := f.Datasync(); err != nil {
					b.Fatal(err)
				}
				at += int64(size)
			}
			b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "syncs/s")
		})
	}
}

// BenchmarkOpen replays a segment's worth of records.
func BenchmarkOpen(b *testing.B) {
	opts := testOptions(b, disk.OS(b.TempDir()))
	opts.SegmentBytes, opts.ReserveBytes, opts.PendingBytes = 0, 0, 0
	l, _, _ := open(b, opts)
	rec := record(1, 300)
	for range 180_000 {
		if err := appendWait(l, rec, 1, nil); err != nil {
			b.Fatal(err)
		}
	}
	closeLog(b, l)
	var bytes int64
	for b.Loop() {
		l, report, err := Open(opts, func(Record, Loc) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		bytes = report.Bytes
		closeLog(b, l)
	}
	b.SetBytes(bytes)
}
