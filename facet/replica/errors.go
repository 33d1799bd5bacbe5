package replica

import (
	"errors"
	"fmt"

	"github.com/facetd/facetd/facet"
)

// Answers to an owner that must stop or start over (NACKs of OWNERSHIP.md).
var (
	// ErrEpoch: a higher epoch was promised; the session is dead (rule R24). The
	// error is an *EpochError.
	ErrEpoch = errors.New("a higher epoch was promised")
	// ErrBoot: the epoch was promised to another process life. Rule R2 makes it
	// impossible; somebody is acting in an epoch that is not his.
	ErrBoot = errors.New("epoch was promised to another boot")
	// ErrGap: the entry does not follow the log; send from the end it names. The
	// error is a *GapError.
	ErrGap = errors.New("entry does not follow the log")
	// ErrDiverged: two different entries at one position, or a cut below what is
	// committed. The facet is out of service on this store.
	ErrDiverged = errors.New("log diverged")
	// ErrUnknown: this store does not keep the facet (rule R4).
	ErrUnknown = errors.New("facet is not kept here")
	// ErrDeleted: the facet has a tombstone.
	ErrDeleted = errors.New("facet was deleted")
	// ErrDamaged: parts of the log or file are lost; a snapshot must replace them.
	ErrDamaged = errors.New("facet is damaged on this store")
	// ErrCompacted: the entries asked for are in the database file only; take a
	// snapshot.
	ErrCompacted = errors.New("entries are no longer in the log")
)

// Definite refusals: nothing was done, try again later.
var (
	// ErrFull: no room on the disk (rule R15).
	ErrFull = errors.New("disk is full")
	// ErrBusy: too much is pending.
	ErrBusy = errors.New("replica is busy")
	// ErrOpen: somebody has the facet's pages open.
	ErrOpen = errors.New("facet is open")
	// ErrNotKnown: not everything asked for is known to be committed (rule R11).
	ErrNotKnown = errors.New("not known to be committed")
	// ErrClosed: the store was closed or has failed.
	ErrClosed = errors.New("replica store is closed")
)

// EpochError is ErrEpoch with the epoch promised.
type EpochError struct{ Promised facet.Epoch }

func (e *EpochError) Error() string        { return fmt.Sprintf("epoch %v was promised", e.Promised) }
func (e *EpochError) Is(target error) bool { return target == ErrEpoch }

// GapError is ErrGap with the end of the log.
type GapError struct{ Last facet.Position }

func (e *GapError) Error() string        { return fmt.Sprintf("log ends at %v", e.Last) }
func (e *GapError) Is(target error) bool { return target == ErrGap }
