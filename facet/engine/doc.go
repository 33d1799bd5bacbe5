// Package engine runs SQL for one open facet: SQLite on top of a pages.Store.
//
// It owns the connection of a facet, its statement cache, the sandbox around
// tenants' SQL (authorizer, limits, deadlines, quotas), the rows that make
// requests with an idempotency key take effect once, the scratch databases that
// answer for facets which do not exist, the views that read a follower's pages, and
// the check of imported files.
//
// It refuses to know about logs, replicas, owners and clients. A commit is handed
// to Options.Commits inside SQLite's commit (rule R26); when it is durable, and
// when an answer may leave (rule R29), is the caller's business. After a failed
// hand-off the DB is broken and the caller drops it: nothing is rolled back
// locally.
//
// node/owner and node/follower call it. A DB and everything it returns belong to one goroutine at a
// time, the facet's; DB.Interrupt alone may be called from anywhere. A Scratch may
// be used by any number of goroutines.
//
// What SQL is allowed, and every limit with its name, is written in docs/SQL.md.
package engine
