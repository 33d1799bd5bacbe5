package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/facetd/facetd/cluster"
)

// StateMachine is what the log drives. Consensus calls Apply, Snapshot and
// Restore from one goroutine at a time; Check and the io.WriterTo of a snapshot
// run beside them.
type StateMachine interface {
	// Check tells whether Apply could carry out a command. It is asked before
	// a command enters the log.
	Check(command []byte) error
	// Apply carries out the commands of one entry in order and gives one result
	// each. It keeps no part of commands. An error says that this node cannot
	// follow the log; nothing is applied after it.
	Apply(index uint64, commands [][]byte) ([][]byte, error)
	// Snapshot freezes the state. It must be quick; writing is not.
	Snapshot() (io.WriterTo, error)
	// Restore replaces the state. On error the state is what it was.
	Restore(from io.Reader) error
}

// Stream carries Raft between voters: the peer transport of the node, which
// brings TLS, deadlines and keepalive.
type Stream interface {
	net.Listener
	// Dial connects to another node's address, resolving names anew.
	Dial(address string, timeout time.Duration) (net.Conn, error)
}

// Config says how to open a Node.
type Config struct {
	// ID is this node. It is written to the directory at first and must be the
	// same ever after.
	ID cluster.NodeID
	// Dir is the directory of log and snapshots; it is made if missing. Leave
	// it empty and give Memory instead to keep everything in memory.
	Dir    string
	Memory *Memory
	// Cluster is the id of the cluster this node must belong to. Zero takes
	// what the directory says, draws a new one when bootstrapping, or takes that
	// of the cluster it finds.
	Cluster cluster.ID
	// Bootstrap begins a cluster with this node as its only voter if the
	// directory holds no state yet. With state it does nothing.
	Bootstrap bool
	// Expect, with a directory that holds no state, waits for that many nodes
	// that expect as many, and begins a cluster with all of them as voters. With
	// 0 the node waits until a member takes it in, and with Expect too if there
	// is a cluster already. With state it does nothing.
	Expect int
	// Exchange sends a message to the node at an address and returns what
	// Node.Answer gave there. Messages have at most MaxMessage bytes. Needed for
	// everything but a single voter.
	Exchange func(ctx context.Context, address string, message []byte) ([]byte, error)
	// Forward brings commands to the leader, whose Accept is to be called, and
	// returns its results. An error that does not wrap ErrNotLeader, ErrInvalid,
	// ErrClosed or ErrNotSent means that nobody knows the outcome. Nil lets
	// nodes that do not lead refuse proposals.
	Forward func(ctx context.Context, leader cluster.NodeID, address string, commands [][]byte) ([][]byte, error)

	StateMachine StateMachine

	// Stream reaches the other voters. Nil is for a single voter. The Node
	// closes it; after a failed Open the caller does.
	Stream Stream
	// Address is where others reach Stream; the stream's own address if empty.
	Address string
	// AddressOf gives the address of a node as it is now, before each dial.
	// Nil uses the address in Raft's configuration.
	AddressOf func(cluster.NodeID) (string, bool)

	// Logger gets what Raft says, one level lower. Nil drops it.
	Logger *slog.Logger

	// Fatal is called once when this node must not go on: the log cannot be
	// written or applied (rule R13). The process should exit at once. Nil
	// panics.
	Fatal func(error)

	// StallAfter is how long one entry may take before Stalled is called, once
	// for each such entry, with the entry still under way. 2 s when zero,
	// never when negative.
	StallAfter time.Duration
	// Stalled hears of it. Nil logs a warning.
	Stalled func(after time.Duration)

	// Heartbeat is the time without a word from the leader after which a voter
	// doubts it. 400 ms when zero; 50 ms to 10 s. Shorter fails over sooner and
	// mistakes a pause for a death more often.
	Heartbeat time.Duration
	// MaxVoters is how many voters a large cluster has, 3 or 5. 5 when zero.
	MaxVoters int
	// StableAfter is how long a member must have kept up before it becomes a
	// voter. 5 s when zero.
	StableAfter time.Duration
	// GoneAfter is how long a member that does not vote must be silent, and
	// given up by the View, before it is removed. 10 min when zero.
	GoneAfter time.Duration

	// SnapshotBytes of log cause a snapshot: 4 MiB when zero.
	SnapshotBytes int64
	// Trailing is how many entries stay in the log behind a snapshot: 256 when
	// zero.
	Trailing uint64
}

// alone is true for a node that needs nobody to know its cluster.
func (c *Config) alone() bool { return c.Bootstrap || c.Exchange == nil }

func (c *Config) validate() error {
	if _, err := cluster.ParseNodeID(string(c.ID)); err != nil {
		return err
	}
	switch {
	case c.StateMachine == nil:
		return errors.New("no state machine")
	case c.Dir == "" && c.Memory == nil:
		return errors.New("neither a directory nor memory to keep the log in")
	case c.Dir != "" && c.Memory != nil:
		return errors.New("both a directory and memory to keep the log in")
	case c.SnapshotBytes < 0:
		return fmt.Errorf("%d bytes of log between snapshots", c.SnapshotBytes)
	case c.Expect < 0 || c.Expect > MaxExpect:
		return fmt.Errorf("%d nodes are expected to begin with, limit %d", c.Expect, MaxExpect)
	case c.Bootstrap && c.Expect > 1:
		return errors.New("told to begin alone and to wait for others")
	case c.Expect > 1 && (c.Exchange == nil || c.Stream == nil):
		return errors.New("told to wait for others and given no way to reach them")
	}
	if c.Expect == 1 {
		c.Bootstrap = true
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = defaultHeartbeat
	}
	if c.Heartbeat < minHeartbeat || c.Heartbeat > maxHeartbeat {
		return fmt.Errorf("heartbeat timeout %v is not between %v and %v", c.Heartbeat, minHeartbeat, maxHeartbeat)
	}
	if c.MaxVoters == 0 {
		c.MaxVoters = maxVoters
	}
	if c.MaxVoters != 3 && c.MaxVoters != 5 {
		return fmt.Errorf("%d voters at most: want 3 or 5", c.MaxVoters)
	}
	if c.StableAfter == 0 {
		c.StableAfter = defaultStableAfter
	}
	if c.GoneAfter == 0 {
		c.GoneAfter = defaultGoneAfter
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Fatal == nil {
		c.Fatal = func(err error) { panic(err) }
	}
	if c.StallAfter == 0 {
		c.StallAfter = defaultStall
	}
	if c.Stalled == nil {
		log := c.Logger
		c.Stalled = func(after time.Duration) {
			log.Warn("a placement log entry is slow; the disk may be stalled", "after", after)
		}
	}
	if c.SnapshotBytes == 0 {
		c.SnapshotBytes = defaultSnapshotBytes
	}
	if c.Trailing == 0 {
		c.Trailing = defaultTrailing
	}
	return nil
}
