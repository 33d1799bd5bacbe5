package facet

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// Bookmark names a committed position of one facet (rule R35). It is given with an
// answer, which leaves when all it saw is committed (R29), so it stays good over every
// change of owner. A facet that is deleted and made again, or replaced by an import,
// has another incarnation, and with it another lineage: its old bookmarks are refused.
//
// It is no secret and no proof: whoever may read the facet may make one up, and gets
// an error, or an answer that waited for nothing. So nothing but waiting may depend on
// it.
type Bookmark struct {
	Facet Incarnation
	Epoch Epoch
	Seq   Seq
}

// IsZero reports whether b is no bookmark.
func (b Bookmark) IsZero() bool { return b == Bookmark{} }

// Covered reports whether a copy at p holds everything up to the bookmark. Both must
// be of one facet, and p committed.
func (b Bookmark) Covered(p Position) bool { return p.Seq >= b.Seq && p.Epoch >= b.Epoch }

// bookmarkLen is the encoded size of a Bookmark.
const bookmarkLen = 16 + 8 + 8

// AppendBinary appends the 32-byte form of b: incarnation, epoch, seq.
func (b Bookmark) AppendBinary(dst []byte) []byte {
	dst = append(dst, b.Facet[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(b.Epoch))
	return binary.BigEndian.AppendUint64(dst, uint64(b.Seq))
}

// DecodeBookmark reads what AppendBinary wrote and returns the rest of src.
func DecodeBookmark(src []byte) (b Bookmark, rest []byte, err error) {
	if len(src) < bookmarkLen {
		return b, nil, fmt.Errorf("decode bookmark: %d bytes, want %d", len(src), bookmarkLen)
	}
	copy(b.Facet[:], src)
	b.Epoch = Epoch(binary.BigEndian.Uint64(src[16:]))
	b.Seq = Seq(binary.BigEndian.Uint64(src[24:]))
	return b, src[bookmarkLen:], nil
}

// The text of a bookmark is bookmarkMagic and, in base 32 with digits that sort like
// the bytes, its binary form and the CRC-32C of magic and form. So two bookmarks of
// one facet sort like their positions.
const (
	bookmarkMagic = "fb1"
	bookmarkText  = len(bookmarkMagic) + (8*(bookmarkLen+4)+4)/5
)

var (
	bookmarkDigits = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)
	bookmarkSum    = crc32.MakeTable(crc32.Castagnoli)
)

// String is the text that clients keep; the zero bookmark's is empty.
func (b Bookmark) String() string {
	if b.IsZero() {
		return ""
	}
	raw := b.AppendBinary([]byte(bookmarkMagic))
	raw = binary.BigEndian.AppendUint32(raw, crc32.Checksum(raw, bookmarkSum))
	return bookmarkMagic + bookmarkDigits.EncodeToString(raw[len(bookmarkMagic):])
}

// ParseBookmark reads what String prints, to the letter.
func ParseBookmark(s string) (Bookmark, error) {
	if text, ok := strings.CutPrefix(s, bookmarkMagic); ok && len(s) == bookmarkText {
		if raw, err := bookmarkDigits.DecodeString(text); err == nil {
			b, _, err := DecodeBookmark(raw)
			if err == nil && b.Valid() && b.String() == s {
				return b, nil
			}
		}
	}
	return Bookmark{}, Errorf(CodeBookmark, "%.80q is no bookmark: give one as an answer had it, %d characters that begin with %s", s, bookmarkText, bookmarkMagic)
}

// Valid reports whether b can name a position of some facet.
func (b Bookmark) Valid() bool { return !b.Facet.IsZero() && b.Epoch != 0 && b.Seq != 0 }
