package commitlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/internal/disk"
)

// Verify reads one segment again, from the device, up to where it was fsynced when the
// call began, and checks every block of it (rule R52). It calls pace before each read
// with the number of bytes; nil reads as fast as it can. ErrCorrupt says that something
// in the segment has rotted, or cannot be read: what lies there must be had from
// elsewhere before the segment is read at the next start. ErrRemoved says that there is
// no such segment any more.
//
// A segment that was found damaged when the log was opened is not judged again.
func (l *Log) Verify(ctx context.Context, id uint32, pace func(context.Context, int) error) error {
	l.files.mu.Lock()
	s := l.files.find(id)
	l.files.mu.Unlock()
	if s == nil {
		return fmt.Errorf("verify segment %d: %w", id, ErrRemoved)
	}
	if err := l.verify(ctx, s, pace); err != nil {
		return fmt.Errorf("verify segment %d: %w", id, err)
	}
	return nil
}

func (l *Log) verify(ctx context.Context, s *segment, pace func(context.Context, int) error) error {
	end := s.fsynced.Load()
	if end == 0 {
		return nil
	}
	f, err := l.opts.FS.OpenFile(l.files.path(s.id), os.O_RDONLY|disk.Direct, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrRemoved // or its name is lost, which the next start tells
	}
	if err != nil {
		return err
	}
	defer f.Close() // opened for reading: nothing can be lost by closing it
	buf := disk.AlignedBuffer(verifyChunk)
	for at := int64(0); at < end; {
		part := buf[:min(int64(len(buf)), end-at)]
		if pace != nil {
			if err := pace(ctx, len(part)); err != nil {
				return err
			}
		}
		n, err := readDirect(f, part, at)
		if err == nil && n < len(part) {
			err = errors.New("the file is too short")
		}
		if err != nil {
			return fmt.Errorf("%w: read at %d: %w", ErrCorrupt, at, err)
		}
		for i := 0; i < len(part); i += blockSize {
			if block, index := part[i:i+blockSize], uint32(at/blockSize)+uint32(i/blockSize); !s.soundBlock(block, index, l.opts.Store) && !broken.Is(broken.BlindLogScrub) {
				return fmt.Errorf("%w: block %d", ErrCorrupt, index)
			}
		}
		at += int64(len(part))
	}
	return nil
}

// soundBlock reports whether a block before the end of the last whole batch is as it
// was written.
func (s *segment) soundBlock(block []byte, index uint32, store StoreID) bool {
	if index == 0 {
		h, ok, err := decodeSegmentHeader(block, store, s.id)
		return ok && err == nil && h.id == s.id
	}
	typ := block[4]
	return (typ == blockFirst || typ == blockNext) && checkBlock(block, s.seed, index, typ)
}

// Turn has what is appended from now on go to another segment than id, so that this
// one can be removed. It does nothing if that is so already.
func (l *Log) Turn(id uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.plan != nil && l.plan.id == id {
		l.plan.planned = l.plan.size
		wake(l.kick)
	}
}
