package commitlog

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"time"

	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/internal/disk"
)

// room is the log space that exists and is not planned for; mu is held.
func (l *Log) room() int64 {
	var n int64
	if l.plan != nil {
		n = l.plan.room()
	}
	for _, s := range l.spares {
		n += s.room()
	}
	return n
}

// admit says whether a batch of n record bytes could be placed; mu is held.
func (l *Log) admit(n int, reserve bool) error {
	if err := l.admitPending(n); err != nil {
		return err
	}
	_, err := l.choose(int64(batchBytes(n)), reserve)
	return err
}

func (l *Log) admitPending(n int) error {
	if err := l.stateErr(); err != nil {
		return err
	}
	if l.pendingBytes > 0 && l.pendingBytes+int64(n) > l.opts.PendingBytes {
		return ErrBusy
	}
	return nil
}

// choose finds the segment for a new batch of size bytes: the planned one or a
// spare. Ordinary records leave the reserve alone (rule R15).
func (l *Log) choose(size int64, reserve bool) (*segment, error) {
	room := l.room()
	var s *segment
	if l.plan != nil && size <= l.plan.room() {
		s = l.plan
	} else {
		if l.plan != nil {
			room -= l.plan.room() // given up
		}
		for _, spare := range l.spares {
			if size <= spare.room() {
				s = spare
				break
			}
		}
	}
	if s != nil && (reserve || room-size >= l.opts.ReserveBytes || broken.Is(broken.NoReserve)) {
		return s, nil
	}
	// A spare of this size would do, whatever else there is.
	l.needed = max(l.needed, size+blockSize+l.opts.ReserveBytes)
	wake(l.kick)
	if l.full != nil {
		return nil, l.full
	}
	return nil, ErrBusy
}

// place returns a batch with room for n more record bytes; mu is held.
func (l *Log) place(n int, reserve bool) (*batch, error) {
	if err := l.admitPending(n); err != nil {
		return nil, err
	}
	if k := len(l.queue); k > 0 && !l.queue[k-1].sealed {
		b := l.queue[k-1]
		size := int64(batchBytes(b.stream + n))
		more := size - b.bytes()
		if size <= maxBatch && more <= l.plan.room() && (reserve || more == 0 || l.room()-more >= l.opts.ReserveBytes || broken.Is(broken.NoReserve)) {
			b.reserve(int(size))
			l.plan.planned += more
			return b, nil
		}
	}
	var b *batch
	if k := len(l.free); k > 0 {
		b, l.free = l.free[k-1], l.free[:k-1]
	} else {
		b = new(batch)
	}
	b.reset(n)
	if err := l.placeBatch(b, n, reserve); err != nil {
		l.recycle(b)
		return nil, err
	}
	return b, nil
}

// placeBatch gives b, which has or will have n record bytes, its number and its
// place, and queues it; mu is held.
func (l *Log) placeBatch(b *batch, n int, reserve bool) error {
	if err := l.admitPending(n); err != nil {
		return err
	}
	size := int64(batchBytes(n))
	s, err := l.choose(size, reserve)
	if err != nil {
		return err
	}
	if s != l.plan {
		l.spares = slices.DeleteFunc(l.spares, func(x *segment) bool { return x == s })
		l.lastID++
		s.id, s.first, s.seed = l.lastID, l.nextNo, segmentSeed(l.opts.Store, l.lastID)
		l.plan = s
		l.unborn = append(l.unborn, s)
		wake(l.kick)
	}
	if k := len(l.queue); k > 0 {
		l.queue[k-1].sealed = true
	}
	b.no, b.seg, b.off = l.nextNo, s, s.planned
	l.nextNo++
	s.planned += size
	l.queue = append(l.queue, b)
	return nil
}

// recycle keeps a batch for re-use; mu is held.
func (l *Log) recycle(b *batch) {
	clear(b.entries) // holds no Waiter longer than needed
	if len(l.free) < maxFreeBatches && cap(b.buf) <= maxBatch {
		l.free = append(l.free, b)
	}
}

// Trim gives the buffers back that are kept for re-use. It may be called at any time.
func (l *Log) Trim() {
	l.mu.Lock()
	l.free = nil
	l.mu.Unlock()
}

// wake sends to a channel of capacity one that the allocator reads.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// want is the size of the spare to make next, 0 if there is enough; mu is held.
// Spares must be ready for as much as the segment that fills holds, and several times
// that while segments grow to their size: while one fills, the next is made. And one
// must be large enough for what has been refused.
func (l *Log) want() int64 {
	var ready int64
	size := l.opts.SegmentBytes
	if l.plan != nil {
		size = min(size, growSegments*l.plan.size)
	} else if l.lastID == 0 {
		size = min(size, growSegments*firstSegmentBytes)
	}
	size = max(size, min(l.opts.SegmentBytes, l.opts.ReserveBytes+blockSize))
	for _, s := range l.spares {
		ready += s.size
		if s.size >= l.needed {
			l.needed = 0
		}
	}
	if l.needed == 0 && ready >= size {
		return 0
	}
	return max(size, l.needed)
}

