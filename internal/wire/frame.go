package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Protocol is the token of the HTTP Upgrade, Path where it is asked for.
const (
	Protocol = "facet/1"
	Path     = "/v1/facet"
)

// Type is the type of a frame.
type Type uint8

// The closed, append-only list of frame types.
const (
	TypeHello    Type = 1 // client: versions, token
	TypeHelloOK  Type = 2 // server: version, limits, identity
	TypeRequest  Type = 3 // client: one facet.Request
	TypeResponse Type = 4 // server: a part of a facet.Response, FlagMore but for the last
	TypeError    Type = 5 // server: the request was not run, or failed as a whole
	TypeCancel   Type = 6 // client: give up the request with this id
	TypePing     Type = 7 // either: answer at once with the same payload
	TypePong     Type = 8 // either: the answer
	TypeGoAway   Type = 9 // server: no new requests here; the body is an error that says why
)

func (t Type) String() string {
	names := [...]string{TypeHello: "hello", TypeHelloOK: "hello-ok", TypeRequest: "request",
		TypeResponse: "response", TypeError: "error", TypeCancel: "cancel", TypePing: "ping",
		TypePong: "pong", TypeGoAway: "go-away"}
	if int(t) < len(names) && t != 0 {
		return names[t]
	}
	return fmt.Sprintf("type_%d", uint8(t))
}

// Flags of a frame; what a bit means depends on the type.
type Flags uint8

// Flags of TypeRequest.
const (
	FlagKeepTx   Flags = 1 << 0
	FlagAtomic   Flags = 1 << 1
	FlagReadOnly Flags = 1 << 2
	FlagTx       Flags = 1 << 3 // the body carries a transaction id
	FlagKey      Flags = 1 << 4 // the body carries an idempotency key
	FlagRead     Flags = 1 << 5 // the body says how the request reads
	FlagTrace    Flags = 1 << 6 // the body ends with a trace

	requestFlags = FlagKeepTx | FlagAtomic | FlagReadOnly | FlagTx | FlagKey | FlagRead | FlagTrace
)

// Flags of TypeResponse.
const (
	FlagMore     Flags = 1 << 0 // another frame of this answer follows
	FlagOpenTx   Flags = 1 << 1 // last frame: a transaction stays open, its id is in the body
	FlagPosition Flags = 1 << 2 // last frame: the position is in the body
	FlagBookmark Flags = 1 << 3 // last frame: its bookmark is in the body

	responseFlags = FlagMore | FlagOpenTx | FlagPosition | FlagBookmark
)

// The header of every frame, all numbers big-endian:
//
//	offset size
//	 0      4   CRC-32C (Castagnoli) of everything after it, body included
//	 4      4   length of the body
//	 8      4   id of the request, 0 where there is none
//	12      1   type
//	13      1   flags
//	14      2   zero
const HeaderLen = 16

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Frame is one decoded frame. Body is valid until the handler returns, unless
// Owned says that it belongs to the handler.
type Frame struct {
	Type  Type
	Flags Flags
	ID    uint32
	Body  []byte
	Owned bool
}

// Errors that end a connection.
var (
	ErrFrameTooLong = errors.New("frame is longer than the limit")
	ErrChecksum     = errors.New("frame fails its checksum")
	ErrProtocol     = errors.New("protocol violation")
	ErrPeerSilent   = errors.New("peer has been silent for too long")
	ErrSlowReader   = errors.New("peer does not read its answers")
	ErrClosed       = errors.New("connection closed")
)

// BeginFrame appends the header of a frame whose body follows; EndFrame closes
// it. at is what EndFrame needs.
func BeginFrame(dst []byte, t Type, fl Flags, id uint32) (out []byte, at int) {
	at = len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, id)
	return append(dst, byte(t), byte(fl), 0, 0), at
}

// EndFrame fills in length and checksum of the frame that begins at at.
func EndFrame(dst []byte, at int) []byte {
	f := dst[at:]
	binary.BigEndian.PutUint32(f[4:], uint32(len(f)-HeaderLen))
	binary.BigEndian.PutUint32(f, crc32.Update(0, castagnoli, f[4:]))
	return dst
}

// StampFrame gives the complete frame f another id: a request that is sent again
// is encoded once.
func StampFrame(f []byte, id uint32) {
	binary.BigEndian.PutUint32(f[8:], id)
	EndFrame(f, 0)
}

// header is the fixed part of a frame.
type header struct {
	sum, n, id uint32
	typ        Type
	flags      Flags
}

// parseHeader reads the first HeaderLen bytes of src and checks the length.
func parseHeader(src []byte, maxBody int) (header, error) {
	_ = src[HeaderLen-1]
	h := header{
		sum:   binary.BigEndian.Uint32(src),
		n:     binary.BigEndian.Uint32(src[4:]),
		id:    binary.BigEndian.Uint32(src[8:]),
		typ:   Type(src[12]),
		flags: Flags(src[13]),
	}
	if uint64(h.n) > uint64(maxBody) {
		return h, fmt.Errorf("%w: %v frame of %d bytes, limit %d", ErrFrameTooLong, h.typ, h.n, maxBody)
	}
	if src[14]|src[15] != 0 {
		return h, fmt.Errorf("%w: reserved bytes of a %v frame are not zero", ErrProtocol, h.typ)
	}
	return h, nil
}

// DecodeFrame cuts the first frame off src. n is its length, zero when src does
// not hold it whole. The frame's body aliases src.
func DecodeFrame(src []byte, maxBody int) (f Frame, n int, err error) {
	if len(src) < HeaderLen {
		return f, 0, nil
	}
	h, err := parseHeader(src, maxBody)
	if err != nil {
		return f, 0, err
	}
	n = HeaderLen + int(h.n)
	if len(src) < n {
		return f, 0, nil
	}
	if crc32.Update(0, castagnoli, src[4:n]) != h.sum {
		return f, 0, fmt.Errorf("%w: %v frame of %d bytes", ErrChecksum, h.typ, h.n)
	}
	return Frame{Type: h.typ, Flags: h.flags, ID: h.id, Body: src[HeaderLen:n:n]}, n, nil
}
