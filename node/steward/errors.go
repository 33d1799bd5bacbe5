package steward

import "errors"

// Nothing was done; ask the placement leader, or ask again later.
var (
	// ErrNotLeading says that this node does not lead placement now.
	ErrNotLeading = errors.New("not the placement leader")
	// ErrTooMany says that as many operations run as may.
	ErrTooMany = errors.New("too many operations are running")
)

// Nothing was done and the same will not do.
var (
	// ErrInvalid says that the request makes no sense.
	ErrInvalid = errors.New("operation is not valid")
	// ErrNoNode says that no such node is registered.
	ErrNoNode = errors.New("no such node")
	// ErrNoOperation says that no such operation is known to this leader.
	ErrNoOperation = errors.New("no such operation")
	// ErrConflict says that the node is being decommissioned: it must be undrained
	// first.
	ErrConflict = errors.New("node is being decommissioned")
	// ErrTooFewNodes says that too few nodes would stay to keep every facet as
	// often as is wanted.
	ErrTooFewNodes = errors.New("too few nodes would be left")
	// ErrInUse says that a node cannot be removed because it was not decommissioned,
	// or is not empty yet.
	ErrInUse = errors.New("node is in use")
	// ErrAlive says that a node cannot be removed because it lives.
	ErrAlive = errors.New("node still lives")
)

// Why an attempt to move a facet did not succeed; the text ends in an operation's
// message.
var (
	errElsewhere = errors.New("another operation is moving it")
	errUnchanged = errors.New("its owner said that it is done and nothing changed")
	errEndless   = errors.New("there is always something left to do")
	errSteps     = errors.New("it changed more often than was expected")
)

// Why an operation was cancelled.
var (
	errCancelled  = errors.New("canceled; what was moved stays where it is")
	errSuperseded = errors.New("the state of the node was changed")
	errRequested  = errors.New("a repair was asked for")
)
