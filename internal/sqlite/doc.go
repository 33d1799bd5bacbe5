// Package sqlite is the one place in facetd that touches the SQLite engine
// (modernc.org/sqlite/lib, a C-to-Go translation, and its libc).
//
// It owns: a thin binding to connections and statements, a bridge that lets
// SQLite keep a database in a Go VFS, a page cache and an allocator that
// account every byte to one connection, and the constants callers need, so
// that nobody else imports the engine.
//
// It refuses to: know what a facet is, cache statements, retry, decide what SQL
// is allowed, or implement database/sql. facet/engine sits on top and does.
//
// # Concurrency
//
// A Conn and its Stmts belong to one goroutine at a time; the caller serialises
// (handing a Conn from one goroutine to another through a channel or a lock is
// fine). Conn.Interrupt is the only method that may be called concurrently.
// Different connections never wait for each other on a hot path: the global
// mutexes of SQLite (allocator, shared page-cache LRU) are replaced by
// per-connection structures, see memory.go and pagecache.go.
//
// # What SQLite does over a bridged VFS
//
// With journal_mode=memory, locking_mode=exclusive, synchronous=off and
// temp_store=memory (the settings Options.Exclusive applies), these facts hold
// and are held by facts_test.go (Conn.SkipJournal changes what a rollback does):
//
//   - Only the main database reaches the VFS. Rollback and statement journals,
//     temporary tables, sorters and the copy VACUUM makes stay in the
//     connection's own (accounted) memory.
//   - File.CommitPhaseTwo arrives exactly once per write transaction, after its
//     last write and truncation, for autocommit, COMMIT and RELEASE of the
//     outermost savepoint alike; never for a rollback, a read-only transaction,
//     an inner savepoint, or a statement undone by a constraint. A write
//     transaction that changed nothing (UPDATE of no row, BEGIN IMMEDIATE;
//     COMMIT) commits too, without a write before it.
//   - Pages are written before CommitPhaseTwo, and a larger-than-cache
//     transaction spills pages long before it. ROLLBACK after a spill writes the
//     old pages back and truncates to the old size; nothing marks its end, so the
//     owner of the file looks at Conn.TxnState after each statement and drops
//     what was staged once no write transaction is open.
//   - An error from CommitPhaseTwo with code FULL or IOERR_* fails the
//     transaction, and SQLite forgets its cache and schema and reads the file
//     again. If the file then shows the state before the transaction, the
//     connection goes on from there. A failed RELEASE leaves its savepoint open
//     (AutoCommit is false): roll back.
//   - In exclusive mode a connection writes page 1 (the change counter) in its
//     first commit, and again only if its content changes or after such an error.
//   - The file shrinks (one Size, one Truncate, just before CommitPhaseTwo) on
//     VACUUM, PRAGMA incremental_vacuum, commits with auto_vacuum=full, and
//     rollback after a spill. Otherwise freed pages stay in the file.
package sqlite
