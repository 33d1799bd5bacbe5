package replica

import (
	"encoding/binary"
	"fmt"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
)

// Kinds of records; the layouts are in the package comment.
const (
	kindEntry   commitlog.Kind = 0x01
	kindPages   commitlog.Kind = 0x02
	kindInstall commitlog.Kind = 0x03
	kindPromise commitlog.Kind = commitlog.Reserve | 0x01
	kindCut     commitlog.Kind = commitlog.Reserve | 0x02
	kindBase    commitlog.Kind = commitlog.Reserve | 0x03
	kindTomb    commitlog.Kind = commitlog.Reserve | 0x04
	kindCarry   commitlog.Kind = commitlog.Reserve | 0x05
	kindDamage  commitlog.Kind = commitlog.Reserve | 0x06
)

const positionLen = 32

var be = binary.BigEndian

// fixed checks the length of a record's payload.
func fixed(what string, p []byte, want int) error {
	if len(p) != want {
		return fmt.Errorf("decode %s: %d bytes, want %d", what, len(p), want)
	}
	return nil
}

func appendBase(dst []byte, b pages.Base) []byte {
	return b.Position.AppendBinary(be.AppendUint32(dst, b.Pages))
}

// decodeBase reads a base and returns what follows it.
func decodeBase(p []byte) (b pages.Base, rest []byte, err error) {
	if len(p) < 4+positionLen {
		return b, nil, fmt.Errorf("decode base: %d bytes, want %d", len(p), 4+positionLen)
	}
	b.Pages = be.Uint32(p)
	if b.Position, rest, err = facet.DecodePosition(p[4:]); err != nil {
		return b, nil, err
	}
	if b.Pages > facet.MaxPages {
		return b, nil, fmt.Errorf("decode base: %d pages, limit %d", b.Pages, facet.MaxPages)
	}
	if b.Position.Seq == 0 && (b.Pages != 0 || !b.Position.IsZero()) {
		return b, nil, fmt.Errorf("decode base: position %v with %d pages is no state of a facet", b.Position, b.Pages)
	}
	return b, rest, nil
}

// imagePart is the head of a PAGES record.
type imagePart struct {
	last   bool
	number uint32
	to     pages.Base
}

const imageHeaderLen = 8 + 4 + positionLen

func (h imagePart) append(dst []byte) []byte {
	last := byte(0)
	if h.last {
		last = 1
	}
	return appendBase(be.AppendUint32(append(dst, last, 0, 0, 0), h.number), h.to)
}

func decodeImages(p []byte) (h imagePart, images []byte, err error) {
	if len(p) < imageHeaderLen || len(p) > imageHeaderLen+maxImagePart {
		return h, nil, fmt.Errorf("decode pages: %d bytes, want %d to %d", len(p), imageHeaderLen, imageHeaderLen+maxImagePart)
	}
	if p[0] > 1 || p[1]|p[2]|p[3] != 0 {
		return h, nil, fmt.Errorf("decode pages: bad flags %x", p[:4])
	}
	h.last, h.number = p[0] == 1, be.Uint32(p[4:])
	h.to, images, err = decodeBase(p[8:])
	return h, images, err
}

// tail is the end of a facet's log as PROMISE, BASE and CARRY tell it: epoch and
// seq of the last entry placed before them.
type tail struct {
	epoch facet.Epoch
	seq   facet.Seq
}

func tailOf(p facet.Position) tail { return tail{p.Epoch, p.Seq} }

const promiseLen = 16 + 8

func promiseRecord(id facet.Incarnation, epoch facet.Epoch, boot Boot, end tail) commitlog.Record {
	return commitlog.Record{
		Kind: kindPromise, Incarnation: id, Epoch: epoch, Seq: end.seq,
		Payload: be.AppendUint64(append(make([]byte, 0, promiseLen), boot[:]...), uint64(end.epoch)),
	}
}

func decodePromise(rec *commitlog.Record) (boot Boot, end tail, err error) {
	if err := fixed("promise", rec.Payload, promiseLen); err != nil {
		return boot, end, err
	}
	return Boot(rec.Payload), tail{facet.Epoch(be.Uint64(rec.Payload[16:])), rec.Seq}, nil
}

const baseLen = 4 + positionLen + 16

func baseRecord(id facet.Incarnation, b pages.Base, end tail) commitlog.Record {
	p := appendBase(make([]byte, 0, baseLen), b)
	p = be.AppendUint64(be.AppendUint64(p, uint64(end.epoch)), uint64(end.seq))
	return commitlog.Record{Kind: kindBase, Incarnation: id, Epoch: b.Position.Epoch, Seq: b.Position.Seq, Payload: p}
}

