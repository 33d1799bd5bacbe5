package sqlite

import (
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// transient makes SQLite copy the value.
const transient = ^uintptr(0)

// Parameters count from 1, as in SQL.

// ParamCount is the largest parameter number.
func (s *Stmt) ParamCount() int {
	if s.p == 0 {
		return 0
	}
	return int(sqlite3.Xsqlite3_bind_parameter_count(s.conn.tls(), s.p))
}

// ParamName is the name of parameter i with its prefix (":a", "@a", "$a",
// "?7"), or "" for a plain "?".
func (s *Stmt) ParamName(i int) string {
	if s.p == 0 {
		return ""
	}
	p := sqlite3.Xsqlite3_bind_parameter_name(s.conn.tls(), s.p, int32(i))
	if p == 0 {
		return ""
	}
	return libc.GoString(p)
}

// ParamIndex is the number of the parameter called name (prefix included), or 0.
func (s *Stmt) ParamIndex(name string) int {
	if s.p == 0 {
		return 0
	}
	p, err := libc.CString(name)
	if err != nil {
		return 0
	}
	defer libc.Xfree(nil, p)
	return int(sqlite3.Xsqlite3_bind_parameter_index(s.conn.tls(), s.p, p))
}

func (s *Stmt) bound(rc int32) error {
	if rc != sqlite3.SQLITE_OK {
		return s.conn.fail(rc)
	}
	return nil
}

// BindNull binds NULL.
func (s *Stmt) BindNull(i int) error {
	if s.p == 0 {
		return ErrClosed
	}
	return s.bound(sqlite3.Xsqlite3_bind_null(s.conn.tls(), s.p, int32(i)))
}

// BindInt64 binds an integer.
func (s *Stmt) BindInt64(i int, v int64) error {
	if s.p == 0 {
		return ErrClosed
	}
	return s.bound(sqlite3.Xsqlite3_bind_int64(s.conn.tls(), s.p, int32(i), v))
}

// BindFloat binds a float. NaN binds NULL, for SQLite has no NaN.
func (s *Stmt) BindFloat(i int, v float64) error {
	if s.p == 0 {
		return ErrClosed
	}
	return s.bound(sqlite3.Xsqlite3_bind_double(s.conn.tls(), s.p, int32(i), v))
}

// BindZeroBlob binds a blob of n zero bytes.
func (s *Stmt) BindZeroBlob(i int, n int64) error {
	if s.p == 0 {
		return ErrClosed
	}
	if n < 0 {
		n = 0
	}
	return s.bound(sqlite3.Xsqlite3_bind_zeroblob64(s.conn.tls(), s.p, int32(i), uint64(n)))
}

// BindText binds text, which is copied. It may be empty, hold NUL bytes or be
// invalid UTF-8.
func (s *Stmt) BindText(i int, v string) error {
	return s.bindBytes(i, unsafe.Slice(unsafe.StringData(v), len(v)), true)
}

// BindTextBytes is BindText for a byte slice.
func (s *Stmt) BindTextBytes(i int, v []byte) error { return s.bindBytes(i, v, true) }

// BindBlob binds a blob, which is copied. A nil slice binds an empty blob, not
// NULL.
func (s *Stmt) BindBlob(i int, v []byte) error { return s.bindBytes(i, v, false) }

// bindBytes copies v to the statement's own memory, or has SQLite copy it if
// there is no room.
func (s *Stmt) bindBytes(i int, v []byte, text bool) error {
	if s.p == 0 {
		return ErrClosed
	}
	if len(v) > maxValue {
		return &Error{Code: TOOBIG, Message: "bound value too long", Offset: -1}
	}
	tls := s.conn.tls()
	n := uint32(len(v))
	var p, del uintptr
	var temp uintptr
	if n <= bindArenaMax {
		s.wanted = min(s.wanted, 1<<30) + n
		if s.size == 0 {
			// The first value of a new statement: nothing is bound yet.
			size := uint32(bindArenaMin)
			for size < n {
				size *= 2
			}
			if s.args = libc.Xmalloc(nil, libc.Tsize_t(size)); s.args != 0 {
				s.size = size
			}
		}
	}
	switch {
	case n <= s.size-s.fill && s.size != 0:
		p = s.args + uintptr(s.fill)
		s.fill += n
	default:
		del = transient
		if temp = libc.Xmalloc(nil, libc.Tsize_t(n)); temp == 0 {
			return &Error{Code: NOMEM, Message: "out of memory", Offset: -1}
		}
		p = temp
	}
	if n > 0 {
		copy(view(p, int32(n)), v)
	}
	var rc int32
	if text {
		rc = sqlite3.Xsqlite3_bind_text64(tls, s.p, int32(i), p, uint64(n), del, sqlite3.SQLITE_UTF8)
	} else {
		rc = sqlite3.Xsqlite3_bind_blob64(tls, s.p, int32(i), p, uint64(n), del)
	}
	if temp != 0 {
		libc.Xfree(nil, temp)
	}
	return s.bound(rc)
}