// allocator keeps spares ready until the log closes.
func (l *Log) allocator() {
	defer l.wg.Done()
	retry := retryMin
	timer := time.NewTimer(retryMax)
	defer timer.Stop()
	for {
		l.mu.Lock()
		size, over := l.want(), l.stateErr() != nil
		l.mu.Unlock()
		if over {
			return
		}
		if size == 0 {
			retry = retryMin
			select {
			case <-l.kick:
			case <-l.quit:
				return
			}
			continue
		}
		if l.provide(size) {
			retry = retryMin
			continue
		}
		timer.Reset(retry)
		retry = min(2*retry, retryMax)
		select {
		case <-l.freed:
		case <-timer.C:
		case <-l.quit:
			return
		}
	}
}

// provide makes a spare of size bytes, or, when that would leave too little of
// the disk, one that holds the reserve. It reports whether the log has got what
// it asked for.
func (l *Log) provide(size int64) bool {
	err := l.makeSpare(size, l.opts.LowWaterBytes)
	var full *FullError
	if errors.As(err, &full) {
		l.setFull(full)
		l.mu.Lock()
		short := l.room() < l.opts.ReserveBytes
		l.mu.Unlock()
		if short {
			err = l.makeSpare(l.opts.ReserveBytes+blockSize, 0)
		}
		if err == nil || errors.As(err, &full) {
			return false
		}
	}
	switch {
	case err == nil:
		l.setFull(nil)
		return true
	case !errors.Is(err, ErrClosed):
		l.fail(fmt.Errorf("make a segment: %w", err))
	}
	return false
}

// setFull changes what ordinary records are told.
func (l *Log) setFull(full *FullError) {
	l.mu.Lock()
	was := l.full
	l.full = full
	l.broadcast()
	l.mu.Unlock()
	switch {
	case was == nil && full != nil:
		l.opts.Logger.Warn("commit log refuses new commits: disk is full", "dir", l.opts.Dir, "free_bytes", full.Free, "needed_bytes", full.Needed)
	case was != nil && full == nil:
		l.opts.Logger.Info("commit log takes commits again", "dir", l.opts.Dir)
	}
}

// makeSpare makes a file of synced zeros and adds it to the spares. It returns
// a *FullError when that would leave less than keep bytes free, ErrClosed when
// the log closes meanwhile.
func (l *Log) makeSpare(size, keep int64) error {
	fsys := l.opts.FS
	free, err := fsys.Free()
	if err != nil {
		return fmt.Errorf("ask for free space: %w", err)
	}
	full := &FullError{Free: free, Needed: size + keep}
	if free < full.Needed {
		return full
	}
	// Spares planned for keep their names until the writer gets to them, so
	// numbers only grow.
	l.spareNo++
	final := path.Join(l.opts.Dir, spareName(l.spareNo))
	tmp := path.Join(l.opts.Dir, spareTmp)
	f, err := fsys.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		if err = l.zeroFill(f, size); err == nil {
			err = fsys.Rename(tmp, final)
		}
		if err != nil {
			_ = f.Close() // its content is worthless
			if disk.IsFull(err) || errors.Is(err, ErrClosed) {
				if e := fsys.Remove(tmp); e != nil {
					return errors.Join(err, e)
				}
			}
		}
	}
	switch {
	case err == nil:
	case disk.IsFull(err):
		return full
	default:
		return err
	}
	// Zeros were synced before the name was given; that the name is durable
	// matters only when it becomes a segment's.
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spares = append(l.spares, &segment{spare: final, size: size, planned: blockSize, file: f})
	l.broadcast()
	return nil
}

// zeroFill writes the zeros for real: overwriting them later changes no metadata
// of the file system, and fdatasync has only data to write. Commits share the disk, so
// it rests between pieces, as long as it is ahead of them.
func (l *Log) zeroFill(f disk.File, size int64) error {
	if err := f.Allocate(size); err != nil {
		return err
	}
	zeros := make([]byte, min(zeroChunk, size))
	for at := int64(0); ; {
		began := time.Now()
		n := min(int64(len(zeros)), size-at)
		if _, err := f.WriteAt(zeros[:n], at); err != nil {
			return err
		}
		l.stats.zeroed.Add(uint64(n))
		if err := f.Datasync(); err != nil {
			return err
		}
		if at += n; at == size {
			return nil
		}
		if err := l.rest(time.Since(began), at, size); err != nil {
			return err
		}
	}
}

// rest pauses after a piece of zeros that took some time, so that filling a segment
// takes a small part of the disk's time. There is no pause where the log is used up
// faster than its next segment gets ready, or a record waits for it.
func (l *Log) rest(took time.Duration, filled, size int64) error {
	l.mu.Lock()
	var pause time.Duration
	if p := l.plan; p != nil && l.needed == 0 && float64(filled)*float64(p.size) > float64(size)*float64(p.planned) {
		pause = min(zeroRest*took, zeroRestMax)
	}
	l.mu.Unlock()
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-l.quit:
		return ErrClosed
	}
}
