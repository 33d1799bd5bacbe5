package httpapi

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/forward"
	"github.com/facetd/facetd/node/internal/httpjson"
)

// Headers of this API.
const (
	headerRequestID = "X-Request-Id"
	headerEpoch     = "Facet-Epoch"
	headerPosition  = "Facet-Position"
	headerKey       = "Idempotency-Key"
)

// wireError is facet.Error under a name that leaves its method Error visible
// when it is embedded.
type wireError = facet.Error

// failure is an error on its way to the client.
type failure struct {
	*wireError
	status int // 0: that of the code
	hint   string
	step   int        // statement that failed, from 0; -1 when not known
	tx     facet.TxID // transaction that is still open
}

// hinted is a bad request and what to do about it.
func hinted(hint, format string, args ...any) *failure {
	return &failure{wireError: facet.Errorf(facet.CodeBadRequest, format, args...), hint: hint, step: -1}
}

// badRequest is a malformed request.
func badRequest(format string, args ...any) error {
	return facet.Errorf(facet.CodeBadRequest, format, args...)
}

func limitError(name, format string, args ...any) error {
	e := facet.Errorf(facet.CodeLimit, format, args...)
	e.Limit = name
	return e
}

// toFailure makes any error one to answer with.
func toFailure(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		if err != error(f) {
			outer := *f
			outer.wireError = located(err, f.wireError)
			f = &outer
		}
		return f
	}
	var fe *facet.Error
	if errors.As(err, &fe) {
		return &failure{wireError: located(err, fe), step: -1}
	}
	var syntax *httpjson.SyntaxError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &syntax):
		return &failure{wireError: facet.Errorf(facet.CodeBadRequest, "%v", err), step: -1}
	case errors.Is(err, httpjson.ErrTooLarge), errors.As(err, &tooLarge):
		return &failure{wireError: limitError("request_bytes", "%v", err).(*facet.Error), step: -1}
	case errors.Is(err, httpjson.ErrBusy):
		return &failure{wireError: facet.Errorf(facet.CodeOverloaded, "%v", err), step: -1}
	}
	return &failure{wireError: facet.Errorf(facet.CodeInternal, "%v", err), step: -1}
}

// located is e with what the layers around it in err say about where it
// happened.
func located(err error, e *facet.Error) *facet.Error {
	if err == error(e) {
		return e
	}
	outer := *e
	outer.Message = strings.ReplaceAll(err.Error(), e.Error(), e.Message)
	return &outer
}

// roomLimits are the limits of what there is: they are reached by what was stored, not
// by what the request has.
var roomLimits = []string{"facets", "facet_bytes", "total_bytes"}

// statusOf is the HTTP status of an error: one for every code, but for limits.
func statusOf(e *facet.Error) int {
	switch e.Code {
	case facet.CodeBadRequest, facet.CodeVersion:
		return http.StatusBadRequest
	case facet.CodeUnauthorized:
		return http.StatusUnauthorized
	case facet.CodeForbidden, facet.CodeDenied, facet.CodeReadOnly, facet.CodeFrozen:
		return http.StatusForbidden
	case facet.CodeNotFound:
		return http.StatusNotFound
	case facet.CodeTimeout, facet.CodeCanceled:
		return http.StatusRequestTimeout
	case facet.CodeExists, facet.CodeTxClosed, facet.CodeKeyConflict, facet.CodeKeyExpired, facet.CodeBookmark:
		return http.StatusConflict
	case facet.CodeSQL, facet.CodeNotAcceptable:
		return http.StatusUnprocessableEntity
	case facet.CodeLimit:
		if slices.Contains(roomLimits, e.Limit) {
			return http.StatusInsufficientStorage
		}
		return http.StatusRequestEntityTooLarge
	case facet.CodeThrottled:
		return http.StatusTooManyRequests
	case facet.CodeBusy, facet.CodeOverloaded, facet.CodeUnavailable:
		return http.StatusServiceUnavailable
	case facet.CodeDiskFull:
		return http.StatusInsufficientStorage
	case facet.CodeNotOwner:
		return http.StatusTemporaryRedirect
	}
	return http.StatusInternalServerError
}

