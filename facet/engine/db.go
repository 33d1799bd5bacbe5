package engine

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/sqlite"
)

// Options say what to open. ID, Epoch, Store and Commits are required.
type Options struct {
	ID    facet.Incarnation
	Epoch facet.Epoch // stamped on every commit
	// Store holds the facet's pages. The DB uses it until it is closed and does
	// not close it.
	Store *pages.Store
	// Commits takes each commit, in order, inside SQLite's commit (rule R26). The
	// commit's Pages are valid during the call only. An error breaks the DB.
	Commits func(*facet.Commit) error
	Limits  Limits
	// Now is the clock that dates idempotency keys; nil is time.Now.
	Now func() time.Time
	// View opens committed pages for reading. Store is moved on by the caller, who
	// then calls Refresh; Commits and Epoch are not needed. Requests run by TryRead.
	View bool
}

// DB is one open facet. It belongs to one goroutine at a time, except Interrupt.
//
// Between two requests the connection is idle, or inside an interactive
// transaction (InTx). Invariant: outside a transaction the store has no stage, so
// what SQLite has cached is the newest committed state.
type DB struct {
	id      facet.Incarnation
	epoch   facet.Epoch
	store   *pages.Store
	handOff func(*facet.Commit) error
	limits  Limits
	opened  Limits // the limits of Options
	quota   uint32 // pages
	view    bool   // see Options.View
	now     func() time.Time

	conn  *sqlite.Conn
	file  file
	cache stmtCache
	keys  keyTable

	broken  error // why nothing may run any more
	unknown bool  // the commit that broke it was handed on
	closed  bool

	yielded time.Time    // when the statement that runs gave way last
	commits uint64       // made by this DB
	commit  facet.Commit // the one being handed on
	changed int64        // conn.TotalChanges after the last statement
	marks   mark         // session state to take back
	inTx    bool         // a transaction is open between requests
	// schemaFails says whether the schema can make a statement keep what it did
	// before it failed, see mayFail.
	schemaFails answer
	grown       uint32 // pages that the transaction may have, by grow
	overdrawn   uint32 // pages it has although grow refused them, since grow did not

	// Of the statement being prepared or run.
	internal     bool         // it is facetd's own: the authorizer allows all
	vacuum       bool         // it is VACUUM
	pragmaWrites bool         // it is a PRAGMA that writes
	denied       *facet.Error // why the authorizer refused it
	reason       *facet.Error // why it was interrupted

	// Of the request being run.
	readOnly     bool
	elsewhere    bool // requests that write are for somebody else, see errWrites
	wrote        bool // a statement that may write ran
	statementEnd time.Time
	requestEnd   time.Time
	requestTime  time.Duration
	canceled     func() bool
	admit        func() error
	grow         func(bytes int64) error
	makesRoom    bool // the statement does, see mayGrow
	outcomes     []outcome
	rows         uint64 // returned by the statement
	touched      int64  // rows returned and changed by the request, see Rows

	interrupted atomic.Bool

	// See Hot.
	hot     *Hot
	hotConn *sqlite.Conn
	hotStmt *stmt
	hotAge  int
}

// Open opens the facet in store.
func Open(opts Options) (*DB, error) {
	if opts.View {
		opts.Commits, opts.Epoch = refuseCommits, 1
	}
	if opts.Store == nil || opts.Commits == nil || opts.Epoch.IsZero() {
		return nil, errors.New("open engine: Store, Commits and Epoch are required")
	}
	if err := registerVFS(); err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	db := &DB{
		id: opts.ID, epoch: opts.Epoch, store: opts.Store, handOff: opts.Commits,
		limits: opts.Limits.withDefaults(), now: opts.Now,
		view: opts.View, elsewhere: opts.View,
	}
	if db.now == nil {
		db.now = time.Now
	}
	db.opened = db.limits
	db.quota = db.limits.quotaPages()
	// A quota lowered below what is there must not stop deleting.
	db.store.SetMaxPages(max(db.quota, db.store.Pages()) + reservePages)
	db.file = file{store: db.store, db: db}
	db.cache.init()
	if err := db.connect(); err != nil {
		return nil, fmt.Errorf("open engine: %w", err)
	}
	return db, nil
}

