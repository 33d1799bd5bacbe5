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
)

// Nothing was done and the same will not do.
var (
	// ErrInvalid says that the state machine cannot read the command.
	ErrInvalid = errors.New("command is not valid")
	// ErrOtherCluster says that the directory belongs to another cluster or to
	// another node.
	ErrOtherCluster = errors.New("directory belongs to another cluster or node")
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
