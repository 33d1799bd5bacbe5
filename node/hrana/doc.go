// Package hrana speaks libSQL's HTTP protocol, Hrana 2 and 3 in JSON with the
// cursor of 3, so that stock libSQL clients reach a facet unchanged.
//
// It owns the protocol's decoding and encoding, batons and the table of streams.
// It refuses to know SQL beyond the words that begin and end a transaction, and
// to execute anything: every statement goes through service.Service. Package
// httpapi mounts it; nobody else calls it.
//
// # Streams
//
// The protocol's stream stands for a SQLite connection. Here a connection is
// the facet's own, so a stream is only a name for what a client may come back
// to: an open transaction, stored SQL texts, or nothing at all. A stream with
// nothing pins nothing: its baton alone, signed, is enough to go on, however
// long the client was away and even if the table had to forget it. A
// transaction lives by the service's limits, not by the table's.
//
// A Handler is safe for concurrent use. A stream is used by one request at a
// time, which its baton enforces.
package hrana
