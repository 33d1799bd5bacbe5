package commitlog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/facetd/facetd/internal/disk"
)

// Open reads the log in opts.Dir, which it makes if need be, and calls replay
// for every sound record in the order of the log; the payload is valid during
// the call only. An error of replay ends Open. The report says what a crash cut
// off and what is corrupt; corruption is no error of Open (rule R14: the log
// goes on, the caller rebuilds those facets).
//
// When Open returns, all that was replayed is durable, and the log takes
// records.
func Open(opts Options, replay func(rec Record, loc Loc) error) (*Log, Report, error) {
	if err := opts.validate(); err != nil {
		return nil, Report{}, err
	}
	l := &Log{opts: opts, kick: make(chan struct{}, 1), freed: make(chan struct{}, 1), quit: make(chan struct{})}
	l.files.fsys, l.files.dir = opts.FS, opts.Dir
	l.toWrite.L = &l.mu
	l.closeErr = sync.OnceValue(l.closeFiles)
	l.stats.opened = time.Now()
	report, err := l.recover(replay)
	if err != nil {
		return nil, report, fmt.Errorf("open commit log %s: %w", opts.Dir, errors.Join(err, l.closeErr()))
	}
	opts.Logger.Info("commit log opened", "dir", opts.Dir, "segments", report.Segments, "batches", report.Batches,
		"records", report.Records, "torn", report.Torn, "damage", len(report.Damage), "next_batch", l.nextNo, "took", time.Since(l.stats.opened))
	for _, d := range report.Damage {
		opts.Logger.Error("commit log is damaged", "dir", opts.Dir, "damage", d.String())
	}
	l.wg.Add(3)
	go l.work()
	go l.work()
	go l.allocator()
	return l, report, nil
}

func (l *Log) recover(replay func(Record, Loc) error) (Report, error) {
	fsys := l.opts.FS
	if err := disk.MkdirAllSync(fsys, l.opts.Dir, 0o700); err != nil {
		return Report{}, err
	}
	segs, spares, err := l.list()
	if err != nil {
		return Report{}, err
	}
	// A killed process may have left names and the last batch in the cache
	// only. What is replayed counts as durable from now on, so it must be.
	if err := fsys.SyncDir(l.opts.Dir); err != nil {
		return Report{}, err
	}
	if len(segs) > 0 {
		if err := l.syncSegment(segs[len(segs)-1].id); err != nil {
			return Report{}, err
		}
	}
	sc := &scanner{store: l.opts.Store, replay: replay}
	if err := l.scan(sc, segs); err != nil {
		return sc.report, err
	}
	l.nextNo = max(sc.next, 1)
	l.known = l.nextNo - 1
	if sc.prevKnown {
		l.prev = sc.prev
	}
	for _, s := range segs {
		l.lastID = s.id
		l.files.add(s)
	}
	return sc.report, l.prepareSpares(spares)
}

// list reads the directory and removes what a crash left unfinished.
func (l *Log) list() (segs []*segment, spares []uint32, err error) {
	entries, err := l.opts.FS.ReadDir(l.opts.Dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if id, ok := parseName(e.Name, "", ".seg"); ok {
			if e.Size > maxSegmentBytes {
				return nil, nil, fmt.Errorf("segment %d is %d bytes long, limit %d", id, e.Size, maxSegmentBytes)
			}
			segs = append(segs, &segment{id: id, size: e.Size, seed: segmentSeed(l.opts.Store, id)})
		} else if n, ok := parseName(e.Name, "spare-", ""); ok {
			spares = append(spares, n)
			l.spareNo = max(l.spareNo, n)
		} else if e.Name == spareTmp {
			if err := l.opts.FS.Remove(path.Join(l.opts.Dir, e.Name)); err != nil {
				return nil, nil, err
			}
		} else if !strings.HasPrefix(e.Name, ".") {
			l.opts.Logger.Warn("commit log directory holds a file that is not its own", "dir", l.opts.Dir, "file", e.Name)
		}
	}
	slices.SortFunc(segs, func(a, b *segment) int { return int(int64(a.id) - int64(b.id)) })
	return segs, spares, nil
}

func (l *Log) syncSegment(id uint32) error {
	f, err := l.opts.FS.OpenFile(l.files.path(id), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Datasync(), f.Close())
}

