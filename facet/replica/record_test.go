package replica

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
)

var update = flag.Bool("update", false, "write the golden file")

func samples() []commitlog.Record {
	id := facet.Incarnation{0xab, 15: 0xcd}
	base := pages.Base{Position: facet.Position{Epoch: 7, Seq: 300, Sum: facet.Sum{Hi: 0x0102030405060708, Lo: 0x1112131415161718}}, Pages: 9}
	boot := Boot{0xb0, 15: 0x07}
	end := tail{8, 301}
	carry := carried{promised: 9, boot: boot, base: base, end: end, health: Uncertain, since: 6}
	tomb := carried{promised: 9, boot: boot, flags: flagTomb | flagFiled}
	drop := carried{promised: 9, boot: boot, health: Uncertain, since: 9, flags: flagDropped | flagFiled}
	images := imagePart{last: true, number: 2, to: base}
	install := installed{number: 0x0123456789abcdef, to: base, health: Uncertain, since: 6}
	dam := damageID{commitlog.Hole, 42, 4096, 77}
	return []commitlog.Record{
		promiseRecord(id, 9, boot, end),
		baseRecord(id, base, end),
		carry.record(id),
		tomb.record(id),
		drop.record(id),
		{Kind: kindPages, Incarnation: id, Epoch: 7, Seq: 300, Payload: append(images.append(nil), "images"...)},
		install.record(id),
		{Kind: kindCut, Incarnation: id, Epoch: 9, Seq: 301, Payload: base.Position.AppendBinary(nil)},
		{Kind: kindTomb, Incarnation: id, Payload: []byte{1}},
		{Kind: kindDamage, Payload: dam.append(nil)},
	}
}

// TestGolden keeps the records readable by later versions.
func TestGolden(t *testing.T) {
	const name = "testdata/records.golden"
	var b strings.Builder
	for _, r := range samples() {
		fmt.Fprintf(&b, "kind %02x epoch %d seq %d\n%s", uint8(r.Kind), r.Epoch, r.Seq, hex.Dump(r.Payload))
	}
	if *update {
		check(t, os.MkdirAll("testdata", 0o755))
		check(t, os.WriteFile(name, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(name)
	check(t, err)
	if b.String() != string(want) {
		t.Fatalf("records differ from %s:\n%s", name, b.String())
	}
}

// FuzzRecords feeds any payload to the decoder of any kind: what it accepts must
// encode to the same bytes, and the replay must take it without falling over.
func FuzzRecords(f *testing.F) {
	for _, r := range samples() {
		f.Add(uint8(r.Kind), uint64(r.Epoch), uint64(r.Seq), r.Payload)
	}
	f.Fuzz(func(t *testing.T, kind uint8, epoch, seq uint64, payload []byte) {
		rec := commitlog.Record{
			Kind: commitlog.Kind(kind), Incarnation: testID(1),
			Epoch: facet.Epoch(epoch), Seq: facet.Seq(seq), Payload: payload,
		}
		var again []byte
		var err error
		switch rec.Kind {
		case kindPromise:
			var boot Boot
			var end tail
			boot, end, err = decodePromise(&rec)
			again = promiseRecord(rec.Incarnation, rec.Epoch, boot, end).Payload
		case kindBase:
			var b pages.Base
			var end tail
			b, end, err = decodeBaseRecord(&rec)
			again = baseRecord(rec.Incarnation, b, end).Payload
		case kindCarry:
			var c carried
			c, err = decodeCarry(&rec)
			again = c.record(rec.Incarnation).Payload
		case kindPages:
			var h imagePart
			var images []byte
			h, images, err = decodeImages(payload)
			again = append(h.append(nil), images...)
		case kindInstall:
			var i installed
			i, err = decodeInstall(payload)
			again = i.record(rec.Incarnation).Payload
		case kindDamage:
			var d damageID
			d, err = decodeDamage(payload)
			again = d.append(nil)
		default:
			again = payload
		}
		if err == nil && !bytes.Equal(again, payload) {
			t.Fatalf("%x encodes to %x", payload, again)
		}
		s := &Store{table: newTable(), opts: Options{Logger: quiet()}, logger: quiet()}
		re := replay{s: s, damages: map[damageID]bool{}, newest: map[*state]commitlog.Loc{}}
		for i, r := range append(samples(), rec, rec) {
			r.Incarnation = rec.Incarnation
			_ = re.record(r, commitlog.Loc{Segment: 1, Offset: uint32(4096 + 100*i), Len: uint32(len(r.Payload))})
		}
		s.each(func(st *state) bool {
			if st.live != nil {
				re.close(st)
			}
			return true
		})
	})
}