// hintOf is what to do about an error, where the message does not say it.
func hintOf(e *facet.Error) string {
	switch e.Code {
	case facet.CodeBusy:
		return "an interactive transaction holds the facet; try again after it ends"
	case facet.CodeOverloaded, facet.CodeUnavailable:
		return "nothing was done; try again in a moment"
	case facet.CodeUnknownOutcome:
		return "the request may have taken effect; look before you repeat it, or send an Idempotency-Key and repeat it safely"
	case facet.CodeDiskFull:
		return "reads still work; writes do again when the node has free disk space"
	case facet.CodeFrozen:
		return "trying again does not help: the operator of the cluster has to unfreeze the tenant"
	case facet.CodeTxClosed:
		return "begin the transaction again"
	case facet.CodeUnauthorized:
		return "send Authorization: Bearer TOKEN"
	}
	return ""
}

// fail answers with an error.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := toFailure(err)
	if rec, ok := w.(*recorder); ok {
		rec.code = f.Code
	}
	status := f.status
	if status == 0 {
		status = statusOf(f.wireError)
	}
	head := w.Header()
	if f.RetryAfter > 0 || f.Code.Class() == facet.Retry {
		seconds := max(1, int64((f.RetryAfter+time.Second-1)/time.Second))
		head.Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	if f.Code == facet.CodeUnauthorized {
		head.Set("WWW-Authenticate", `Bearer realm="facetd"`)
	}
	if f.Code == facet.CodeNotOwner {
		if f.Owner == "" {
			status = http.StatusServiceUnavailable
			head.Set("Retry-After", "1")
		} else {
			head.Set("Location", forward.URL(r, f.Owner)+r.URL.RequestURI())
			head.Set(headerEpoch, f.Epoch.String())
		}
	}
	if status == http.StatusInternalServerError && f.Code == facet.CodeInternal {
		h.log.Error("request", "method", r.Method, "path", r.URL.Path, "request_id", head.Get(headerRequestID), "err", f.Message)
	}
	writeFailure(w, status, f)
}

func writeFailure(w http.ResponseWriter, status int, f *failure) {
	jsonHeader(w)
	jw := httpjson.NewWriter(w, status)
	jw.Byte('{')
	writeErrorField(jw, f)
	if !f.tx.IsZero() {
		writeTx(jw, f.tx)
	}
	jw.Raw("}\n")
	jw.Close() // a peer that is gone needs no answer
}

// writeErrorField writes "error":{…}.
func writeErrorField(w *httpjson.Writer, f *failure) {
	w.Raw(`"error":{"code":`)
	httpjson.Str(w, f.Code.String())
	w.Raw(`,"message":`)
	message := f.Message
	if message == "" {
		message = strings.ReplaceAll(f.Code.String(), "_", " ")
	}
	httpjson.Str(w, message)
	if f.Code == facet.CodeSQL {
		if f.SQLite != 0 {
			w.Raw(`,"sqlite":`)
			httpjson.Str(w, httpjson.SQLiteName(f.SQLite))
			w.Raw(`,"sqlite_code":`)
			w.Int(int64(f.SQLite))
		}
		if f.Offset > 0 {
			w.Raw(`,"offset":`)
			w.Int(int64(f.Offset))
		}
	}
	if f.step >= 0 {
		w.Raw(`,"statement":`)
		w.Int(int64(f.step))
	}
	if f.Limit != "" {
		w.Raw(`,"limit":`)
		httpjson.Str(w, f.Limit)
	}
	if f.Owner != "" {
		w.Raw(`,"owner":`)
		httpjson.Str(w, f.Owner)
		w.Raw(`,"epoch":`)
		w.Uint(uint64(f.Epoch))
	}
	hint := f.hint
	if hint == "" {
		hint = hintOf(f.wireError)
	}
	if hint != "" {
		w.Raw(`,"hint":`)
		httpjson.Str(w, hint)
	}
	w.Byte('}')
}

func jsonHeader(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
}

func shown(s string) string {
	if len(s) > maxShown {
		return strconv.Quote(s[:maxShown]) + "…"
	}
	return strconv.Quote(s)
}
