package commitlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/internal/disk"
)

// The layout is in the package comment.
const (
	blockSize      = disk.BlockSize
	blockHeaderLen = 8
	batchHeaderLen = 40
	recordLen      = 37 // frame of a record before its payload

	blockFirst = 1
	blockNext  = 2

	version = 1
)

var (
	magic      = [8]byte{'f', 'a', 'c', 'e', 't', 'l', 'o', 'g'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	be         = binary.BigEndian
)

// StoreID is the id of the store a log belongs to (rule R3).
type StoreID = [16]byte

// Kind says what a record is. The log knows one bit of it.
type Kind uint8

// Reserve marks the kinds that a full disk must still take (rule R15): promise,
// base, cut, tomb, carry.
const Reserve Kind = 0x80

// Record is one entry of the log.
type Record struct {
	Kind        Kind
	Incarnation facet.Incarnation
	Epoch       facet.Epoch
	Seq         facet.Seq
	Payload     []byte
}

// Loc is where a durable record is. Locs compare as the order of the log:
// Segment, then Offset.
type Loc struct {
	Segment uint32
	Offset  uint32 // of the record's frame, in the segment file
	Len     uint32 // of the payload
}

// Before reports whether l lies before m in the log.
func (l Loc) Before(m Loc) bool {
	if l.Segment != m.Segment {
		return l.Segment < m.Segment
	}
	return l.Offset < m.Offset
}

// segmentSeed binds the CRC of every block to its store and segment: a block
// that strayed here from elsewhere is as bad as a rotten one.
func segmentSeed(store StoreID, id uint32) uint32 {
	return crc32.Checksum(be.AppendUint32(store[:], id), castagnoli)
}

// segmentHeader is what the first block of a segment says.
type segmentHeader struct {
	id        uint32
	first     uint64 // number of the first batch
	continues bool   // begun by the process that wrote the segment before
}

func (h segmentHeader) put(block []byte, store StoreID) {
	clear(block)
	copy(block, magic[:])
	be.PutUint32(block[8:], version)
	be.PutUint32(block[12:], h.id)
	copy(block[16:], store[:])
	be.PutUint64(block[32:], h.first)
	if h.continues {
		block[40] = 1
	}
	be.PutUint32(block[blockSize-4:], crc32.Checksum(block[:blockSize-4], castagnoli))
}

// decodeSegmentHeader returns ok false for a header that is not sound, and an
// error for a sound one that is not ours.
func decodeSegmentHeader(block []byte, store StoreID, id uint32) (h segmentHeader, ok bool, err error) {
	if len(block) < blockSize || !bytes.Equal(block[:8], magic[:]) {
		return h, false, nil
	}
	block = block[:blockSize]
	if crc32.Checksum(block[:blockSize-4], castagnoli) != be.Uint32(block[blockSize-4:]) {
		return h, false, nil
	}
	if v := be.Uint32(block[8:]); v != version {
		return h, false, fmt.Errorf("%w: version %d, this program knows %d; use the version that wrote it", ErrVersion, v, version)
	}
	if !bytes.Equal(block[16:32], store[:]) && !broken.Is(broken.AnyStore) {
		return h, false, fmt.Errorf("%w: %x, this store is %x", ErrStore, block[16:32], store)
	}
	h = segmentHeader{id: be.Uint32(block[12:]), first: be.Uint64(block[32:]), continues: block[40] == 1}
	return h, h.id == id && h.first > 0 && block[40] <= 1, nil
}

// sealBlock writes the header of the block, which is number index of its
// segment, and returns its CRC.
func sealBlock(block []byte, seed, index uint32, typ byte) uint32 {
	be.PutUint32(block[4:], uint32(typ)<<24|index)
	crc := crc32.Update(seed, castagnoli, block[4:blockSize])
	be.PutUint32(block, crc)
	return crc
}

// checkBlock reports whether the block is sound and in its place.
func checkBlock(block []byte, seed, index uint32, typ byte) bool {
	return be.Uint32(block[4:]) == uint32(typ)<<24|index &&
		crc32.Update(seed, castagnoli, block[4:blockSize]) == be.Uint32(block)
}

// batchHeader is what the first block of a batch says.
type batchHeader struct {
	no     uint64
	known  uint64 // highest batch number known fsynced
	prev   uint32 // CRC of the batch before
	length uint32 // bytes of records
	count  uint32
	body   uint32
}

func (h batchHeader) put(block []byte) {
	be.PutUint64(block[8:], h.no)
	be.PutUint64(block[16:], h.known)
	be.PutUint32(block[24:], h.prev)
	be.PutUint32(block[28:], h.length)
	be.PutUint32(block[32:], h.count)
	be.PutUint32(block[36:], h.body)
}

// decodeBatchHeader reads a first block that checkBlock found sound. ok is
// false for numbers no writer writes.
func decodeBatchHeader(block []byte) (h batchHeader, ok bool) {
	h = batchHeader{
		no:     be.Uint64(block[8:]),
		known:  be.Uint64(block[16:]),
		prev:   be.Uint32(block[24:]),
		length: be.Uint32(block[28:]),
		count:  be.Uint32(block[32:]),
		body:   be.Uint32(block[36:]),
	}
	return h, h.no > 0 && h.known < h.no && h.length <= maxBatchStream && uint64(h.count)*recordLen <= uint64(h.length)
}

// maxBatchStream bounds the record bytes of one batch.
const maxBatchStream = max(maxBatch, maxUnit)

// batchBytes is the size on disk of a batch with n bytes of records.
func batchBytes(n int) int {
	if n <= blockSize-batchHeaderLen {
		return blockSize
	}
	const room = blockSize - blockHeaderLen
	return blockSize + (n-(blockSize-batchHeaderLen)+room-1)/room*blockSize
}

func (h batchHeader) bytes() int { return batchBytes(int(h.length)) }

func putRecord(dst *[recordLen]byte, r *Record) {
	be.PutUint32(dst[0:], uint32(len(r.Payload)))
	dst[4] = byte(r.Kind)
	copy(dst[5:21], r.Incarnation[:])
	be.PutUint64(dst[21:], uint64(r.Epoch))
	be.PutUint64(dst[29:], uint64(r.Seq))
}

// decodeRecord reads a frame; the payload, n bytes, is the caller's to find.
func decodeRecord(frame *[recordLen]byte) (r Record, n uint32) {
	r.Kind = Kind(frame[4])
	copy(r.Incarnation[:], frame[5:21])
	r.Epoch = facet.Epoch(be.Uint64(frame[21:]))
	r.Seq = facet.Seq(be.Uint64(frame[29:]))
	return r, be.Uint32(frame[0:])
}

// streamPos moves a position inside a batch over a block header, if it is at
// one: records live in what remains of the blocks.
func streamPos(pos int) int {
	if pos%blockSize == 0 {
		pos += blockHeaderLen
	}
	return pos
}

// streamSkip returns the position behind n record bytes from pos.
func streamSkip(pos, n int) int {
	for n > 0 {
		pos = streamPos(pos)
		k := min(n, blockSize-pos%blockSize)
		pos, n = pos+k, n-k
	}
	return pos
}

// streamCopy copies record bytes from data at pos to dst, and returns the
// position behind them. dst may be the beginning of data or lie before pos.
func streamCopy(dst, data []byte, pos int) int {
	for len(dst) > 0 {
		pos = streamPos(pos)
		k := copy(dst, data[pos:pos+blockSize-pos%blockSize])
		dst, pos = dst[k:], pos+k
	}
	return pos
}
