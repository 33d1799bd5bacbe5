package httpjson

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// SyntaxError tells where a document stops being JSON.
type SyntaxError struct {
	Offset int
	Msg    string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("the body is not valid JSON at byte %d: %s", e.Offset, e.Msg)
}

// Reader pulls values out of one JSON document, strictly as RFC 8259 has it.
// It takes the document's bytes over: strings are unescaped in place, so what
// Str returns lives as long as the document and costs no allocation. That works
// because no escape is shorter than what it stands for.
type Reader struct {
	src   []byte
	pos   int
	depth int
	open  [MaxDepth]bool // whether the container of each level had an element yet
}

// NewReader begins to read the document src, which must stay untouched.
func NewReader(src []byte) (*Reader, error) {
	if !utf8.Valid(src) {
		return nil, &SyntaxError{0, "it is not UTF-8 text"}
	}
	return &Reader{src: src}, nil
}

func (r *Reader) fail(msg string) error { return &SyntaxError{r.pos, msg} }

func (r *Reader) space() {
	for r.pos < len(r.src) {
		switch r.src[r.pos] {
		case ' ', '\t', '\n', '\r':
			r.pos++
		default:
			return
		}
	}
}

// Kind tells what comes next: '{' '[' '"' '0' (a number) 't' 'f' 'n', or 0 at
// the end or where no value begins.
func (r *Reader) Kind() byte {
	r.space()
	if r.pos == len(r.src) {
		return 0
	}
	switch c := r.src[r.pos]; {
	case c == '-' || c >= '0' && c <= '9':
		return '0'
	case c == '{' || c == '[' || c == '"' || c == 't' || c == 'f' || c == 'n':
		return c
	}
	return 0
}

// KindName names what Kind returned, for messages.
func KindName(k byte) string {
	switch k {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "nothing"
}

func (r *Reader) enter(c byte, what string) error {
	if r.Kind() != c {
		return r.fail("want " + what + ", found " + KindName(r.Kind()))
	}
	if r.depth == MaxDepth {
		return r.fail("nested deeper than " + strconv.Itoa(MaxDepth))
	}
	r.pos++
	r.open[r.depth] = false
	r.depth++
	return nil
}

// next steps to the next element of the innermost container, or leaves it.
func (r *Reader) next(closer byte) (bool, error) {
	r.space()
	if r.pos == len(r.src) {
		return false, r.fail("it ends too early")
	}
	if r.src[r.pos] == closer {
		r.pos++
		r.depth--
		return false, nil
	}
	if r.open[r.depth-1] {
		if r.src[r.pos] != ',' {
			return false, r.fail("want a comma or " + string(closer))
		}
		r.pos++
	}
	r.open[r.depth-1] = true
	return true, nil
}

// Object begins an object; Key must follow until it says there is no more.
func (r *Reader) Object() error { return r.enter('{', "an object") }

// Key reads the next key of the object, or leaves it.
func (r *Reader) Key() (key []byte, more bool, err error) {
	if more, err = r.next('}'); !more || err != nil {
		return nil, false, err
	}
	if r.Kind() != '"' {
		return nil, false, r.fail("want a key in double quotes")
	}
	if key, err = r.Str(); err != nil {
		return nil, false, err
	}
	if r.space(); r.pos == len(r.src) || r.src[r.pos] != ':' {
		return nil, false, r.fail("want a colon after the key")
	}
	r.pos++
	return key, true, nil
}

// Names are the keys of one object so far. Two readers of an object that has a key twice
// may see two different requests, so it is refused.
type Names struct {
	list [maxNames][]byte
	n    int
}

// Once notes a key of the object, and refuses one that was there.
func (r *Reader) Once(names *Names, key []byte) error {
	for _, k := range names.list[:names.n] {
		if bytes.Equal(k, key) {
			return r.fail(shown(key) + " is there twice")
		}
	}
	if names.n == maxNames {
		return r.fail("an object of more than " + strconv.Itoa(maxNames) + " fields")
	}
	names.list[names.n] = key
	names.n++
	return nil
}

// Array begins an array; Elem must follow until it says there is no more.
func (r *Reader) Array() error { return r.enter('[', "an array") }

// Elem steps to the next element of the array, or leaves it.
func (r *Reader) Elem() (more bool, err error) { return r.next(']') }

// Str reads a string. The bytes alias the document.
func (r *Reader) Str() ([]byte, error) {
	if r.Kind() != '"' {
		return nil, r.fail("want a string, found " + KindName(r.Kind()))
	}
	start := r.pos + 1
	for i := start; i < len(r.src); i++ {
		switch c := r.src[i]; {
		case c == '"':
			r.pos = i + 1
			return r.src[start:i:i], nil
		case c == '\\':
			return r.unescape(start, i)
		case c < ' ':
			r.pos = i
			return nil, r.fail("a control character in a string must be escaped")
		}
	}
	r.pos = len(r.src)
	return nil, r.fail("a string without end")
}

// unescape finishes Str from the first escape on, writing behind itself.
func (r *Reader) unescape(start, at int) ([]byte, error) {
	out := at
	for i := at; i < len(r.src); {
		c := r.src[i]
		switch {
		case c == '"':
			r.pos = i + 1
			return r.src[start:out:out], nil
		case c < ' ':
			r.pos = i
			return nil, r.fail("a control character in a string must be escaped")
		case c != '\\':
			r.src[out] = c
			i, out = i+1, out+1
			continue
		}
		if i+1 == len(r.src) {
			break
		}
		switch e := r.src[i+1]; e {
		case '"', '\\', '/':
			r.src[out] = e
		case 'b':
			r.src[out] = '\b'
		case 'f':
			r.src[out] = '\f'
		case 'n':
			r.src[out] = '\n'
		case 'r':
			r.src[out] = '\r'
		case 't':
			r.src[out] = '\t'
		case 'u':
			c, n := hexRune(r.src[i:])
			if n == 0 {
				r.pos = i
				return nil, r.fail("want four hexadecimal digits after \\u")
			}
			i += n
			out += utf8.EncodeRune(r.src[out:i], c)
			continue
		default:
			r.pos = i
			return nil, r.fail("no such escape")
		}
		i, out = i+2, out+1
	}
	r.pos = len(r.src)
	return nil, r.fail("a string without end")
}

// hexRune decodes \uXXXX, or a surrogate pair of them, at the start of s and
// tells how many bytes it took. Half a pair is U+FFFD.
func hexRune(s []byte) (rune, int) {
	hi, ok := hex4(s)
	if !ok {
		return 0, 0
	}
	if utf16.IsSurrogate(hi) {
		if len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
			if lo, ok := hex4(s[6:]); ok {
				if c := utf16.DecodeRune(hi, lo); c != utf8.RuneError {
					return c, 12
				}
			}
		}
		return utf8.RuneError, 6
	}
	return hi, 6
}

