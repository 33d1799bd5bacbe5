package commitlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/internal/disk"
)

// Waiter is told when a record is durable.
type Waiter interface {
	// Durable is called once for each record appended with this Waiter, in the
	// order of the log, one call at a time, after the fsync of the record's
	// batch and of all batches before it (rule R9). It must not block and must
	// not call Close, Remove, Sync or Wait. It may call Append. After an error
	// of the disk it is never called again.
	Durable(token uint64, loc Loc)
}

// Options are the settings of a log. Zero values are the defaults.
type Options struct {
	FS    disk.FS // required
	Dir   string  // directory in FS, made if missing; "" is the root
	Store StoreID // required, rule R3

	// Fatal is called once, from a goroutine of the log or from Remove, when
	// the disk fails (rule R13). Nothing is acknowledged after it. The real one
	// exits the process; one that returns must not call Close itself.
	Fatal func(error) // required

	// SegmentBytes is the size of a segment file, 64 MiB by default, 16 KiB to
	// 256 MiB. Small ones switch often, large ones give space back late.
	SegmentBytes int64
	// PendingBytes bounds what is appended and not yet reported durable, 64 MiB
	// by default. A single larger record is taken when nothing else is pending.
	PendingBytes int64
	// LowWaterBytes is the free disk space below which no segment for ordinary
	// records is made, 256 MiB by default. Negative: none.
	LowWaterBytes int64
	// ReserveBytes of log space are kept for Reserve kinds when the disk is
	// full, 8 MiB by default, at most a quarter of a segment. More lets a full
	// node be fenced and drained for longer.
	ReserveBytes int64

	Logger *slog.Logger // slog.Default() by default
}

