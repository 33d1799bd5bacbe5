package consensus

import (
	"errors"
	"fmt"

	"github.com/facetd/facetd/cluster"
)

// Nothing was done; the same may be tried again, here or elsewhere.
var (
	// ErrNotLeader says that another node decides. The error is a
	// *NotLeaderError, which tells who, when that is known.
	ErrNotLeader = errors.New("not the placement leader")
	// ErrClosed says that the node was closed.
	ErrClosed = errors.New("consensus is closed")
	// ErrNotSent says that commands never left this node. Config.Forward wraps
	// it when it knows.
	ErrNotSent = errors.New("not sent")
	// ErrFull says that the disk has no room for the log of this node (rule R15).
	ErrFull = errors.New("the disk has no room for the placement log")
	// ErrBusy says that another change of the membership is under way.
	ErrBusy = errors.New("another membership change is under way")
)

// Nothing was done and the same will not do.
var (
	// ErrInvalid says that the state machine cannot read the command.
	ErrInvalid = errors.New("command is not valid")
	// ErrOtherCluster says that the directory belongs to another cluster or to
	// another node.
	ErrOtherCluster = errors.New("directory belongs to another cluster or node")
	// ErrNoMember says that no such node is a member.
	ErrNoMember = errors.New("no such member")
	// ErrQuorum says that a change would leave the cluster without a majority
	// that works.
	ErrQuorum = errors.New("too few voters would be left")
	// ErrLeftBehind says that this node's cluster was recovered by force without
	// it. Its directory has to be set aside and the node joined anew.
	ErrLeftBehind = errors.New("left behind by a forced recovery of the cluster")
	// ErrNeedsStream says that there are other voters and no way to reach them.
	ErrNeedsStream = errors.New("cluster has other voters and no peer stream was given")
)

// Nobody knows, or nobody can go on.
var (
	// ErrUnknownOutcome says that the command may or may not take effect: the
	// caller gave up or leadership ended while it was on its way.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrFailed says that this node met an entry it cannot apply, or a disk it
	// cannot trust, and applies nothing any more.
	ErrFailed = errors.New("consensus has failed on this node")
)

// NotLeaderError is ErrNotLeader with what is known of the leader.
type NotLeaderError struct {
	Leader  cluster.NodeID // zero when there is none, or none is known
	Address string
}

func (e *NotLeaderError) Error() string {
	if e.Leader.IsZero() {
		return ErrNotLeader.Error() + ", and none is known"
	}
	return fmt.Sprintf("%v, ask %s at %s", ErrNotLeader, e.Leader, e.Address)
}

// Is makes errors.Is find ErrNotLeader.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// Code is an error of a proposal on the wire. The list is closed and
// append-only.
type Code uint8

const (
	CodeOK        Code = 0
	CodeUnknown   Code = 1 // ErrUnknownOutcome, and whatever has no code
	CodeNotLeader Code = 2
	CodeInvalid   Code = 3
	CodeClosed    Code = 4
	CodeFull      Code = 5
)

// CodeOf is what to send for an error of Accept, with its text.
func CodeOf(err error) Code {
	switch {
	case err == nil:
		return CodeOK
	case errors.Is(err, ErrUnknownOutcome):
		return CodeUnknown
	case errors.Is(err, ErrNotLeader):
		return CodeNotLeader
	case errors.Is(err, ErrInvalid):
		return CodeInvalid
	case errors.Is(err, ErrClosed):
		return CodeClosed
	case errors.Is(err, ErrFull):
		return CodeFull
	}
	return CodeUnknown
}

// Err is the error Config.Forward returns for a code and its text. A code that
// is not known is of unknown outcome.
func (c Code) Err(text string) error {
	is := ErrUnknownOutcome
	switch c {
	case CodeOK:
		return nil
	case CodeNotLeader:
		is = ErrNotLeader
	case CodeInvalid:
		is = ErrInvalid
	case CodeClosed:
		is = ErrClosed
	case CodeFull:
		is = ErrFull
	}
	return fmt.Errorf("%w: %.200s", is, text)
}
