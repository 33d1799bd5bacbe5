package limits

import (
	"context"
	"crypto/rand"
	"os"
	"sync"

	"github.com/facetd/facetd/bench"
	"github.com/facetd/facetd/internal/disk"
)

// sync measures how many callers get a value on disk per second when they share
// fdatasyncs as well as they can, and what a single writer gets. The file is
// written once before, as the segments of the commit log are.
func (cfg *Config) sync(ctx context.Context, l *bench.Limits) (err error) {
	f, err := disk.OS(cfg.Dir).OpenFile("fdatasync", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < logBytes; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, off); err != nil {
			return err
		}
	}
	if err := f.Datasync(); err != nil {
		return err
	}
	buf := make([]byte, (cfg.Callers*(cfg.ValueSize+64)/block+1)*block)
	rand.Read(buf)
	var off int64
	write := func(n int) error {
		n = (n + block - 1) / block * block
		if off+int64(n) > logBytes {
			off = 0
		}
		if _, err := f.WriteAt(buf[:min(n, len(buf))], off); err != nil {
			return err
		}
		off += int64(n)
		return f.Datasync()
	}
	if l.FsyncSingle, err = cfg.rate(ctx, 1, func(int) error { return write(block) }); err != nil {
		return err
	}

	// One syncer takes everybody who waits; a caller adds what a commit of one row
	// costs in the log.
	type wish struct{ done chan error }
	wishes := make(chan wish, cfg.Callers)
	calls := 0
	var wg sync.WaitGroup
	wg.Go(func() {
		var batch []wish
		for first := range wishes {
			batch = append(batch[:0], first)
			for more := true; more; {
				select {
				case w, ok := <-wishes:
					if more = ok; ok {
						batch = append(batch, w)
					}
				default:
					more = false
				}
			}
			err := write(len(batch) * (cfg.ValueSize + 64))
			calls++
			for _, w := range batch {
				w.done <- err
			}
		}
	})
	done := make([]chan error, cfg.Callers)
	for i := range done {
		done[i] = make(chan error, 1)
	}
	if _, err = loop(ctx, cfg.Callers, min(warmUp, cfg.Duration), func(c int) error {
		wishes <- wish{done[c]}
		return <-done[c]
	}); err == nil {
		before := calls // nobody writes: every caller has its answer
		l.Fsync, err = loop(ctx, cfg.Callers, cfg.Duration, func(c int) error {
			wishes <- wish{done[c]}
			return <-done[c]
		})
		close(wishes)
		wg.Wait()
		l.FsyncCalls = float64(calls-before) / cfg.Duration.Seconds()
		return err
	}
	close(wishes)
	wg.Wait()
	return err
}
