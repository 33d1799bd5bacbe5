package facet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNames(t *testing.T) {
	for _, s := range []string{"acme/notes", "a/B", "0.x_y-z/" + strings.Repeat("f", 128), strings.Repeat("t", 63) + "/x"} {
		n, err := ParseName(s)
		if err != nil || n.String() != s || n.IsZero() {
			t.Errorf("ParseName(%q) = %v, %v", s, n, err)
		}
	}
	for _, s := range []string{"", "acme", "/", "acme/", "/notes", "Acme/x", "-a/x", "a/-x", "a/x/y", "a/x y", "a/é", "a/\x00",
		"../x", "a/..", ".a/x", strings.Repeat("t", 64) + "/x", "a/" + strings.Repeat("f", 129), strings.Repeat("é", 5000) + "/x"} {
		n, err := ParseName(s)
		if !errors.Is(err, ErrBadRequest) {
			t.Errorf("ParseName(%.40q) = %v, %v", s, n, err)
		}
		if err != nil && len(err.Error()) > 600 {
			t.Errorf("ParseName(%.40q): message of %d bytes", s, len(err.Error()))
		}
	}
}

func TestIncarnation(t *testing.T) {
	a, b := NewIncarnation(), NewIncarnation()
	if a == b || a.IsZero() {
		t.Fatal("incarnations are not fresh")
	}
	if got, err := ParseIncarnation(a.String()); err != nil || got != a {
		t.Fatal(got, err)
	}
	for _, s := range []string{"", "00", a.String() + "0", strings.Repeat("g", 32)} {
		if _, err := ParseIncarnation(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func TestPosition(t *testing.T) {
	ps := []Position{{}, {Epoch: 1, Seq: 9}, {Epoch: 2, Seq: 1}, {Epoch: 2, Seq: 2, Sum: Sum{3, 4}}, {Epoch: math.MaxUint64, Seq: math.MaxUint64}}
	for i, p := range ps {
		raw := p.AppendBinary([]byte("x"))
		got, rest, err := DecodePosition(append(raw[1:], "rest"...))
		if err != nil || got != p || string(rest) != "rest" {
			t.Fatal(got, rest, err)
		}
		for j, q := range ps {
			if c := p.Compare(q); (c < 0) != (i < j) || (c > 0) != (i > j) {
				t.Errorf("%v against %v: %d", p, q, c)
			}
		}
	}
	if _, _, err := DecodePosition(make([]byte, 31)); err == nil {
		t.Error("a short position was accepted")
	}
}

var exampleCommit = Commit{
	Incarnation: Incarnation{0: 1, 15: 16}, Kind: KindCommit, Epoch: 7, Seq: 3, PrevEpoch: 6,
	PreSum: Sum{0x1122, 0x3344}, PostSum: Sum{0x5566, 0x7788}, DBPages: 5, Pages: []byte("pages"),
}

// TestCommitGolden holds the encoded form still: logs and peers speak it.
func TestCommitGolden(t *testing.T) {
	raw := exampleCommit.AppendBinary(nil)
	if len(raw) != exampleCommit.EncodedLen() {
		t.Fatalf("%d bytes, EncodedLen says %d", len(raw), exampleCommit.EncodedLen())
	}
	file := filepath.Join("testdata", "commit.hex")
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.Dump(raw); got != string(want) {
		t.Fatalf("encoded form changed:\n%s\nwant:\n%s", got, want)
	}
	got, err := DecodeCommit(exampleCommit.Incarnation, raw)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(exampleCommit) {
		t.Fatal(got, err)
	}
}

func TestCommitRefusals(t *testing.T) {
	change := func(f func(raw []byte)) []byte {
		raw := exampleCommit.AppendBinary(nil)
		f(raw)
		return raw
	}
	for what, raw := range map[string][]byte{
		"short":          make([]byte, commitHeaderLen-1),
		"kind":           change(func(r []byte) { r[0] = 9 }),
		"reserved":       change(func(r []byte) { r[2] = 1 }),
		"pages":          change(func(r []byte) { r[4] = 0xff }),
		"no epoch":       change(func(r []byte) { clear(r[8:16]) }),
		"no seq":         change(func(r []byte) { clear(r[16:24]) }),
		"later previous": change(func(r []byte) { r[24] = 1 }),
		"busy barrier":   change(func(r []byte) { r[0] = byte(KindBarrier) }),
	} {
		if c, err := DecodeCommit(exampleCommit.Incarnation, raw); err == nil {
			t.Errorf("%s: accepted as %v", what, c)
		}
	}
}

var exampleValues = []Value{
	{}, {Type: Integer, Int: math.MinInt64}, {Type: Integer, Int: math.MaxInt64}, {Type: Integer},
	{Type: Float, Float: -0.5}, {Type: Float, Float: math.Inf(1)}, {Type: Text, Bytes: []byte{}},
	{Type: Text, Bytes: []byte("a\x00\xff")}, {Type: Blob, Bytes: []byte{}}, {Type: Blob, Bytes: bytes.Repeat([]byte{7}, 300)},
}

func TestValues(t *testing.T) {
	var vs Values
	for _, v := range exampleValues {
		vs = AppendValue(vs, v)
	}
	got, err := vs.Decode(nil)
	if err != nil || !slices.EqualFunc(got, exampleValues, func(a, b Value) bool {
		return a.Type == b.Type && a.Int == b.Int && a.Float == b.Float && bytes.Equal(a.Bytes, b.Bytes)
	}) {
		t.Fatal(got, err)
	}
	for i := range vs { // every cut is seen, or falls between two values
		if part, err := vs[:i].Decode(nil); err == nil && len(part) >= len(got) {
			t.Fatalf("cut at %d: all values", i)
		}
	}
}

func TestResult(t *testing.T) {
	var r Result
	r, at := BeginItem(r, ItemColumns)
	r = append(r, 1)
	r = AppendStr(r, "name")
	r = AppendStr(r, "TEXT")
	r = EndItem(r, at)
	r, at = BeginItem(r, ItemRow)
	r = append(r, AppendText(nil, strings.Repeat("x", 300))...)
	r = EndItem(r, at)
	done := Done{Changes: -1, LastRowID: math.MinInt64, RowsOut: 1, Duration: 1500 * time.Microsecond, Transaction: true}
	r = AppendDone(r, done)
	e := &Error{Code: CodeNotOwner, Message: "there", SQLite: 2067, Offset: -1, Limit: "rows", Owner: "n:7400", Epoch: 9, RetryAfter: time.Second}
	r = AppendErrorItem(r, e)
	r, at = BeginItem(r, ItemSkipped)
	r = EndItem(r, at)

	var kinds []ItemKind
	for rest := r; len(rest) > 0; {
		it, next, err := rest.Next()
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, it.Kind)
		switch it.Kind {
		case ItemColumns:
			if cols, err := DecodeColumns(it.Body); err != nil || len(cols) != 1 || cols[0] != (Column{"name", "TEXT"}) {
				t.Error(cols, err)
			}
		case ItemRow:
			if vs, err := Values(it.Body).Decode(nil); err != nil || len(vs) != 1 || len(vs[0].Bytes) != 300 {
				t.Error(vs, err)
			}
		case ItemDone:
			if d, err := DecodeDone(it.Body); err != nil || d != done {
				t.Error(d, err)
			}
		case ItemError:
			if got, err := DecodeError(it.Body); err != nil || *got != *e {
				t.Error(got, err)
			}
		}
		rest = next
	}
	if !slices.Equal(kinds, []ItemKind{ItemColumns, ItemRow, ItemDone, ItemError, ItemSkipped}) {
		t.Error(kinds)
	}
}

func TestErrors(t *testing.T) {
	for c := range codeNames {
		e := &Error{Code: c, Message: "m"}
		if !errors.Is(e, &Error{Code: c}) || errors.Is(e, &Error{Code: c + 1000}) || !c.Known() {
			t.Errorf("%v", c)
		}
		back, err := DecodeError(AppendError(nil, e))
		if err != nil || *back != *e {
			t.Errorf("%v does not survive the wire: %v %v", c, back, err)
		}
	}
	for c, want := range map[Code]Class{CodeSQL: Definite, CodeCorrupt: Definite, CodeBusy: Retry, CodeDiskFull: Retry, CodeNotOwner: Redirect, CodeUnknownOutcome: Unknown} {
		if c.Class() != want {
			t.Errorf("%v is of class %v", c, c.Class())
		}
	}
	if e, err := DecodeError(AppendError(nil, &Error{Code: 999})); err != nil || e.Code != CodeInternal {
		t.Error("an unknown code must be read as internal:", e, err)
	}
}

func FuzzDecodeCommit(f *testing.F) {
	f.Add(exampleCommit.AppendBinary(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := DecodeCommit(Incarnation{}, raw)
		if err == nil && !bytes.Equal(c.AppendBinary(nil), raw) {
			t.Fatalf("%v is encoded another way", c)
		}
	})
}

func FuzzValues(f *testing.F) {
	var vs Values
	for _, v := range exampleValues {
		vs = AppendValue(vs, v)
	}
	f.Add([]byte(vs))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Values(raw).Decode(nil)
		if err != nil {
			return
		}
		var again Values
		for _, v := range got {
			again = AppendValue(again, v)
		}
		if back, err := again.Decode(nil); err != nil || len(back) != len(got) {
			t.Fatalf("%d values became %d: %v", len(got), len(back), err)
		}
	})
}

func FuzzResult(f *testing.F) {
	f.Add([]byte(AppendErrorItem(AppendDone(nil, Done{RowsOut: 3}), &Error{Code: CodeSQL, Message: "m"})))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for r := Result(raw); len(r) > 0; {
			it, rest, err := r.Next()
			if err != nil {
				return
			}
			// None of them may panic or take more memory than the body is worth.
			_, _ = DecodeColumns(it.Body)
			_, _ = DecodeDone(it.Body)
			_, _ = DecodeError(it.Body)
			_, _ = DecodeDescription(it.Body)
			if len(rest) >= len(r) {
				t.Fatal("no progress")
			}
			r = rest
		}
	})
}
