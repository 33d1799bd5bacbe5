package sqlite

import (
	"errors"
	"fmt"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Errors about the use of this package, as opposed to *Error from SQLite.
var (
	// ErrClosed: the Conn or Stmt was closed.
	ErrClosed = errors.New("sqlite: connection or statement is closed")
	// ErrInUse: other code in this process initialised SQLite first, so the
	// allocator and page cache of this package can no longer be installed.
	ErrInUse = errors.New("sqlite: SQLite was already initialised by other code")
)

// Error is a failure reported by SQLite.
type Error struct {
	// Code is the extended result code; Code.Primary() groups it.
	Code Code
	// Message is SQLite's text, without the code.
	Message string
	// Offset is the byte in the SQL text the error points at, or -1.
	Offset int
	// Cause is the error a Go VFS returned (or the panic it raised) during the
	// failed call, or nil.
	Cause error
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s (%d): %v", e.Message, e.Code, e.Cause)
	}
	return fmt.Sprintf("%s (%d)", e.Message, e.Code)
}

// Unwrap gives the Go error behind an I/O failure.
func (e *Error) Unwrap() error { return e.Cause }

// CodeOf returns the SQLite code carried by err, or OK if there is none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return OK
}

// PanicError is what a panic in a Go callback becomes.
type PanicError struct {
	// Value is what was passed to panic.
	Value any
	// Stack is the stack of the panicking goroutine.
	Stack []byte
}

func (p *PanicError) Error() string { return fmt.Sprintf("panic in callback: %v", p.Value) }

// coded is an error with an explicit SQLite code.
type coded struct {
	code Code
	err  error
}

func (c *coded) Error() string { return c.err.Error() }
func (c *coded) Unwrap() error { return c.err }

// WithCode makes a VFS error reach SQLite as code (for example FULL) instead of
// the IOERR that goes with the failed call.
func WithCode(code Code, err error) error { return &coded{code, err} }

// codeFor maps a Go error of a VFS to what SQLite sees.
func codeFor(err error, def Code) Code {
	if c, ok := errors.AsType[*coded](err); ok && c.code != OK {
		return c.code
	}
	return def
}

func errstr(tls *libc.TLS, rc int32) string {
	return libc.GoString(sqlite3.Xsqlite3_errstr(tls, rc))
}

// forget drops a VFS error of an earlier call that SQLite survived, so that it is
// not taken for the cause of a later failure.
func (c *Conn) forget() {
	if c.vfsErr != nil {
		c.vfsErr = nil
	}
}

// fail builds the error for rc from the connection's state and takes the VFS
// error of the call that failed.
func (c *Conn) fail(rc int32) error {
	e := &Error{Code: Code(rc), Offset: -1}
	cause := c.vfsErr
	c.vfsErr = nil
	if c.db != 0 {
		tls := c.tls()
		// errmsg describes the most recent call; trust it only if it is ours.
		if x := sqlite3.Xsqlite3_extended_errcode(tls, c.db); x == rc {
			e.Message = libc.GoString(sqlite3.Xsqlite3_errmsg(tls, c.db))
			e.Offset = int(sqlite3.Xsqlite3_error_offset(tls, c.db))
		} else {
			e.Message = errstr(tls, rc)
		}
	} else {
		e.Message = errstr(c.tls(), rc)
	}
	switch e.Code.Primary() {
	case IOERR, FULL, CANTOPEN, NOMEM, CORRUPT, NOTADB, READONLY, BUSY, INTERRUPT, AUTH:
		e.Cause = cause
	default:
		if cause != nil && codeFor(cause, OK) == e.Code {
			e.Cause = cause
		}
	}
	return e
}
