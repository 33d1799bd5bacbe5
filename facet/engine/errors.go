package engine

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/sqlite"
)

// ErrClosed is the error of a closed DB.
var ErrClosed = errors.New("engine is closed")

// clip bounds a text at a whole character.
func clip(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	n := maxMessage
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

func limitError(name string, value any, format string, args ...any) *facet.Error {
	return &facet.Error{
		Code: facet.CodeLimit, Limit: name,
		Message: fmt.Sprintf(format, args...) + fmt.Sprintf(" (limit %s = %v)", name, value),
	}
}

func resultError(n int) *facet.Error {
	return limitError(limitResultBytes, n, "the result is too large: ask for less, with LIMIT or fewer columns")
}

func timeoutError(d time.Duration, what string) *facet.Error {
	return facet.Errorf(facet.CodeTimeout, "the %s ran longer than %v and was stopped; a transaction it wrote in was rolled back", what, d)
}

func canceledError() *facet.Error {
	return &facet.Error{Code: facet.CodeCanceled, Message: "canceled by the caller and rolled back"}
}

// byMessage finds the limit behind errors that SQLite tells by text alone.
var byMessage = []struct {
	part, limit string
	value       int
}{
	{"Expression tree is too large", limitExprDepth, exprDepth},
	{"Recursion limit", limitParserDepth, parserDepth},
	{"parser stack overflow", limitParserDepth, parserDepth},
	{"too many terms in compound SELECT", limitCompoundSelect, compoundSelect},
	{"LIKE or GLOB pattern too complex", limitPatternBytes, patternBytes},
	{"too many levels of trigger recursion", limitTriggerDepth, triggerDepth},
	{"too many SQL variables", limitArgs, facet.MaxArgs},
	{"variable number must be between", limitArgs, facet.MaxArgs},
	{"too many columns", limitColumns, facet.MaxColumns},
	{"too many result columns", limitColumns, facet.MaxColumns},
	{"too many terms in", limitColumns, facet.MaxColumns},
	{"too many arguments on function", limitFunctionArgs, functionArgs},
}

// fail turns the error of a statement into the client's, and notes what it says
// about the connection. base is where the statement begins in the step's SQL.
func (db *DB) fail(err error, base int) *facet.Error {
	if db.denied != nil {
		return db.denied
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		if fe, ok := errors.AsType[*facet.Error](err); ok {
			return fe
		}
		return facet.Errorf(facet.CodeInternal, "run statement: %v", err)
	}
	fe := &facet.Error{Code: facet.CodeSQL, SQLite: int(e.Code), Offset: -1, Message: clip(e.Message)}
	if e.Offset >= 0 {
		fe.Offset = base + e.Offset
	}
	l := &db.limits
	switch e.Code.Primary() {
	case sqlite.INTERRUPT:
		if db.reason != nil {
			return db.reason
		}
		return canceledError()
	case sqlite.FULL:
		if errors.Is(e.Cause, pages.ErrTooLarge) {
			db.marks |= markReopen
			return limitError(limitTransactionBytes, pages.MaxStagedPages*pages.Size, "the transaction changes too much at once and was rolled back: do it in smaller steps")
		}
		if e.Cause != nil {
			db.marks |= markReopen
		}
		if quota, ok := errors.AsType[*facet.Error](e.Cause); ok {
			return quota // of the tenant, see RunOptions.Grow
		}
		if e.Cause == nil && db.hasRoom() {
			// SQLite has one code for both; nothing is full but a table.
			fe.Message = "the table has used up its row numbers (2^63-1 is the largest): give the rows numbers of your own, or delete the one with the largest; of an AUTOINCREMENT table, correct its row in sqlite_sequence"
			return fe
		}
		return limitError(limitFacetBytes, l.FacetBytes, "the facet is full: delete rows to make room")
	case sqlite.NOMEM:
		return db.outOfMemory()
	case sqlite.TOOBIG:
		if strings.HasPrefix(e.Message, "statement") || strings.HasPrefix(e.Message, "SQL") {
			return limitError(limitSQLBytes, facet.MaxSQLLen, "the SQL text is too long")
		}
		return limitError(limitValueBytes, facet.MaxValueLen, "a text, blob or row is too large")
	case sqlite.IOERR, sqlite.CANTOPEN:
		if e.Code == sqlite.IOERR_NOMEM {
			return db.outOfMemory()
		}
		db.marks |= markReopen
		if errors.Is(e.Cause, errReadOnlyCommit) {
			return &facet.Error{Code: facet.CodeReadOnly, Message: "the statement writes, and the request may only read"}
		}
		return facet.Errorf(facet.CodeInternal, "the node could not read the facet's file: %v", e)
	case sqlite.CORRUPT:
		if e.Code == sqlite.CORRUPT {
			db.marks |= markReopen
			fe.Code = facet.CodeCorrupt
		}
	case sqlite.NOTADB:
		db.marks |= markReopen
		fe.Code = facet.CodeCorrupt
	case sqlite.ERROR:
		for _, m := range byMessage {
			if strings.Contains(e.Message, m.part) {
				le := limitError(m.limit, m.value, "%s", fe.Message)
				le.Offset = fe.Offset
				return le
			}
		}
	}
	return fe
}

// outOfMemory is the facet's memory limit. SQLite recovers from it, but what is
// left half done is rolled back and the connection is made anew, which also gives
// the memory back.
func (db *DB) outOfMemory() *facet.Error {
	db.marks |= markReopen
	return limitError(limitMemoryBytes, db.limits.MemoryBytes, "the statement needs too much memory; the transaction was rolled back")
}

// breakWith makes the DB refuse everything from now on (rule R26).
func (db *DB) breakWith(err error, handedOn bool) {
	if db.broken == nil {
		db.broken, db.unknown = err, handedOn
	}
}

// brokenError is the answer to the request during which the DB broke.
func (db *DB) brokenError() *facet.Error {
	switch {
	case db.unknown:
		return facet.Errorf(facet.CodeUnknownOutcome, "the commit was handed on but not accepted: %v", db.broken)
	case errors.Is(db.broken, pages.ErrTooLarge):
		return limitError(limitTransactionBytes, pages.MaxStagedPages*pages.Size, "the transaction changes too much at once and was not done: do it in smaller steps")
	}
	return facet.Errorf(facet.CodeUnavailable, "the commit could not be made and was not done: %v", db.broken)
}
