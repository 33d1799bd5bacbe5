package httpapi

import (
	"log/slog"
	"net/http"

	"github.com/facetd/facetd/facet"
)

// audited answers an administrative request and then writes one line about it: who
// asked for what, when, and what came of it, refusals among it. A request that was
// sent on to another node is written down there.
func (h *Handler) audited(w *recorder, r *http.Request, action, target string, answer func()) {
	defer func() {
		if w.status == http.StatusTemporaryRedirect {
			return
		}
		outcome := "done"
		switch {
		case w.code != 0:
			outcome = w.code.String()
		case w.status == 0 || w.status >= http.StatusInternalServerError:
			outcome = "broken off" // a panic, or the answer did not begin
		case w.status >= http.StatusBadRequest:
			outcome = "refused"
		}
		attrs := []slog.Attr{
			slog.Bool("audit", true), slog.String("action", action), slog.String("target", target),
			slog.String("outcome", outcome), slog.Int("status", w.status),
		}
		attrs = append(attrs, w.detail...)
		if g, err := h.grant(r); err == nil && h.opts.Grant != nil {
			attrs = append(attrs, slog.String("key", g.KeyID), slog.String("subject", g.Subject), slog.String("token", g.ID))
		}
		attrs = append(attrs, slog.String("remote", r.RemoteAddr), slog.String("request_id", w.Header().Get(headerRequestID)))
		h.opts.Audit.LogAttrs(r.Context(), slog.LevelInfo, "administrative request", attrs...)
	}()
	answer()
}

// detail adds to the line what the body of a request asks for.
func detail(w http.ResponseWriter, attrs ...slog.Attr) {
	if rec, ok := w.(*recorder); ok {
		rec.detail = append(rec.detail, attrs...)
	}
}

// recorder notes what is answered. Everything else, as deadlines and flushing, goes
// to the real one through Unwrap.
type recorder struct {
	http.ResponseWriter
	began  bool
	status int
	code   facet.Code  // of the error that was answered
	detail []slog.Attr // for the line of an audited request
}

func (w *recorder) WriteHeader(status int) {
	if !w.began {
		w.status = status
	}
	w.began = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(p []byte) (int, error) {
	if !w.began {
		w.status = http.StatusOK
	}
	w.began = true
	return w.ResponseWriter.Write(p)
}

func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
