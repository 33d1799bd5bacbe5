package peer

import (
	"encoding/binary"
	"fmt"

	"github.com/facetd/facetd/facet"
)

// Flags of an item in an APPEND frame.
const (
	itemNamed   = 1 << 0 // incarnation and session epoch follow the slot
	itemFollows = 1 << 1 // the entry follows the one the slot remembers
	itemBarrier = 1 << 2 // the entry is a barrier
	itemOlder   = 1 << 3 // the entry's epoch is not the session's
	itemKnown   = 1 << 4 // no entry: only what is committed

	itemFlags = itemNamed | itemFollows | itemBarrier | itemOlder | itemKnown
)

// ackNamed marks an item of an ACK frame that carries incarnation and epoch.
const ackNamed = 1 << 15

// slot remembers a facet of one direction of a connection: the item before named
// it, and the next one need not. Both ends keep the same memory, because both see
// the same items in the same order. The sender alone decides which slot to use.
type slot struct {
	session Session
	last    facet.Position // of the last entry sent; zero for none
}

type memory [slots]slot

// slotOf is where a sender remembers a facet: ids are random.
func slotOf(id facet.Incarnation) uint16 { return binary.LittleEndian.Uint16(id[:]) % slots }

// checkEntry says whether an entry may travel: one that may not would end the
// connection, and with it the appends of all other facets.
func checkEntry(session facet.Epoch, c *facet.Commit) error {
	switch {
	case c.Incarnation.IsZero():
		return fmt.Errorf("%w: no incarnation", ErrInvalid)
	case c.Kind != facet.KindCommit && c.Kind != facet.KindBarrier:
		return fmt.Errorf("%w: unknown kind %d", ErrInvalid, c.Kind)
	case c.Seq == 0 || c.Epoch == 0:
		return fmt.Errorf("%w: position %v", ErrInvalid, c.Position())
	case c.PrevEpoch > c.Epoch || c.Epoch > session:
		return fmt.Errorf("%w: epochs %v, %v in session %v", ErrInvalid, c.PrevEpoch, c.Epoch, session)
	case c.DBPages > facet.MaxPages:
		return fmt.Errorf("%w: %d pages", ErrInvalid, c.DBPages)
	case c.Kind == facet.KindBarrier && (len(c.Pages) != 0 || c.PreSum != c.PostSum):
		return fmt.Errorf("%w: a barrier changes nothing", ErrInvalid)
	case len(c.Pages) > facet.MaxCommitBytes:
		return fmt.Errorf("%w: %d bytes of pages", ErrTooLong, len(c.Pages))
	}
	return nil
}

// maxItemHead is the most an item adds to the pages of its entry.
const maxItemHead = 1 + 2 + 16 + 8 + 8 + 32 + 5 + 10 + 16 + 5

// appendItem appends one item and remembers it.
func (m *memory) appendItem(dst []byte, a *AppendItem) []byte {
	c := a.Entry
	n := slotOf(c.Incarnation)
	s := &m[n]
	flags := byte(0)
	session := Session{c.Incarnation, a.Epoch}
	if s.session != session {
		flags |= itemNamed
		*s = slot{session: session}
	} else if c.Seq == s.last.Seq+1 && c.PrevEpoch == s.last.Epoch && c.PreSum == s.last.Sum && s.last.Seq != 0 {
		flags |= itemFollows
	}
	if c.Kind == facet.KindBarrier {
		flags |= itemBarrier
	}
	if c.Epoch != a.Epoch {
		flags |= itemOlder
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(n))
	if flags&itemNamed != 0 {
		dst = append(dst, c.Incarnation[:]...)
		dst = binary.BigEndian.AppendUint64(dst, uint64(a.Epoch))
	}
	if flags&itemOlder != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(c.Epoch))
	}
	if flags&itemFollows == 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(c.Seq))
		dst = binary.BigEndian.AppendUint64(dst, uint64(c.PrevEpoch))
		dst = binary.BigEndian.AppendUint64(dst, c.PreSum.Hi)
		dst = binary.BigEndian.AppendUint64(dst, c.PreSum.Lo)
	}
	dst = binary.AppendUvarint(dst, uint64(c.DBPages))
	// A replica makes nothing of a commit index above the entry (rule R10).
	dst = binary.AppendUvarint(dst, uint64(c.Seq-min(a.Commit, c.Seq)))
	if flags&itemBarrier == 0 {
		dst = binary.BigEndian.AppendUint64(dst, c.PostSum.Hi)
		dst = binary.BigEndian.AppendUint64(dst, c.PostSum.Lo)
		dst = binary.AppendUvarint(dst, uint64(len(c.Pages)))
		dst = append(dst, c.Pages...)
	}
	s.last = c.Position()
	return dst
}

// appendKnown appends an item without an entry. It changes nothing in memory but
// the name.
func (m *memory) appendKnown(dst []byte, k *KnownItem) []byte {
	n := slotOf(k.Incarnation)
	s := &m[n]
	flags := byte(itemKnown)
	session := Session{k.Incarnation, k.Epoch}
	if s.session != session {
		flags |= itemNamed
		*s = slot{session: session}
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(n))
	if flags&itemNamed != 0 {
		dst = append(dst, k.Incarnation[:]...)
		dst = binary.BigEndian.AppendUint64(dst, uint64(k.Epoch))
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(k.At.Epoch))
	return binary.BigEndian.AppendUint64(dst, uint64(k.At.Seq))
}

