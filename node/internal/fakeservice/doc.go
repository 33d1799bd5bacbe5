// Package fakeservice is a service.Service for the tests of the HTTP faces. It
// really executes: every facet is a SQLite database in a directory of the test,
// run by one request at a time, with interactive transactions.
//
// It has none of a node's machinery: no commit log, no limits on time or
// memory, no ownership. Only tests import it. Service is safe for concurrent
// use; a request for a busy facet waits, one for a facet held by a transaction
// is refused.
package fakeservice
