package peer

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
)

// code is what became of a request, as a number that crosses the wire. The list
// is append-only.
type code uint8

const (
	codeOK             code = 0
	codeEpoch          code = 1 // then 8 bytes: the epoch promised
	codeGap            code = 2 // then 32 bytes: the end of the log
	codeDiverged       code = 3
	codeFull           code = 4
	codeUnknown        code = 5
	codeBoot           code = 6
	codeDeleted        code = 7
	codeDamaged        code = 8
	codeCompacted      code = 9
	codeBusy           code = 10
	codeOpen           code = 11
	codeNotKnown       code = 12
	codeClosed         code = 13
	codeRefused        code = 14
	codeNotLeader      code = 15 // then 1 byte and the id of the leader, empty when none is known
	codeUnknownOutcome code = 16
	codeOther          code = 17 // then 2 bytes and a text
	codeInvalid        code = 18

	codeLast = codeInvalid
)

// names are the errors that are told by their code alone.
var names = [codeLast + 1]error{
	codeDiverged: replica.ErrDiverged, codeFull: replica.ErrFull, codeUnknown: replica.ErrUnknown,
	codeBoot: replica.ErrBoot, codeDeleted: replica.ErrDeleted, codeDamaged: replica.ErrDamaged,
	codeCompacted: replica.ErrCompacted, codeBusy: ErrBusy, codeOpen: replica.ErrOpen,
	codeNotKnown: replica.ErrNotKnown, codeClosed: replica.ErrClosed, codeRefused: ErrRefused,
	codeUnknownOutcome: ErrUnknownOutcome, codeInvalid: ErrInvalid,
}

// maxOutcome is the longest encoded outcome.
const maxOutcome = 1 + 2 + maxText

// appendOutcome appends err as an outcome.
func appendOutcome(dst []byte, err error) []byte {
	if err == nil {
		return append(dst, byte(codeOK))
	}
	if e, ok := errors.AsType[*replica.EpochError](err); ok {
		return binary.BigEndian.AppendUint64(append(dst, byte(codeEpoch)), uint64(e.Promised))
	}
	if e, ok := errors.AsType[*replica.GapError](err); ok {
		return e.Last.AppendBinary(append(dst, byte(codeGap)))
	}
	if e, ok := errors.AsType[*NotLeaderError](err); ok {
		id := e.Leader[:min(len(e.Leader), cluster.MaxNodeIDLen)]
		return append(append(dst, byte(codeNotLeader), byte(len(id))), id...)
	}
	for c, e := range names {
		if e != nil && errors.Is(err, e) {
			return append(dst, byte(c))
		}
	}
	text := err.Error()
	text = text[:min(len(text), maxText)]
	dst = append(dst, byte(codeOther))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(text)))
	return append(dst, text...)
}

// outcome reads what appendOutcome wrote. A code of a later version is an error
// without a name.
func (d *decoder) outcome() error {
	c := code(d.u8("outcome"))
	switch c {
	case codeOK:
		return nil
	case codeEpoch:
		return &replica.EpochError{Promised: facet.Epoch(d.u64("epoch promised"))}
	case codeGap:
		return &replica.GapError{Last: d.position("end of the log")}
	case codeNotLeader:
		n := int(d.u8("leader"))
		if n == 0 {
			return &NotLeaderError{}
		}
		id, err := cluster.ParseNodeID(string(d.take("leader", n)))
		if err != nil {
			d.fail("leader")
		}
		return &NotLeaderError{Leader: id}
	case codeOther:
		n := int(d.u16("text"))
		if n > maxText {
			d.fail("text")
		}
		return fmt.Errorf("peer answers: %q", d.take("text", n))
	}
	if c > codeLast || names[c] == nil {
		d.fail("outcome")
		return nil
	}
	return names[c]
}

// decoder reads a body front to back and keeps the first error.
type decoder struct {
	src []byte
	err error
}

// ErrMalformed ends a connection: a frame does not hold what its type says.
var ErrMalformed = errors.New("malformed message")

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: bad %s", ErrMalformed, what)
	}
	d.src = nil
}

// take cuts off n bytes; the caller compared n with its limit.
func (d *decoder) take(what string, n int) []byte {
	if n > len(d.src) {
		d.fail(what)
		return nil
	}
	b := d.src[:n:n]
	d.src = d.src[n:]
	return b
}

func (d *decoder) u8(what string) byte {
	if len(d.src) == 0 {
		d.fail(what)
		return 0
	}
	b := d.src[0]
	d.src = d.src[1:]
	return b
}

func (d *decoder) u16(what string) uint16 {
	if b := d.take(what, 2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) u32(what string) uint32 {
	if b := d.take(what, 4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64(what string) uint64 {
	if b := d.take(what, 8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// uvarint reads a number in its shortest form only, so that every message has one
// encoding.
func (d *decoder) uvarint(what string) uint64 {
	if len(d.src) > 0 && d.src[0] < 0x80 {
		n := d.src[0]
		d.src = d.src[1:]
		return uint64(n)
	}
	n, k := binary.Uvarint(d.src)
	if k <= 0 || d.src[k-1] == 0 {
		d.fail(what)
		return 0
	}
	d.src = d.src[k:]
	return n
}

func (d *decoder) sum(what string) facet.Sum {
	hi := d.u64(what)
	return facet.Sum{Hi: hi, Lo: d.u64(what)}
}

func (d *decoder) position(what string) facet.Position {
	e, s := facet.Epoch(d.u64(what)), facet.Seq(d.u64(what))
	return facet.Position{Epoch: e, Seq: s, Sum: d.sum(what)}
}

func (d *decoder) incarnation(what string) (id facet.Incarnation) {
	if b := d.take(what, len(id)); b != nil {
		id = facet.Incarnation(b)
		if id.IsZero() {
			d.fail(what)
		}
	}
	return id
}

// end wraps the first error, or says that bytes are left over.
func (d *decoder) end(what string) error {
	if d.err == nil && len(d.src) != 0 {
		d.fail("length")
	}
	if d.err != nil {
		return fmt.Errorf("decode %s: %w", what, d.err)
	}
	return nil
}
