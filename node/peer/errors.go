package peer

import (
	"errors"
	"fmt"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet/replica"
)

// Nothing was sent; try again later.
var (
	// ErrDown: there is no connection now. Acks.Ready tells when there is.
	ErrDown = errors.New("peer is not connected")
	// ErrBusy: the queue is full, or the other side has enough to do. After an
	// Append, Acks.Ready tells when there is room. It is replica.ErrBusy, so that
	// a store's refusal and a queue's are one.
	ErrBusy = replica.ErrBusy
	// ErrClosed: the transport or the peer was closed.
	ErrClosed = errors.New("peer transport is closed")
)

// Nothing was sent, and the same will not do.
var (
	// ErrTooLong: more items or bytes than a message may have.
	ErrTooLong = errors.New("message is longer than the limit")
	// ErrInvalid: an entry that no log may hold; also what the other side says of a
	// command it cannot read.
	ErrInvalid = errors.New("message is not valid")
)

// Nobody knows.
var (
	// ErrLost: the connection ended before the answer came.
	ErrLost = errors.New("connection to peer lost")
	// ErrUnknownOutcome: the other side does not know whether the proposal will
	// take effect.
	ErrUnknownOutcome = errors.New("outcome unknown")
)

// Answers that carry no more than their name; the ones about replicas are those
// of package replica.
var (
	// ErrRefused: the other side did not do it, for a reason of its own.
	ErrRefused = errors.New("refused by peer")
	// ErrNotLeader: another node decides. The error is a *NotLeaderError.
	ErrNotLeader = errors.New("not the placement leader")
)

// NotLeaderError is ErrNotLeader with the leader, where it is known.
type NotLeaderError struct{ Leader cluster.NodeID }

func (e *NotLeaderError) Error() string {
	if e.Leader.IsZero() {
		return ErrNotLeader.Error() + ", and none is known"
	}
	return fmt.Sprintf("%v, ask %v", ErrNotLeader, e.Leader)
}

// Is makes errors.Is find ErrNotLeader.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// Reasons why a connection was refused, by this side or the other.
var (
	ErrWrongCluster = errors.New("the other node belongs to another cluster")
	ErrVersion      = errors.New("no protocol version in common")
	ErrWrongNode    = errors.New("another node answers at that address")
	ErrIdentity     = errors.New("certificate does not belong to the node")
	ErrNoService    = errors.New("the other node does not serve that kind of connection")
	ErrTooMany      = errors.New("the other node has too many connections")
	ErrShutdown     = errors.New("the other node is shutting down")
	// ErrNoAnswer: the other node cannot answer a question of Exchange.
	ErrNoAnswer = errors.New("the other node has no answer")
	// ErrGreeting: what answers does not speak this protocol.
	ErrGreeting = errors.New("not a facetd peer port")
)

// RefusedError tells why there is no connection, with what both ends said.
type RefusedError struct {
	Reason  error // one of the above
	Address string
	Detail  string
}

func (e *RefusedError) Error() string {
	s := fmt.Sprintf("connect to peer at %s: %v", e.Address, e.Reason)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Unwrap gives the reason.
func (e *RefusedError) Unwrap() error { return e.Reason }