// scan reads every segment around the page cache and cuts unused ends off.
func (l *Log) scan(sc *scanner, segs []*segment) error {
	var largest int64
	for _, s := range segs {
		largest = max(largest, s.size)
	}
	buf := disk.AlignedBuffer(int(largest+blockSize-1) / blockSize * blockSize)
	for i, s := range segs {
		var after successor
		if i+1 < len(segs) {
			var err error
			if after, err = l.successor(sc, segs[i+1], buf); err != nil {
				return err
			}
		}
		data, err := l.readSegment(s.id, buf[:(s.size+blockSize-1)/blockSize*blockSize])
		if err != nil {
			return fmt.Errorf("read segment %d: %w", s.id, err)
		}
		damage := len(sc.report.Damage)
		used, err := sc.segment(s.id, data, after)
		if err != nil {
			return err
		}
		if len(sc.report.Damage) == damage {
			s.fsynced.Store(int64(used))
		}
		if s.size-int64(used) > truncateSlack {
			if err := l.truncate(s, int64(used)); err != nil {
				return fmt.Errorf("cut unused end of segment %d: %w", s.id, err)
			}
		}
	}
	return nil
}

// successor reads the header of a segment for the sake of the one before it.
func (l *Log) successor(sc *scanner, s *segment, buf []byte) (successor, error) {
	data, err := l.readSegment(s.id, buf[:min(s.size/blockSize, 1)*blockSize])
	if err == nil {
		var h segmentHeader
		var sound bool
		if h, sound, err = decodeSegmentHeader(data, sc.store, s.id); sound {
			return successor{h.first, h.continues}, nil
		}
	}
	if err == nil { // no header: its first sound batch tells as much
		if data, err = l.readSegment(s.id, buf[:s.size/blockSize*blockSize]); err == nil {
			var h segmentHeader
			if h, _, err = sc.firstBatch(s.id, data); err == nil {
				return successor{first: h.first}, nil
			}
		}
	}
	return successor{}, fmt.Errorf("read segment %d: %w", s.id, err)
}

// readSegment fills buf, a multiple of the block size, from the device. A block
// the device cannot read is a bad block, not the end of the log.
func (l *Log) readSegment(id uint32, buf []byte) ([]byte, error) {
	f, err := l.opts.FS.OpenFile(l.files.path(id), os.O_RDONLY|disk.Direct, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // opened for reading: nothing can be lost by closing it
	n, err := readDirect(f, buf, 0)
	if errors.Is(err, syscall.EIO) {
		for n = 0; n < len(buf); n += blockSize {
			block := buf[n : n+blockSize]
			if _, err = readDirect(f, block, int64(n)); errors.Is(err, syscall.EIO) {
				for i := range block {
					block[i] = 0xbd // neither zero nor sound
				}
			} else if err != nil {
				return nil, err
			}
		}
		err = nil
	}
	return buf[:n], err
}

// readDirect reads until buf is full or the file ends.
func readDirect(f disk.File, buf []byte, off int64) (int, error) {
	n := 0
	for n < len(buf) {
		// After a short read the rest is read again from a whole block on.
		n = n / blockSize * blockSize
		k, err := f.ReadAt(buf[n:], off+int64(n))
		n += k
		if err == io.EOF {
			break
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// truncate gives back the zeroed space a former process did not need. What was
// dropped as torn goes too: the next boot would judge it the same.
func (l *Log) truncate(s *segment, size int64) error {
	f, err := l.opts.FS.OpenFile(l.files.path(s.id), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err = f.Truncate(size); err == nil {
		err = f.Datasync()
	}
	s.size = size
	return errors.Join(err, f.Close())
}

// prepareSpares takes over the spares of a former process and makes the first
// one if there is none.
func (l *Log) prepareSpares(numbers []uint32) error {
	for _, n := range numbers {
		if err := l.adoptSpare(path.Join(l.opts.Dir, spareName(n))); err != nil {
			return fmt.Errorf("take over spare %d: %w", n, err)
		}
	}
	if len(l.spares) > 0 {
		return nil
	}
	first := min(firstSegmentBytes, l.opts.SegmentBytes)
	err := l.makeSpare(first, l.opts.LowWaterBytes)
	if full := (*FullError)(nil); errors.As(err, &full) {
		l.setFull(full)
		if err = l.makeSpare(l.opts.ReserveBytes+blockSize, 0); errors.Is(err, ErrFull) {
			err = nil // a log that can be read is better than none
		}
	}
	return err
}

// adoptSpare keeps a spare whose first block is zero. One with a header was
// about to become a segment when its process ended; no batch is in it.
func (l *Log) adoptSpare(name string) error {
	fsys := l.opts.FS
	size, err := fsys.Stat(name)
	if err != nil {
		return err
	}
	if len(l.spares) == maxSpares || size < minSegmentBytes/4+2*blockSize || size > maxSegmentBytes || size%blockSize != 0 {
		return fsys.Remove(name)
	}
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	block := make([]byte, blockSize)
	if _, err := f.ReadAt(block, 0); err != nil || !zero(block) {
		return errors.Join(err, f.Close(), fsys.Remove(name))
	}
	l.spares = append(l.spares, &segment{spare: name, size: size, planned: blockSize, file: f})
	return nil
}
