package facet

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
)

// Incarnation is the random 128-bit id a facet gets when it is created. Names
// are re-used, incarnations never are (rule R1).
type Incarnation [16]byte

// NewIncarnation draws a fresh id.
func NewIncarnation() Incarnation {
	var id Incarnation
	rand.Read(id[:]) // never fails since Go 1.24: the runtime stops the process instead
	return id
}

// ParseIncarnation reads the 32 hexadecimal digits that String prints.
func ParseIncarnation(s string) (Incarnation, error) {
	var id Incarnation
	if len(s) != 2*len(id) {
		return id, fmt.Errorf("parse incarnation %.40q: want 32 hexadecimal digits", s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return id, fmt.Errorf("parse incarnation %q: %w", s, err)
	}
	return id, nil
}

func (id Incarnation) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id is the id of nothing.
func (id Incarnation) IsZero() bool { return id == Incarnation{} }

// Epoch is the fencing token placement issues at every change of owner or
// replica set. Epochs of a facet strictly increase; the top 16 bits are the
// placement generation (rule R2). Zero is no epoch.
type Epoch uint64

// ParseEpoch reads what String prints.
func ParseEpoch(s string) (Epoch, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	return Epoch(n), err
}

func (e Epoch) String() string { return strconv.FormatUint(uint64(e), 10) }

// IsZero reports whether e is no epoch at all.
func (e Epoch) IsZero() bool { return e == 0 }

// Next is the epoch placement issues after e.
func (e Epoch) Next() Epoch { return e + 1 }

// Seq numbers the entries of a facet's log, dense from 1. Zero is the empty log.
type Seq uint64

func (s Seq) String() string { return strconv.FormatUint(uint64(s), 10) }

// Sum is the rolling checksum of a whole database: the sum, lane by lane and
// modulo 2^64, of one 128-bit hash per page (rule R51). A commit changes it by
// subtracting the hashes of the old pages and adding those of the new ones. The
// empty database has the zero Sum.
type Sum struct{ Hi, Lo uint64 }

// Add returns s with the page hash h added.
func (s Sum) Add(h Sum) Sum { return Sum{s.Hi + h.Hi, s.Lo + h.Lo} }

// Sub returns s with the page hash h taken away.
func (s Sum) Sub(h Sum) Sum { return Sum{s.Hi - h.Hi, s.Lo - h.Lo} }

func (s Sum) String() string { return fmt.Sprintf("%016x%016x", s.Hi, s.Lo) }

// Position says how far a log goes: the epoch and sequence number of its last
// entry and the checksum of the database after it.
type Position struct {
	Epoch Epoch
	Seq   Seq
	Sum   Sum
}

// IsZero reports whether p is the position of an empty log.
func (p Position) IsZero() bool { return p == Position{} }

// Compare orders logs for adoption: last epoch first, then length (rule R18).
// The checksum takes no part: equal (epoch, seq) with different sums is
// divergence, not order.
func (p Position) Compare(q Position) int {
	switch {
	case p.Epoch != q.Epoch:
		if p.Epoch < q.Epoch {
			return -1
		}
		return 1
	case p.Seq < q.Seq:
		return -1
	case p.Seq > q.Seq:
		return 1
	}
	return 0
}

// String prints epoch.seq, the form used in errors and logs.
func (p Position) String() string { return p.Epoch.String() + "." + p.Seq.String() }

// positionLen is the encoded size of a Position: epoch, seq, sum.
const positionLen = 8 + 8 + 16

// AppendBinary appends the 32-byte form of p, all numbers big-endian.
func (p Position) AppendBinary(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.Epoch))
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.Seq))
	dst = binary.BigEndian.AppendUint64(dst, p.Sum.Hi)
	return binary.BigEndian.AppendUint64(dst, p.Sum.Lo)
}

// DecodePosition reads what AppendBinary wrote and returns the rest of src.
func DecodePosition(src []byte) (p Position, rest []byte, err error) {
	if len(src) < positionLen {
		return p, nil, fmt.Errorf("decode position: %d bytes, want %d", len(src), positionLen)
	}
	p.Epoch = Epoch(binary.BigEndian.Uint64(src))
	p.Seq = Seq(binary.BigEndian.Uint64(src[8:]))
	p.Sum = Sum{binary.BigEndian.Uint64(src[16:]), binary.BigEndian.Uint64(src[24:])}
	return p, src[positionLen:], nil
}

// Lineage says of which other facet a facet was made. It never changes.
type Lineage struct {
	Source Incarnation // zero: of none
	At     Position    // of Source: what the facet began with
	// Lossy says that At is what one surviving copy of Source had, and not what was
	// committed: acknowledged writes may be missing (rule R25).
	Lossy bool
}

// IsZero reports whether the facet was made of no other.
func (l Lineage) IsZero() bool { return l == Lineage{} }
