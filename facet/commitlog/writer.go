package commitlog

import (
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/facetd/facetd/internal/broken"
)

// work is one of the log's two workers. Each writes and syncs a batch and then
// tells its Waiters, while the other one writes the next: nobody has to be woken
// for what is at hand, so a batch that nobody follows costs one wakeup, not two.
//
// Invariant (rule R9): one worker writes at a time and one tells at a time, each
// in the order of the batches.
func (l *Log) work() {
	defer l.wg.Done()
	for {
		// Let everybody who is ready to run append first: on a busy machine that
		// makes batches larger and fsyncs fewer, on an idle one nobody is ready and
		// it costs nothing.
		runtime.Gosched()
		b := l.next()
		if b == nil {
			return
		}
		if err := l.write(b); err != nil && !broken.Is(broken.DiskErrorPasses) {
			l.fail(err)
			return
		}
		l.written(b)
	}
}

// next waits for a batch and takes the turn to write. It is nil when there will
// be no more.
func (l *Log) next() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.failed == nil && (l.writing || len(l.queue) == 0 && !l.closing) {
		l.toWrite.Wait()
	}
	if l.failed != nil {
		return nil
	}
	if len(l.queue) == 0 {
		if !l.marked && l.active != nil {
			l.marked = true
			l.mu.Unlock()
			l.writeMarker()
			l.mu.Lock()
		}
		return nil
	}
	l.writing = true
	b := l.queue[0]
	copy(l.queue, l.queue[1:])
	l.queue[len(l.queue)-1] = nil
	l.queue = l.queue[:len(l.queue)-1]
	b.sealed = true
	return b
}

// written gives the turn to write back and tells the Waiters of b, unless the
// other worker tells, who then tells these too.
func (l *Log) written(b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writing = false
	l.done = append(l.done, b)
	if len(l.queue) > 0 || l.closing {
		l.toWrite.Signal()
	}
	if l.telling {
		return
	}
	l.telling = true
	for len(l.done) > 0 && l.failed == nil {
		b := l.done[0]
		copy(l.done, l.done[1:])
		l.done[len(l.done)-1] = nil
		l.done = l.done[:len(l.done)-1]
		l.mu.Unlock()

		l.tell(b)

		l.mu.Lock()
		l.pendingBytes -= int64(b.stream)
		l.pendingRecords -= int64(len(b.entries))
		l.notified += uint64(len(b.entries))
		l.recycle(b)
		l.broadcast()
	}
	l.telling = false
}

// write makes one batch durable: one write, one fdatasync.
func (l *Log) write(b *batch) error {
	if b.seg != l.active {
		if err := l.activate(b.seg); err != nil {
			return fmt.Errorf("begin segment %d: %w", b.seg.id, err)
		}
	}
	crc := b.seal(l.known, l.prev)
	start := time.Now()
	l.stats.begin(start)
	_, err := b.seg.file.WriteAt(b.buf, b.off)
	if err == nil && !broken.Is(broken.NoFsync) {
		err = b.seg.file.Datasync()
	}
	l.stats.end(start, b)
	if err != nil {
		return fmt.Errorf("write batch %d to segment %d at %d: %w", b.no, b.seg.id, b.off, err)
	}
	l.prev, l.known, l.cursor = crc, b.no, b.off+int64(len(b.buf))
	b.seg.fsynced.Store(l.cursor)
	return nil
}

// activate makes a spare the segment s: durable header first, then the durable
// name, so that whatever is called a segment has a header.
func (l *Log) activate(s *segment) error {
	header := make([]byte, blockSize)
	segmentHeader{id: s.id, first: s.first, continues: l.active != nil}.put(header, l.opts.Store)
	if _, err := s.file.WriteAt(header, 0); err != nil {
		return err
	}
	if err := s.file.Datasync(); err != nil {
		return err
	}
	if err := l.opts.FS.Rename(s.spare, l.files.path(s.id)); err != nil {
		return err
	}
	if err := l.opts.FS.SyncDir(l.opts.Dir); err != nil {
		return err
	}
	old := l.active
	l.active = s
	s.active = true // nobody else sees it yet
	l.files.add(s)
	l.mu.Lock()
	l.unborn = slices.DeleteFunc(l.unborn, func(x *segment) bool { return x == s })
	l.mu.Unlock()
	if old != nil {
		l.files.seal(old)
	}
	return nil
}

// writeMarker ends an orderly life of the log with an empty batch: it says that
// the last one with records had been fsynced, so that its loss would be seen as
// a hole. It is left out where there is no room.
func (l *Log) writeMarker() {
	if l.cursor+blockSize > l.active.size {
		return
	}
	b := &batch{no: l.known + 1, seg: l.active, off: l.cursor, buf: make([]byte, batchHeaderLen, blockSize)}
	if err := l.write(b); err != nil {
		l.fail(err)
	}
}

func (l *Log) tell(b *batch) {
	for i := range b.entries {
		if l.dead.Load() {
			return
		}
		e := &b.entries[i]
		if e.w != nil {
			e.w.Durable(e.token, Loc{Segment: b.seg.id, Offset: uint32(b.off) + e.offset, Len: e.length})
		}
	}
}
