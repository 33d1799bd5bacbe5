package sqlite

import (
	"bytes"
	"math/bits"
	"math/rand/v2"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Some of SQLite's own functions take time in proportion to the product of their
// arguments' lengths: instr() of 16 MiB in 8 MiB runs for most of an hour, and
// neither the progress handler nor an interrupt can stop it, for both are looked
// at between instructions. Here they are again with the same results in time
// proportional to the sum.

//
// json_patch has the same trouble (two objects of 16 MiB take hours) and is not
// written again: it refuses to merge where the product of the lengths is too large.

// UseLinearFunctions replaces instr, replace, and trim, ltrim, rtrim and unhex with
// two arguments on this connection, and bounds json_patch and jsonb_patch, which
// fail with TOOBIG beyond the bound. No statement may be running.
func (c *Conn) UseLinearFunctions() error {
	if c.db == 0 {
		return ErrClosed
	}
	tls := c.tls()
	const flags = sqlite3.SQLITE_UTF8 | sqlite3.SQLITE_DETERMINISTIC | sqlite3.SQLITE_INNOCUOUS
	for _, f := range linearFunctions {
		name, err := libc.CString(f.name)
		if err != nil {
			return err
		}
		rc := sqlite3.Xsqlite3_create_function_v2(tls, c.db, name, f.args, flags, 0, f.call, 0, 0, 0)
		libc.Xfree(nil, name)
		if rc != sqlite3.SQLITE_OK {
			return c.fail(rc)
		}
	}
	return c.boundPatch(flags)
}

// maxPatchWork bounds the product of the lengths of json_patch's arguments: about a
// second of work at worst, and a patch of 256 bytes fits the largest document.
const maxPatchWork = 1 << 32

// patches are SQLite's own functions, found once: the function and its user data.
var patches struct {
	once sync.Once
	err  error
	call [2]uintptr
	data [2]uintptr
}

var patchNames = [2]string{"json_patch", "jsonb_patch"}

func (c *Conn) boundPatch(flags int32) error {
	patches.once.Do(func() {
		for i, name := range patchNames {
			if patches.call[i], patches.data[i], patches.err = c.builtin("SELECT " + name + "(?1,?2)"); patches.err != nil {
				return
			}
		}
	})
	if patches.err != nil {
		return patches.err
	}
	if patches.call[0] != patches.call[1] {
		return &Error{Code: INTERNAL, Message: "json_patch and jsonb_patch are two functions", Offset: -1}
	}
	tls := c.tls()
	for i, name := range patchNames {
		cname, err := libc.CString(name)
		if err != nil {
			return err
		}
		// The user data stays SQLite's: its function looks there for what it is.
		rc := sqlite3.Xsqlite3_create_function_v2(tls, c.db, cname, 2, flags, patches.data[i], fptr(funcPatch), 0, 0, 0)
		libc.Xfree(nil, cname)
		if rc != sqlite3.SQLITE_OK {
			return c.fail(rc)
		}
	}
	return nil
}

// builtin finds the function a query calls, in its program.
func (c *Conn) builtin(sql string) (call, data uintptr, err error) {
	s, _, err := c.Prepare([]byte(sql))
	if err != nil {
		return 0, 0, err
	}
	v := at[sqlite3.TVdbe](s.p)
	for i := range uintptr(v.FnOp) {
		op := at[sqlite3.TVdbeOp](v.FaOp + i*unsafe.Sizeof(sqlite3.TVdbeOp{}))
		if (op.Fopcode == sqlite3.OP_Function || op.Fopcode == sqlite3.OP_PureFunc) && op.Fp4type == sqlite3.P4_FUNCCTX {
			ctx := *(*uintptr)(unsafe.Pointer(&op.Fp4))
			def := at[sqlite3.TFuncDef](at[sqlite3.Tsqlite3_context](ctx).FpFunc)
			call, data = def.FxSFunc, def.FpUserData
		}
	}
	if err := s.Finalize(); err != nil {
		return 0, 0, err
	}
	if call == 0 {
		return 0, 0, &Error{Code: INTERNAL, Message: "function not found in: " + sql, Offset: -1}
	}
	return call, data, nil
}

func funcPatch(tls *libc.TLS, ctx uintptr, argc int32, argv uintptr) {
	a := int64(sqlite3.Xsqlite3_value_bytes(tls, argument(argv, 0)))
	b := int64(sqlite3.Xsqlite3_value_bytes(tls, argument(argv, 1)))
	if a*b > maxPatchWork {
		sqlite3.Xsqlite3_result_error_toobig(tls, ctx)
		return
	}
	// Both names share one function, told apart by the user data.
	call := patches.call[0]
	(*(*func(*libc.TLS, uintptr, int32, uintptr))(unsafe.Pointer(&struct{ uintptr }{call})))(tls, ctx, argc, argv)
}

var linearFunctions = []struct {
	name string
	args int32
	call uintptr
}{
	{"instr", 2, fptr(funcInstr)},
	{"replace", 3, fptr(funcReplace)},
	{"trim", 2, fptr(funcTrim)},
	{"ltrim", 2, fptr(funcLeftTrim)},
	{"rtrim", 2, fptr(funcRightTrim)},
	{"unhex", 2, fptr(funcUnhex)},
}

func argument(argv uintptr, i int) uintptr { return *word(argv + uintptr(i)*unsafe.Sizeof(argv)) }

func isNull(tls *libc.TLS, v uintptr) bool {
	return sqlite3.Xsqlite3_value_type(tls, v) == sqlite3.SQLITE_NULL
}

// valueBytes is a value as text, or a blob as it is. ok is false when SQLite had
// no memory to convert it.
func valueBytes(tls *libc.TLS, v uintptr) (b []byte, ok bool) {
	var p uintptr
	if sqlite3.Xsqlite3_value_type(tls, v) == sqlite3.SQLITE_BLOB {
		p = sqlite3.Xsqlite3_value_blob(tls, v)
	} else if p = sqlite3.Xsqlite3_value_text(tls, v); p == 0 {
		return nil, false
	}
	n := sqlite3.Xsqlite3_value_bytes(tls, v)
	if p == 0 || n == 0 {
		return nil, true
	}
	return view(p, n), true
}

// guardFunc turns a panic of a function into an error of the statement.
func guardFunc(tls *libc.TLS, ctx uintptr) {
	if r := recover(); r != nil {
		sqlite3.Xsqlite3_result_error_code(tls, ctx, sqlite3.SQLITE_INTERNAL)
	}
}

func funcInstr(tls *libc.TLS, ctx uintptr, _ int32, argv uintptr) {
	defer guardFunc(tls, ctx)
	v, w := argument(argv, 0), argument(argv, 1)
	if isNull(tls, v) || isNull(tls, w) {
		return
	}
	text := sqlite3.Xsqlite3_value_type(tls, v) != sqlite3.SQLITE_BLOB || sqlite3.Xsqlite3_value_type(tls, w) != sqlite3.SQLITE_BLOB
	hay, ok1 := valueBytes(tls, v)
	needle, ok2 := valueBytes(tls, w)
	if !ok1 || !ok2 {
		sqlite3.Xsqlite3_result_error_nomem(tls, ctx)
		return
	}
	sqlite3.Xsqlite3_result_int64(tls, ctx, instr(hay, needle, text))
}

// instr is the place of needle in hay, from 1, in characters if text; 0 if it is
// not there.
func instr(hay, needle []byte, text bool) int64 {
	if len(needle) == 0 {
		return 1
	}
	if text && needle[0]&0xc0 == 0x80 {
		// A text is looked at where characters begin, and at its beginning.
		if bytes.HasPrefix(hay, needle) {
			return 1
		}
		return 0
	}
	s := newSearch(needle)
	at := s.find(hay)
	switch {
	case at < 0:
		return 0
	case !text:
		return int64(at) + 1
	}
	n := int64(1)
	for _, b := range hay[:at+1][min(1, at+1):] {
		if b&0xc0 != 0x80 {
			n++
		}
	}
	return n
}

func funcReplace(tls *libc.TLS, ctx uintptr, _ int32, argv uintptr) {
	defer guardFunc(tls, ctx)
	var text [3][]byte
	for i := range text {
		v := argument(argv, i)
		p := sqlite3.Xsqlite3_value_text(tls, v)
		if p == 0 {
			return // NULL
		}
		if n := sqlite3.Xsqlite3_value_bytes(tls, v); n > 0 {
			text[i] = view(p, n)
		}
		if i == 1 && (len(text[1]) == 0 || text[1][0] == 0) {
			resultText(tls, ctx, text[0])
			return
		}
	}
	str, pattern, with := text[0], text[1], text[2]
	s := newSearch(pattern)
	matches := 0
	for at := 0; ; matches++ {
		k := s.find(str[at:])
		if k < 0 {
			break
		}
		at += k + len(pattern)
	}
	if matches == 0 {
		resultText(tls, ctx, str)
		return
	}
	n := int64(len(str)) + int64(matches)*int64(len(with)-len(pattern))
	if n > int64(sqlite3.Xsqlite3_limit(tls, sqlite3.Xsqlite3_context_db_handle(tls, ctx), sqlite3.SQLITE_LIMIT_LENGTH, -1)) {
		sqlite3.Xsqlite3_result_error_toobig(tls, ctx)
		return
	}
	out := sqlite3.Xsqlite3_malloc64(tls, uint64(n)+1)
	if out == 0 {
		sqlite3.Xsqlite3_result_error_nomem(tls, ctx)
		return
	}
	b := view(out, int32(n)+1)
	j := 0
	for range matches {
		k := s.find(str)
		j += copy(b[j:], str[:k])
		j += copy(b[j:], with)
		str = str[k+len(pattern):]
	}
	j += copy(b[j:], str)
	b[j] = 0
	sqlite3.Xsqlite3_result_text64(tls, ctx, out, uint64(n), fptr(sqlite3.Xsqlite3_free), sqlite3.SQLITE_UTF8)
}

// resultText answers with a copy of b.
func resultText(tls *libc.TLS, ctx uintptr, b []byte) {
	if len(b) == 0 {
		b = emptyText[:]
		sqlite3.Xsqlite3_result_text64(tls, ctx, uintptr(unsafe.Pointer(unsafe.SliceData(b))), 0, transient, sqlite3.SQLITE_UTF8)
		return
	}
	sqlite3.Xsqlite3_result_text64(tls, ctx, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uint64(len(b)), transient, sqlite3.SQLITE_UTF8)
}

var emptyText [1]byte

func funcTrim(tls *libc.TLS, ctx uintptr, _ int32, argv uintptr) {
	trim(tls, ctx, argv, true, true)
}

func funcLeftTrim(tls *libc.TLS, ctx uintptr, _ int32, argv uintptr) {
	trim(tls, ctx, argv, true, false)
}

func funcRightTrim(tls *libc.TLS, ctx uintptr, _ int32, argv uintptr) {
	trim(tls, ctx, argv, false, true)
}

func trim(tls *libc.TLS, ctx, argv uintptr, left, right bool) {
	defer guardFunc(tls, ctx)
	var text [2][]byte
	for i := range text {
		v := argument(argv, i)
		p := sqlite3.Xsqlite3_value_text(tls, v)
		if p == 0 {
			return // NULL
		}
		if n := sqlite3.Xsqlite3_value_bytes(tls, v); n > 0 {
			text[i] = view(p, n)
		}
	}
	str := text[0]
	set := newCharSet(text[1])
	for left && len(str) > 0 {
		n := set.prefix(str)
		if n == 0 {
			break
		}
		str = str[n:]
	}
	for right && len(str) > 0 {
		n := set.suffix(str)
		if n == 0 {
			break
		}
		str = str[:len(str)-n]
	}
	resultText(tls, ctx, str)
}

// maxChar is the longest character a charSet knows; only malformed text has longer
// ones, which it leaves out.
const maxChar = 8

// charSet is the set of characters trim takes off.
type charSet struct {
	single [256]bool
	long   map[string]struct{}
	sizes  [maxChar + 1]bool
}

func newCharSet(chars []byte) *charSet {
	s := &charSet{}
	if i := bytes.IndexByte(chars, 0); i >= 0 {
		chars = chars[:i]
	}
	for len(chars) > 0 {
		n := 1
		if chars[0] >= 0xc0 {
			for n < len(chars) && chars[n]&0xc0 == 0x80 {
				n++
			}
		}
		switch {
		case n == 1:
			s.single[chars[0]] = true
		case n <= maxChar:
			if s.long == nil {
				s.long = make(map[string]struct{})
			}
			s.long[string(chars[:n])] = struct{}{}
			s.sizes[n] = true
		}
		chars = chars[n:]
	}
	return s
}

func (s *charSet) prefix(b []byte) int {
	if s.single[b[0]] {
		return 1
	}
	for n, used := range s.sizes {
		if used && n <= len(b) {
			if _, ok := s.long[string(b[:n])]; ok {
				return n
			}
		}
	}
	return 0
}

func (s *charSet) suffix(b []byte) int {
	if s.single[b[len(b)-1]] {
		return 1
	}
	for n, used := range s.sizes {
		if used && n <= len(b) {
			if _, ok := s.long[string(b[len(b)-n:])]; ok {
				return n
			}
		}
	}
	return 0
}

func funcUnhex(tls *libc.TLS, ctx uintptr, _ int32, argv uintptr) {
	defer guardFunc(tls, ctx)
	var text [2][]byte
	for i := range text {
		v := argument(argv, i)
		p := sqlite3.Xsqlite3_value_text(tls, v)
		if p == 0 {
			return // NULL
		}
		if n := sqlite3.Xsqlite3_value_bytes(tls, v); n > 0 {
			text[i] = view(p, n)
		}
	}
	hex := text[0]
	if i := bytes.IndexByte(hex, 0); i >= 0 {
		hex = hex[:i]
	}
	out := sqlite3.Xsqlite3_malloc64(tls, uint64(len(hex)/2+1))
	if out == 0 {
		sqlite3.Xsqlite3_result_error_nomem(tls, ctx)
		return
	}
	n, ok := unhex(view(out, int32(len(hex)/2+1)), hex, text[1])
	if !ok {
		sqlite3.Xsqlite3_free(tls, out)
		return // NULL
	}
	sqlite3.Xsqlite3_result_blob64(tls, ctx, out, uint64(n), fptr(sqlite3.Xsqlite3_free))
}

// unhex decodes pairs of hexadecimal digits, between which characters of pass may
// stand.
func unhex(dst, hex, pass []byte) (n int, ok bool) {
	allowed := make(map[uint32]struct{})
	for len(pass) > 0 {
		c, k := readChar(pass)
		allowed[c] = struct{}{}
		pass = pass[k:]
	}
	for len(hex) > 0 {
		hi := hexDigit(hex[0])
		if hi < 0 {
			c, k := readChar(hex)
			if _, ok := allowed[c]; !ok {
				return 0, false
			}
			hex = hex[k:]
			continue
		}
		if len(hex) < 2 || hexDigit(hex[1]) < 0 {
			return 0, false
		}
		dst[n] = byte(hi<<4 | hexDigit(hex[1]))
		n, hex = n+1, hex[2:]
	}
	return n, true
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// readChar reads a character as SQLite does, malformed ones too, and says how many
// bytes it took.
func readChar(b []byte) (c uint32, n int) {
	c, n = uint32(b[0]), 1
	if c < 0xc0 {
		return c, 1
	}
	switch {
	case c < 0xe0:
		c &= 0x1f
	case c < 0xf0:
		c &= 0x0f
	case c < 0xf8:
		c &= 0x07
	case c < 0xfc:
		c &= 0x03
	case c < 0xfe:
		c &= 0x01
	default:
		c = 0
	}
	for n < len(b) && b[n]&0xc0 == 0x80 {
		c = c<<6 + uint32(b[n]&0x3f)
		n++
	}
	if c < 0x80 || c&0xfffff800 == 0xd800 || c&0xfffffffe == 0xfffe {
		c = 0xfffd
	}
	return c, n
}

// search finds a string in time proportional to the lengths, whatever they hold:
// long ones by a rolling hash modulo 2^61-1 with a base drawn for the call, so that
// nobody can prepare text that collides with it.
type search struct {
	needle     []byte
	base, hash uint64
	power      uint64 // base to the power len(needle)-1
}

const (
	mersenne = 1<<61 - 1
	// shortNeedle is up to where comparing at every place is fast enough.
	shortNeedle = 32
)

func newSearch(needle []byte) *search {
	s := &search{needle: needle}
	if len(needle) <= shortNeedle {
		return s
	}
	s.base = rand.Uint64N(mersenne-512) + 257
	s.hash = s.sum(needle)
	s.power = 1
	for range len(needle) - 1 {
		s.power = mulMod(s.power, s.base)
	}
	return s
}

func (s *search) find(hay []byte) int {
	n := len(s.needle)
	if n <= shortNeedle {
		return bytes.Index(hay, s.needle)
	}
	if len(hay) < n {
		return -1
	}
	h := s.sum(hay[:n])
	for i := n; ; i++ {
		if h == s.hash && bytes.Equal(hay[i-n:i], s.needle) {
			return i - n
		}
		if i == len(hay) {
			return -1
		}
		h = h + mersenne - mulMod(uint64(hay[i-n]), s.power)
		h = mulMod(h%mersenne, s.base) + uint64(hay[i])
		if h >= mersenne {
			h -= mersenne
		}
	}
}

func (s *search) sum(b []byte) (h uint64) {
	for _, c := range b {
		if h = mulMod(h, s.base) + uint64(c); h >= mersenne {
			h -= mersenne
		}
	}
	return h
}

// mulMod is a*b modulo 2^61-1, for a and b below it.
func mulMod(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	r := lo&mersenne + (lo>>61 | hi<<3)
	if r >= mersenne {
		r -= mersenne
	}
	return r
}
