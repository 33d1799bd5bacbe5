package httpapi

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/hrana"
)

// route finds the endpoint of a path.
func (h *Handler) route(w *recorder, r *http.Request) {
	path := r.URL.Path
	switch path {
	case "/":
		if h.allow(w, r, http.MethodGet) {
			h.root(w, r)
		}
		return
	case "/livez":
		if h.allow(w, r, http.MethodGet) {
			h.live(w)
		}
		return
	case "/readyz":
		if h.allow(w, r, http.MethodGet) {
			h.ready(w, r)
		}
		return
	case "/metrics":
		if h.allow(w, r, http.MethodGet) {
			h.metrics(w, r)
		}
		return
	case "/v1/cluster":
		if h.allow(w, r, http.MethodGet) {
			h.cluster(w, r)
		}
		return
	case "/v1/facets", "/v1/facets/":
		if h.allow(w, r, http.MethodGet) {
			h.list(w, r)
		}
		return
	case "/v1/operations", "/v1/operations/":
		if h.allow(w, r, http.MethodGet, http.MethodPost) {
			if r.Method == http.MethodPost {
				h.audited(w, r, "start operation", "cluster", func() { h.startOperation(w, r) })
				return
			}
			h.operations(w, r)
		}
		return
	}
	if path == "/v1/busiest-tenants" {
		if h.allow(w, r, http.MethodGet) {
			h.busiest(w, r)
		}
		return
	}
	if path == "/v1/tenant-defaults" {
		h.routeDefaults(w, r)
		return
	}
	if rest, ok := strings.CutPrefix(path, "/v1/tenants"); ok && (rest == "" || rest[0] == '/') {
		h.routeTenant(w, r, strings.TrimPrefix(rest, "/"))
		return
	}
	if rest, ok := strings.CutPrefix(path, "/v1/facets/"); ok {
		h.routeFacet(w, r, rest)
		return
	}
	if rest, ok := strings.CutPrefix(path, "/v1/operations/"); ok {
		if h.allow(w, r, http.MethodGet, http.MethodDelete) {
			id := strings.TrimSuffix(rest, "/")
			if r.Method == http.MethodDelete {
				h.audited(w, r, "cancel operation", shown(id), func() { h.cancelOperation(w, r, id) })
				return
			}
			h.operation(w, r, id)
		}
		return
	}
	if rest, ok := strings.CutPrefix(path, "/v1/db/"); ok {
		h.routeDB(w, r, rest)
		return
	}
	hint := "GET / lists the endpoints"
	if hrana.Handles(strings.TrimPrefix(path, "/")) {
		hint = "a libSQL client's URL names the facet: " + baseURL(r) + "/v1/db/TENANT/FACET/"
	}
	h.notFound(w, r, hint)
}

// allow answers 405 unless the request has one of the methods. HEAD goes where
// GET goes.
func (h *Handler) allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m || m == http.MethodGet && r.Method == http.MethodHead {
			return true
		}
	}
	list := strings.Join(methods, ", ")
	w.Header().Set("Allow", list)
	f := hinted("use "+list+" here", "%s does not go with %s", shown(r.Method), shown(r.URL.Path))
	f.status = http.StatusMethodNotAllowed
	h.fail(w, r, f)
	return false
}

func (h *Handler) notFound(w http.ResponseWriter, r *http.Request, hint string) {
	h.fail(w, r, hintedAs(facet.CodeNotFound, hint, "there is no endpoint %s", shown(r.URL.Path)))
}

