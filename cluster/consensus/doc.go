// Package consensus replicates the log of the placement table. It is the only
// package that touches hashicorp/raft, raft-boltdb and bbolt, and none of their
// types leaves it.
//
// It owns the Raft node, its log, votes and snapshots on disk (Node), how nodes
// become one cluster (Config.Expect, see found.go), who of them votes
// (SetView, see plan.go), the way of proposals to the leader (Propose, see
// dispatch.go), and recovery by force (Recover). It refuses to know what a
// command means: a StateMachine checks, applies, snapshots and restores. It
// refuses to guess: a proposal ends with its result, with an error that says
// nothing happened, or with ErrUnknownOutcome. It opens no connection itself:
// the node process gives it a Stream for Raft, Exchange and Forward, wires the
// placement table to it and tells it what gossip sees. One node alone is a
// cluster of size one with the same log, the same batching and the same rules.
//
// What a grantor of leases needs is here, and leases are not: Leadership tells
// in which term this node leads, since when all older decisions are applied, and when
// the last entry of an earlier leader came
// (rule R39); ProposeAs commits one entry as the leader of that term and says
// whether it still was (rule R36).
//
// Concurrency: every method of Node may be called by any goroutine. A Node owns
// four goroutines beside Raft's own, and some for the calls under way; Close
// ends them all.
//
// On disk, below Config.Dir:
//
//	raft.bolt    log, term, vote; ids of node, cluster and log, generation,
//	             founding pledge (bbolt); kept longer than what is in it, see
//	             room.go
//	raft.room    zeros, given up for the next snapshot when the disk is full
//	snapshots/   the newest two snapshots of the state machine
package consensus
