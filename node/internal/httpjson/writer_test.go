package httpjson

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func write(f func(w *Writer)) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	w := NewWriter(rec, http.StatusOK)
	f(w)
	w.Close()
	return rec
}

func TestStrings(t *testing.T) {
	long := strings.Repeat("žluťoučký 🐎 \n", 20_000)
	for _, s := range []string{"", "a", "\"\\/\b\f\n\r\t\x00\x1f\x7f", "\u2028é🐎", "bad \xff\xc3 bytes\xf0\x9f", long, strings.Repeat("\x01", chunkLen*2)} {
		rec := write(func(w *Writer) { Str(w, s) })
		var got string
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
			t.Errorf("%.40q: %v", s, err)
			continue
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); got != want && utf8.ValidString(s) {
			t.Errorf("%.40q became %.40q", s, got)
		}
		if !utf8.ValidString(s) && got != "bad \ufffd\ufffd bytes\ufffd\ufffd" {
			t.Errorf("%.40q became %.40q", s, got)
		}
	}
}

func TestFloatsReadBackTheSame(t *testing.T) {
	for _, f := range []float64{0, math.Copysign(0, -1), 1, -1, 2, 0.1, 1e20, 1e21, 123456789012345680, 1e300, 5e-324, math.MaxFloat64, math.Pi, 1e-7} {
		s := write(func(w *Writer) { w.Float(f) }).Body.String()
		got, err := strconv.ParseFloat(s, 64)
		if err != nil || math.Float64bits(got) != math.Float64bits(f) {
			t.Errorf("%v became %s", f, s)
		}
		if !strings.ContainsAny(s, ".e") || !json.Valid([]byte(s)) {
			t.Errorf("%v became %s, which does not show a float", f, s)
		}
	}
	for f, want := range map[float64]string{math.Inf(1): "1e999", math.Inf(-1): "-1e999"} {
		if s := write(func(w *Writer) { w.Float(f) }).Body.String(); s != want {
			t.Errorf("%v became %s", f, s)
		}
	}
}

func TestBase64InPieces(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, chunkLen, chunkLen*3 + 1, 1 << 20} {
		blob := bytes.Repeat([]byte{0xfb, 1, 0x7f, 9}, n/4+1)[:n]
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding} {
			got := write(func(w *Writer) { w.Base64(blob, enc) }).Body.String()
			if got != `"`+enc.EncodeToString(blob)+`"` {
				t.Errorf("%d bytes differ", n)
			}
		}
	}
}

func TestShortAnswersHaveALength(t *testing.T) {
	rec := write(func(w *Writer) { w.Raw("{}") })
	if got := rec.Header().Get("Content-Length"); got != "2" {
		t.Errorf("Content-Length %q", got)
	}
	rec = write(func(w *Writer) { Str(w, strings.Repeat("x", 3*chunkLen)) })
	if got := rec.Header().Get("Content-Length"); got != "" || rec.Body.Len() != 3*chunkLen+2 {
		t.Errorf("Content-Length %q, %d bytes", got, rec.Body.Len())
	}
}

// gone is a peer that closed its connection.
type gone struct {
	http.ResponseWriter
	calls int
}

func (g *gone) Write([]byte) (int, error) { g.calls++; return 0, http.ErrHandlerTimeout }

func TestNothingIsSentToAPeerThatIsGone(t *testing.T) {
	g := &gone{ResponseWriter: httptest.NewRecorder()}
	w := NewWriter(g, http.StatusOK)
	for range 100 {
		w.Base64(make([]byte, chunkLen), base64.StdEncoding)
	}
	if w.Err() == nil || g.calls != 1 {
		t.Errorf("error %v after %d writes", w.Err(), g.calls)
	}
	if w.Close() == nil {
		t.Error("Close does not tell")
	}
}

func TestSQLiteName(t *testing.T) {
	for code, want := range map[int]string{1: "SQLITE_ERROR", 1555: "SQLITE_CONSTRAINT_PRIMARYKEY", 2067: "SQLITE_CONSTRAINT_UNIQUE", 10 | 77<<8: "SQLITE_IOERR", 99: "SQLITE_99"} {
		if got := SQLiteName(code); got != want {
			t.Errorf("%d: %s", code, got)
		}
	}
}
