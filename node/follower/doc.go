// Package follower answers reads from this node's own copies of facets that other
// nodes own (rule R35): read=follower of a request.
//
// An answer shows what was known here to be committed when it ran. It may be old, is
// never called fresh, and carries the bookmark of its position; a request with a
// bookmark waits until the copy is there. Whatever cannot be answered that way goes to
// the owner's side of the node, which redirects: a request that writes or holds a
// transaction, a copy that is damaged, being replaced or not of the active set, one
// that does not come to the bookmark within MaxWait, and what there is no room for.
//
// It owns the views (replica.View) with their SQLite connections, how many there are
// and how long they stay open. It refuses to change a copy, but for bringing one to its
// file when too much is above it, to decide who owns a facet, and to believe what a
// bookmark says beyond that somebody waits for it: only owners say what is committed
// (R10). A copy that lags behind its own log has the owner asked to tell it.
//
// Package node makes one Manager per data directory. A facet nobody reads this way costs
// nothing here.
//
// Concurrency: every method of Manager may be called from any goroutine. A view is
// served by at most one goroutine, which ends when nothing waits. Lock order:
// Manager.mu, view.mu; no I/O and no callback under them.
package follower
