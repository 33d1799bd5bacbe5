package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/facetd/facetd/cluster"
)

// Messages of Config.Exchange, and the pledge on disk. Numbers are big-endian,
// a string is its length in 2 bytes and its bytes:
//
//	offset size
//	 0      1   kind: 1 question, 2 answer, 3 pledge on disk
//	 1      1   version, 1
//	 2      2   zero
//	 4      4   CRC-32C of all that follows
//	 8      …   body
//
//	question   who asks (string), then the founding to pledge, or none
//	answer     node id (string), log id (16), cluster id (16), generation (4),
//	           expected nodes (1), highest round met (4), verdict (1),
//	           candidates seen (1 and that many strings), then the founding
//	           pledged to, or none
//	pledge     highest round met (4), then the founding pledged to, or none
//	founding   0 for none; else the number of its members (1), cluster id (16),
//	           round (4), for each node id (string), log id (16), address (string)
const (
	kindQuestion = 1
	kindAnswer   = 2
	kindPledge   = 3

	messageVersion = 1
	messageHeadLen = 8

	// MaxMessage bounds a message: an answer with the most founders and the
	// longest names and addresses is half as long.
	MaxMessage = 8 << 10
)

// question asks a node who it is and, with a founding, to pledge itself to it.
type question struct {
	from   cluster.NodeID
	pledge *founders
}

// answer is what a node says of itself.
type identityAnswer struct {
	node       cluster.NodeID
	log        LogID
	cluster    cluster.ID // zero when it belongs to none
	generation uint32
	expect     uint8
	round      uint32
	verdict    pledgeVerdict
	sees       []cluster.NodeID // the nodes it would begin a cluster with
	pledged    *founders
}

type encoder struct{ b []byte }

func (e *encoder) u8(v uint8)   { e.b = append(e.b, v) }
func (e *encoder) u32(v uint32) { e.b = binary.BigEndian.AppendUint32(e.b, v) }
func (e *encoder) id(v [16]byte) {
	e.b = append(e.b, v[:]...)
}

func (e *encoder) str(v string) {
	e.b = binary.BigEndian.AppendUint16(e.b, uint16(len(v)))
	e.b = append(e.b, v...)
}

func (e *encoder) founders(f *founders) {
	if f == nil {
		e.u8(0)
		return
	}
	e.u8(uint8(len(f.Members)))
	e.id(f.Cluster)
	e.u32(f.Round)
	for _, m := range f.Members {
		e.str(string(m.Node))
		e.id(m.Log)
		e.str(m.Address)
	}
}

func begin(kind uint8) *encoder {
	return &encoder{append(make([]byte, 0, 256), kind, messageVersion, 0, 0, 0, 0, 0, 0)}
}

func (e *encoder) seal() []byte {
	binary.BigEndian.PutUint32(e.b[4:], crc32.Checksum(e.b[messageHeadLen:], castagnoli))
	return e.b
}

var errShort = errors.New("cut short")

// decoder reads a body. After the first error it gives zeros.
type decoder struct {
	b   []byte
	err error
}

