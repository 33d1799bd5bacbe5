package limits

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/facetd/facetd/bench"
	"github.com/facetd/facetd/internal/disk"
)

const (
	// refBytes is the size of the file of a Reference: enough for a second of
	// fdatasyncs one after the other.
	refBytes = 32 << 20

	// maxTimes bounds how many times of one kind are kept for their median.
	maxTimes = 100_000
)

// Reference measures the parts of the shortest way of a durable write: framed round
// trips to two nodes and an fdatasync. It implements bench.Yardstick.
type Reference struct {
	cfg   Config
	nodes []*pinger // at most an owner and a replica
	disk  *syncFile
	times [3][]time.Duration // of all calls of Measure: owner, replica, disk
}

// NewReference prepares the measurements: connections to the first two endpoints,
// or to the only one, and a file in cfg.Dir. Of cfg, Token, Dir, ValueSize and
// Duration are used; the latter is the time of one part of one Measure.
func NewReference(ctx context.Context, cfg Config, endpoints []string) (_ *Reference, err error) {
	if cfg.ValueSize < 1 || len(endpoints) == 0 {
		return nil, errors.New("value size and endpoints are required")
	}
	r := &Reference{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	for _, at := range endpoints[:min(2, len(endpoints))] {
		p, err := newPinger(ctx, at, cfg.Token, 1, cfg.ValueSize)
		if err != nil {
			return nil, fmt.Errorf("echo of %s: %w", at, err)
		}
		r.nodes = append(r.nodes, p)
	}
	r.disk, err = newSyncFile(cfg.Dir, refBytes, block)
	return r, err
}

// Measure implements bench.Yardstick.
func (r *Reference) Measure(ctx context.Context) (out bench.Reference, err error) {
	for i, to := range []*float64{&out.Owner, &out.Replica} {
		if i < len(r.nodes) {
			if *to, err = r.median(ctx, &r.times[i], func() error { return r.nodes[i].ping(0) }); err != nil {
				return out, err
			}
		}
	}
	out.Fsync, err = r.median(ctx, &r.times[2], func() error { return r.disk.write(block) })
	return out, err
}

// median has do called again and again, adds its times to all, and gives their
// median in microseconds.
func (r *Reference) median(ctx context.Context, all *[]time.Duration, do func() error) (float64, error) {
	times := *all
	deadline := time.Now().Add(r.cfg.Duration)
	for len(times) == 0 || len(times) < maxTimes && time.Now().Before(deadline) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		begin := time.Now()
		if err := do(); err != nil {
			return 0, err
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	*all = times
	return float64(times[len(times)/2].Nanoseconds()) / 1e3, nil
}

// Close implements bench.Yardstick.
func (r *Reference) Close() error {
	for _, p := range r.nodes {
		p.close()
	}
	var err error
	if r.disk != nil {
		err = r.disk.close()
	}
	return errors.Join(err, os.RemoveAll(r.cfg.Dir))
}

// syncFile is a file that was written once before, as the segments of the commit
// log are, and is written and synced from its beginning to its end and over again.
// One goroutine uses it.
type syncFile struct {
	f    disk.File
	size int64
	off  int64
	buf  []byte
}

// newSyncFile makes a file of a size in dir for writes of at most n bytes.
func newSyncFile(dir string, size int64, n int) (*syncFile, error) {
	f, err := disk.OS(dir).OpenFile("fdatasync", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, err
	}
	s := &syncFile{f: f, size: size, buf: randomBlocks(n)}
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < size && err == nil; off += int64(len(zeros)) {
		_, err = f.WriteAt(zeros, off)
	}
	if err == nil {
		err = f.Datasync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// write writes n bytes, in whole blocks, and syncs them.
func (s *syncFile) write(n int) error {
	n = (n + block - 1) / block * block
	if s.off+int64(n) > s.size {
		s.off = 0
	}
	if _, err := s.f.WriteAt(s.buf[:min(n, len(s.buf))], s.off); err != nil {
		return err
	}
	s.off += int64(n)
	return s.f.Datasync()
}

func (s *syncFile) close() error { return s.f.Close() }
