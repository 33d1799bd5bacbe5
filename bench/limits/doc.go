// Package limits measures what a machine could do at best with the parts facetd is
// made of, one at a time: the transport without a database, the engine without
// transport and disk, the disk without either; and what a program does that uses
// stock SQLite with the same durability. bench compares a node with that.
//
// It owns these measurements and nothing else. It imports what it measures
// (facet/engine, internal/wire, internal/disk, the stock driver), which is why it
// is apart from package bench. cmd/facetd calls it, once at a time; the engine
// configures SQLite for the whole process, so no other package of the process may
// have used the stock driver before.
package limits
