package sqlite

import (
	"runtime/debug"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// SetAuthorizer asks f about every action of every statement while it is being
// prepared (and prepared again after a schema change). nil allows all. Arguments
// SQLite does not give are "". f must not use the connection. A panic in f
// denies the action. Statements already prepared are prepared again.
func (c *Conn) SetAuthorizer(f func(action Action, arg1, arg2, db, trigger string) Verdict) error {
	if c.db == 0 {
		return ErrClosed
	}
	c.authorize = f
	cb := uintptr(0)
	if f != nil {
		cb = fptr(onAuthorize)
	}
	if rc := sqlite3.Xsqlite3_set_authorizer(c.tls(), c.db, cb, 0); rc != sqlite3.SQLITE_OK {
		return c.fail(rc)
	}
	return nil
}

func onAuthorize(tls *libc.TLS, _ uintptr, action int32, s1, s2, s3, s4 uintptr) (v int32) {
	t := threadOf(tls)
	if t == nil || t.conn == nil || t.conn.authorize == nil {
		return sqlite3.SQLITE_DENY
	}
	defer func() {
		if r := recover(); r != nil {
			t.conn.vfsErr = &PanicError{r, debug.Stack()}
			v = sqlite3.SQLITE_DENY
		}
	}()
	return int32(t.conn.authorize(Action(action), name(s1), name(s2), name(s3), name(s4)))
}

// name is a C string as a Go string, without allocating for the usual ones.
func name(p uintptr) string {
	if p == 0 {
		return ""
	}
	n := libc.Xstrlen(nil, p)
	switch b := view(p, int32(n)); string(b) {
	case "main":
		return "main"
	case "temp":
		return "temp"
	case "sqlite_master":
		return "sqlite_master"
	default:
		return string(b)
	}
}

// SetProgressHandler calls f about every nOps instructions of the virtual
// machine; true from f interrupts the statement with INTERRUPT. nil or nOps < 1
// removes the handler. f must not use the connection. A panic in f interrupts.
func (c *Conn) SetProgressHandler(nOps int, f func() bool) {
	if c.db == 0 {
		return
	}
	if nOps < 1 || f == nil {
		c.progress = nil
		sqlite3.Xsqlite3_progress_handler(c.tls(), c.db, 0, 0, 0)
		return
	}
	c.progress = f
	sqlite3.Xsqlite3_progress_handler(c.tls(), c.db, int32(min(nOps, 1<<30)), fptr(onProgress), 0)
}

func onProgress(tls *libc.TLS, _ uintptr) (stop int32) {
	t := threadOf(tls)
	if t == nil || t.conn == nil || t.conn.progress == nil {
		return 0
	}
	defer func() {
		if r := recover(); r != nil {
			t.conn.vfsErr = &PanicError{r, debug.Stack()}
			stop = 1
		}
	}()
	if t.conn.progress() {
		return 1
	}
	return 0
}