// routeFacet finds the endpoint of TENANT/FACET[/ACTION].
func (h *Handler) routeFacet(w *recorder, r *http.Request, rest string) {
	tenant, rest, _ := strings.Cut(rest, "/")
	name, action, _ := strings.Cut(rest, "/")
	action = strings.TrimSuffix(action, "/")
	if name == "" {
		h.notFound(w, r, "facets of a tenant are listed by /v1/facets?tenant="+tenant)
		return
	}
	id, err := facet.NewName(tenant, name)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	audited := func(what string, answer func(http.ResponseWriter, *http.Request, facet.Name)) {
		h.audited(w, r, what, id.String(), func() { answer(w, r, id) })
	}
	switch action {
	case "":
		if !h.allow(w, r, http.MethodGet, http.MethodPut, http.MethodDelete) {
			return
		}
		switch r.Method {
		case http.MethodPut:
			audited("create facet", h.facet)
		case http.MethodDelete:
			audited("delete facet", h.facet)
		default:
			h.facet(w, r, id)
		}
	case "export":
		if h.allow(w, r, http.MethodGet) {
			h.export(w, r, id)
		}
	case "import":
		if h.allow(w, r, http.MethodPut) {
			audited("import facet", h.importFile)
		}
	case "clone":
		if h.allow(w, r, http.MethodPost) {
			audited("clone facet", h.clone)
		}
	case "move":
		if h.allow(w, r, http.MethodPost) {
			audited("move facet", h.move)
		}
	case "pin":
		if !h.allow(w, r, http.MethodPut, http.MethodDelete) {
			return
		}
		if r.Method == http.MethodDelete {
			audited("unpin facet", h.pin)
		} else {
			audited("pin facet", h.pin)
		}
	case "recover":
		if h.allow(w, r, http.MethodPost) {
			audited("recover facet", h.recoverFacet)
		}
	default:
		h.notFound(w, r, "below a facet there are export, import, clone, move, pin and recover; a facet's name has no slash")
	}
}

// routeDB finds the endpoint of TENANT/FACET/ACTION.
func (h *Handler) routeDB(w http.ResponseWriter, r *http.Request, rest string) {
	tenant, rest, _ := strings.Cut(rest, "/")
	name, action, _ := strings.Cut(rest, "/")
	post := r.Method == http.MethodPost
	switch {
	case hrana.Handles(tenant) && action == "" && post:
		h.missingFacet(w, r, "TENANT")
		return
	case name == "", hrana.Handles(name) && !hrana.Handles(action) && action != "exec":
		h.missingFacet(w, r, tenant)
		return
	case name == "exec" && action == "" && post:
		h.notFound(w, r, "the URL names no facet; it must be "+baseURL(r)+"/v1/db/"+tenant+"/FACET/exec")
		return
	}
	id, err := facet.NewName(tenant, name)
	if err != nil {
		if hrana.Handles(action) {
			hrana.Fail(w, err)
			return
		}
		h.fail(w, r, err)
		return
	}
	switch {
	case strings.TrimSuffix(action, "/") == "exec":
		if h.allow(w, r, http.MethodPost) {
			h.exec(w, r, id)
		}
	case action == "":
		if h.allow(w, r, http.MethodGet) {
			h.database(w, r, id)
		}
	case hrana.Handles(action):
		h.hrana.Serve(w, r, id, action)
	default:
		h.notFound(w, r, "below a database there are exec, v2/pipeline, v3/pipeline and v3/cursor; a facet's name has no slash")
	}
}

// missingFacet tells a libSQL client that its URL names a tenant only. The
// answer has the fields both kinds of clients look for.
func (h *Handler) missingFacet(w http.ResponseWriter, r *http.Request, tenant string) {
	if tenant == "" {
		tenant = "TENANT"
	}
	hrana.FailMissingFacet(w, "the URL names no facet; it must be "+baseURL(r)+"/v1/db/"+tenant+"/FACET/, with the slash at its end")
}

// baseURL is the URL of this server as the client wrote it.
func baseURL(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	if r.Host == "" {
		return scheme + "://HOST"
	}
	return scheme + "://" + r.Host
}

// requestID names a request in logs, and what it asks of facets: by the client's
// traceparent, or else by a trace that is drawn. The client's own id of the request, if it
// is a plain one, is what the request itself is called by.
func requestID(r *http.Request) (id string, t facet.Trace) {
	t, traced := facet.ParseTraceparent(r.Header.Get("Traceparent"))
	id = r.Header.Get(headerRequestID)
	if !traced {
		if given, err := hex.DecodeString(id); err == nil && copy(t.ID[:], given) == len(given) && len(given) == len(t.ID) && !t.IsZero() {
			rand.Read(t.Span[:]) // the client's id can be a trace's
		} else {
			rand.Read(t.ID[:])
			rand.Read(t.Span[:])
		}
	}
	ok := len(id) > 0 && len(id) <= maxRequestID
	for i := 0; ok && i < len(id); i++ {
		c := id[i]
		ok = c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
	}
	if !ok {
		return t.String(), t
	}
	return id, t
}
