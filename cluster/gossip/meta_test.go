package gossip

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"github.com/facetd/facetd/cluster"
)

func goldenMember(t testing.TB) (cluster.ID, cluster.Member) {
	id, err := cluster.ParseID("000102030405060708090a0b0c0d0e0f")
	if err != nil {
		t.Fatal(err)
	}
	store, err := cluster.ParseStoreID("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
	if err != nil {
		t.Fatal(err)
	}
	return id, cluster.Member{ID: "n1", Store: store, API: "node1.example:7400", Peer: "node1.example:7401",
		Zone: "eu-1a", Version: "v0.3.0", Status: cluster.StatusLeaving}
}

// TestMetaGolden: members of older releases read what this one writes, and this
// one reads what they wrote.
func TestMetaGolden(t *testing.T) {
	id, m := goldenMember(t)
	got, err := encodeMeta(id, &m)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/meta.txt")
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("meta is\n%x, golden\n%x", got, want)
	}
	gotID, gotM, err := decodeMeta("n1", want)
	if err != nil || gotID != id || gotM != m {
		t.Errorf("%v %+v %v", gotID, gotM, err)
	}
}

// reseal puts the right checksum under b.
func reseal(b []byte) []byte {
	body := b[:len(b)-4]
	return binary.BigEndian.AppendUint32(bytes.Clone(body), crc32.Checksum(body, castagnoli))
}

func TestMetaRefuses(t *testing.T) {
	id, m := goldenMember(t)
	good, err := encodeMeta(id, &m)
	if err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, _, err := decodeMeta("n1", good[:n]); !errors.Is(err, ErrBadMeta) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x20
		if _, _, err := decodeMeta("n1", bad); !errors.Is(err, ErrBadMeta) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	for _, tc := range []struct {
		name, node string
		change     func([]byte) []byte
	}{
		{"node id", "N 1", func(b []byte) []byte { return b }},
		{"version", "n1", func(b []byte) []byte { b[1] = 2; return b }},
		{"status", "n1", func(b []byte) []byte { b[2] = byte(cluster.StatusGone); return b }},
		{"no store", "n1", func(b []byte) []byte { clear(b[19:35]); return b }},
		{"long address", "n1", func(b []byte) []byte { b[35] = 0xFF; return b }},
		{"line break", "n1", func(b []byte) []byte { b[40] = '\n'; return b }},
		{"too long", "n1", func(b []byte) []byte { return append(b, make([]byte, maxMeta)...) }},
	} {
		if _, _, err := decodeMeta(tc.node, reseal(tc.change(bytes.Clone(good)))); !errors.Is(err, ErrBadMeta) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	// What later releases add is skipped.
	later := append(bytes.Clone(good[:len(good)-4]), "more\x00\x00\x00\x00"...)
	if _, got, err := decodeMeta("n1", reseal(later)); err != nil || got != m {
		t.Errorf("with additions: %+v, %v", got, err)
	}
}

// TestMetaHints: room and load are two bytes, read where they can be, and left out where
// there is no place for them.
func TestMetaHints(t *testing.T) {
	id, m := goldenMember(t)
	plain, err := encodeMeta(id, &m)
	if err != nil {
		t.Fatal(err)
	}
	m.Room, m.Load = 40, 3
	b, err := encodeMeta(id, &m)
	if err != nil || !bytes.Equal(b[:len(b)-4], append(bytes.Clone(plain[:len(plain)-4]), 40, 3)) {
		t.Fatalf("%x, %v", b, err)
	}
	if _, got, err := decodeMeta("n1", b); err != nil || got != m {
		t.Errorf("%+v, %v", got, err)
	}
	b[len(b)-6] = cluster.MaxRoom + 1
	if _, got, err := decodeMeta("n1", reseal(b)); err != nil || got.Room != 0 || got.Load != 0 {
		t.Errorf("room out of bounds: %+v, %v", got, err)
	}
	m.API, m.Zone, m.Version = strings.Repeat("a", cluster.MaxAddressLen), "", ""
	m.Peer = strings.Repeat("p", maxMeta-metaMin-len(m.API)-1)
	if b, err = encodeMeta(id, &m); err != nil || len(b) != maxMeta-1 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if _, got, err := decodeMeta("n1", b); err != nil || got.Room != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	m.Load = cluster.MaxLoad + 1
	if _, err := encodeMeta(id, &m); err == nil {
		t.Error("a load out of bounds is told")
	}
}

// TestMetaSize: the limit is met exactly.
func TestMetaSize(t *testing.T) {
	id, m := goldenMember(t)
	m.API, m.Zone, m.Version = strings.Repeat("a", cluster.MaxAddressLen), "", ""
	room := maxMeta - metaMin - len(m.API)
	m.Peer = strings.Repeat("p", room)
	b, err := encodeMeta(id, &m)
	if err != nil || len(b) != maxMeta {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if _, got, err := decodeMeta("n1", b); err != nil || got != m {
		t.Errorf("%+v, %v", got, err)
	}
	m.Peer += "p"
	if _, err := encodeMeta(id, &m); !errors.Is(err, ErrMetaTooLong) {
		t.Errorf("one byte more: %v", err)
	}
}

func FuzzDecodeMeta(f *testing.F) {
	id, m := goldenMember(f)
	good, err := encodeMeta(id, &m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("n1", good, false)
	f.Add("n1", good[:metaMin], true)
	f.Add("-", []byte{metaMagic, metaVersion}, true)
	f.Fuzz(func(t *testing.T, name string, b []byte, seal bool) {
		if seal && len(b) > 4 {
			b = reseal(b) // else the checksum hides all that is behind it
		}
		id, m, err := decodeMeta(name, b)
		if err != nil {
			if !errors.Is(err, ErrBadMeta) {
				t.Fatalf("error %v", err)
			}
			return
		}
		again, err := encodeMeta(id, &m)
		if err != nil {
			t.Fatalf("decoded %+v, which cannot be encoded: %v", m, err)
		}
		if len(again) > len(b) || !bytes.Equal(again[:len(again)-4], b[:len(again)-4]) {
			t.Fatalf("%x decodes to what encodes as %x", b, again)
		}
	})
}
