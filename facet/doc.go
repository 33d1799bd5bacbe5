// Package facet is the vocabulary of facetd: the names, numbers and messages
// every other package speaks. A facet is one SQLite database of one tenant.
//
// It owns identity (Tenant, Name, Incarnation), order (Epoch, Seq, Sum,
// Position), the unit of replication (Commit and its codec), requests and
// results (Request, Step, Values, the result items) and the closed list of
// errors that cross the wire (Code, Error).
//
// It refuses to do any work: no I/O, no clock, no goroutine, nothing but the
// standard library. Everyone may import it; it imports nobody.
//
// All types are plain values. Nothing here is safe for concurrent mutation and
// nothing needs to be.
package facet
