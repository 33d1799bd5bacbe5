package facet

import (
	"fmt"
	"time"
)

// Code is what went wrong, as a number that crosses the wire. The list is
// closed and append-only: a number is never re-used, an unknown one is read as
// CodeInternal.
type Code uint16

// The codes, grouped by what the caller should do (see Class).
const (
	// Fix the request.
	CodeBadRequest    Code = 1  // malformed request, name or argument
	CodeUnauthorized  Code = 2  // no valid token
	CodeForbidden     Code = 3  // the token does not reach this
	CodeNotFound      Code = 4  // no such facet, or nothing a token may see
	CodeExists        Code = 5  // the facet exists already
	CodeSQL           Code = 6  // SQLite refused the statement; SQLite holds its extended code
	CodeDenied        Code = 7  // the sandbox does not allow this SQL
	CodeLimit         Code = 8  // a limit or quota; Limit names it
	CodeTimeout       Code = 9  // ran longer than allowed and was rolled back
	CodeTxClosed      Code = 10 // the interactive transaction is over and was rolled back
	CodeKeyConflict   Code = 11 // idempotency key used before for another request
	CodeKeyExpired    Code = 12 // idempotency key older than the client's window
	CodeReadOnly      Code = 13 // a write with read-only access
	CodeVersion       Code = 14 // the peer speaks another protocol version
	CodeCanceled      Code = 15 // the caller went away before it ran
	CodeNotAcceptable Code = 16 // an imported file is not a sound SQLite database
	CodeBookmark      Code = 17 // the bookmark is damaged, or names nothing this facet ever was
	CodeFrozen        Code = 18 // an operator has frozen the tenant

	// Try again later: nothing was done.
	CodeBusy        Code = 32 // an interactive transaction holds the facet
	CodeOverloaded  Code = 33 // a queue is full
	CodeUnavailable Code = 34 // owner is recovering, or no majority
	CodeDiskFull    Code = 35 // the node has no room for writes; reads go on
	CodeThrottled   Code = 36 // the tenant is over a rate; Limit names it, RetryAfter says when

	// Go to the owner: nothing was done.
	CodeNotOwner Code = 48

	// Nobody knows: never retried without an idempotency key.
	CodeUnknownOutcome Code = 64

	// Trouble on the server.
	CodeCorrupt  Code = 80 // the facet's data failed a check and is out of service
	CodeInternal Code = 81
)

// Class is what a caller may do about an error.
type Class uint8

const (
	// Definite: nothing was done and doing the same again gives the same.
	Definite Class = iota
	// Retry: nothing was done and a later try may succeed.
	Retry
	// Redirect: nothing was done; the owner is elsewhere.
	Redirect
	// Unknown: the request may or may not have taken effect.
	Unknown
)

var codeNames = map[Code]string{
	CodeBadRequest: "bad_request", CodeUnauthorized: "unauthorized", CodeForbidden: "forbidden",
	CodeNotFound: "not_found", CodeExists: "already_exists", CodeSQL: "sql_error", CodeDenied: "denied",
	CodeLimit: "limit_exceeded", CodeTimeout: "timeout", CodeTxClosed: "tx_closed",
	CodeKeyConflict: "key_conflict", CodeKeyExpired: "key_expired", CodeReadOnly: "read_only",
	CodeVersion: "version_mismatch", CodeCanceled: "canceled", CodeNotAcceptable: "not_acceptable",
	CodeBookmark: "bad_bookmark", CodeFrozen: "tenant_frozen",
	CodeBusy: "busy", CodeOverloaded: "overloaded",
	CodeUnavailable: "unavailable", CodeDiskFull: "disk_full", CodeThrottled: "throttled", CodeNotOwner: "not_owner",
	CodeUnknownOutcome: "outcome_unknown", CodeCorrupt: "corrupt", CodeInternal: "internal",
}

// String is the name of the code in JSON, metrics and docs.
func (c Code) String() string {
	if s, ok := codeNames[c]; ok {
		return s
	}
	return fmt.Sprintf("code_%d", uint16(c))
}

// Known reports whether c is on the closed list.
func (c Code) Known() bool { _, ok := codeNames[c]; return ok }

// Class tells what a caller may do about c.
func (c Code) Class() Class {
	switch {
	case c >= 32 && c < 48:
		return Retry
	case c >= 48 && c < 64:
		return Redirect
	case c >= 64 && c < 80:
		return Unknown
	}
	return Definite
}

// Error is every error facetd gives a client. It survives the wire whole, so
// errors.Is and errors.As answer the same on both sides.
type Error struct {
	Code    Code
	Message string // for people: what happened and what to do

	SQLite     int           // SQLite extended result code, CodeSQL only
	Offset     int           // byte offset of the fault in the SQL, -1 or 0 when not known
	Limit      string        // name of the limit, CodeLimit and CodeThrottled only
	Owner      string        // API address of the owner, CodeNotOwner only
	Epoch      Epoch         // epoch of that owner
	RetryAfter time.Duration // hint for Retry errors, zero when there is none

	// Request names the request that failed (Trace.ID): the logs of the nodes call it so.
	// It does not travel; who sent the request knows it.
	Request string
}

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code.String()
	}
	return e.Code.String() + ": " + e.Message
}

// Is makes errors.Is compare by code with the sentinels below.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == ""
}

// Errorf makes an Error with a formatted message.
func Errorf(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

// NoSuchFacet is the answer about a facet that does not exist. To whoever may not
// know of a facet it does not exist, so there is one text for both.
func NoSuchFacet(name Name) *Error {
	return Errorf(CodeNotFound, "facet %s does not exist", name)
}

// Sentinels for errors.Is, one per code a program is likely to branch on.
var (
	// Fix the request or give up.
	ErrBadRequest   = &Error{Code: CodeBadRequest}
	ErrUnauthorized = &Error{Code: CodeUnauthorized}
	ErrForbidden    = &Error{Code: CodeForbidden}
	ErrNotFound     = &Error{Code: CodeNotFound}
	ErrExists       = &Error{Code: CodeExists}
	ErrSQL          = &Error{Code: CodeSQL}
	ErrDenied       = &Error{Code: CodeDenied}
	ErrLimit        = &Error{Code: CodeLimit}
	ErrTimeout      = &Error{Code: CodeTimeout}
	ErrTxClosed     = &Error{Code: CodeTxClosed}
	ErrKeyConflict  = &Error{Code: CodeKeyConflict}
	ErrKeyExpired   = &Error{Code: CodeKeyExpired}
	ErrReadOnly     = &Error{Code: CodeReadOnly}
	ErrCanceled     = &Error{Code: CodeCanceled}
	ErrBookmark     = &Error{Code: CodeBookmark}
	ErrFrozen       = &Error{Code: CodeFrozen}

	// Try again: nothing was done.
	ErrBusy        = &Error{Code: CodeBusy}
	ErrOverloaded  = &Error{Code: CodeOverloaded}
	ErrUnavailable = &Error{Code: CodeUnavailable}
	ErrDiskFull    = &Error{Code: CodeDiskFull}
	ErrThrottled   = &Error{Code: CodeThrottled}
	ErrNotOwner    = &Error{Code: CodeNotOwner}

	// Ask before trying again, or use an idempotency key.
	ErrUnknownOutcome = &Error{Code: CodeUnknownOutcome}

	// Call an operator.
	ErrCorrupt  = &Error{Code: CodeCorrupt}
	ErrInternal = &Error{Code: CodeInternal}
)