// item is one decoded item; one of the two is meant.
type item struct {
	known  bool
	k      KnownItem
	a      AppendItem
	commit facet.Commit // what a.Entry points to; Pages alias the frame
}

// decodeItem reads one item into it.
func (m *memory) decodeItem(d *decoder, it *item) {
	flags := d.u8("flags")
	n := d.uvarint("slot")
	if flags&^itemFlags != 0 || n >= slots {
		d.fail("flags or slot")
		return
	}
	s := &m[n]
	if flags&itemNamed != 0 {
		id := d.incarnation("incarnation")
		*s = slot{session: Session{id, facet.Epoch(d.u64("session epoch"))}}
	}
	if s.session.Epoch == 0 {
		d.fail("session")
		return
	}
	if it.known = flags&itemKnown != 0; it.known {
		if flags&^(itemNamed|itemKnown) != 0 {
			d.fail("flags")
		}
		e := facet.Epoch(d.u64("epoch"))
		it.k = KnownItem{s.session.Incarnation, s.session.Epoch, facet.Position{Epoch: e, Seq: facet.Seq(d.u64("seq"))}}
		if d.err == nil && (e == 0 || it.k.At.Seq == 0 || e > s.session.Epoch) {
			d.fail("position")
		}
		return
	}
	m.decodeEntry(d, it, s, flags)
}

func (m *memory) decodeEntry(d *decoder, it *item, s *slot, flags byte) {
	c := &it.commit
	*c = facet.Commit{Incarnation: s.session.Incarnation, Kind: facet.KindCommit, Epoch: s.session.Epoch}
	if flags&itemOlder != 0 {
		c.Epoch = facet.Epoch(d.u64("epoch"))
		if c.Epoch >= s.session.Epoch {
			d.fail("epoch")
		}
	}
	if flags&itemFollows != 0 {
		if s.last.Seq == 0 {
			d.fail("entry that follows none")
		}
		c.Seq, c.PrevEpoch, c.PreSum = s.last.Seq+1, s.last.Epoch, s.last.Sum
	} else {
		c.Seq = facet.Seq(d.u64("seq"))
		c.PrevEpoch = facet.Epoch(d.u64("previous epoch"))
		c.PreSum = d.sum("checksum")
	}
	pages := d.uvarint("database size")
	if pages > facet.MaxPages {
		d.fail("database size")
	}
	c.DBPages = uint32(pages)
	lag := d.uvarint("commit")
	if lag > uint64(c.Seq) {
		d.fail("commit")
	}
	if flags&itemBarrier != 0 {
		c.Kind, c.PostSum = facet.KindBarrier, c.PreSum
	} else {
		c.PostSum = d.sum("checksum")
		n := d.uvarint("length of pages")
		if n > facet.MaxCommitBytes {
			d.fail("length of pages")
			return
		}
		c.Pages = d.take("pages", int(n))
	}
	if d.err != nil {
		return
	}
	if err := checkEntry(s.session.Epoch, c); err != nil {
		d.err = fmt.Errorf("%w: %w", ErrMalformed, err)
		return
	}
	s.last = c.Position()
	it.a = AppendItem{Epoch: s.session.Epoch, Commit: c.Seq - facet.Seq(lag), Entry: c}
}

// decodeItems calls f for each item of an APPEND frame.
func (m *memory) decodeItems(body []byte, it *item, f func(*item)) error {
	d := decoder{src: body}
	for n := 0; len(d.src) > 0; n++ {
		if n == MaxItems {
			d.fail("number of items")
			break
		}
		if m.decodeItem(&d, it); d.err != nil {
			break
		}
		f(it)
	}
	return d.end("append")
}

// ackMemory is what one direction remembers for acknowledgements.
type ackMemory [slots]Session

// maxAck is the longest encoded acknowledgement.
const maxAck = 3 + 24 + 10 + maxOutcome

// append appends one acknowledgement and remembers its facet.
func (m *ackMemory) append(dst []byte, a Session, seq facet.Seq, err error) []byte {
	n := slotOf(a.Incarnation)
	word := n
	if m[n] != a {
		m[n] = a
		word |= ackNamed
	}
	dst = binary.BigEndian.AppendUint16(dst, word)
	if word&ackNamed != 0 {
		dst = append(dst, a.Incarnation[:]...)
		dst = binary.BigEndian.AppendUint64(dst, uint64(a.Epoch))
	}
	dst = binary.AppendUvarint(dst, uint64(seq))
	return appendOutcome(dst, err)
}

// decode reads all acknowledgements of a frame.
func (m *ackMemory) decode(body []byte, acks []Ack) ([]Ack, error) {
	d := decoder{src: body}
	for len(d.src) > 0 {
		if len(acks) == MaxItems {
			d.fail("number of items")
			break
		}
		word := d.u16("slot")
		n := word &^ ackNamed
		if n >= slots {
			d.fail("slot")
			break
		}
		if word&ackNamed != 0 {
			id := d.incarnation("incarnation")
			m[n] = Session{id, facet.Epoch(d.u64("session epoch"))}
		}
		if m[n].Epoch == 0 {
			d.fail("session")
			break
		}
		a := Ack{Incarnation: m[n].Incarnation, Epoch: m[n].Epoch, Seq: facet.Seq(d.uvarint("seq"))}
		a.Err = d.outcome()
		if d.err == nil && a.Seq == 0 {
			d.fail("seq")
		}
		if d.err != nil {
			break
		}
		acks = append(acks, a)
	}
	return acks, d.end("ack")
}
