package sqlite

import (
	"fmt"
	"strings"
	"sync"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Options says how to open a connection. The zero value opens or creates a
// read-write database file in the stock VFS.
type Options struct {
	// VFS names a VFS given to RegisterVFS; "" is the stock one of the platform.
	VFS string
	// ReadOnly refuses writes.
	ReadOnly bool
	// NoCreate fails if the database does not exist.
	NoCreate bool
	// Memory keeps the database in memory, whatever the path.
	Memory bool

	// Exclusive sets what a bridged VFS needs: locking_mode=exclusive,
	// journal_mode=memory, synchronous=off, temp_store=memory.
	Exclusive bool
	// Changing is Exclusive for a file that others change between two of the
	// connection's transactions, which only read: with locking_mode=normal, so that
	// every transaction asks for the size of the file. ResetCache must be called
	// after each change.
	Changing bool
	// CacheSize is PRAGMA cache_size: pages if positive, KiB if negative, 0 for
	// SQLite's default of 2,000 KiB.
	CacheSize int
	// PageSize is PRAGMA page_size, which matters for a new database; 0 is 4096.
	PageSize int
	// MaxPageCount bounds the database in pages (FULL beyond); 0: no bound.
	MaxPageCount uint32

	// LookasideSize and LookasideCount give the connection a slab of small
	// buffers. Over a bridged VFS the arena of the connection is as fast, so 0 is
	// right; connections over the stock VFS gain from, say, 1200 by 40.
	LookasideSize, LookasideCount int
	// MemoryLimit bounds what the connection may hold, in bytes: page cache,
	// journal, schema, statements, sorters, temporary tables. A statement that
	// needs more fails with NOMEM and the connection stays usable. 0: no limit.
	// It needs a bridged VFS.
	MemoryLimit int64
}

// A Conn is a connection to one database. It is used by one goroutine at a
// time; see the package comment.
type Conn struct {
	db     uintptr
	thread *thread // nil while parked
	acct   *account
	stmts  *Stmt // open statements, a doubly linked list
	vfsErr error // what a Go VFS returned during the current call

	authorize func(action Action, arg1, arg2, db, trigger string) Verdict
	progress  func() bool

	interruptMu sync.Mutex
	open        bool // guarded by interruptMu for Interrupt
}

// Open opens a connection to the database called path in the VFS.
func Open(path string, opts Options) (*Conn, error) {
	if err := start(); err != nil {
		return nil, err
	}
	if strings.IndexByte(path, 0) >= 0 || strings.IndexByte(opts.VFS, 0) >= 0 {
		return nil, &Error{Code: CANTOPEN, Message: "name contains a NUL byte", Offset: -1}
	}
	c := &Conn{}
	if opts.VFS != "" {
		if !isBridged(opts.VFS) {
			return nil, &Error{Code: CANTOPEN, Message: "no such VFS: " + opts.VFS, Offset: -1}
		}
		c.acct = &account{limit: opts.MemoryLimit}
	} else if opts.MemoryLimit != 0 {
		return nil, &Error{Code: MISUSE, Message: "MemoryLimit needs a bridged VFS", Offset: -1}
	}
	if err := c.attach(); err != nil {
		return nil, err
	}
	if c.acct != nil {
		engine.mu.Lock()
		engine.accounts[c.acct] = struct{}{}
		engine.mu.Unlock()
	}
	if err := c.openDB(path, opts); err != nil {
		_ = c.Close() // err says why there is nothing to close
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	c.interruptMu.Lock()
	c.open = true
	c.interruptMu.Unlock()
	return c, nil
}

func (c *Conn) openDB(path string, opts Options) error {
	flags := int32(sqlite3.SQLITE_OPEN_READWRITE | sqlite3.SQLITE_OPEN_NOMUTEX | sqlite3.SQLITE_OPEN_EXRESCODE)
	if opts.ReadOnly {
		flags ^= sqlite3.SQLITE_OPEN_READWRITE | sqlite3.SQLITE_OPEN_READONLY
	} else if !opts.NoCreate {
		flags |= sqlite3.SQLITE_OPEN_CREATE
	}
	if opts.Memory {
		flags |= sqlite3.SQLITE_OPEN_MEMORY
	}
	name, err := libc.CString(path)
	if err != nil {
		return err
	}
	defer libc.Xfree(nil, name)
	var vfs uintptr
	if opts.VFS != "" {
		if vfs, err = libc.CString(opts.VFS); err != nil {
			return err
		}
		defer libc.Xfree(nil, vfs)
	}
	t := c.thread
	*word(t.out) = 0
	rc := sqlite3.Xsqlite3_open_v2(&t.TLS, name, t.out, flags, vfs)
	c.db = *word(t.out)
	if rc != sqlite3.SQLITE_OK {
		return c.fail(rc)
	}
	if opts.LookasideCount > 0 && opts.LookasideSize > 0 {
		args := libc.VaList(t.out, uintptr(0), int32(opts.LookasideSize), int32(opts.LookasideCount))
		if rc := sqlite3.Xsqlite3_db_config(&t.TLS, c.db, sqlite3.SQLITE_DBCONFIG_LOOKASIDE, args); rc != sqlite3.SQLITE_OK {
			return c.fail(rc)
		}
	}
	return c.applyPragmas(opts)
}

// applyPragmas runs the settings that have no C function. None of them reads
// the database: the first statement does.
func (c *Conn) applyPragmas(opts Options) error {
	var sql []byte
	if opts.PageSize != 0 {
		sql = fmt.Appendf(sql, "PRAGMA page_size=%d;", opts.PageSize)
	}
	if opts.Exclusive {
		sql = append(sql, "PRAGMA locking_mode=exclusive;"...)
	}
	if opts.Exclusive || opts.Changing {
		sql = append(sql, "PRAGMA temp_store=memory;"...)
	}
	if opts.CacheSize != 0 {
		sql = fmt.Appendf(sql, "PRAGMA cache_size=%d;", opts.CacheSize)
	}
	if opts.Exclusive || opts.Changing {
		sql = append(sql, "PRAGMA synchronous=off;PRAGMA journal_mode=memory;"...)
	}
	if opts.MaxPageCount != 0 {
		sql = fmt.Appendf(sql, "PRAGMA max_page_count=%d;", opts.MaxPageCount)
	}
	return c.ExecScript(sql)
}

// ExecScript runs all statements of sql and drops their rows. It is meant for
// settings and tests, not for tenants' SQL.
func (c *Conn) ExecScript(sql []byte) error {
	for len(sql) > 0 {
		s, n, err := c.Prepare(sql)
		if err != nil {
			return err
		}
		sql = sql[n:]
		if s == nil {
			continue
		}
		for more := true; more && err == nil; {
			more, err = s.Step()
		}
		if ferr := s.Finalize(); err == nil {
			err = ferr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// attach binds a thread to the connection.
func (c *Conn) attach() error {
	t, err := takeThread()
	if err != nil {
		return err
	}
	t.conn, t.acct = c, c.acct
	c.thread = t
	return nil
}

// tls is the context for the next call. A parked connection gets a thread here;
// that cannot fail in a way a caller could handle (the process is out of
// memory), so it panics.
func (c *Conn) tls() *libc.TLS {
	if c.thread == nil {
		if err := c.attach(); err != nil {
			panic(err)
		}
	}
	return &c.thread.TLS
}

// Park gives the C stack of an idle connection back to a shared pool; the next
// call takes one again. Statements stay prepared and transactions stay open.
// It must not be called from a callback.
func (c *Conn) Park() {
	if t := c.thread; t != nil {
		c.thread = nil
		t.release()
	}
}

// Close finalises what is left and closes the connection. It may be called
// twice. An open transaction is rolled back.
func (c *Conn) Close() error {
	c.interruptMu.Lock()
	c.open = false
	c.interruptMu.Unlock()
	if c.db == 0 && c.acct == nil && c.thread == nil {
		return nil
	}
	for c.stmts != nil {
		_ = c.stmts.Finalize() // reports the statement's last error, already seen
	}
	var err error
	if c.db != 0 {
		if rc := sqlite3.Xsqlite3_close(c.tls(), c.db); rc != sqlite3.SQLITE_OK {
			// Cannot happen with every statement finalised and no blob handles or
			// backups offered. The connection and its arena are leaked on purpose.
			return c.fail(rc)
		}
		c.db = 0
		if c.vfsErr != nil {
			err = fmt.Errorf("close connection: %w", c.vfsErr)
			c.vfsErr = nil
		}
	}
	if c.acct != nil {
		engine.mu.Lock()
		delete(engine.accounts, c.acct)
		engine.mu.Unlock()
		c.acct.drop()
		c.acct = nil
	}
	c.Park()
	c.authorize, c.progress = nil, nil
	return err
}

// Interrupt makes the running statement fail with INTERRUPT. It may be called
// from any goroutine at any time, also on a closed connection. An interrupt
// with no statement running has no effect.
func (c *Conn) Interrupt() {
	c.interruptMu.Lock()
	defer c.interruptMu.Unlock()
	if c.open {
		// The call uses no thread context: it sets one atomic flag.
		sqlite3.Xsqlite3_interrupt(nil, c.db)
	}
}

// Changes is the number of rows the last INSERT, UPDATE or DELETE changed.
func (c *Conn) Changes() int64 {
	if c.db == 0 {
		return 0
	}
	return sqlite3.Xsqlite3_changes64(c.tls(), c.db)
}

// TotalChanges is the number of rows changed since Open, triggers included.
func (c *Conn) TotalChanges() int64 {
	if c.db == 0 {
		return 0
	}
	return sqlite3.Xsqlite3_total_changes64(c.tls(), c.db)
}

// LastInsertRowID is the rowid of the last successful INSERT.
func (c *Conn) LastInsertRowID() int64 {
	if c.db == 0 {
		return 0
	}
	return sqlite3.Xsqlite3_last_insert_rowid(c.tls(), c.db)
}

// AutoCommit reports whether no explicit transaction is open.
func (c *Conn) AutoCommit() bool {
	return c.db == 0 || sqlite3.Xsqlite3_get_autocommit(c.tls(), c.db) != 0
}

// TxnState says what the main database's transaction holds.
type TxnState int32

// States of a transaction.
const (
	TxnNone  TxnState = sqlite3.SQLITE_TXN_NONE
	TxnRead  TxnState = sqlite3.SQLITE_TXN_READ
	TxnWrite TxnState = sqlite3.SQLITE_TXN_WRITE
)

// TxnState reports the strongest transaction open on any schema.
func (c *Conn) TxnState() TxnState {
	if c.db == 0 {
		return TxnNone
	}
	return TxnState(sqlite3.Xsqlite3_txn_state(c.tls(), c.db, 0))
}

// ErrMsg is the message of the most recent failed call.
func (c *Conn) ErrMsg() string {
	if c.db == 0 {
		return ""
	}
	return libc.GoString(sqlite3.Xsqlite3_errmsg(c.tls(), c.db))
}

// ExtendedErrCode is the extended code of the most recent call.
func (c *Conn) ExtendedErrCode() Code {
	if c.db == 0 {
		return MISUSE
	}
	return Code(sqlite3.Xsqlite3_extended_errcode(c.tls(), c.db))
}

// ErrorOffset is the byte in the SQL the most recent error points at, or -1.
func (c *Conn) ErrorOffset() int {
	if c.db == 0 {
		return -1
	}
	return int(sqlite3.Xsqlite3_error_offset(c.tls(), c.db))
}

// SetLimit sets a limit (unless val is negative) and returns the one before.
func (c *Conn) SetLimit(id LimitID, val int) int {
	if c.db == 0 {
		return -1
	}
	return int(sqlite3.Xsqlite3_limit(c.tls(), c.db, int32(id), int32(min(val, 1<<31-1))))
}

// DBConfig turns a switch on or off.
func (c *Conn) DBConfig(op ConfigOp, on bool) error {
	if c.db == 0 {
		return ErrClosed
	}
	tls := c.tls()
	v := int32(0)
	if on {
		v = 1
	}
	args := libc.VaList(c.thread.out, v, uintptr(0))
	if rc := sqlite3.Xsqlite3_db_config(tls, c.db, int32(op), args); rc != sqlite3.SQLITE_OK {
		return c.fail(rc)
	}
	return nil
}

// ReleaseMemory frees what the connection can do without: unpinned pages of its
// page cache and buffers of idle statements.
func (c *Conn) ReleaseMemory() {
	if c.db != 0 {
		sqlite3.Xsqlite3_db_release_memory(c.tls(), c.db)
	}
}

// ResetCache forgets the pages of the main database: its file has changed. No
// transaction may be open. What SQLite knows of the schema it checks by itself.
func (c *Conn) ResetCache() error {
	if c.db == 0 {
		return ErrClosed
	}
	if rc := sqlite3.Xsqlite3_file_control(c.tls(), c.db, 0, sqlite3.SQLITE_FCNTL_RESET_CACHE, 0); rc != sqlite3.SQLITE_OK {
		return c.fail(rc)
	}
	return nil
}

// MemoryUsed is what the connection holds now, in bytes. With an account (a
// bridged VFS) it is exact, covers everything and costs one load; without one it
// is SQLite's estimate of page cache, schema and statements.
func (c *Conn) MemoryUsed() int64 {
	if a := c.acct; a != nil {
		return a.used.Load()
	}
	if c.db == 0 {
		return 0
	}
	tls := c.tls()
	var sum int64
	for _, op := range [...]int32{sqlite3.SQLITE_DBSTATUS_CACHE_USED, sqlite3.SQLITE_DBSTATUS_SCHEMA_USED, sqlite3.SQLITE_DBSTATUS_STMT_USED} {
		cur := at[[2]int32](c.thread.out)
		*cur = [2]int32{}
		if sqlite3.Xsqlite3_db_status(tls, c.db, op, c.thread.out, c.thread.out+8, 0) == sqlite3.SQLITE_OK {
			sum += int64(cur[0])
		}
	}
	return sum
}

// MemoryPeak is the highest MemoryUsed since Open or ResetMemoryPeak; 0 without
// an account.
func (c *Conn) MemoryPeak() int64 {
	if a := c.acct; a != nil {
		return a.peak.Load()
	}
	return 0
}

// ResetMemoryPeak starts a new MemoryPeak from what is used now.
func (c *Conn) ResetMemoryPeak() {
	if a := c.acct; a != nil {
		a.peak.Store(a.used.Load())
	}
}

// SetMemoryLimit changes Options.MemoryLimit; it does nothing without an
// account. A limit below what is used stops further growth only.
func (c *Conn) SetMemoryLimit(n int64) {
	if c.acct != nil {
		c.acct.limit = n
	}
}
