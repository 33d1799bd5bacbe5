package commitlog

import "slices"

// batch is what one write makes durable. Records are copied straight to where
// they lie on disk, block headers left open, so that nothing is copied twice.
//
// Invariant: a batch lies in one segment; len(buf) never points behind a full
// block's end without the next block's header being skipped by streamPos.
type batch struct {
	no      uint64
	seg     *segment
	off     int64  // place in the segment
	buf     []byte // blocks; the last one is filled up by seal
	stream  int    // bytes of records
	entries []entry
	sealed  bool // nothing may be added any more
}

// entry is one record of a batch: whom to tell, and what.
type entry struct {
	w      Waiter
	token  uint64
	offset uint32 // in the batch
	length uint32
}

// reset makes b an empty batch with room for n bytes of records.
func (b *batch) reset(n int) {
	*b = batch{buf: b.buf[:0], entries: b.entries[:0]}
	b.reserve(max(batchBytes(n), minBatchBuffer))
	b.buf = b.buf[:batchHeaderLen]
}

// reserve makes the buffer at least size bytes, a multiple of the block size.
func (b *batch) reserve(size int) {
	if size <= cap(b.buf) {
		return
	}
	if size < maxBatch {
		size = min(max(size, 2*cap(b.buf)), maxBatch)
	}
	buf := make([]byte, len(b.buf), size)
	copy(buf, b.buf)
	b.buf = buf
}

// add copies a record in. There must be room.
func (b *batch) add(r *Record, token uint64, w Waiter) {
	var frame [recordLen]byte
	putRecord(&frame, r)
	at := streamPos(len(b.buf))
	b.write(frame[:])
	b.write(r.Payload)
	b.stream += recordLen + len(r.Payload)
	b.entries = append(b.entries, entry{w, token, uint32(at), uint32(len(r.Payload))})
}

func (b *batch) write(p []byte) {
	for len(p) > 0 {
		at := streamPos(len(b.buf))
		k := min(len(p), blockSize-at%blockSize)
		b.buf = append(b.buf[:at], p[:k]...)
		p = p[k:]
	}
}

// bytes is the size of b on disk.
func (b *batch) bytes() int64 { return int64(batchBytes(b.stream)) }

// seal fills in headers and CRCs and returns the CRC of the batch.
func (b *batch) seal(known uint64, prev uint32) uint32 {
	size := batchBytes(b.stream)
	used := len(b.buf)
	b.buf = slices.Grow(b.buf, size-used)[:size]
	clear(b.buf[used:])
	first := uint32(b.off / blockSize)
	var body uint32
	for at := blockSize; at < size; at += blockSize {
		block := b.buf[at : at+blockSize]
		sealBlock(block, b.seg.seed, first+uint32(at/blockSize), blockNext)
		body = crcUpdate(body, block[:4])
	}
	h := batchHeader{no: b.no, known: known, prev: prev, length: uint32(b.stream), count: uint32(len(b.entries)), body: body}
	h.put(b.buf)
	return sealBlock(b.buf[:blockSize], b.seg.seed, first, blockFirst)
}
