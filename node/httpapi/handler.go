package httpapi

import (
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
	"github.com/facetd/facetd/node/hrana"
	"github.com/facetd/facetd/node/internal/forward"
	"github.com/facetd/facetd/node/internal/httpjson"
	"github.com/facetd/facetd/node/service"
)

// Handler answers everything on the API port.
type Handler struct {
	svc     service.Service
	opts    Options
	log     *slog.Logger
	hrana   *hrana.Handler
	forward *forward.Forwarder
	budget  *httpjson.Budget
	origin  *http.CrossOriginProtection
}

// New makes the handler of a node. It panics on options that Validate refuses.
func New(svc service.Service, opts Options) *Handler {
	if err := opts.Validate(); err != nil {
		panic(err)
	}
	h := &Handler{svc: svc, opts: opts, log: opts.Log, budget: &httpjson.Budget{}, origin: http.NewCrossOriginProtection()}
	if h.log == nil {
		h.log = slog.Default()
	}
	if h.opts.Audit == nil {
		h.opts.Audit = h.log
	}
	if h.opts.Operator == nil {
		h.opts.Operator = nobody{}
	}
	if h.opts.Tenants == nil {
		h.opts.Tenants = noTenants{}
	}
	for _, o := range opts.TrustedOrigins {
		_ = h.origin.AddTrustedOrigin(o) // validated
	}
	h.forward = forward.New(forward.Options{Log: h.log, TLS: opts.ForwardTLS, Dial: opts.ForwardDial})
	h.hrana = hrana.New(svc, hrana.Options{
		Log: h.log, Forward: h.forward, BaseURL: opts.BaseURL, BatonSecret: opts.BatonSecret, Budget: h.budget,
		Authorize: func(r *http.Request, name facet.Name) (readOnly bool, err error) {
			access, err := h.onFacet(r, name, token.Read)
			return access < token.Write, err
		},
	})
	return h
}

// Close ends idle connections to other nodes. It is called when the server of the
// handler has ended.
func (h *Handler) Close() { h.forward.Close() }

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, trace := requestID(r)
	r = r.WithContext(service.WithTrace(r.Context(), trace))
	w.Header().Set(headerRequestID, id)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	sent := &recorder{ResponseWriter: w}
	defer func() {
		if v := recover(); v != nil {
			h.recovered(sent, r, id, v)
		}
	}()
	if path := cleanSlashes(r.URL.Path); path != r.URL.Path {
		u := *r.URL
		u.Path, u.RawPath = path, ""
		r2 := *r
		r2.URL = &u
		r = &r2
	}
	err := h.sameOrigin(r)
	if err == nil {
		err = asItIs(r)
	}
	if err != nil {
		h.fail(sent, r, err)
		return
	}
	if h.opts.Native != nil && below(r.URL.Path, h.opts.NativePath) {
		// The native protocol takes the connection over and needs it bare.
		sent.began = true
		h.opts.Native.ServeHTTP(w, r)
		return
	}
	h.route(sent, r)
}

// recovered makes a panic an answer, if none has begun, and never more than the
// end of one request.
func (h *Handler) recovered(w *recorder, r *http.Request, id string, v any) {
	if v == http.ErrAbortHandler {
		panic(v)
	}
	h.log.Error("panic in a request", "method", r.Method, "path", r.URL.Path, "request_id", id, "panic", v, "stack", string(debug.Stack()))
	if w.began {
		panic(http.ErrAbortHandler) // break off, so that nobody takes a part for the whole
	}
	writeFailure(w, http.StatusInternalServerError, &failure{
		wireError: facet.Errorf(facet.CodeInternal, "the server made a mistake; its log has it under request %s", id), step: -1,
	})
}

// sameOrigin keeps web pages of others out: a browser sends their simple
// requests to any address, also to a server on the loopback of its user.
func (h *Handler) sameOrigin(r *http.Request) error {
	if err := h.origin.Check(r); err != nil {
		return facet.Errorf(facet.CodeForbidden, "a web page of another origin may not do this (%v)", err)
	}
	if !h.opts.LoopbackHosts {
		return nil
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "localhost" || net.ParseIP(host) != nil {
		return nil
	}
	return hintedAs(facet.CodeForbidden, "use localhost or the IP address in the URL", "this server does not answer to the name %s", shown(r.Host))
}

// asItIs refuses bodies that are compressed: nothing here unpacks them, so that no body
// is ever larger than what was sent.
func asItIs(r *http.Request) error {
	for _, coding := range r.Header["Content-Encoding"] {
		if coding != "" && !strings.EqualFold(coding, "identity") {
			f := hinted("send the body as it is, without Content-Encoding", "Content-Encoding %s is not accepted", shown(coding))
			f.status = http.StatusUnsupportedMediaType
			return f
		}
	}
	return nil
}

func hintedAs(code facet.Code, hint, format string, args ...any) *failure {
	return &failure{wireError: facet.Errorf(code, format, args...), hint: hint, step: -1}
}

// cleanSlashes makes one slash of several: clients join a base URL that ends
// with one and a path that begins with one.
func cleanSlashes(path string) string {
	if !strings.Contains(path, "//") {
		return path
	}
	var b strings.Builder
	for i := range len(path) {
		if path[i] != '/' || i == 0 || path[i-1] != '/' {
			b.WriteByte(path[i])
		}
	}
	return b.String()
}

// below reports whether path is root or under it.
func below(path, root string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/"))
	return ok && (rest == "" || rest[0] == '/')
}
