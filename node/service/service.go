// Package service is the border between a node and its faces: what the native
// protocol, HTTP and Hrana call, and what a node offers them.
//
// It owns the types of that border and nothing else; it does no work. The node
// implements Service; the faces use it and never reach around it. Every method
// may be called from any goroutine.
package service

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// Service is one node as its faces see it. All errors are *facet.Error or wrap
// one.
type Service interface {
	// Submit runs the call's request at the facet's owner, or on this node's copy where
	// the request reads as a follower, and calls call.Done
	// exactly once, from any goroutine, perhaps before Submit returns. It never
	// blocks: what cannot be queued is answered with CodeOverloaded. The request
	// and everything it references must stay unchanged until Done.
	Submit(call *Call)

	// Create makes the facet if it does not exist and tells whether it did.
	Create(ctx context.Context, name facet.Name) (info Info, created bool, err error)
	// Stat tells about a facet; it never creates one.
	Stat(ctx context.Context, name facet.Name) (Info, error)
	// List returns up to limit facets of the tenant after the given facet name,
	// in name order, and whether there are more.
	List(ctx context.Context, tenant facet.Tenant, after string, limit int) (infos []Info, more bool, err error)
	// Delete removes the facet. Its name is free again at once; its data go to
	// the trash for a grace period.
	Delete(ctx context.Context, name facet.Name) error
	// Export opens the facet's database at one position, as a plain SQLite file.
	// Writers are not stopped while it is read.
	Export(ctx context.Context, name facet.Name) (Export, error)
	// Import makes the facet from a SQLite file. The file is checked before the
	// facet exists; with replace an existing facet is exchanged as a whole.
	Import(ctx context.Context, name facet.Name, file io.Reader, replace bool) (Info, error)

	// Clone makes the facet to, of the same tenant or another, with what name holds now.
	// The clone is a facet of its own, without the idempotency keys of its source; its
	// Lineage says what it was made of. CodeExists where to is there already.
	Clone(ctx context.Context, name, to facet.Name) (Info, error)

	// Cluster describes the nodes as this one knows them.
	Cluster(ctx context.Context) Cluster
	// Ready lists the checks behind /readyz.
	Ready(ctx context.Context) []Check
	// Metrics writes the node's metrics in Prometheus text format.
	Metrics(w io.Writer) error
}

// Call is one request under way. The zero Call is not usable: Done must be set.
// Calls may be pooled and used again after Done.
type Call struct {
	Request facet.Request

	// Done is called once when Response or Err is set. It must not block.
	Done func(*Call)

	// Response is valid until the call is reset; the service does not touch it
	// after Done. Its Result buffer belongs to the call and may be used again.
	Response facet.Response
	Err      error

	// Phases is when the call got how far. It is for those who watch it.
	Phases Phases

	canceled  atomic.Bool
	interrupt atomic.Pointer[func()]
	watcher   Watcher
	place     Place
}

// Phases is what became of a call and when, as time since the process began (Clock); zero
// where it did not come so far.
type Phases struct {
	Submitted time.Duration // it came to the service
	Started   time.Duration // its facet is open, and its turn came: it runs
	Executed  time.Duration // SQLite is done; what is left is to be confirmed
	Ended     time.Duration
	Wrote     bool // it changed something
}

// Watcher is told of calls that end.
type Watcher interface {
	// Ended is called once, before Done, from any goroutine. It must not block or
	// keep the call.
	Ended(*Call)
}

var began = time.Now()

// Clock is the time since the process began: of what one process does, it tells how
// long it took.
func Clock() time.Duration { return time.Since(began) }

// Wall is the time of day at which Clock showed d, as it was known when the process
// began.
func Wall(d time.Duration) time.Time { return began.Add(d) }

// Watch has w told of the end of the call, which is submitted now.
func (c *Call) Watch(w Watcher) {
	c.watcher = w
	c.Phases = Phases{Submitted: Clock()}
}

// Place is what a call takes up for as long as it is under way.
type Place interface {
	// Leave gives the place back. It is called once.
	Leave()
}

// Take notes what the call takes up until Finish.
func (c *Call) Take(p Place) { c.place = p }

// Taken reports whether the call takes up a place.
func (c *Call) Taken() bool { return c.place != nil }

