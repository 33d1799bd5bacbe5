package httpjson

import (
	"encoding/base64"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// Writer encodes one answer to the socket as it goes: it never holds more than
// a chunk of it. An answer that fits one chunk is sent with its length. After
// the peer is gone everything is dropped; Err tells so that callers can stop.
type Writer struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	status  int
	started bool
	err     error
	buf     []byte
}

var writers = sync.Pool{New: func() any { return &Writer{buf: make([]byte, 0, chunkLen+512)} }}

// NewWriter begins an answer with the given status. Headers may be set on w
// until the first chunk leaves. Close must be called.
func NewWriter(w http.ResponseWriter, status int) *Writer {
	jw := writers.Get().(*Writer)
	*jw = Writer{w: w, rc: http.NewResponseController(w), status: status, buf: jw.buf[:0]}
	return jw
}

// Err is why the peer no longer gets anything.
func (w *Writer) Err() error { return w.err }

// Close sends what is left and gives the writer back.
func (w *Writer) Close() error {
	if !w.started {
		w.w.Header().Set("Content-Length", strconv.Itoa(len(w.buf)))
	}
	w.flush()
	err := w.err
	w.w, w.rc, w.err = nil, nil, nil
	writers.Put(w)
	return err
}

// Drop gives the writer back without an answer, so that another may be given. It
// is false, and does nothing, when a part has left already.
func (w *Writer) Drop() bool {
	if w.started {
		return false
	}
	w.w, w.rc, w.err = nil, nil, nil
	writers.Put(w)
	return true
}

// Flush sends what is there now.
func (w *Writer) Flush() {
	w.flush()
	if w.err == nil {
		if err := w.rc.Flush(); err != nil {
			w.err = err
		}
	}
}

func (w *Writer) flush() {
	if w.err == nil {
		// A recorder in a test has no deadline to set.
		_ = w.rc.SetWriteDeadline(time.Now().Add(stallTimeout))
		if !w.started {
			w.started = true
			w.w.WriteHeader(w.status)
		}
		_, w.err = w.w.Write(w.buf)
	}
	w.buf = w.buf[:0]
}

func (w *Writer) room() {
	if len(w.buf) >= chunkLen {
		w.flush()
		// What comes next may take its time: an HTTP/2 stream ends at a deadline
		// even when nothing is being written.
		_ = w.rc.SetWriteDeadline(time.Time{})
	}
}

// Raw appends s as it is.
func (w *Writer) Raw(s string) {
	w.buf = append(w.buf, s...)
	w.room()
}

// Byte appends one byte as it is.
func (w *Writer) Byte(c byte) {
	w.buf = append(w.buf, c)
	w.room()
}

// Int appends a number with all its digits.
func (w *Writer) Int(n int64) {
	w.buf = strconv.AppendInt(w.buf, n, 10)
	w.room()
}

// Uint appends a number with all its digits.
func (w *Writer) Uint(n uint64) {
	w.buf = strconv.AppendUint(w.buf, n, 10)
	w.room()
}

// Bool appends true or false.
func (w *Writer) Bool(b bool) {
	w.buf = strconv.AppendBool(w.buf, b)
	w.room()
}

// Float appends a number that reads back as the same float and shows that it is
// one: 2 becomes 2.0. Infinities become 1e999, which readers of JSON take for
// infinite; SQLite has no NaN.
func (w *Writer) Float(f float64) {
	switch {
	case math.IsInf(f, 1):
		w.Raw("1e999")
		return
	case math.IsInf(f, -1):
		w.Raw("-1e999")
		return
	case math.IsNaN(f):
		w.Raw("null")
		return
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	at := len(w.buf)
	w.buf = strconv.AppendFloat(w.buf, f, format, -1, 64)
	if format == 'f' {
		for _, c := range w.buf[at:] {
			if c == '.' {
				w.room()
				return
			}
		}
		w.buf = append(w.buf, ".0"...)
	}
	w.room()
}

// Millis appends a duration in milliseconds with microsecond digits.
func (w *Writer) Millis(d time.Duration) {
	w.buf = strconv.AppendFloat(w.buf, float64(d.Microseconds())/1000, 'f', -1, 64)
	w.room()
}

const hexDigits = "0123456789abcdef"

// Str appends a JSON string. What is not UTF-8 becomes U+FFFD.
func Str[S string | []byte](w *Writer, s S) {
	w.buf = append(w.buf, '"')
	for len(s) > chunkLen {
		n := chunkLen
		for n > chunkLen-utf8.UTFMax && !utf8.RuneStart(s[n]) {
			n-- // never cut a character in two
		}
		w.buf = appendEscaped(w.buf, s[:n])
		s = s[n:]
		w.flush()
	}
	w.buf = append(appendEscaped(w.buf, s), '"')
	w.room()
}

// AppendString appends a JSON string to dst. What is not UTF-8 becomes U+FFFD.
func AppendString[S string | []byte](dst []byte, s S) []byte {
	return append(appendEscaped(append(dst, '"'), s), '"')
}

func appendEscaped[S string | []byte](dst []byte, s S) []byte {
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
			}
			dst = append(dst, s[from:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			from = i
			continue
		}
		n := min(len(s)-i, utf8.UTFMax)
		r, size := utf8.DecodeRuneInString(string(s[i : i+n]))
		if r == utf8.RuneError && size == 1 {
			dst = append(append(dst, s[from:i]...), "\ufffd"...)
			i++
			from = i
			continue
		}
		i += size
	}
	return append(dst, s[from:]...)
}

// Base64 appends b as a quoted base64 string.
func (w *Writer) Base64(b []byte, enc *base64.Encoding) {
	w.buf = append(w.buf, '"')
	const step = chunkLen / 4 * 3 // a multiple of three, so pieces join without padding
	for len(b) > step {
		w.buf = enc.AppendEncode(w.buf, b[:step])
		b = b[step:]
		w.flush()
	}
	w.buf = append(enc.AppendEncode(w.buf, b), '"')
	w.room()
}

// Bytes appends b as it is.
func (w *Writer) Bytes(b []byte) {
	w.buf = append(w.buf, b...)
	w.room()
}
