// Package owner runs the facets this node owns: it queues their requests, opens
// them on first use, executes one request of a facet at a time, hands each commit
// to the replicas, holds every answer back until all it saw is committed (the
// output gate, rule R29), and puts idle facets back to files.
//
// A Manager holds one desk per facet in use. A desk is the waiting line of a facet
// and the one goroutine that serves it; it exists from the first request until the
// facet hibernates. An idle facet has no desk, no goroutine, no timer, no handle.
//
// It refuses to parse protocols (the faces do), to decide placement (package
// placement does) and to store anything (facet/replica does). The faces call it
// through service.Service; any goroutine may. Lock order: shard, desk, session; no
// I/O and no callback under any of them.
package owner