// connect opens the connection and puts it into the sandbox.
func (db *DB) connect() error {
	name := vfs.add(&db.file)
	defer vfs.remove(name)
	conn, err := sqlite.Open(name, sqlite.Options{
		VFS: vfsName, Exclusive: !db.view, Changing: db.view, PageSize: pages.Size,
		CacheSize:   -max(db.limits.CacheBytes>>10, 16),
		MemoryLimit: db.limits.MemoryBytes,
	})
	if err != nil {
		return err
	}
	db.conn = conn
	if err := db.confine(); err != nil {
		return errors.Join(err, conn.Close())
	}
	db.marks, db.changed, db.schemaFails = 0, 0, unknownYet
	db.keys = keyTable{sincePrune: db.keys.sincePrune, cursor: db.keys.cursor}
	return nil
}

func (db *DB) confine() error {
	for _, c := range [...]struct {
		op sqlite.ConfigOp
		on bool
	}{
		{sqlite.ConfigDefensive, true},
		{sqlite.ConfigTrustedSchema, false},
		{sqlite.ConfigForeignKeys, true},
		{sqlite.ConfigLoadExtension, false},
		{sqlite.ConfigFTS3Tokenizer, false},
	} {
		if err := db.conn.DBConfig(c.op, c.on); err != nil {
			return err
		}
	}
	for _, l := range sqliteLimits {
		db.conn.SetLimit(l.id, l.val)
	}
	if db.quota < facet.MaxPages-reservePages {
		if err := db.setMaxPages(db.quota); err != nil {
			return err
		}
	}
	if err := db.conn.UseLinearFunctions(); err != nil {
		return err
	}
	db.conn.SetProgressHandler(tickOps, db.tick)
	return db.conn.SetAuthorizer(db.authorize)
}

func (db *DB) setMaxPages(n uint32) error {
	return db.exec(fmt.Appendf(nil, "PRAGMA max_page_count=%d", n))
}

// openReserve lets a facet near its size limit grow by reservePages, for a
// statement that makes room: taking rows out of an index may need a page first. It
// reports whether closeReserve must be called. Pages SQLite has not written yet
// are at most its cache.
func (db *DB) openReserve() bool {
	if db.below(db.store.StagedPages()) {
		return false
	}
	return db.setMaxPages(db.quota+reservePages) == nil
}

// below reports whether a database that has written n pages is not near its limit.
func (db *DB) below(n uint32) bool {
	return n+uint32(db.limits.CacheBytes/pages.Size)+reservePages < db.quota
}

// hasRoom reports whether the statement that ended last cannot have met the limit.
func (db *DB) hasRoom() bool { return db.below(max(db.file.high, db.store.StagedPages())) }

func (db *DB) closeReserve() {
	if db.broken == nil && db.setMaxPages(db.quota) != nil {
		db.marks |= markReopen
	}
}

// exec runs facetd's own SQL, which is not worth keeping.
func (db *DB) exec(sql []byte) error {
	was := db.internal
	db.internal = true
	err := db.conn.ExecScript(sql)
	db.internal = was
	return err
}

// Close closes the connection; an open transaction leaves no trace. The store
// stays the caller's. It may be called twice.
func (db *DB) Close() error {
	if db.closed {
		return nil
	}
	db.closed = true
	db.file.doomed = ErrClosed // whatever SQLite writes back now is not needed
	db.cache.clear()
	db.keys = keyTable{}
	err := db.conn.Close()
	db.store.Discard()
	return err
}

// Broken is why the DB refuses everything, nil while it works. The caller drops a
// broken DB together with its store and builds both again from the log (R24, R26).
func (db *DB) Broken() error { return db.broken }

// InTx reports whether an interactive transaction is open.
func (db *DB) InTx() bool { return db.inTx && db.broken == nil && !db.closed }

// Position is the position of the newest commit.
func (db *DB) Position() facet.Position { return db.store.Position() }

// MemoryUsed is what SQLite holds for this facet, in bytes. The pages of the
// store come on top.
func (db *DB) MemoryUsed() int64 {
	if db.closed {
		return 0
	}
	return db.conn.MemoryUsed()
}

