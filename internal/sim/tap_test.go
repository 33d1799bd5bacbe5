package sim

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/placement"
)

// The layout of what crosses the peer port, as docs/PROTOCOL-PEER.md and the comment of
// package node/peer have it: the simulator reads along, and knows nothing else of it.
const (
	greetingLen = 196
	greetingAt  = 8 // of the kind of the connection
	kindPeer    = 1
	kindShip    = 3
	// maxFrame bounds a frame that is looked at; a longer one is passed over.
	maxFrame = 1 << 20

	frameAppend  wire.Type = 32
	frameAck     wire.Type = 33
	framePrepare wire.Type = 34
	framePromise wire.Type = 35
	frameFetch   wire.Type = 36
	frameCheck   wire.Type = 38
	frameChecked wire.Type = 39
	frameRenew   wire.Type = 40
	frameGrant   wire.Type = 41
	framePropose wire.Type = 42
	frameResult  wire.Type = 43
	frameOrder   wire.Type = 44
	frameOffer   wire.Type = 48
	frameDone    wire.Type = 51 // snapshot installed, or not
)

var frameNames = map[wire.Type]string{
	frameAppend: "append", framePrepare: "prepare", frameFetch: "fetch", frameCheck: "check", frameRenew: "renew",
	framePropose: "propose", frameOrder: "order", frameOffer: "snapshot offer",
}

// outcomes are the codes of what became of a request, as far as they are counted.
var outcomes = map[byte]string{
	1: "a higher epoch is promised", 2: "gap", 3: "diverged", 4: "full", 5: "unknown facet", 6: "other boot", 7: "deleted",
	8: "damaged", 9: "compacted", 10: "busy", 11: "open", 12: "not known yet", 14: "refused",
}

// tap is a connection that was dialled, read along in both directions.
type tap struct {
	net.Conn
	w        *world
	from, to cluster.NodeID

	out, in stream
}

// stream is one direction: its greeting, and then frames.
type stream struct {
	mu   sync.Mutex
	kind *byte // of the connection, once the dialler has said it
	skip int   // bytes of the greeting that are to come
	buf  []byte
	lost bool // not understood: passed on unseen
}

func (w *world) tapped(c net.Conn, from, to cluster.NodeID) net.Conn {
	kind := new(byte)
	t := &tap{Conn: c, w: w, from: from, to: to}
	t.out.kind, t.in.kind, t.out.skip, t.in.skip = kind, kind, greetingLen, greetingLen
	return t
}

func (t *tap) Write(b []byte) (int, error) {
	frames := t.out.take(b, true)
	for _, f := range frames {
		t.w.moments.before(f.kind, t.from, t.to)
	}
	n, err := t.Conn.Write(b)
	for _, f := range frames {
		if name := frameNames[f.kind]; name != "" {
			t.w.note("wire " + name)
		}
		t.w.moments.after(f.kind, t.from, t.to)
	}
	return n, err
}

func (t *tap) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	for _, f := range t.in.take(b[:n], false) {
		t.w.answered(f)
	}
	return n, err
}

type frame struct {
	kind  wire.Type
	flags byte
	body  []byte
}

// take gives the frames that are complete with b.
func (s *stream) take(b []byte, dialler bool) (out []frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost {
		return nil
	}
	s.buf = append(s.buf, b...)
	if s.skip > 0 {
		if dialler && *s.kind == 0 && len(s.buf) > greetingAt {
			*s.kind = s.buf[greetingAt]
		}
		if len(s.buf) < s.skip {
			return nil
		}
		s.buf, s.skip = s.buf[s.skip:], 0
	}
	if *s.kind != kindPeer && *s.kind != kindShip {
		s.lost, s.buf = true, nil
		return nil
	}
	for len(s.buf) >= wire.HeaderLen {
		n := int(binary.BigEndian.Uint32(s.buf[4:])) + wire.HeaderLen
		if n > maxFrame {
			s.lost, s.buf = true, nil
			return out
		}
		if len(s.buf) < n {
			break
		}
		out = append(out, frame{wire.Type(s.buf[12]), s.buf[13], append([]byte(nil), s.buf[wire.HeaderLen:n]...)})
		s.buf = s.buf[n:]
	}
	if len(s.buf) == 0 {
		s.buf = nil
	}
	return out
}

// answered counts what answers tell of situations.
func (w *world) answered(f frame) {
	b := f.body
	eat := func(n int) []byte {
		if len(b) < n {
			b = nil
			return make([]byte, n)
		}
		head := b[:n]
		b = b[n:]
		return head
	}
	uvarint := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			b = nil
			return 0
		}
		b = b[n:]
		return v
	}
	// outcome gives false where what follows cannot be told.
	outcome := func(what string) (code byte, ok bool) {
		code = eat(1)[0]
		if name := outcomes[code]; name != "" {
			w.note(what + " refused: " + name)
		}
		switch code {
		case 1:
			eat(8)
		case 2:
			eat(32)
		case 15, 17:
			return code, false
		}
		return code, true
	}
	switch f.kind {
	case frameAck:
		for len(b) > 0 {
			if eat(2)[0]&0x80 != 0 {
				eat(24)
			}
			uvarint()
			if _, ok := outcome("append"); !ok {
				return
			}
		}
	case framePromise:
		for len(b) > 0 {
			eat(2)
			code, ok := outcome("promise")
			if !ok {
				return
			}
			if code != 0 {
				continue
			}
			end, base := eat(32), eat(32)
			eat(4)
			known := eat(8)
			health := eat(1)[0]
			seq := binary.BigEndian.Uint64(end[8:])
			if seq > max(binary.BigEndian.Uint64(known), binary.BigEndian.Uint64(base[8:])) {
				w.note("promise with entries not known to be committed")
			}
			switch health {
			case 1:
				w.note("promise of an uncertain copy")
			case 2, 3:
				w.note("promise of a damaged copy")
			}
		}
	case frameChecked:
		for _, yes := range b {
			if yes == 0 {
				w.note("check said no")
			}
		}
	case frameGrant:
		if len(b) > 0 && b[0] != 0 {
			w.note("lease refused")
		}
	case frameDone:
		w.note("snapshot sent and answered")
	case frameResult:
		for len(b) > 0 {
			eat(2)
			code, ok := outcome("placement")
			if !ok {
				return
			}
			if code != 0 {
				continue
			}
			if result := eat(int(uvarint())); len(result) > 1 { // version, outcome
				if o := placement.Outcome(result[1]); o.Refused() && o.String() != "" {
					w.note(fmt.Sprintf("placement entry refused: %v", o))
				}
			}
		}
	}
}
