package commitlog

import (
	"fmt"
	"hash/crc32"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
)

// DamageKind says what is wrong with a part of the log.
type DamageKind uint8

const (
	// Hole: batches that had been fsynced are gone. The facets of their records
	// are HOLED from there (rule R14).
	Hole DamageKind = 1
	// Uncertain: the last batch is gone, and it may have been acknowledged.
	// Its facets answer health=UNCERTAIN until the owner has re-sent that range.
	Uncertain DamageKind = 2
	// Header: the header of a segment is gone. No record is lost by that.
	Header DamageKind = 3
)

func (k DamageKind) String() string {
	switch k {
	case Hole:
		return "hole"
	case Uncertain:
		return "uncertain tail"
	case Header:
		return "bad segment header"
	}
	return fmt.Sprintf("damage %d", uint8(k))
}

// Damage is one corrupt part of the log. Segment, Offset and FirstBatch are the
// same at every boot that finds it, so a caller can tell damage it has dealt
// with from new one.
type Damage struct {
	Kind    DamageKind
	Segment uint32
	Offset  uint32 // where it begins: records before it in the log are sound
	// FirstBatch to LastBatch are the numbers of what is lost. LastBatch is 0
	// when it is not known.
	FirstBatch, LastBatch uint64
	// Named are records that are lost for certain.
	Named []RecordID
	// Anonymous says that other records may be lost too, of any facet.
	Anonymous bool
}

func (d Damage) String() string {
	return fmt.Sprintf("%v in segment %d at %d: batches %d to %d, %d records named, others: %v",
		d.Kind, d.Segment, d.Offset, d.FirstBatch, d.LastBatch, len(d.Named), d.Anonymous)
}

// RecordID names a lost record.
type RecordID struct {
	Kind        Kind
	Incarnation facet.Incarnation
	Epoch       facet.Epoch
	Seq         facet.Seq
}

// Report is what Open found.
type Report struct {
	Segments int
	Batches  uint64
	Records  uint64
	Bytes    int64 // of whole batches
	// Torn counts last batches that a crash cut short and that nobody was told
	// of: dropped, no damage.
	Torn   int
	Damage []Damage
}

// scanner judges segments one after the other. It is pure: bytes in, records
// and a report out.
type scanner struct {
	store  StoreID
	replay func(Record, Loc) error
	report Report

	next      uint64 // number of the batch expected, 0 before the first segment
	prev      uint32 // CRC of the one before
	prevKnown bool

	scratch []byte
}

// view is one segment in the eyes of the scanner.
type view struct {
	id    uint32
	seed  uint32
	data  []byte // the whole file, cut to whole blocks
	limit uint64 // batches from this number on were dropped by a later boot; 0: the log ends here
}

// successor is what a segment must know of the one behind it; zero if there is
// none.
type successor struct {
	first     uint64 // its first batch, 0 if nobody knows
	continues bool   // it was begun by the same process: no tail was dropped between the two
}

func (v *view) block(at int) []byte { return v.data[at : at+blockSize] }

func (v *view) sound(at int, typ byte) bool {
	return checkBlock(v.block(at), v.seed, uint32(at/blockSize), typ)
}

// firstBatch is the number a segment begins with: what its header says, else
// what its first sound batch header says, else 0.
func (s *scanner) firstBatch(id uint32, data []byte) (h segmentHeader, sound bool, err error) {
	h, sound, err = decodeSegmentHeader(data, s.store, id)
	if sound || err != nil {
		return h, sound, err
	}
	v := view{id: id, seed: segmentSeed(s.store, id), data: data}
	b, _ := v.headerAfter(blockSize, 0)
	return segmentHeader{first: b.no}, false, nil
}

// headerAfter finds the next sound first block from at on that was written when
// batch no was known fsynced, and that no later boot dropped; its place is 0
// when there is none.
func (v *view) headerAfter(at int, no uint64) (batchHeader, int) {
	for ; at+blockSize <= len(v.data); at += blockSize {
		if v.data[at+4] != blockFirst || !v.sound(at, blockFirst) {
			continue
		}
		if h, ok := decodeBatchHeader(v.block(at)); ok && h.known >= no && (v.limit == 0 || h.no < v.limit) {
			return h, at
		}
	}
	return batchHeader{}, 0
}