func hex4(s []byte) (c rune, ok bool) {
	if len(s) < 6 {
		return 0, false
	}
	for _, d := range s[2:6] {
		switch {
		case d >= '0' && d <= '9':
			d -= '0'
		case d >= 'a' && d <= 'f':
			d -= 'a' - 10
		case d >= 'A' && d <= 'F':
			d -= 'A' - 10
		default:
			return 0, false
		}
		c = c<<4 | rune(d)
	}
	return c, true
}

// Num reads a number and returns its text, which aliases the document.
func (r *Reader) Num() ([]byte, error) {
	if r.Kind() != '0' {
		return nil, r.fail("want a number, found " + KindName(r.Kind()))
	}
	start, s := r.pos, r.src
	i := start
	if s[i] == '-' {
		i++
	}
	digits := func() bool {
		from := i
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		return i > from
	}
	zero := i < len(s) && s[i] == '0'
	first := i
	ok := digits() && (!zero || i == first+1)
	if ok && i < len(s) && s[i] == '.' {
		i++
		ok = digits()
	}
	if ok && i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		if i++; i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		ok = digits()
	}
	if !ok {
		r.pos = i
		return nil, r.fail("not a number as JSON writes them")
	}
	r.pos = i
	return s[start:i:i], nil
}

// Int reads an integer that fits 64 bits.
func (r *Reader) Int() (int64, error) {
	at := r.pos
	raw, err := r.Num()
	if err != nil {
		return 0, err
	}
	n, ok := ParseInt(raw)
	if !ok {
		r.pos = at
		return 0, r.fail("want an integer of at most 64 bits, found " + shown(raw))
	}
	return n, nil
}

// Bool reads true or false.
func (r *Reader) Bool() (bool, error) {
	switch r.Kind() {
	case 't':
		return true, r.word("true")
	case 'f':
		return false, r.word("false")
	}
	return false, r.fail("want true or false, found " + KindName(r.Kind()))
}

// Null reads null.
func (r *Reader) Null() error {
	if r.Kind() != 'n' {
		return r.fail("want null, found " + KindName(r.Kind()))
	}
	return r.word("null")
}

func (r *Reader) word(w string) error {
	if len(r.src)-r.pos < len(w) || string(r.src[r.pos:r.pos+len(w)]) != w {
		return r.fail("want " + w)
	}
	r.pos += len(w)
	return nil
}

// Skip reads a value of any kind and forgets it.
func (r *Reader) Skip() (err error) {
	switch r.Kind() {
	case '{':
		if err = r.Object(); err != nil {
			return err
		}
		for {
			_, more, err := r.Key()
			if err != nil || !more {
				return err
			}
			if err = r.Skip(); err != nil {
				return err
			}
		}
	case '[':
		if err = r.Array(); err != nil {
			return err
		}
		for {
			more, err := r.Elem()
			if err != nil || !more {
				return err
			}
			if err = r.Skip(); err != nil {
				return err
			}
		}
	case '"':
		_, err = r.Str()
	case '0':
		_, err = r.Num()
	case 't', 'f':
		_, err = r.Bool()
	case 'n':
		err = r.Null()
	default:
		err = r.fail("want a value")
	}
	return err
}

// End checks that nothing follows.
func (r *Reader) End() error {
	if r.space(); r.pos != len(r.src) {
		return r.fail("something follows the document")
	}
	return nil
}

// Offset is where the reader stands.
func (r *Reader) Offset() int { return r.pos }

// ParseInt reads a decimal integer of at most 64 bits with an optional minus.
func ParseInt(s []byte) (n int64, ok bool) {
	neg := len(s) > 0 && s[0] == '-'
	if neg {
		s = s[1:]
	}
	if len(s) == 0 || len(s) > 19 {
		return 0, false
	}
	var u uint64
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		u = u*10 + uint64(c-'0')
	}
	if neg {
		return -int64(u), u <= 1<<63
	}
	return int64(u), u < 1<<63
}

// ParseFloat reads a JSON number; one beyond the range becomes infinite, as
// SQLite reads it.
func ParseFloat(s []byte) (float64, bool) {
	f, err := strconv.ParseFloat(string(s), 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

func shown(s []byte) string {
	if len(s) > maxShown {
		return string(s[:maxShown]) + "…"
	}
	return string(s)
}
