package wire

import (
	"fmt"

	"github.com/facetd/facetd/facet"
)

// The body of TypeResponse:
//
//	16 bytes transaction id   FlagOpenTx, last frame only
//	32 bytes position         FlagPosition, last frame only
//	32 bytes bookmark         FlagBookmark, last frame only
//	…        whole result items, to the end
//
// The items of all frames of one answer, one after the other, are the Result.

// AppendResponse appends one frame that holds all of r. The result must not be
// longer than ChunkLen; a ResponseStream cuts longer ones.
func AppendResponse(dst []byte, id uint32, r *facet.Response) []byte {
	return appendLast(dst, id, r, r.Result)
}

func appendLast(dst []byte, id uint32, r *facet.Response, items facet.Result) []byte {
	fl := Flags(0)
	if !r.Tx.IsZero() {
		fl |= FlagOpenTx
	}
	if !r.Position.IsZero() {
		fl |= FlagPosition
	}
	if !r.Bookmark.IsZero() {
		fl |= FlagBookmark
	}
	dst, at := BeginFrame(dst, TypeResponse, fl, id)
	if fl&FlagOpenTx != 0 {
		dst = append(dst, r.Tx[:]...)
	}
	if fl&FlagPosition != 0 {
		dst = r.Position.AppendBinary(dst)
	}
	if fl&FlagBookmark != 0 {
		dst = r.Bookmark.AppendBinary(dst)
	}
	return EndFrame(append(dst, items...), at)
}

// ResponseStream cuts a long answer into frames. It reads r and its result until
// Next says that it is done.
type ResponseStream struct {
	ID       uint32
	Response *facet.Response
	rest     facet.Result
	begun    bool
}

// Next appends the next frame and tells whether more follow. A result that is
// not well formed, or holds an item no frame can hold, ends with an error frame
// of unknown outcome: what it tells of did happen.
func (s *ResponseStream) Next(dst []byte) (out []byte, more bool) {
	if !s.begun {
		s.rest, s.begun = s.Response.Result, true
	}
	n, err := cutItems(s.rest)
	if err != nil {
		e := facet.Errorf(facet.CodeUnknownOutcome, "send answer: %v", err)
		return AppendError(dst, TypeError, s.ID, e), false
	}
	items := s.rest[:n]
	s.rest = s.rest[n:]
	if len(s.rest) == 0 {
		return appendLast(dst, s.ID, s.Response, items), false
	}
	dst, at := BeginFrame(dst, TypeResponse, FlagMore, s.ID)
	return EndFrame(append(dst, items...), at), true
}

// Pending is how many bytes of result are still to be sent.
func (s *ResponseStream) Pending() int {
	if !s.begun {
		return len(s.Response.Result)
	}
	return len(s.rest)
}

// cutItems tells how many bytes of whole items fill one chunk: at least one item,
// and no more once the chunk is long enough.
func cutItems(r facet.Result) (int, error) {
	n := 0
	for rest := r; len(rest) > 0 && n < ChunkLen; {
		_, after, err := rest.Next()
		if err != nil {
			return 0, err
		}
		took := len(rest) - len(after)
		if took > MaxFrame-64 {
			return 0, fmt.Errorf("an item of %d bytes does not fit into a frame, limit %d", took, MaxFrame-64)
		}
		if n > 0 && n+took > ChunkLen {
			break
		}
		n, rest = n+took, after
	}
	return n, nil
}

// Part is one decoded frame of an answer. Items aliases the frame.
type Part struct {
	Items    facet.Result
	More     bool
	Tx       facet.TxID
	Position facet.Position
	Bookmark facet.Bookmark
}

// DecodeResponse reads a TypeResponse frame. The items are cut and checked by
// whoever reads them.
func DecodeResponse(f Frame) (p Part, err error) {
	if f.Flags&^responseFlags != 0 {
		return p, fmt.Errorf("decode response: %w: unknown flags %#x", ErrProtocol, uint8(f.Flags))
	}
	p.More = f.Flags&FlagMore != 0
	if p.More && f.Flags != FlagMore {
		return p, fmt.Errorf("decode response: %w: transaction, position or bookmark before the last frame", ErrProtocol)
	}
	d := decoder{src: f.Body}
	if f.Flags&FlagOpenTx != 0 {
		copy(p.Tx[:], d.bytes("transaction id", len(p.Tx)))
	}
	if f.Flags&FlagPosition != 0 && d.err == nil {
		p.Position, d.src, err = facet.DecodePosition(d.src)
		if err != nil {
			d.fail("position")
		}
	}
	if f.Flags&FlagBookmark != 0 && d.err == nil {
		p.Bookmark, d.src, err = facet.DecodeBookmark(d.src)
		if err != nil {
			d.fail("bookmark")
		}
	}
	p.Items = facet.Result(d.src)
	return p, d.wrap("response")
}
