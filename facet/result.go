package facet

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Result is the outcome of a request's steps as a flat sequence of items, each
//
//	1 byte   item kind
//	uvarint  length of the body
//	body
//
// so that it can be cut into frames between any two items and read as a stream.
// A step that returns rows gives ItemColumns, any number of ItemRow, ItemDone; a
// step that fails gives ItemError, perhaps after columns and rows; a step whose
// condition did not hold gives ItemSkipped; a described step ItemDescribe.
//
// Bodies (uvarint and varint as in encoding/binary, str = uvarint length, bytes):
//
//	columns   uvarint count, count × (str name, str declared type)
//	row       Values, one per column
//	done      varint rows changed, varint last insert rowid, uvarint rows
//	          returned, uvarint microseconds, 1 byte flags (1: inside a transaction)
//	error     the body AppendError writes
//	skipped   empty
//	describe  1 byte flags (1: explain, 2: read-only), uvarint parameter count,
//	          count × str name (empty for nameless), then a columns body
type Result []byte

// ItemKind is the first byte of a result item.
type ItemKind uint8

const (
	ItemColumns  ItemKind = 1
	ItemRow      ItemKind = 2
	ItemDone     ItemKind = 3
	ItemError    ItemKind = 4
	ItemSkipped  ItemKind = 5
	ItemDescribe ItemKind = 6
)

// Item is one element of a Result. Body aliases the result.
type Item struct {
	Kind ItemKind
	Body []byte
}

// Next cuts the first item off r.
func (r Result) Next() (it Item, rest Result, err error) {
	if len(r) == 0 {
		return it, nil, fmt.Errorf("decode result: no more items")
	}
	it.Kind = ItemKind(r[0])
	if it.Kind < ItemColumns || it.Kind > ItemDescribe {
		return it, nil, fmt.Errorf("decode result: unknown item %d", r[0])
	}
	n, k := binary.Uvarint(r[1:])
	if k <= 0 || n > uint64(len(r)-1-k) {
		return it, nil, fmt.Errorf("decode result: item cut short")
	}
	body := r[1+k:]
	it.Body = body[:n:n]
	return it, body[n:], nil
}

// BeginItem appends the head of an item whose body length is not known yet and
// returns where the body begins; EndItem fills the length in.
func BeginItem(dst Result, kind ItemKind) (Result, int) {
	// Four bytes hold any length below 2^28, above every limit on a result.
	dst = append(dst, byte(kind), 0, 0, 0, 0)
	return dst, len(dst)
}

// EndItem closes the item whose body begins at start. The length is a uvarint
// padded to four bytes, which every uvarint reader accepts.
func EndItem(dst Result, start int) Result {
	n := uint32(len(dst) - start)
	dst[start-4] = byte(n) | 0x80
	dst[start-3] = byte(n>>7) | 0x80
	dst[start-2] = byte(n>>14) | 0x80
	dst[start-1] = byte(n>>21) & 0x7f
	return dst
}

// Column is the name and declared type of a result column.
type Column struct{ Name, DeclType string }

// DecodeColumns reads the body of ItemColumns.
func DecodeColumns(body []byte) ([]Column, error) {
	n, body, err := uvarint(body)
	if err != nil || n > MaxColumns {
		return nil, fmt.Errorf("decode columns: bad count, limit %d", MaxColumns)
	}
	cols := make([]Column, n)
	for i := range cols {
		var name, decl []byte
		if name, body, err = str(body); err == nil {
			decl, body, err = str(body)
		}
		if err != nil {
			return nil, fmt.Errorf("decode columns: %w", err)
		}
		cols[i] = Column{string(name), string(decl)}
	}
	return cols, nil
}

// Done is the body of ItemDone.
type Done struct {
	Changes     int64 // rows inserted, updated or deleted by the statement
	LastRowID   int64
	RowsOut     uint64
	Duration    time.Duration
	Transaction bool // a transaction was open after the step
}

// AppendDone appends the item of d.
func AppendDone(dst Result, d Done) Result {
	dst, at := BeginItem(dst, ItemDone)
	dst = binary.AppendVarint(dst, d.Changes)
	dst = binary.AppendVarint(dst, d.LastRowID)
	dst = binary.AppendUvarint(dst, d.RowsOut)
	dst = binary.AppendUvarint(dst, uint64(max(0, d.Duration.Microseconds())))
	var flags byte
	if d.Transaction {
		flags |= 1
	}
	return EndItem(append(dst, flags), at)
}

