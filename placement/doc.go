// Package placement is the placement table: which facet is which incarnation,
// who owns it in which epoch, which stores keep it, and which nodes, tenants
// and limits there are.
//
// It owns the table (Table), the commands that change it (Command), their
// results, the typed way to propose them (Proposer) and the snapshot format.
// Package placement/planner, beside it, chooses owners and replica sets.
//
// It refuses to read a clock, to draw a random number, to start a goroutine or
// to do I/O of its own: the same commands in the same order give the same
// table and the same results on every node. Whatever needs a judgement about
// time (is a lease over?) is decided by whoever proposes the command and told
// in it. Consensus feeds Apply; the node reads, waits and reconciles.
//
// Concurrency: Apply, Snapshot and Restore are called by one goroutine (the
// one of the replicated log). Every other method of Table may be called by any
// goroutine at any time, while Apply runs too.
package placement