// segment reads one segment and returns the bytes of it that must be kept.
func (s *scanner) segment(id uint32, data []byte, after successor) (used int, err error) {
	data = data[:len(data)/blockSize*blockSize]
	limit := after.first
	header, sound, err := s.firstBatch(id, data)
	if err != nil {
		return 0, fmt.Errorf("segment %d: %w", id, err)
	}
	first := header.first
	s.report.Segments++
	v := &view{id: id, seed: segmentSeed(s.store, id), data: data, limit: limit}
	if !sound {
		d := Damage{Kind: Header, Segment: id, FirstBatch: first}
		if first == 0 { // nothing in it can be read
			d.Kind, d.FirstBatch, d.Anonymous = Hole, max(s.next, 1), true
			if limit > d.FirstBatch {
				d.LastBatch = limit - 1
			}
		}
		s.report.Damage = append(s.report.Damage, d)
		if first == 0 {
			if limit > s.next {
				s.next, s.prevKnown = limit, false
			}
			return len(data), nil
		}
	}
	if first != s.next { // the segment before has reported the gap, if it is one
		s.next, s.prevKnown = first, false
	}

	at := blockSize
	for at < len(data) && (limit == 0 || s.next < limit) {
		n, crc, whole := s.batch(v, at)
		if whole {
			if err := s.deliver(v, at, n); err != nil {
				return 0, err
			}
			s.prev, s.prevKnown = crc, true
			s.next++
			at += n
			continue
		}
		h, found := v.headerAfter(at, s.next)
		if found == 0 {
			break
		}
		s.damage(v, Hole, at, found, h.no-1)
		s.next, s.prevKnown = h.no, false
		at = found
	}
	if s.next < limit {
		s.damage(v, Hole, at, len(data), limit-1)
		s.next, s.prevKnown = limit, false
		return len(data), nil
	}
	if limit > 0 && after.continues {
		return at, nil
	}
	return s.tail(v, at), nil
}

// batch reports whether a whole batch with the expected number begins at at,
// its size and its CRC.
func (s *scanner) batch(v *view, at int) (size int, crc uint32, whole bool) {
	if !v.sound(at, blockFirst) {
		return 0, 0, false
	}
	h, ok := decodeBatchHeader(v.block(at))
	if !ok || h.no != s.next || h.bytes() > len(v.data)-at {
		return 0, 0, false
	}
	var body uint32
	for b := at + blockSize; b < at+h.bytes(); b += blockSize {
		if !v.sound(b, blockNext) {
			return 0, 0, false
		}
		body = crcUpdate(body, v.data[b:b+4])
	}
	if body != h.body || !framesFit(v.data, at, h) {
		return 0, 0, false
	}
	if s.prevKnown && h.prev != 0 && h.prev != s.prev {
		// Sound, but written after another batch than the one we have read.
		s.report.Damage = append(s.report.Damage, Damage{
			Kind: Hole, Segment: v.id, Offset: uint32(at), FirstBatch: h.no - 1, LastBatch: h.no - 1, Anonymous: true,
		})
	}
	return h.bytes(), be.Uint32(v.data[at:]), true
}

// framesFit reports whether the records of a batch fill it exactly.
func framesFit(data []byte, at int, h batchHeader) bool {
	pos, left, count := at+batchHeaderLen, int(h.length), uint32(0)
	var frame [recordLen]byte
	for ; left > 0; count++ {
		if left < recordLen {
			return false
		}
		pos = streamCopy(frame[:], data, pos)
		_, n := decodeRecord(&frame)
		left -= recordLen
		if n > MaxPayload || int(n) > left {
			return false
		}
		pos = streamSkip(pos, int(n))
		left -= int(n)
	}
	return count == h.count
}

