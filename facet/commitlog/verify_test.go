package commitlog

import (
	"context"
	"errors"
	"testing"

	"github.com/facetd/facetd/internal/disk"
)

// TestVerify: a log that is written meanwhile is sound, every flipped bit before its
// end is found, in the segment it is in, and what lies behind the end does not matter.
func TestVerify(t *testing.T) {
	mem := disk.NewMem()
	opts := testOptions(t, mem)
	l, _, _ := open(t, opts)
	defer func() { closeLog(t, l) }()
	writing := make(chan error, 1)
	go func() {
		for i := range uint64(200) {
			if err := appendWait(l, record(i, int(37*i)), i, nil); err != nil {
				writing <- err
				return
			}
		}
		writing <- nil
	}()
	paced := 0
	pace := func(_ context.Context, n int) error { paced += n; return nil }
	verify := func(id uint32) error { return l.Verify(background, id, pace) }
	for busy := true; busy; {
		select {
		case err := <-writing:
			if err != nil {
				t.Fatal(err)
			}
			syncLog(t, l)
			busy = false
		default:
		}
		for _, s := range l.Segments() {
			if err := verify(s.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	segs := l.Segments()
	if len(segs) < 3 || paced == 0 {
		t.Fatalf("%d segments, %d bytes paced", len(segs), paced)
	}
	flip := func(id uint32, at int) {
		t.Helper()
		if err := mem.Corrupt(l.files.path(id), func(b []byte) { b[at] ^= 0x10 }); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range segs {
		end := int(l.files.find(s.ID).fsynced.Load())
		for _, at := range []int{40, blockSize - 1, blockSize + 4, 3*blockSize + 1000, end - 1} {
			if at >= end {
				continue // the last segment may have just begun
			}
			flip(s.ID, at)
			if err := verify(s.ID); !errors.Is(err, ErrCorrupt) {
				t.Errorf("segment %d, bit of byte %d flipped: %v", s.ID, at, err)
			}
			if o := segs[(i+1)%len(segs)]; verify(o.ID) != nil {
				t.Errorf("segment %d is not sound with a flip in segment %d", o.ID, s.ID)
			}
			flip(s.ID, at)
		}
		if end < int(s.Bytes) {
			flip(s.ID, end)
			if err := verify(s.ID); err != nil {
				t.Errorf("behind the end of segment %d: %v", s.ID, err)
			}
			flip(s.ID, end)
		}
	}
	if err := verify(segs[len(segs)-1].ID + 1); !errors.Is(err, ErrRemoved) {
		t.Errorf("no such segment: %v", err)
	}
	stop, cancel := context.WithCancel(background)
	cancel()
	if err := l.Verify(stop, segs[0].ID, func(ctx context.Context, _ int) error { return ctx.Err() }); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}

	// What the start has judged is vouched for, or left alone.
	closeLog(t, l)
	flip(segs[1].ID, 3*blockSize+1000)
	l, _, _ = open(t, opts)
	for _, s := range l.Segments() {
		if err := verify(s.ID); err != nil {
			t.Errorf("after the start: %v", err)
		}
	}
	flip(segs[0].ID, 3*blockSize+1000)
	if err := verify(segs[0].ID); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a segment of the process before: %v", err)
	}
}

// TestTurn: the segment that fills can be left, and removed then.
func TestTurn(t *testing.T) {
	l, _, _ := open(t, testOptions(t, disk.NewMem()))
	defer closeLog(t, l)
	var a acks
	for i := range uint64(3) {
		if err := appendWait(l, record(i, 100), i, &a); err != nil {
			t.Fatal(err)
		}
		syncLog(t, l)
		if i == 1 {
			l.Turn(l.Segments()[0].ID)
			l.Turn(99)
			waitForSpare(t, l)
		}
	}
	segs := l.Segments()
	if _, locs := a.list(); len(segs) != 2 || locs[1].Segment != segs[0].ID || locs[2].Segment != segs[1].ID {
		t.Fatalf("records lie at %v", locs)
	}
	if err := l.Remove(segs[0].ID); err != nil || len(l.Segments()) != 1 {
		t.Errorf("remove: %v", err)
	}
}