// Rollback ends an open interactive transaction; without one it does nothing.
func (db *DB) Rollback() error {
	if err := db.usable(); err != nil {
		return err
	}
	if !db.inTx {
		return nil
	}
	db.rollback()
	err := db.settle()
	if err == nil {
		err = db.takeBack()
	}
	db.inTx = false
	db.conn.Park()
	return err
}

// Park gives the C stack of an idle connection back; the next request takes one
// again by itself.
func (db *DB) Park() {
	if !db.closed {
		db.conn.Park()
	}
}

// Interrupt stops the request that runs now. It may be called from any goroutine
// at any time, and does nothing when no request runs. With RunOptions.Canceled,
// only a request that is really canceled is stopped.
func (db *DB) Interrupt() { db.interrupted.Store(true) }

func (db *DB) usable() error {
	switch {
	case db.closed:
		return ErrClosed
	case db.broken != nil:
		return facet.Errorf(facet.CodeUnavailable, "the facet is being recovered: %v", db.broken)
	}
	return nil
}

// tick is called by SQLite every tickOps instructions and stops the statement.
func (db *DB) tick() bool {
	if db.internal {
		return false // short, and a ROLLBACK must not be stopped
	}
	if db.interrupted.Load() && db.isCanceled() {
		db.reason = canceledError()
		return true
	}
	now := time.Now()
	switch {
	case now.After(db.requestEnd):
		db.reason = timeoutError(db.requestTime, "request")
	case now.After(db.statementEnd):
		db.reason = timeoutError(db.limits.StatementTime, "statement")
	default:
		// Go gives a goroutine 10 ms at a time. With a few long statements at work a
		// quick request, which several goroutines handle one after the other, would
		// wait that long for each of them, times the long ones.
		if now.Sub(db.yielded) > yieldEvery {
			runtime.Gosched()
			db.yielded = time.Now()
		}
		return false
	}
	return true
}

// isCanceled says whether an interrupt was meant for this request.
func (db *DB) isCanceled() bool {
	if db.canceled == nil || db.canceled() {
		return true
	}
	db.interrupted.Store(false)
	return false
}

// rollback ends the open transaction. Should SQLite fail to, the connection is
// replaced.
func (db *DB) rollback() {
	db.schemaFails = unknownYet
	if err := db.exec([]byte("ROLLBACK")); err != nil && !db.conn.AutoCommit() {
		db.file.doomed = err
		db.marks |= markReopen
	}
}

// settle brings connection and store into their resting state after a statement
// or request: outside a transaction nothing is staged, and a connection that may
// disagree with the store is replaced.
func (db *DB) settle() error {
	if db.broken != nil {
		return nil
	}
	if db.marks&markReopen != 0 || db.file.doomed != nil {
		return db.reconnect()
	}
	if db.store.Staged() && db.conn.AutoCommit() {
		db.store.Discard()
	}
	return nil
}

// reconnect replaces the connection; an open transaction is rolled back.
func (db *DB) reconnect() error {
	db.file.doomed = ErrClosed
	db.cache.clear()
	err := db.conn.Close()
	db.store.Discard()
	db.file.doomed = nil
	if cerr := db.connect(); cerr != nil {
		// The old connection is gone and no new one can be had.
		db.breakWith(fmt.Errorf("open connection again: %w", errors.Join(cerr, err)), false)
		return db.usable()
	}
	return nil
}

// takeBack ends what a request's SQL changed about the session.
func (db *DB) takeBack() error {
	m := db.marks
	if m == 0 {
		return nil
	}
	if m&(markTemp|markReopen) != 0 {
		return db.reconnect()
	}
	db.marks = 0
	var err error
	set := func(bit mark, pragma string) {
		if m&bit != 0 && err == nil {
			err = db.exec([]byte(pragma))
		}
	}
	set(markForeignKeys, "PRAGMA foreign_keys=1")
	set(markDeferForeignKeys, "PRAGMA defer_foreign_keys=0")
	set(markRecursiveTriggers, "PRAGMA recursive_triggers=0")
	set(markLike, "PRAGMA case_sensitive_like=0")
	set(markLegacyAlter, "PRAGMA legacy_alter_table=0")
	if err != nil {
		return db.reconnect()
	}
	return nil
}
