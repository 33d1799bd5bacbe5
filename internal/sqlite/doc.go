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
// and are held by facts_test.go:
//
//   - Only the main database reaches the VFS. Rollback and statement journals,
//     temporary tables, sorters and the copy VACUUM makes stay in the
//     connection's own (accounted) memory.
//   - File.CommitPhaseTwo arrives exactly once per transaction that changed
//     pages, after the last write of that transaction, for autocommit and COMMIT
//     alike; never for a rollback, a read-only transaction, RELEASE of an inner
//     savepoint, or a statement undone by a constraint.
//   - CommitPhaseTwo is the point before which nothing may be kept: pages are
//     written before it, and a larger-than-cache transaction spills pages long
//     before it. ROLLBACK after a spill writes the old content back, also
//     without CommitPhaseTwo.
//   - An error from CommitPhaseTwo fails the COMMIT, but by then the journal is
//     gone: SQLite treats the transaction as committed in its cache. The
//     connection then disagrees with the VFS, so the caller must close it.
//   - In exclusive mode the change counter on page 1 is written in the first
//     committing transaction after open only; later ones write page 1 only if
//     its content changes.
package sqlite
