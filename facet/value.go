package facet

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Type is the storage class of a value, SQLite's five.
type Type uint8

const (
	Null    Type = 0
	Integer Type = 1
	Float   Type = 2
	Text    Type = 3
	Blob    Type = 4
)

// Value is one SQLite value in decoded form. Bytes holds text and blobs and may
// alias the buffer it was decoded from.
type Value struct {
	Type  Type
	Int   int64 // Integer
	Float float64
	Bytes []byte // Text, Blob
}

// Values is a row of values, or the arguments of a step, in encoded form: for
// each value one tag byte, then
//
//	0 NULL     nothing
//	1 integer  zigzag varint
//	2 float    8 bytes, IEEE 754 bits, big-endian
//	3 text     uvarint length, bytes (any bytes; UTF-8 by convention)
//	4 blob     uvarint length, bytes
//
// Requests and results travel and rest in this form, so a value is copied once
// on its way between SQLite and the socket.
type Values []byte

func AppendNull(dst Values) Values { return append(dst, byte(Null)) }

func AppendInt(dst Values, v int64) Values {
	return binary.AppendVarint(append(dst, byte(Integer)), v)
}

func AppendFloat(dst Values, v float64) Values {
	return binary.BigEndian.AppendUint64(append(dst, byte(Float)), math.Float64bits(v))
}

func AppendText[S string | []byte](dst Values, v S) Values {
	dst = binary.AppendUvarint(append(dst, byte(Text)), uint64(len(v)))
	return append(dst, v...)
}

func AppendBlob(dst Values, v []byte) Values {
	dst = binary.AppendUvarint(append(dst, byte(Blob)), uint64(len(v)))
	return append(dst, v...)
}

// AppendValue appends v in encoded form.
func AppendValue(dst Values, v Value) Values {
	switch v.Type {
	case Integer:
		return AppendInt(dst, v.Int)
	case Float:
		return AppendFloat(dst, v.Float)
	case Text:
		return AppendText(dst, v.Bytes)
	case Blob:
		return AppendBlob(dst, v.Bytes)
	}
	return AppendNull(dst)
}

// Next decodes the first value of vs and returns what follows it. The value's
// Bytes alias vs.
func (vs Values) Next() (v Value, rest Values, err error) {
	if len(vs) == 0 {
		return v, nil, fmt.Errorf("decode value: no more values")
	}
	v.Type, rest = Type(vs[0]), vs[1:]
	switch v.Type {
	case Null:
	case Integer:
		n, k := binary.Varint(rest)
		if k <= 0 {
			return v, nil, fmt.Errorf("decode value: bad integer")
		}
		v.Int, rest = n, rest[k:]
	case Float:
		if len(rest) < 8 {
			return v, nil, fmt.Errorf("decode value: float cut short")
		}
		v.Float, rest = math.Float64frombits(binary.BigEndian.Uint64(rest)), rest[8:]
	case Text, Blob:
		n, k := binary.Uvarint(rest)
		if k <= 0 || n > MaxValueLen {
			return v, nil, fmt.Errorf("decode value: bad length, limit %d bytes", MaxValueLen)
		}
		rest = rest[k:]
		if uint64(len(rest)) < n {
			return v, nil, fmt.Errorf("decode value: %d bytes announced, %d there", n, len(rest))
		}
		v.Bytes, rest = rest[:n:n], rest[n:]
	default:
		return v, nil, fmt.Errorf("decode value: unknown type %d", v.Type)
	}
	return v, rest, nil
}

// Decode appends every value of vs to dst.
func (vs Values) Decode(dst []Value) ([]Value, error) {
	for len(vs) > 0 {
		v, rest, err := vs.Next()
		if err != nil {
			return dst, err
		}
		dst, vs = append(dst, v), rest
	}
	return dst, nil
}