func decodeBaseRecord(rec *commitlog.Record) (b pages.Base, end tail, err error) {
	if err := fixed("base", rec.Payload, baseLen); err != nil {
		return b, end, err
	}
	b, rest, err := decodeBase(rec.Payload)
	if err != nil {
		return b, end, err
	}
	return b, tail{facet.Epoch(be.Uint64(rest)), facet.Seq(be.Uint64(rest[8:]))}, nil
}

// installed is everything an INSTALL record says.
type installed struct {
	number uint64 // of the temporary file
	to     pages.Base
	health Health
	since  facet.Epoch // promised when the health was lost
}

const installLen = 8 + 4 + positionLen + 8 + 8

func (i *installed) record(id facet.Incarnation) commitlog.Record {
	p := appendBase(be.AppendUint64(make([]byte, 0, installLen), i.number), i.to)
	p = be.AppendUint64(append(p, byte(i.health), 0, 0, 0, 0, 0, 0, 0), uint64(i.since))
	return commitlog.Record{
		Kind: kindInstall, Incarnation: id, Epoch: i.to.Position.Epoch, Seq: i.to.Position.Seq, Payload: p,
	}
}

func decodeInstall(p []byte) (i installed, err error) {
	if err := fixed("install", p, installLen); err != nil {
		return i, err
	}
	i.number = be.Uint64(p)
	to, rest, err := decodeBase(p[8:])
	if err != nil {
		return i, err
	}
	i.to, i.health, i.since = to, Health(rest[0]), facet.Epoch(be.Uint64(rest[8:]))
	if be.Uint64(rest)<<8 != 0 || i.health > Uncertain || i.health == Healthy && i.since != 0 {
		return i, fmt.Errorf("decode install: bad health %x", rest)
	}
	return i, nil
}

// carried is everything a CARRY record says.
type carried struct {
	promised facet.Epoch
	boot     Boot
	base     pages.Base
	end      tail
	health   Health
	since    facet.Epoch // promised when the health was lost
	flags    uint8
}

const carryLen = 4 + 16 + 8 + 4 + positionLen + 8

func (c *carried) record(id facet.Incarnation) commitlog.Record {
	p := append(make([]byte, 0, carryLen), carriedBits(c.flags), byte(c.health), 0, 0)
	p = be.AppendUint64(append(p, c.boot[:]...), uint64(c.end.epoch))
	return commitlog.Record{
		Kind: kindCarry, Incarnation: id, Epoch: c.promised, Seq: c.end.seq,
		Payload: be.AppendUint64(appendBase(p, c.base), uint64(c.since)),
	}
}

// carriedBits are the flags of a state as CARRY has them.
func carriedBits(flags uint8) byte {
	b := flags & (flagTomb | flagFiled)
	if flags&flagDropped != 0 {
		b |= 4
	}
	return b
}

func decodeCarry(rec *commitlog.Record) (c carried, err error) {
	p := rec.Payload
	if err := fixed("carry", p, carryLen); err != nil {
		return c, err
	}
	if p[0]&^7 != 0 || p[0]&5 == 5 || Health(p[1]) > Diverged || p[2]|p[3] != 0 {
		return c, fmt.Errorf("decode carry: bad flags %x", p[:4])
	}
	c.promised, c.flags, c.health = rec.Epoch, p[0]&(flagTomb|flagFiled), Health(p[1])
	if p[0]&4 != 0 {
		c.flags |= flagDropped
	}
	copy(c.boot[:], p[4:20])
	c.end = tail{facet.Epoch(be.Uint64(p[20:])), rec.Seq}
	base, rest, err := decodeBase(p[28:])
	if err != nil {
		return c, err
	}
	c.base, c.since = base, facet.Epoch(be.Uint64(rest))
	switch {
	case c.health == Healthy && c.since != 0:
		return c, fmt.Errorf("decode carry: lost its health in epoch %v and is sound", c.since)
	case c.flags&flagDropped != 0 && (c.base != pages.Base{} || c.end != tail{}):
		return c, fmt.Errorf("decode carry: dropped, with a base at %v", c.base.Position)
	}
	return c, nil
}

// damageID names damage of the log that has been dealt with.
type damageID struct {
	kind            commitlog.DamageKind
	segment, offset uint32
	firstBatch      uint64
}

const damageLen = 4 + 4 + 4 + 8

func (d damageID) append(dst []byte) []byte {
	dst = be.AppendUint32(append(dst, byte(d.kind), 0, 0, 0), d.segment)
	return be.AppendUint64(be.AppendUint32(dst, d.offset), d.firstBatch)
}

func decodeDamage(p []byte) (d damageID, err error) {
	if err := fixed("damage", p, damageLen); err != nil {
		return d, err
	}
	if p[1]|p[2]|p[3] != 0 {
		return d, fmt.Errorf("decode damage: reserved bytes are not zero")
	}
	return damageID{commitlog.DamageKind(p[0]), be.Uint32(p[4:]), be.Uint32(p[8:]), be.Uint64(p[12:])}, nil
}
