package consensus

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"os"
	"strings"
	"testing"
)

func TestEntryGolden(t *testing.T) {
	b := appendEntry(nil, [][]byte{[]byte("create"), {}, {0, 1, 2}})
	want, err := os.ReadFile("testdata/entry.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b); got != strings.TrimSpace(string(want)) {
		t.Errorf("the format changed: %s, want %s", got, want)
	}
	got, err := decodeEntry(b)
	if err != nil || len(got) != 3 || string(got[0]) != "create" || len(got[1]) != 0 || !bytes.Equal(got[2], []byte{0, 1, 2}) {
		t.Errorf("decoded %q, %v", got, err)
	}
	for i := range b {
		if _, err := decodeEntry(b[:i]); err == nil {
			t.Errorf("%d of %d bytes were accepted", i, len(b))
		}
		c := bytes.Clone(b)
		c[i] ^= 0x10
		if _, err := decodeEntry(c); err == nil {
			t.Errorf("byte %d changed and was accepted", i)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(appendEntry(nil, [][]byte{[]byte("create"), {}, {0, 1, 2}}))
	f.Add(appendEntry(nil, [][]byte{make([]byte, 300)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= entryHeadLen { // past the checksum, or the fuzzer never is
			binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[entryHeadLen:], castagnoli))
		}
		commands, err := decodeEntry(b)
		if err != nil {
			return
		}
		if again := appendEntry(nil, commands); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}