// Finish gives the place of the call back, tells who watches it, and calls Done. Whoever
// ends a call that was submitted ends it by this.
func (c *Call) Finish() {
	if p := c.place; p != nil {
		c.place = nil
		p.Leave()
	}
	if w := c.watcher; w != nil {
		c.watcher = nil
		c.Phases.Ended = Clock()
		w.Ended(c)
	}
	c.Done(c)
}

// Bytes is the size of the request and of its answer.
func (c *Call) Bytes() int64 {
	n := len(c.Response.Result)
	for i := range c.Request.Steps {
		n += len(c.Request.Steps[i].SQL) + len(c.Request.Steps[i].Args)
	}
	return int64(n)
}

// Cancel asks the service to give the call up: one that waits is answered with
// CodeCanceled, one that runs is interrupted and rolled back. A call whose
// commit was already handed on completes as usual.
func (c *Call) Cancel() {
	c.canceled.Store(true)
	if f := c.interrupt.Load(); f != nil {
		(*f)()
	}
}

// Canceled reports whether Cancel was called.
func (c *Call) Canceled() bool { return c.canceled.Load() }

// OnInterrupt is set by whoever runs the call, for the time it runs, to be told
// of Cancel at once. nil takes it back.
func (c *Call) OnInterrupt(f *func()) {
	c.interrupt.Store(f)
	if f != nil && c.canceled.Load() {
		(*f)()
	}
}

// Reset makes a finished call ready for another request, keeping its buffers.
func (c *Call) Reset() {
	c.Request = facet.Request{Steps: c.Request.Steps[:0]}
	c.Response = facet.Response{Result: c.Response.Result[:0]}
	c.Err = nil
	c.canceled.Store(false)
	c.interrupt.Store(nil)
}

// WithTrace names what Do submits in the context.
func WithTrace(ctx context.Context, t facet.Trace) context.Context {
	return context.WithValue(ctx, traceInContext{}, t)
}

type traceInContext struct{}

// Do submits a request and waits for the answer or the end of ctx. When ctx ends
// first the call is canceled and Do still waits for its definite outcome, which
// is bounded by the statement deadline.
func Do(ctx context.Context, s Service, req facet.Request) (facet.Response, error) {
	if t, ok := ctx.Value(traceInContext{}).(facet.Trace); ok {
		req.Trace = t
	}
	done := make(chan struct{})
	call := &Call{Request: req, Done: func(*Call) { close(done) }}
	s.Submit(call)
	select {
	case <-done:
	case <-ctx.Done():
		call.Cancel()
		<-done
	}
	return call.Response, call.Err
}

// Info is what the management API tells about a facet.
type Info struct {
	Name        facet.Name
	Incarnation facet.Incarnation
	Owner       cluster.NodeID
	OwnerURL    string
	Epoch       facet.Epoch
	Replicas    []cluster.NodeID
	State       string // creating, recovering, active, deleting
	SizeBytes   int64  // size of the database, pages times page size; -1 where only the owner knows
	Active      bool   // open for work at this node, not hibernated
	Pinned      bool   // rebalancing leaves its owner alone
	Lineage     facet.Lineage
}

// Export is an open snapshot of a facet.
type Export interface {
	io.WriterTo  // writes the SQLite file; once
	Size() int64 // bytes WriteTo will write
	Position() facet.Position
	Close() error
}

// Cluster is what /v1/cluster tells. It is what one node knows, as of Applied.
type Cluster struct {
	ID       string
	Self     cluster.NodeID // the node that answers
	Leader   cluster.NodeID // of the Raft log, and so of placement; empty when none is known
	Term     uint64         // Raft term
	Applied  uint64         // newest entry of the placement log applied at Self
	Nodes    []Node         // sorted by id
	Facets   int
	Replicas int // replication factor of new facets
}

// Node is one node of a Cluster.
type Node struct {
	ID       cluster.NodeID
	API      string // address of the API port
	Peer     string
	Zone     string
	Version  string
	Boot     string // id of its process life
	Store    string // id of its disk
	State    NodeState
	Voter    bool          // has a vote in the Raft log
	LeaseAge time.Duration // since the lease was last granted; zero when there is none, or only the leader knows
	Owned    int           // facets it owns
	Held     int           // facets it keeps a copy of, those it owns among them
}

// Check is one line of /readyz?verbose.
type Check struct {
	Name string
	Err  error // nil when it passes
}