// deliver replays the records of the whole batch at at.
func (s *scanner) deliver(v *view, at, size int) error {
	h, _ := decodeBatchHeader(v.block(at))
	pos := at + batchHeaderLen
	var frame [recordLen]byte
	for range h.count {
		loc := Loc{Segment: v.id, Offset: uint32(streamPos(pos))}
		pos = streamCopy(frame[:], v.data, pos)
		r, n := decodeRecord(&frame)
		loc.Len = n
		r.Payload, pos = s.payload(v.data, pos, int(n))
		if err := s.replay(r, loc); err != nil {
			return fmt.Errorf("replay record at segment %d, offset %d: %w", loc.Segment, loc.Offset, err)
		}
	}
	s.report.Batches++
	s.report.Records += uint64(h.count)
	s.report.Bytes += int64(size)
	return nil
}

// payload returns n record bytes, from where they lie if they are in one piece.
func (s *scanner) payload(data []byte, pos, n int) ([]byte, int) {
	if n == 0 {
		return nil, pos
	}
	pos = streamPos(pos)
	if pos%blockSize+n <= blockSize {
		return data[pos : pos+n : pos+n], pos + n
	}
	if cap(s.scratch) < n {
		s.scratch = make([]byte, n)
	}
	p := s.scratch[:n:n]
	return p, streamCopy(p, data, pos)
}

// damage reports that the batches from the expected one to last are lost in
// [at, end), with the records that can be named.
func (s *scanner) damage(v *view, kind DamageKind, at, end int, last uint64) {
	if kind == Hole && broken.Is(broken.SkipHole) {
		return
	}
	d := Damage{Kind: kind, Segment: v.id, Offset: uint32(at), FirstBatch: s.next, LastBatch: last}
	size, complete := v.name(&d, at, s.next)
	if !complete || last != s.next || at+size > end || !zero(v.data[at+size:end]) {
		d.Anonymous = true
	}
	s.report.Damage = append(s.report.Damage, d)
}

// name lists the records of a batch that is not whole, as far as their frames
// can be read, and reports whether those are all of them.
func (v *view) name(d *Damage, at int, no uint64) (size int, complete bool) {
	if at+blockSize > len(v.data) || !v.sound(at, blockFirst) {
		return 0, false
	}
	h, ok := decodeBatchHeader(v.block(at))
	if !ok || h.no != no || h.bytes() > len(v.data)-at {
		return 0, false
	}
	pos, left := at+batchHeaderLen, int(h.length)
	var frame [recordLen]byte
	for range h.count {
		start := streamPos(pos)
		end := streamSkip(start, recordLen)
		if left < recordLen || len(d.Named) == maxNamed || !v.readable(at, start) || !v.readable(at, end-1) {
			return h.bytes(), false
		}
		pos = streamCopy(frame[:], v.data, start)
		r, n := decodeRecord(&frame)
		left -= recordLen
		if int(n) > left {
			return h.bytes(), false
		}
		d.Named = append(d.Named, RecordID{r.Kind, r.Incarnation, r.Epoch, r.Seq})
		pos = streamSkip(pos, int(n))
		left -= int(n)
	}
	return h.bytes(), true
}

// readable reports whether the block of pos, in the batch at at, is sound.
func (v *view) readable(at, pos int) bool {
	b := pos / blockSize * blockSize
	return b == at || v.sound(b, blockNext)
}

// tail judges what lies behind the last whole batch of a segment and returns
// the bytes to keep.
func (s *scanner) tail(v *view, at int) int {
	if at >= len(v.data) || zero(v.data[at:]) {
		return at
	}
	for b := at; b < len(v.data); b += blockSize {
		typ := byte(blockNext)
		if b == at {
			typ = blockFirst
		}
		if !zero(v.block(b)) && !v.sound(b, typ) && !broken.Is(broken.RotIsTorn) {
			s.damage(v, Uncertain, at, len(v.data), s.next)
			return len(v.data)
		}
	}
	s.report.Torn++
	return at
}

func zero(p []byte) bool {
	for len(p) >= 8 {
		if be.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	for _, x := range p {
		if x != 0 {
			return false
		}
	}
	return true
}

func crcUpdate(crc uint32, p []byte) uint32 { return crc32.Update(crc, castagnoli, p) }