func unseal(kind uint8, src []byte) *decoder {
	d := &decoder{}
	switch {
	case len(src) < messageHeadLen || len(src) > MaxMessage:
		d.err = fmt.Errorf("%d bytes, want %d to %d", len(src), messageHeadLen, MaxMessage)
	case src[0] != kind:
		d.err = fmt.Errorf("kind %d, want %d", src[0], kind)
	case src[1] != messageVersion || src[2] != 0 || src[3] != 0:
		d.err = fmt.Errorf("version %d, this program knows %d", src[1], messageVersion)
	default:
		d.b = src[messageHeadLen:]
		if sum, want := crc32.Checksum(d.b, castagnoli), binary.BigEndian.Uint32(src[4:]); sum != want {
			d.b, d.err = nil, fmt.Errorf("checksum %08x, want %08x", sum, want)
		}
	}
	return d
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) next(n int) []byte {
	if d.err != nil || len(d.b) < n {
		d.fail(errShort)
		return make([]byte, n) // n is a constant or checked
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) u8() uint8    { return d.next(1)[0] }
func (d *decoder) u32() uint32  { return binary.BigEndian.Uint32(d.next(4)) }
func (d *decoder) id() [16]byte { return [16]byte(d.next(16)) }

func (d *decoder) str(limit int) string {
	n := int(binary.BigEndian.Uint16(d.next(2)))
	if n > limit {
		d.fail(fmt.Errorf("string of %d bytes, limit %d", n, limit))
		return ""
	}
	return string(d.next(n))
}

func (d *decoder) node() cluster.NodeID {
	id, err := cluster.ParseNodeID(d.str(cluster.MaxNodeIDLen))
	if err != nil {
		d.fail(err)
	}
	return id
}

func (d *decoder) founders() *founders {
	n := int(d.u8())
	if n == 0 {
		return nil
	}
	if n > MaxExpect {
		d.fail(fmt.Errorf("founding of %d nodes, limit %d", n, MaxExpect))
		return nil
	}
	f := &founders{Cluster: d.id(), Round: d.u32(), Members: make([]founder, n)}
	for i := range f.Members {
		f.Members[i] = founder{Node: d.node(), Log: d.id(), Address: d.str(cluster.MaxAddressLen)}
		if i > 0 && f.Members[i-1].Node >= f.Members[i].Node {
			d.fail(errors.New("founders are not sorted"))
		}
		if f.Members[i].Log.IsZero() || f.Members[i].Address == "" {
			d.fail(fmt.Errorf("founder %d is not complete", i))
		}
	}
	if f.Cluster.IsZero() {
		d.fail(errors.New("founding of no cluster"))
	}
	return f
}

func (d *decoder) end(what string) error {
	if d.err == nil && len(d.b) > 0 {
		d.err = fmt.Errorf("%d bytes too many", len(d.b))
	}
	if d.err != nil {
		return fmt.Errorf("decode %s: %w", what, d.err)
	}
	return nil
}

func (q *question) encode() []byte {
	e := begin(kindQuestion)
	e.str(string(q.from))
	e.founders(q.pledge)
	return e.seal()
}

func decodeQuestion(src []byte) (q question, err error) {
	d := unseal(kindQuestion, src)
	q = question{from: d.node(), pledge: d.founders()}
	return q, d.end("question")
}

func (a *identityAnswer) encode() []byte {
	e := begin(kindAnswer)
	e.str(string(a.node))
	e.id(a.log)
	e.id(a.cluster)
	e.u32(a.generation)
	e.u8(a.expect)
	e.u32(a.round)
	e.u8(uint8(a.verdict))
	e.u8(uint8(len(a.sees)))
	for _, id := range a.sees {
		e.str(string(id))
	}
	e.founders(a.pledged)
	return e.seal()
}

func decodeAnswer(src []byte) (a identityAnswer, err error) {
	d := unseal(kindAnswer, src)
	a = identityAnswer{
		node: d.node(), log: d.id(), cluster: d.id(), generation: d.u32(), expect: d.u8(), round: d.u32(),
		verdict: pledgeVerdict(d.u8()),
	}
	n := int(d.u8())
	if n > MaxExpect {
		d.fail(fmt.Errorf("%d candidates, limit %d", n, MaxExpect))
		n = 0
	}
	for range n {
		a.sees = append(a.sees, d.node())
	}
	a.pledged = d.founders()
	return a, d.end("answer")
}

func encodePledge(round uint32, to *founders) []byte {
	e := begin(kindPledge)
	e.u32(round)
	e.founders(to)
	return e.seal()
}

func decodePledge(b []byte) (round uint32, to *founders, err error) {
	d := unseal(kindPledge, b)
	round, to = d.u32(), d.founders()
	return round, to, d.end("founding pledge")
}
