package commitlog

import (
	"errors"
	"fmt"
)

// Definite refusals of Append: nothing was placed in the log.
var (
	// ErrBusy: too much is pending, or the next segment is still being made.
	// Wait, then append again.
	ErrBusy = errors.New("commit log is busy")
	// ErrFull: the disk is full. It heals by itself when space returns. The
	// error is a *FullError with the numbers.
	ErrFull = errors.New("commit log is full")
	// ErrTooLarge: the record can never be appended.
	ErrTooLarge = errors.New("record too large")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("commit log is closed")
	// ErrFailed: the disk failed and Options.Fatal was called (rule R13).
	// Records appended earlier and not reported durable are in an unknown
	// state.
	ErrFailed = errors.New("commit log has failed")
)

// Refusals of Open and Read.
var (
	// ErrStore: the log belongs to another store (rule R3).
	ErrStore = errors.New("commit log of another store")
	// ErrVersion: the log was written by a later version.
	ErrVersion = errors.New("unknown format of the commit log")
	// ErrRemoved: the segment of the Loc does not exist (any more).
	ErrRemoved = errors.New("segment was removed")
	// ErrCorrupt: the record at the Loc is not what was written there.
	ErrCorrupt = errors.New("record is corrupt")
)

// FullError is ErrFull with its numbers.
type FullError struct {
	Free   int64 // bytes free on the disk when the next segment was tried
	Needed int64 // bytes that must be free for it
}

func (e *FullError) Error() string {
	return fmt.Sprintf("commit log is full: %d bytes free on its disk, %d needed", e.Free, e.Needed)
}

func (e *FullError) Is(target error) bool { return target == ErrFull }
