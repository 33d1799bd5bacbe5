package sqlite

import (
	"bytes"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// A Stmt is one prepared statement. It is used by the goroutine that uses its
// Conn.
type Stmt struct {
	conn       *Conn
	p          uintptr
	prev, next *Stmt

	row  uintptr // values of the current row, 0 if there is none
	cols int     // columns of the current row

	args   uintptr // memory bound text and blobs are copied to
	size   uint32  // of args
	fill   uint32  // used
	wanted uint32  // what the values bound since ClearBindings needed
}

var errNUL = &Error{Code: ERROR, Message: "SQL contains a NUL byte", Offset: -1}

// Prepare compiles the first statement of sql. tail is how many bytes it took,
// so that scripts can be iterated; stmt is nil if those hold only space or
// comments.
func (c *Conn) Prepare(sql []byte) (stmt *Stmt, tail int, err error) {
	return c.prepare(sql, 0)
}

// PreparePersistent is Prepare for a statement that will be kept and used many
// times.
func (c *Conn) PreparePersistent(sql []byte) (stmt *Stmt, tail int, err error) {
	return c.prepare(sql, sqlite3.SQLITE_PREPARE_PERSISTENT)
}

func (c *Conn) prepare(sql []byte, flags uint32) (*Stmt, int, error) {
	if c.db == 0 {
		return nil, 0, ErrClosed
	}
	if len(sql) > maxSQL {
		return nil, 0, &Error{Code: TOOBIG, Message: "SQL text too long", Offset: -1}
	}
	if i := bytes.IndexByte(sql, 0); i >= 0 {
		return nil, 0, errNUL
	}
	c.forget()
	tls := c.tls()
	t := c.thread
	text := t.sql
	if len(sql) > sqlScratch {
		if text = libc.Xmalloc(nil, libc.Tsize_t(len(sql)+1)); text == 0 {
			return nil, 0, &Error{Code: NOMEM, Message: "out of memory", Offset: -1}
		}
		defer libc.Xfree(nil, text)
	}
	b := view(text, int32(len(sql)+1))
	copy(b, sql)
	b[len(sql)] = 0
	*word(t.out) = 0
	*word(t.out + 8) = text
	// Counting the NUL saves SQLite a copy of the text.
	rc := sqlite3.Xsqlite3_prepare_v3(tls, c.db, text, int32(len(sql)+1), flags, t.out, t.out+8)
	if rc != sqlite3.SQLITE_OK {
		return nil, 0, c.fail(rc)
	}
	tail := min(int(*word(t.out + 8)-text), len(sql))
	p := *word(t.out)
	if p == 0 {
		// Only space and comments up to the end or a lone semicolon.
		return nil, tail, nil
	}
	s := &Stmt{conn: c, p: p, next: c.stmts}
	if c.stmts != nil {
		c.stmts.prev = s
	}
	c.stmts = s
	return s, tail, nil
}

// Step runs the statement to its next row; false means it is done. After done
// or an error call Reset before the next execution.
func (s *Stmt) Step() (bool, error) {
	if s.p == 0 {
		return false, ErrClosed
	}
	s.conn.forget()
	rc := sqlite3.Xsqlite3_step(s.conn.tls(), s.p)
	if rc == row {
		v := at[sqlite3.TVdbe](s.p)
		s.row, s.cols = v.FpResultRow, int(v.FnResColumn)
		return true, nil
	}
	s.row, s.cols = 0, 0
	if rc == done {
		return false, nil
	}
	return false, s.conn.fail(rc)
}

// Reset ends the execution and makes the statement ready for the next. Bindings
// stay. It does not repeat the error Step gave.
func (s *Stmt) Reset() {
	s.row, s.cols = 0, 0
	if s.p != 0 {
		sqlite3.Xsqlite3_reset(s.conn.tls(), s.p)
	}
}

// ClearBindings binds NULL to every parameter and reclaims the memory bound
// values used. An execution of a cached statement is Reset, ClearBindings, Bind,
// Step; without ClearBindings the statement stays correct but every value bound
// again takes fresh memory until it is copied by SQLite instead. Not between
// Step and Reset.
func (s *Stmt) ClearBindings() {
	if s.p == 0 {
		return
	}
	sqlite3.Xsqlite3_clear_bindings(s.conn.tls(), s.p)
	if s.wanted > s.size && s.size < bindArenaMax {
		n := uint32(bindArenaMin)
		for n < min(s.wanted, bindArenaMax) {
			n *= 2
		}
		libc.Xfree(nil, s.args)
		s.size = 0
		if s.args = libc.Xmalloc(nil, libc.Tsize_t(n)); s.args != 0 {
			s.size = n
		}
	}
	s.fill, s.wanted = 0, 0
}

// Finalize frees the statement. It may be called twice. It reports the error of
// the last execution, as SQLite does.
func (s *Stmt) Finalize() error {
	if s.p == 0 {
		return nil
	}
	c := s.conn
	rc := sqlite3.Xsqlite3_finalize(c.tls(), s.p)
	s.p, s.row, s.cols = 0, 0, 0
	libc.Xfree(nil, s.args)
	s.args, s.size = 0, 0
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		c.stmts = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
	if rc != sqlite3.SQLITE_OK {
		return c.fail(rc)
	}
	return nil
}

// ReadOnly reports whether the statement makes no direct change to the database
// file. BEGIN, COMMIT, SAVEPOINT and some PRAGMAs count as read-only.
func (s *Stmt) ReadOnly() bool {
	return s.p == 0 || sqlite3.Xsqlite3_stmt_readonly(s.conn.tls(), s.p) != 0
}

// IsExplain is 1 for EXPLAIN, 2 for EXPLAIN QUERY PLAN, else 0.
func (s *Stmt) IsExplain() int {
	if s.p == 0 {
		return 0
	}
	return int(sqlite3.Xsqlite3_stmt_isexplain(s.conn.tls(), s.p))
}

// SQL is the text of the statement.
func (s *Stmt) SQL() string {
	if s.p == 0 {
		return ""
	}
	return libc.GoString(sqlite3.Xsqlite3_sql(s.conn.tls(), s.p))
}

// Counter is a statistic of a statement.
type Counter int32

// Counters.
const (
	CounterFullScanStep Counter = sqlite3.SQLITE_STMTSTATUS_FULLSCAN_STEP
	CounterSort         Counter = sqlite3.SQLITE_STMTSTATUS_SORT
	CounterVMStep       Counter = sqlite3.SQLITE_STMTSTATUS_VM_STEP
	CounterMemoryUsed   Counter = sqlite3.SQLITE_STMTSTATUS_MEMUSED
)

// Counter reads a statistic and optionally sets it to zero.
func (s *Stmt) Counter(k Counter, reset bool) int64 {
	if s.p == 0 {
		return 0
	}
	r := int32(0)
	if reset {
		r = 1
	}
	return int64(sqlite3.Xsqlite3_stmt_status(s.conn.tls(), s.p, int32(k), r))
}
