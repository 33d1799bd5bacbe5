package quorum

import "errors"

// Why a session died. Whoever finds one of these acquires a new epoch if the
// facet is still his to own, and never goes on in the old one (R2, R31).
var (
	// ErrFenced: a higher epoch was issued or promised (R24).
	ErrFenced = errors.New("a higher epoch was issued")
	// ErrReleased: placement no longer names this process life as the owner.
	ErrReleased = errors.New("placement names another owner")
	// ErrDeleted: a member holds a tombstone of the facet.
	ErrDeleted = errors.New("facet was deleted")
)

// Why a session died, when nothing but a defect or a copied disk explains it.
// These are alarms.
var (
	// ErrTwoLives: a member has promised this epoch to another process life (R6).
	ErrTwoLives = errors.New("two process lives act in one epoch")
	// ErrDiverged: this node's own copy holds something else at a position of the
	// session (R8, R51).
	ErrDiverged = errors.New("own copy diverged")
	// ErrImpossible: an answer contradicts an invariant of the protocol.
	ErrImpossible = errors.New("answer contradicts the protocol")
)

// Refusals of a call; nothing was changed.
var (
	// ErrDead: the session is over.
	ErrDead = errors.New("session is dead")
	// ErrState: the call does not belong to the state the session is in.
	ErrState = errors.New("not in this state")
	// ErrSeq: the sequence number does not follow the session's log (R31).
	ErrSeq = errors.New("entry does not follow the log of the session")
	// ErrWindow: the window of unacknowledged entries is full (R32); ask Room
	// before running anything.
	ErrWindow = errors.New("window of unacknowledged entries is full")
	// ErrFull: no room for another learner or holder.
	ErrFull = errors.New("no room for another one")
	// ErrNotLeading: the granter has not won its term, or lost it.
	ErrNotLeading = errors.New("not the placement leader")
)
