package facet

import (
	"encoding/binary"
	"fmt"
)

// Kind tells what an entry of a facet's log is.
type Kind uint8

const (
	// KindCommit is what one transaction changed.
	KindCommit Kind = 1
	// KindBarrier is the entry a new owner stamps with its own epoch before it
	// may serve (rule R20). It changes no page.
	KindBarrier Kind = 2
)

// Commit is one entry of a facet's log: the pages one transaction changed, in
// order, and what is needed to check that they are applied to the right
// database. Pages holds the encoded changes (package facet/pages reads them).
//
// Invariant: Seq is dense; PreSum equals the PostSum of the entry before; a
// barrier has PreSum == PostSum and no Pages.
type Commit struct {
	Incarnation Incarnation
	Kind        Kind
	Epoch       Epoch  // epoch of the owner that made it
	Seq         Seq    // place in the log
	PrevEpoch   Epoch  // epoch of the entry at Seq-1, zero when Seq is 1
	PreSum      Sum    // checksum of the database before
	PostSum     Sum    // checksum of the database after
	DBPages     uint32 // size of the database after, in pages
	Pages       []byte // encoded page changes, at most MaxCommitBytes
}

// Position is the position of a log that ends with c.
func (c *Commit) Position() Position {
	return Position{Epoch: c.Epoch, Seq: c.Seq, Sum: c.PostSum}
}

// Prev is the position of the log c may follow.
func (c *Commit) Prev() Position {
	return Position{Epoch: c.PrevEpoch, Seq: c.Seq - 1, Sum: c.PreSum}
}

// The encoded form of a commit, all numbers big-endian:
//
//	offset size
//	 0      1   kind
//	 1      3   zero
//	 4      4   size of the database after, in pages
//	 8      8   epoch
//	16      8   seq
//	24      8   epoch of the entry before
//	32     16   checksum before
//	48     16   checksum after
//	64      …   encoded pages, to the end
//
// The incarnation and the length are carried by whatever frames it (a log
// record, a peer message); integrity is the frame's matter too.
const commitHeaderLen = 64

// EncodedLen is the number of bytes AppendBinary appends.
func (c *Commit) EncodedLen() int { return commitHeaderLen + len(c.Pages) }

// AppendBinary appends the encoded form of c.
func (c *Commit) AppendBinary(dst []byte) []byte {
	dst = append(dst, byte(c.Kind), 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, c.DBPages)
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.Epoch))
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.Seq))
	dst = binary.BigEndian.AppendUint64(dst, uint64(c.PrevEpoch))
	dst = binary.BigEndian.AppendUint64(dst, c.PreSum.Hi)
	dst = binary.BigEndian.AppendUint64(dst, c.PreSum.Lo)
	dst = binary.BigEndian.AppendUint64(dst, c.PostSum.Hi)
	dst = binary.BigEndian.AppendUint64(dst, c.PostSum.Lo)
	return append(dst, c.Pages...)
}

// DecodeCommit reads an encoded commit of the facet id. Pages aliases src.
func DecodeCommit(id Incarnation, src []byte) (Commit, error) {
	var c Commit
	if len(src) < commitHeaderLen {
		return c, fmt.Errorf("decode commit: %d bytes, want at least %d", len(src), commitHeaderLen)
	}
	if len(src) > commitHeaderLen+MaxCommitBytes {
		return c, fmt.Errorf("decode commit: %d bytes, limit %d", len(src), commitHeaderLen+MaxCommitBytes)
	}
	c = Commit{
		Incarnation: id,
		Kind:        Kind(src[0]),
		DBPages:     binary.BigEndian.Uint32(src[4:]),
		Epoch:       Epoch(binary.BigEndian.Uint64(src[8:])),
		Seq:         Seq(binary.BigEndian.Uint64(src[16:])),
		PrevEpoch:   Epoch(binary.BigEndian.Uint64(src[24:])),
		PreSum:      Sum{binary.BigEndian.Uint64(src[32:]), binary.BigEndian.Uint64(src[40:])},
		PostSum:     Sum{binary.BigEndian.Uint64(src[48:]), binary.BigEndian.Uint64(src[56:])},
		Pages:       src[commitHeaderLen:],
	}
	switch {
	case src[1]|src[2]|src[3] != 0:
		return c, fmt.Errorf("decode commit: reserved bytes are not zero")
	case c.Kind != KindCommit && c.Kind != KindBarrier:
		return c, fmt.Errorf("decode commit: unknown kind %d", c.Kind)
	case c.Seq == 0 || c.Epoch == 0:
		return c, fmt.Errorf("decode commit: position %v is not valid", c.Position())
	case c.PrevEpoch > c.Epoch:
		return c, fmt.Errorf("decode commit: follows epoch %v but is of epoch %v", c.PrevEpoch, c.Epoch)
	case c.DBPages > MaxPages:
		return c, fmt.Errorf("decode commit: %d pages, limit %d", c.DBPages, MaxPages)
	case c.Kind == KindBarrier && (len(c.Pages) != 0 || c.PreSum != c.PostSum):
		return c, fmt.Errorf("decode commit: a barrier changes nothing")
	}
	return c, nil
}