func (o *Options) validate() error {
	switch {
	case o.FS == nil || o.Fatal == nil:
		return errors.New("commit log options: FS and Fatal are required")
	case o.Store == StoreID{}:
		return errors.New("commit log options: Store is required")
	}
	if o.Dir == "" {
		o.Dir = "."
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes {
		return fmt.Errorf("commit log options: segments of %d bytes, allowed are %d to %d", o.SegmentBytes, minSegmentBytes, maxSegmentBytes)
	}
	o.SegmentBytes = o.SegmentBytes / blockSize * blockSize
	if o.PendingBytes <= 0 {
		o.PendingBytes = DefaultPendingBytes
	}
	if o.LowWaterBytes == 0 {
		o.LowWaterBytes = DefaultLowWaterBytes
	}
	o.LowWaterBytes = max(o.LowWaterBytes, 0)
	if o.ReserveBytes <= 0 {
		o.ReserveBytes = DefaultReserveBytes
	}
	o.ReserveBytes = max(min(o.ReserveBytes, o.SegmentBytes/4)/blockSize*blockSize, blockSize)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return nil
}

// Log is an open commit log.
//
// A record's way: Append decides under mu in which batch it goes and where in
// which segment that batch will lie, and copies it there. A worker takes the
// oldest batch, seals it, writes and syncs it, and tells its Waiters. So
// place, order and space are settled before Append returns, and what it accepted
// fails only with the disk.
//
// Invariant: batches are placed, written, synced and reported in the order of
// their numbers, one write at a time; all of queue and done together are at most
// PendingBytes, or one unit.
//
// Lock order: mu and files.mu are never held together.
type Log struct {
	opts  Options
	files files
	stats stats

	mu      sync.Mutex
	toWrite sync.Cond // queue, writing, closing, failed: who may write next

	queue   []*batch // placed, not yet taken by a worker; the last one may be open
	done    []*batch // durable, not yet reported
	free    []*batch // for re-use
	writing bool     // a worker writes
	telling bool     // a worker tells, and will tell what comes to done
	marked  bool     // the marker of an orderly end is written, or being written

	plan     *segment   // where the next batch goes, nil before the first
	unborn   []*segment // planned for, not yet begun by the writer
	spares   []*segment // ready to become segments
	lastID   uint32     // of the segments, planned ones included
	nextNo   uint64     // of the batches
	appended uint64     // records
	notified uint64     // records whose Waiters have been told

	pendingBytes   int64
	pendingRecords int64

	full   *FullError // why the allocator has no spare to give, nil if it has or is at work
	needed int64      // a refused record asks for a spare of this size

	changed chan struct{} // closed at the next change of what Wait and Sync look at; nil if nobody looks
	closing bool
	failed  error

	// Of the worker that writes alone, after Open.
	active *segment // nil before the first batch
	cursor int64    // where the next batch must lie
	prev   uint32   // CRC of the latest batch
	known  uint64   // its number: fsynced

	spareNo uint32 // of the allocator alone: the latest spare made

	dead     atomic.Bool   // failed is set
	kick     chan struct{} // wakes the allocator: look what is wanted
	freed    chan struct{} // wakes it when the disk was full: a segment is gone
	quit     chan struct{} // closed by Close
	wg       sync.WaitGroup
	removeMu sync.Mutex
	closeErr func() error
}

// Append places one record at the end of the log. It copies the record, does no
// I/O, and allocates nothing in the steady state. When it returns nil, w.Durable
// is called with token once the record is durable, unless the disk fails before;
// w may be nil. When it returns an error, nothing was placed: ErrBusy, ErrFull,
// ErrTooLarge, ErrClosed or ErrFailed.
func (l *Log) Append(rec Record, token uint64, w Waiter) error {
	if len(rec.Payload) > MaxPayload {
		return tooLarge(len(rec.Payload))
	}
	n := recordLen + len(rec.Payload)
	if n >= bigUnit {
		return l.appendBig([]Record{rec}, n, token, w)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := l.place(n, rec.Kind&Reserve != 0)
	if err != nil {
		return err
	}
	b.add(&rec, token, w)
	l.placed(n, 1)
	return nil
}

// AppendMany places several records in one batch: after a crash all of them are
// there or none (rule R8 wants a cut and the entry after it so). Record i is
// reported with token+i. They count as Reserve if all of them do.
func (l *Log) AppendMany(recs []Record, token uint64, w Waiter) error {
	n, reserve := 0, true
	for i := range recs {
		if len(recs[i].Payload) > MaxPayload {
			return tooLarge(len(recs[i].Payload))
		}
		n += recordLen + len(recs[i].Payload)
		if n > maxUnit {
			return tooLarge(n)
		}
		reserve = reserve && recs[i].Kind&Reserve != 0
	}
	if n == 0 {
		return nil
	}
	if n >= bigUnit {
		return l.appendBig(recs, n, token, w)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := l.place(n, reserve)
	if err != nil {
		return err
	}
	for i := range recs {
		b.add(&recs[i], token+uint64(i), w)
	}
	l.placed(n, len(recs))
	return nil
}

func tooLarge(n int) error {
	return fmt.Errorf("append %d bytes: %w, limit %d bytes", n, ErrTooLarge, MaxPayload)
}

// appendBig copies before it takes the lock, into a batch of its own.
func (l *Log) appendBig(recs []Record, n int, token uint64, w Waiter) error {
	l.mu.Lock()
	err := l.admit(n, false)
	l.mu.Unlock()
	if err != nil {
		return err // spares the copy; asked again below
	}
	b := new(batch)
	b.reset(n)
	for i := range recs {
		b.add(&recs[i], token+uint64(i), w)
	}
	b.sealed = true
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.placeBatch(b, n, false); err != nil {
		return err
	}
	l.placed(n, len(recs))
	return nil
}

// placed accounts for what was added and wakes the writer.
func (l *Log) placed(n, records int) {
	l.pendingBytes += int64(n)
	l.pendingRecords += int64(records)
	l.appended += uint64(records)
	l.toWrite.Signal()
}

// Admit says whether an ordinary record with n bytes of payload would be
// accepted now. It is for asking before a transaction runs, and refuses earlier
// than Append: as soon as the disk is below its low-water mark, so that what was
// admitted still fits.
func (l *Log) Admit(n int) error {
	if n > MaxPayload {
		return tooLarge(n)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full != nil && !broken.Is(broken.NoLowWater) {
		return l.full
	}
	return l.admit(recordLen+n, false)
}

// Wait returns when Admit(n) says yes, or with its error when that is not
// ErrBusy, or with the context's.
func (l *Log) Wait(ctx context.Context, n int) error {
	for {
		l.mu.Lock()
		changed := l.changedLocked()
		l.mu.Unlock()
		if err := l.Admit(n); !errors.Is(err, ErrBusy) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Sync waits until everything appended before the call is durable and its
// Waiters have been told.
func (l *Log) Sync(ctx context.Context) error {
	l.mu.Lock()
	target := l.appended
	for {
		if l.notified >= target {
			l.mu.Unlock()
			return nil
		}
		if l.failed != nil {
			defer l.mu.Unlock()
			return l.failure()
		}
		changed := l.changedLocked()
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		l.mu.Lock()
	}
}

func (l *Log) changedLocked() <-chan struct{} {
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

func (l *Log) broadcast() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}

// Pending is what has been appended and not yet been reported durable (rule
// R32 bounds it for each facet; this is the sum).
func (l *Log) Pending() (bytes, records int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pendingBytes, l.pendingRecords
}

// Segments lists the segments, oldest first, without spares.
func (l *Log) Segments() []SegmentInfo {
	l.files.mu.Lock()
	defer l.files.mu.Unlock()
	infos := make([]SegmentInfo, len(l.files.segs))
	for i, s := range l.files.segs {
		infos[i] = SegmentInfo{ID: s.id, Bytes: s.size, Sealed: !s.active}
	}
	return infos
}

// Size is the bytes of all segment files and spares.
func (l *Log) Size() int64 {
	var n int64
	for _, s := range l.Segments() {
		n += s.Bytes
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.spares {
		n += s.size
	}
	return n
}

// Remove deletes the sealed segments up to and including upTo, oldest first. The
// newest segment stays. The caller vouches for rule R12.
func (l *Log) Remove(upTo uint32) error {
	l.removeMu.Lock()
	defer l.removeMu.Unlock()
	for {
		l.mu.Lock()
		err := l.stateErr()
		l.mu.Unlock()
		if err != nil {
			return err
		}
		l.files.mu.Lock()
		var s *segment
		if segs := l.files.segs; len(segs) > 1 && segs[0].id <= upTo && !segs[0].active {
			s = segs[0]
		}
		l.files.mu.Unlock()
		if s == nil {
			return nil
		}
		if err := l.opts.FS.Remove(l.files.path(s.id)); err != nil {
			return fmt.Errorf("remove segment %d: %w", s.id, err)
		}
		if f := l.files.drop(s); f != nil {
			_ = f.Close() // of a file that has no name any more
		}
		// One at a time: were a later removal durable and an earlier one not,
		// boot would find a hole.
		if err := l.opts.FS.SyncDir(l.opts.Dir); err != nil {
			err = fmt.Errorf("sync directory after removing segment %d: %w", s.id, err)
			l.fail(err)
			return err
		}
		wake(l.freed)
	}
}

// stateErr says why nothing can be done any more; mu is held.
func (l *Log) stateErr() error {
	switch {
	case l.failed != nil:
		return l.failure()
	case l.closing:
		return ErrClosed
	}
	return nil
}

func (l *Log) failure() error { return fmt.Errorf("%w: %w", ErrFailed, l.failed) }

// fail ends the log for good (rule R13): no acknowledgement after this.
func (l *Log) fail(err error) {
	l.mu.Lock()
	first := l.failed == nil
	if first {
		l.failed = err
		l.dead.Store(true)
		l.broadcast()
		l.toWrite.Broadcast()
	}
	l.mu.Unlock()
	if first {
		l.opts.Fatal(err)
	}
}

// Close makes everything appended durable, tells its Waiters, and releases the
// files. After a failure of the disk it only releases. It may be called twice.
func (l *Log) Close() error {
	l.mu.Lock()
	if !l.closing {
		l.closing = true
		close(l.quit)
		l.toWrite.Broadcast()
		l.broadcast()
	}
	l.mu.Unlock()
	l.wg.Wait()
	err := l.closeErr()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.failure()
	}
	return err
}

// closeFiles runs once, after all goroutines have ended, or on an Open that did
// not come so far.
func (l *Log) closeFiles() error {
	var errs []error
	l.files.mu.Lock()
	for _, s := range l.files.segs {
		if s.file != nil {
			errs = append(errs, s.file.Close())
			s.file = nil
		}
	}
	l.files.segs = nil
	l.files.mu.Unlock()
	for _, s := range slices.Concat(l.spares, l.unborn) {
		if s.file != nil {
			errs = append(errs, s.file.Close())
			s.file = nil
		}
	}
	return errors.Join(errs...)
}
