// Package consensus replicates the log of the placement table. It is the only
// package that touches hashicorp/raft, raft-boltdb and bbolt, and none of their
// types leaves it.
//
// It owns the Raft node, its log, votes and snapshots on disk (Node), and the
// batching of many callers' commands into few log entries. It refuses to know
// what a command means: a StateMachine checks, applies, snapshots and restores.
// It refuses to guess: a proposal ends with its result, with an error that says
// nothing happened, or with ErrUnknownOutcome. The node process opens one Node
// and wires the placement table to it; one node alone is a cluster of size one
// with the same log, the same batching and the same rules.
//
// Concurrency: every method of Node may be called by any goroutine. A Node owns
// three goroutines beside Raft's own; Close ends them all.
//
// On disk, below Config.Dir:
//
//	raft.bolt    log, term, vote, cluster id and node id (bbolt)
//	snapshots/   the newest two snapshots of the state machine
package consensus
