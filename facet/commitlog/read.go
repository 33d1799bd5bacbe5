package commitlog

import (
	"fmt"
	"sync"
)

// Read returns the payload of a durable record, checked. It uses buf if that is
// large enough, so a caller that passes the last result again (payload[:0])
// allocates nothing.
func (l *Log) Read(loc Loc, buf []byte) (payload []byte, err error) {
	payload, err = l.read(loc, buf)
	if err != nil {
		return nil, fmt.Errorf("read record at segment %d, offset %d: %w", loc.Segment, loc.Offset, err)
	}
	return payload, nil
}

func (l *Log) read(loc Loc, buf []byte) ([]byte, error) {
	if loc.Len > MaxPayload || loc.Offset < blockSize+blockHeaderLen {
		return nil, fmt.Errorf("%w: no such place", ErrCorrupt)
	}
	base := int64(loc.Offset) / blockSize * blockSize
	pos := int(int64(loc.Offset) - base)
	size := (streamSkip(pos, recordLen+int(loc.Len)) + blockSize - 1) / blockSize * blockSize
	seg, file, err := l.files.acquire(loc.Segment)
	if err != nil {
		return nil, err
	}
	defer l.files.release(seg)
	if base+int64(size) > seg.size {
		return nil, fmt.Errorf("%w: it would end behind the segment", ErrCorrupt)
	}
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if _, err := file.ReadAt(buf, base); err != nil {
		return nil, err
	}
	index := uint32(base / blockSize)
	for at := 0; at < size; at += blockSize {
		typ := buf[at+4]
		if typ != blockNext && (at > 0 || typ != blockFirst) || !checkBlock(buf[at:], seg.seed, index+uint32(at/blockSize), typ) {
			return nil, fmt.Errorf("%w: block %d", ErrCorrupt, index+uint32(at/blockSize))
		}
	}
	frame := frames.Get().(*[recordLen]byte)
	defer frames.Put(frame)
	pos = streamCopy(frame[:], buf, pos)
	if _, n := decodeRecord(frame); n != loc.Len {
		return nil, fmt.Errorf("%w: a record of %d bytes", ErrCorrupt, n)
	}
	streamCopy(buf[:loc.Len], buf, pos)
	return buf[:loc.Len], nil
}

// frames keeps Read free of allocations.
var frames = sync.Pool{New: func() any { return new([recordLen]byte) }}
