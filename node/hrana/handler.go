package hrana

import (
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/forward"
	"github.com/facetd/facetd/node/internal/httpjson"
	"github.com/facetd/facetd/node/service"
)

// Options of a Handler. The zero value is a server of one node that lets
// everybody in.
type Options struct {
	// Log gets what nobody else is told. Default: slog.Default().
	Log *slog.Logger
	// Authorize decides whether the request may reach the facet, and whether only
	// to read. Its error, best a *facet.Error, goes to the client. Default:
	// everybody may write.
	Authorize func(r *http.Request, name facet.Name) (readOnly bool, err error)
	// Forward carries requests to the owners of facets that are elsewhere, if svc is
	// a Locator. nil: they are answered with what the service says.
	Forward *forward.Forwarder
	// BaseURL is the absolute URL, with a trailing slash, to which the client must
	// send further requests of the stream it gets a baton for; where it returns ""
	// the client stays where it is. Default: a client whose request was carried here
	// by another node is told this node's own address, if svc is a Locator.
	BaseURL func(r *http.Request, name facet.Name) string
	// BatonSecret signs batons. With the same secret an empty stream goes on after
	// a restart and at another node. Default: drawn at start.
	BatonSecret []byte
	// Budget is shared with the other faces. Default: one of its own.
	Budget *httpjson.Budget
	// MaxStreams bounds the table of streams. Default: MaxStreams.
	MaxStreams int
}

// Handler answers the requests below /v1/db/TENANT/FACET/.
type Handler struct {
	svc     service.Service
	locator Locator // svc, if it is one
	forward *forward.Forwarder
	opts    Options
	log     *slog.Logger
	signer  *signer
	table   *table
	budget  *httpjson.Budget
}

// New makes a handler for svc.
func New(svc service.Service, opts Options) *Handler {
	h := &Handler{svc: svc, forward: opts.Forward, opts: opts, log: opts.Log, budget: opts.Budget, signer: newSigner(opts.BatonSecret)}
	h.locator, _ = svc.(Locator)
	if h.log == nil {
		h.log = slog.Default()
	}
	if h.budget == nil {
		h.budget = &httpjson.Budget{}
	}
	if opts.MaxStreams <= 0 {
		opts.MaxStreams = MaxStreams
	}
	h.table = newTable(opts.MaxStreams, time.Now)
	return h
}

// Streams is the number of streams the server remembers, for metrics.
func (h *Handler) Streams() int { return h.table.len() }

// Handles reports whether path, what follows /v1/db/TENANT/FACET/, is one of
// the protocol's.
func Handles(path string) bool {
	version, _, _ := strings.Cut(path, "/")
	return version == "v1" || version == "v2" || version == "v3" || strings.HasSuffix(version, "-protobuf")
}

// Serve answers a request for the given facet; path is what follows
// /v1/db/TENANT/FACET/.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, name facet.Name, path string) {
	path = strings.TrimSuffix(path, "/")
	switch path {
	case "v2", "v3":
		if !allow(w, r, http.MethodGet, http.MethodHead) {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		jw := httpjson.NewWriter(w, http.StatusOK)
		jw.Raw(`{"version":"` + path + `","encoding":"json"}` + "\n")
		jw.Close() // a peer that is gone needs no answer
		return
	case "v2/pipeline", "v3/pipeline":
		if allow(w, r, http.MethodPost) {
			h.servePipeline(w, r, name)
		}
		return
	case "v3/cursor":
		if allow(w, r, http.MethodPost) {
			h.serveCursor(w, r, name)
		}
		return
	}
	if version, _, _ := strings.Cut(path, "/"); strings.HasSuffix(version, "-protobuf") {
		writeError(w, http.StatusNotFound, "ENCODING_NOT_SUPPORTED", "the protobuf encoding is not supported; use JSON at v3 or v2")
		return
	}
	writeError(w, http.StatusNotFound, "NOT_FOUND", "no such endpoint; there are v2/pipeline, v3/pipeline and v3/cursor")
}

func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m {
			return true
		}
	}
	list := strings.Join(methods, ", ")
	w.Header().Set("Allow", list)
	writeError(w, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "use "+list+" here")
	return false
}

func (h *Handler) open(r *http.Request, name facet.Name, text []byte) (*session, error) {
	ss := &session{h: h, ctx: r.Context()}
	if len(text) == 0 {
		ss.s = &stream{name: name}
		return ss, nil
	}
	b, ok := h.signer.open(text, name)
	if !ok {
		return nil, errBaton
	}
	s, err := h.table.take(b, name)
	if err != nil {
		return nil, err
	}
	ss.s = s
	return ss, nil
}

// end gives the stream back and returns the text of its next baton, "" when it
// is closed. A client that cannot have got its baton will not come back.
func (h *Handler) end(ss *session, gone bool) string {
	s := ss.s
	if gone {
		s.closed = true
	}
	if s.closed {
		ss.rollBack()
	}
	b, ok := h.table.give(s)
	if !ok {
		if !s.closed {
			ss.rollBack() // there was no room for it, so nobody else has it
		}
		return ""
	}
	return h.signer.seal(b, ss.s.name)
}

func (h *Handler) writeBaton(w *httpjson.Writer, r *http.Request, name facet.Name, baton string) {
	w.Raw(`"baton":`)
	if baton == "" {
		w.Raw(`null,"base_url":null`)
		return
	}
	httpjson.Str(w, baton)
	w.Raw(`,"base_url":`)
	url := h.baseURL(r, name)
	if url == "" {
		w.Raw("null")
		return
	}
	httpjson.Str(w, url)
}