// DecodeDone reads the body of ItemDone.
func DecodeDone(body []byte) (d Done, err error) {
	var k int
	var us uint64
	if d.Changes, k = binary.Varint(body); k <= 0 {
		return d, errDone
	}
	body = body[k:]
	if d.LastRowID, k = binary.Varint(body); k <= 0 {
		return d, errDone
	}
	body = body[k:]
	if d.RowsOut, body, err = uvarint(body); err != nil {
		return d, errDone
	}
	if us, body, err = uvarint(body); err != nil || len(body) < 1 || us > 1<<50 {
		return d, errDone
	}
	d.Duration = time.Duration(us) * time.Microsecond
	d.Transaction = body[0]&1 != 0
	return d, nil
}

var errDone = fmt.Errorf("decode done: cut short")

// AppendErrorItem appends the item of e.
func AppendErrorItem(dst Result, e *Error) Result {
	dst, at := BeginItem(dst, ItemError)
	return EndItem(AppendError(dst, e), at)
}

// AppendError appends the wire form of e: uvarint code, uvarint SQLite code,
// varint offset, str limit, str owner, uvarint epoch, uvarint retry-after in
// microseconds, str message.
func AppendError(dst []byte, e *Error) []byte {
	dst = binary.AppendUvarint(dst, uint64(e.Code))
	dst = binary.AppendUvarint(dst, uint64(max(0, e.SQLite)))
	dst = binary.AppendVarint(dst, int64(e.Offset))
	dst = AppendStr(dst, e.Limit)
	dst = AppendStr(dst, e.Owner)
	dst = binary.AppendUvarint(dst, uint64(e.Epoch))
	dst = binary.AppendUvarint(dst, uint64(max(0, e.RetryAfter.Microseconds())))
	return AppendStr(dst, e.Message)
}

// DecodeError reads what AppendError wrote; err is about the bytes, e is the
// error they tell.
func DecodeError(body []byte) (e *Error, err error) {
	e = &Error{}
	fail := func(what string) (*Error, error) { return nil, fmt.Errorf("decode error: bad %s", what) }
	code, body, err := uvarint(body)
	if err != nil || code > 1<<16-1 {
		return fail("code")
	}
	if e.Code = Code(code); !e.Code.Known() {
		e.Code = CodeInternal
	}
	sqlite, body, err := uvarint(body)
	if err != nil || sqlite > 1<<31-1 {
		return fail("SQLite code")
	}
	e.SQLite = int(sqlite)
	off, k := binary.Varint(body)
	if k <= 0 || off < -1 || off > MaxSQLLen {
		return fail("offset")
	}
	e.Offset, body = int(off), body[k:]
	limit, body, err := str(body)
	if err != nil {
		return fail("limit")
	}
	owner, body, err := str(body)
	if err != nil {
		return fail("owner")
	}
	epoch, body, err := uvarint(body)
	if err != nil {
		return fail("epoch")
	}
	after, body, err := uvarint(body)
	if err != nil || after > 1<<50 {
		return fail("retry-after")
	}
	msg, _, err := str(body)
	if err != nil {
		return fail("message")
	}
	e.Limit, e.Owner, e.Message = string(limit), string(owner), string(msg)
	e.Epoch, e.RetryAfter = Epoch(epoch), time.Duration(after)*time.Microsecond
	return e, nil
}

// Description is the body of ItemDescribe.
type Description struct {
	Explain  bool
	ReadOnly bool
	Params   []string // "" for a nameless parameter
	Columns  []Column
}

// DecodeDescription reads the body of ItemDescribe.
func DecodeDescription(body []byte) (d Description, err error) {
	if len(body) < 1 {
		return d, fmt.Errorf("decode description: cut short")
	}
	d.Explain, d.ReadOnly = body[0]&1 != 0, body[0]&2 != 0
	n, body, err := uvarint(body[1:])
	if err != nil || n > MaxArgs || n > uint64(len(body)) {
		return d, fmt.Errorf("decode description: bad parameter count, limit %d", MaxArgs)
	}
	d.Params = make([]string, n)
	for i := range d.Params {
		var p []byte
		if p, body, err = str(body); err != nil {
			return d, fmt.Errorf("decode description: %w", err)
		}
		d.Params[i] = string(p)
	}
	d.Columns, err = DecodeColumns(body)
	return d, err
}

// AppendStr appends a length and the bytes of s.
func AppendStr[S string | []byte](dst []byte, s S) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func uvarint(src []byte) (uint64, []byte, error) {
	n, k := binary.Uvarint(src)
	if k <= 0 {
		return 0, nil, fmt.Errorf("bad number")
	}
	return n, src[k:], nil
}

func str(src []byte) (s, rest []byte, err error) {
	n, rest, err := uvarint(src)
	if err != nil || n > uint64(len(rest)) {
		return nil, nil, fmt.Errorf("bad length")
	}
	return rest[:n:n], rest[n:], nil
}
