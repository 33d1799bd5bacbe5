package sqlite

import (
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Columns count from 0. Values are read straight from SQLite's row when they
// have the asked-for type; conversions go through its functions.

const (
	memNull    = sqlite3.MEM_Null
	memStr     = sqlite3.MEM_Str
	memInt     = sqlite3.MEM_Int
	memReal    = sqlite3.MEM_Real
	memBlob    = sqlite3.MEM_Blob
	memIntReal = sqlite3.MEM_IntReal // an integer that reads as a float
	memZero    = sqlite3.MEM_Zero    // a blob with a tail of zeros not yet written
)

func (s *Stmt) value(i int) *sqlite3.TMem {
	if uint(i) >= uint(s.cols) || s.row == 0 {
		return nil
	}
	return at[sqlite3.TMem](s.row + uintptr(i)*unsafe.Sizeof(sqlite3.TMem{}))
}

// ColumnCount is the number of columns of the result, 0 if it has none.
func (s *Stmt) ColumnCount() int {
	if s.p == 0 {
		return 0
	}
	return int(at[sqlite3.TVdbe](s.p).FnResColumn)
}

// ColumnName is the name of column i.
func (s *Stmt) ColumnName(i int) string {
	if s.p == 0 {
		return ""
	}
	p := sqlite3.Xsqlite3_column_name(s.conn.tls(), s.p, int32(i))
	if p == 0 {
		return ""
	}
	return libc.GoString(p)
}

// ColumnDeclType is the declared type of the table column behind result column
// i, or "" for an expression.
func (s *Stmt) ColumnDeclType(i int) string {
	if s.p == 0 {
		return ""
	}
	p := sqlite3.Xsqlite3_column_decltype(s.conn.tls(), s.p, int32(i))
	if p == 0 {
		return ""
	}
	return libc.GoString(p)
}

// ColumnType is the storage class of column i of the current row; Null if there
// is no such column or row.
func (s *Stmt) ColumnType(i int) Type {
	m := s.value(i)
	if m == nil {
		return Null
	}
	switch f := m.Fflags; {
	case f&memNull != 0:
		return Null
	case f&(memReal|memIntReal) != 0 && f&memInt == 0:
		return Float
	case f&memInt != 0:
		return Integer
	case f&memStr != 0:
		return Text
	default:
		return Blob
	}
}

// ColumnInt64 is column i as an integer, converted as CAST does.
func (s *Stmt) ColumnInt64(i int) int64 {
	m := s.value(i)
	switch {
	case m == nil:
		return 0
	case m.Fflags&(memInt|memIntReal) != 0:
		return *(*int64)(unsafe.Pointer(&m.Fu))
	default:
		return sqlite3.Xsqlite3_column_int64(s.conn.tls(), s.p, int32(i))
	}
}

// ColumnFloat is column i as a float, converted as CAST does.
func (s *Stmt) ColumnFloat(i int) float64 {
	m := s.value(i)
	switch {
	case m == nil:
		return 0
	case m.Fflags&memReal != 0:
		return *(*float64)(unsafe.Pointer(&m.Fu))
	case m.Fflags&(memInt|memIntReal) != 0:
		return float64(*(*int64)(unsafe.Pointer(&m.Fu)))
	default:
		return sqlite3.Xsqlite3_column_double(s.conn.tls(), s.p, int32(i))
	}
}

var empty = []byte{}

// ColumnBytes is column i as bytes: text as UTF-8, a blob as it is, a number as
// its decimal text, NULL as nil. Empty text and blobs are empty, not nil.
//
// The slice is SQLite's memory. It is valid until the next Step, Reset,
// ClearBindings, Finalize or Close and must not be written to.
func (s *Stmt) ColumnBytes(i int) []byte {
	m := s.value(i)
	if m == nil || m.Fflags&memNull != 0 {
		return nil
	}
	if m.Fflags&memZero == 0 && (m.Fflags&memBlob != 0 && m.Fflags&memStr == 0 || m.Fflags&memStr != 0 && m.Fenc == sqlite3.SQLITE_UTF8) {
		if m.Fn == 0 {
			return empty
		}
		return view(m.Fz, m.Fn)
	}
	tls := s.conn.tls()
	var p uintptr
	if m.Fflags&memBlob != 0 && m.Fflags&memStr == 0 {
		p = sqlite3.Xsqlite3_column_blob(tls, s.p, int32(i))
	} else {
		p = sqlite3.Xsqlite3_column_text(tls, s.p, int32(i))
	}
	n := sqlite3.Xsqlite3_column_bytes(tls, s.p, int32(i))
	if p == 0 || n == 0 {
		return empty
	}
	return view(p, n)
}

// ColumnText is column i as a Go string, copied.
func (s *Stmt) ColumnText(i int) string { return string(s.ColumnBytes(i)) }
