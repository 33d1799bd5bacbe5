package commitlog

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/facetd/facetd/internal/disk"
)

// segment is one segment file, or a spare on its way to become one.
type segment struct {
	id    uint32 // 0 for a spare
	spare string // path while it is a spare
	seed  uint32
	first uint64 // number of its first batch
	size  int64  // of the file
	// planned is where the next batch will be placed; guarded by Log.mu.
	planned int64
	// fsynced is the end of the last whole batch on the device; zero where nobody
	// vouches for what is there.
	fsynced atomic.Int64

	// Guarded by files.mu. file is nil while nobody has it open.
	file    disk.File
	readers int
	active  bool // the writer may write to it
	removed bool
}

// room is what the segment can still take; guarded by Log.mu.
func (s *segment) room() int64 { return s.size - s.planned }

func segmentName(id uint32) string { return fmt.Sprintf("%08x.seg", id) }
func spareName(n uint32) string    { return fmt.Sprintf("spare-%08x", n) }

// spareTmp is the spare in the making: there is only one at a time.
const spareTmp = "spare.tmp"

// parseName reads a number out of a file name made by segmentName or spareName.
func parseName(name, prefix, suffix string) (n uint32, ok bool) {
	mid, ok1 := strings.CutPrefix(name, prefix)
	mid, ok2 := strings.CutSuffix(mid, suffix)
	v, err := strconv.ParseUint(mid, 16, 32)
	return uint32(v), ok1 && ok2 && len(mid) == 8 && err == nil && v > 0
}

// SegmentInfo describes one segment.
type SegmentInfo struct {
	ID     uint32
	Bytes  int64 // of the file
	Sealed bool  // nothing will be written to it any more
}

// files is the table of segments with their handles.
type files struct {
	fsys disk.FS
	dir  string

	mu   sync.Mutex
	segs []*segment // by id
	open int        // handles not used by the writer
}

func (t *files) path(id uint32) string { return path.Join(t.dir, segmentName(id)) }

func (t *files) add(s *segment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.segs = append(t.segs, s)
}

func (t *files) find(id uint32) *segment {
	i, ok := slices.BinarySearchFunc(t.segs, id, func(s *segment, id uint32) int {
		return int(int64(s.id) - int64(id))
	})
	if !ok {
		return nil
	}
	return t.segs[i]
}

// acquire opens the segment for one reader, who must release it.
func (t *files) acquire(id uint32) (*segment, disk.File, error) {
	t.mu.Lock()
	s := t.find(id)
	if s == nil {
		t.mu.Unlock()
		return nil, nil, ErrRemoved
	}
	s.readers++
	file := s.file
	t.mu.Unlock()
	if file != nil {
		return s, file, nil
	}
	opened, err := t.fsys.OpenFile(t.path(id), 0, 0)
	if err != nil {
		t.release(s)
		return nil, nil, err
	}
	t.mu.Lock()
	var surplus disk.File
	if s.file == nil {
		s.file = opened
		if !s.removed {
			t.open++
			surplus = t.evict()
		}
	} else {
		surplus = opened // another reader was faster
	}
	file = s.file
	t.mu.Unlock()
	if surplus != nil {
		// Opened for reading: nothing can be lost by closing it.
		_ = surplus.Close()
	}
	return s, file, nil
}

// evict takes one idle handle away when there are too many.
func (t *files) evict() disk.File {
	if t.open <= maxOpenFiles {
		return nil
	}
	for _, s := range t.segs {
		if s.file != nil && s.readers == 0 && !s.active {
			f := s.file
			s.file = nil
			t.open--
			return f
		}
	}
	return nil
}

func (t *files) release(s *segment) {
	t.mu.Lock()
	s.readers--
	var last disk.File
	if s.removed && s.readers == 0 && s.file != nil {
		last, s.file = s.file, nil
	}
	t.mu.Unlock()
	if last != nil {
		_ = last.Close() // of a file that has no name any more
	}
}

// seal makes the handle of a segment that the writer is done with one that may
// be evicted.
func (t *files) seal(s *segment) {
	t.mu.Lock()
	s.active = false
	t.open++
	surplus := t.evict()
	t.mu.Unlock()
	if surplus != nil {
		_ = surplus.Close() // synced long ago
	}
}

// drop takes the segment out of the table and returns its handle, unless a
// reader will close it.
func (t *files) drop(s *segment) disk.File {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.segs = slices.DeleteFunc(t.segs, func(x *segment) bool { return x == s })
	s.removed = true
	if s.file == nil {
		return nil
	}
	t.open--
	if s.readers > 0 {
		return nil
	}
	f := s.file
	s.file = nil
	return f
}
