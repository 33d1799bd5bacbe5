package limits

import (
	"context"
	"crypto/rand"
	"sync"

	"github.com/facetd/facetd/bench"
)

// sync measures how many callers get a value on disk per second when they share
// fdatasyncs as well as they can, and what a single writer gets.
func (cfg *Config) sync(ctx context.Context, l *bench.Limits) (err error) {
	f, err := newSyncFile(cfg.Dir, logBytes, cfg.Callers*(cfg.ValueSize+64))
	if err != nil {
		return err
	}
	defer f.close()
	if l.FsyncSingle, err = cfg.rate(ctx, 1, func(int) error { return f.write(block) }); err != nil {
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
			err := f.write(len(batch) * (cfg.ValueSize + 64))
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

// randomBlocks gives n random bytes, in whole blocks.
func randomBlocks(n int) []byte {
	buf := make([]byte, (n/block+1)*block)
	rand.Read(buf) // never fails
	return buf
}
