package hrana

import (
	"errors"
	"net/http"
	"strings"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/httpjson"
)

// Errors about streams. They have names of their own on the wire.
var (
	errBaton     = &streamError{"BATON_INVALID", "the baton is not one of this facet and server; begin a new stream"}
	errUsed      = &streamError{"BATON_USED", "the baton was used before or its stream is closed; a baton is good for one request"}
	errExpired   = &streamError{"STREAM_EXPIRED", "the stream was forgotten after a long time of no use; begin a new one"}
	errClosed    = &streamError{"STREAM_CLOSED", "the stream was closed by an earlier request of this pipeline"}
	errAborted   = &streamError{"TRANSACTION_TIMEOUT", "the transaction is over and was rolled back (it was idle or open for too long, or its facet moved); send ROLLBACK or begin a new one"}
	errTableFull = facet.Errorf(facet.CodeOverloaded, "too many open streams with transactions; try again later")
	errTextsFull = facet.Errorf(facet.CodeOverloaded, "too many stored SQL texts; close some with close_sql or try again later")
)

// streamError is an error of the protocol, with its code on the wire.
type streamError struct{ code, message string }

func (e *streamError) Error() string { return e.message }

// describe tells what the client is told about err.
func describe(err error) (code, message string) {
	var se *streamError
	if errors.As(err, &se) {
		return se.code, se.message
	}
	var fe *facet.Error
	if !errors.As(err, &fe) {
		var syntax *httpjson.SyntaxError
		switch {
		case errors.As(err, &syntax):
			return "BAD_REQUEST", err.Error()
		case errors.Is(err, httpjson.ErrTooLarge):
			return "REQUEST_TOO_LARGE", err.Error()
		case errors.Is(err, httpjson.ErrBusy):
			return "OVERLOADED", err.Error()
		}
		return "INTERNAL", err.Error()
	}
	message = fe.Message
	if err != error(fe) {
		message = strings.ReplaceAll(err.Error(), fe.Error(), fe.Message)
	}
	if message == "" {
		message = fe.Code.String()
	}
	return wireCode(fe), message
}

// wireCode is the code clients of libSQL know for an error: SQLite's own names
// where there is one.
func wireCode(e *facet.Error) string {
	switch e.Code {
	case facet.CodeSQL:
		if e.SQLite == 0 {
			return "SQLITE_ERROR"
		}
		return httpjson.SQLiteName(e.SQLite)
	case facet.CodeBusy:
		return "SQLITE_BUSY"
	case facet.CodeReadOnly:
		return "SQLITE_READONLY"
	case facet.CodeDenied:
		return "SQLITE_AUTH"
	case facet.CodeDiskFull:
		return "SQLITE_FULL"
	case facet.CodeTimeout, facet.CodeCanceled:
		return "SQLITE_INTERRUPT"
	case facet.CodeCorrupt:
		return "SQLITE_CORRUPT"
	case facet.CodeTxClosed:
		return "TRANSACTION_TIMEOUT"
	}
	return strings.ToUpper(e.Code.String())
}

// status is the HTTP status of a request that fails as a whole.
func status(err error) int {
	var se *streamError
	if errors.As(err, &se) {
		return http.StatusBadRequest
	}
	var fe *facet.Error
	if errors.As(err, &fe) {
		switch fe.Code {
		case facet.CodeBadRequest:
			return http.StatusBadRequest
		case facet.CodeUnauthorized:
			return http.StatusUnauthorized
		case facet.CodeForbidden, facet.CodeFrozen:
			return http.StatusForbidden
		case facet.CodeNotFound:
			return http.StatusNotFound
		case facet.CodeLimit:
			return http.StatusRequestEntityTooLarge
		case facet.CodeThrottled:
			return http.StatusTooManyRequests
		}
		if fe.Code.Class() == facet.Retry {
			return http.StatusServiceUnavailable
		}
		return http.StatusInternalServerError
	}
	var syntax *httpjson.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return http.StatusBadRequest
	case errors.Is(err, httpjson.ErrTooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, httpjson.ErrBusy):
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest // the body could not be read
}

// writeError answers a request that fails as a whole. Clients look for message
// and code (JavaScript), error (Go), and for exactly this content type.
func writeError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	jw := httpjson.NewWriter(w, status)
	jw.Raw(`{"message":`)
	httpjson.Str(jw, message)
	jw.Raw(`,"code":`)
	httpjson.Str(jw, code)
	jw.Raw(`,"error":`)
	httpjson.Str(jw, message)
	jw.Raw("}\n")
	jw.Close() // a peer that is gone needs no answer
}

// Fail answers a request of the protocol with err.
func Fail(w http.ResponseWriter, err error) {
	code, message := describe(err)
	writeError(w, status(err), code, message)
}

// FailMissingFacet answers a request whose URL names no facet.
func FailMissingFacet(w http.ResponseWriter, message string) {
	writeError(w, http.StatusNotFound, "NO_FACET_IN_URL", message)
}
