package httpapi

import (
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
	"github.com/facetd/facetd/node/hrana"
	"github.com/facetd/facetd/node/internal/httpjson"
	"github.com/facetd/facetd/node/service"
)

// list answers GET /v1/facets?tenant=T&after=NAME&limit=N.
func (h *Handler) list(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "tenant", "after", "limit")
	if err != nil {
		h.fail(w, r, err)
		return
	}
	tenant, err := facet.ParseTenant(q.Get("tenant"))
	if err != nil {
		if q.Get("tenant") == "" {
			err = hinted("write /v1/facets?tenant=TENANT", "facets are listed by tenant")
		}
		h.fail(w, r, err)
		return
	}
	limit, err := pageLimit(q.Get("limit"))
	if err != nil {
		h.fail(w, r, err)
		return
	}
	after := q.Get("after")
	if len(after) > facet.MaxFacetLen {
		h.fail(w, r, badRequest("after is longer than any facet's name"))
		return
	}
	infos, more, err := h.page(r, tenant, after, limit)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	jsonHeader(w)
	jw := httpjson.NewWriter(w, http.StatusOK)
	jw.Raw(`{"facets":[`)
	for i := range infos {
		if i > 0 {
			jw.Byte(',')
		}
		jw.Byte('\n')
		writeInfo(jw, &infos[i])
	}
	jw.Raw(`],"more":`)
	jw.Bool(more)
	if more && len(infos) > 0 {
		jw.Raw(`,"next":`)
		httpjson.Str(jw, "/v1/facets?tenant="+string(tenant)+"&after="+url.QueryEscape(infos[len(infos)-1].Name.Facet)+"&limit="+strconv.Itoa(limit))
	}
	jw.Raw("}\n")
	jw.Close() // a peer that is gone needs no answer
}

// pageLimit reads the limit of a listing.
func pageLimit(v string) (int, error) {
	if v == "" {
		return DefaultListLimit, nil
	}
	limit, err := strconv.Atoi(v)
	if err != nil || limit < 1 || limit > MaxListLimit {
		return 0, badRequest("limit is a number from 1 to %d, not %s", MaxListLimit, shown(v))
	}
	return limit, nil
}

// page is one page of a listing. Of facets that the caller may not read it shows
// nothing, and where there are more does not tell either: the search goes on until
// the page is full, and steps over what lies between the names of a token.
func (h *Handler) page(r *http.Request, tenant facet.Tenant, after string, limit int) (page []service.Info, more bool, err error) {
	g, err := h.grant(r)
	if err != nil {
		return nil, false, err
	}
	if g.Tenant(tenant) < token.Read {
		return nil, false, facet.Errorf(facet.CodeNotFound, "tenant %s does not exist", tenant)
	}
	for len(page) <= limit {
		from, ok := g.Seek(tenant, after)
		if !ok {
			return page, false, nil
		}
		if from != after {
			// The listing begins behind a name; no name lies between this one and from.
			last := len(from) - 1
			after = from[:last] + string(from[last]-1) + "\x7f"
		}
		infos, more, err := h.svc.List(r.Context(), tenant, after, limit+1)
		if err != nil {
			return nil, false, err
		}
		for i := range infos {
			if g.Facet(infos[i].Name) >= token.Read {
				page = append(page, infos[i])
			}
			after = infos[i].Name.Facet
		}
		if !more {
			break
		}
		if len(infos) == 0 {
			return page, true, nil // all of these are being deleted
		}
	}
	if len(page) > limit {
		return page[:limit], true, nil
	}
	return page, false, nil
}

// query reads the URL's query and refuses names it does not know.
func query(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the query of the URL is malformed: %v", err)
	}
names:
	for name, values := range q {
		for _, k := range known {
			if name == k {
				if err := single(name, values); err != nil {
					return nil, err
				}
				continue names
			}
		}
		return nil, badRequest("unknown query parameter %s", shown(name))
	}
	return q, nil
}

// single refuses a query parameter that is there more than once.
func single(name string, values []string) error {
	if len(values) > 1 {
		return badRequest("the query parameter %s is there %d times; send one", shown(name), len(values))
	}
	return nil
}

// facet answers GET, PUT and DELETE of /v1/facets/T/F.
func (h *Handler) facet(w http.ResponseWriter, r *http.Request, name facet.Name) {
	want := token.Admin
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		want = token.Read
	}
	_, err := h.onFacet(r, name, want)
	if err == nil {
		_, err = query(r)
	}
	status, info := http.StatusOK, service.Info{}
	if err == nil {
		switch r.Method {
		case http.MethodPut:
			var created bool
			if info, created, err = h.svc.Create(r.Context(), name); created {
				status = http.StatusCreated
			}
		case http.MethodDelete:
			if err = h.svc.Delete(r.Context(), name); err == nil {
				w.WriteHeader(http.StatusNoContent)
				return
			}
		default:
			info, err = h.svc.Stat(r.Context(), name)
		}
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	answerInfo(w, status, &info)
}

func answerInfo(w http.ResponseWriter, status int, info *service.Info) {
	jsonHeader(w)
	jw := httpjson.NewWriter(w, status)
	writeInfo(jw, info)
	jw.Byte('\n')
	jw.Close() // a peer that is gone needs no answer
}

func writeInfo(w *httpjson.Writer, info *service.Info) {
	w.Raw(`{"tenant":`)
	httpjson.Str(w, string(info.Name.Tenant))
	w.Raw(`,"facet":`)
	httpjson.Str(w, info.Name.Facet)
	w.Raw(`,"incarnation":"`)
	w.Raw(info.Incarnation.String())
	w.Raw(`","owner":`)
	httpjson.Str(w, string(info.Owner))
	w.Raw(`,"owner_url":`)
	httpjson.Str(w, info.OwnerURL)
	w.Raw(`,"epoch":`)
	w.Uint(uint64(info.Epoch))
	w.Raw(`,"replicas":[`)
	for i, n := range info.Replicas {
		if i > 0 {
			w.Byte(',')
		}
		httpjson.Str(w, string(n))
	}
	w.Raw(`],"state":`)
	httpjson.Str(w, info.State)
	w.Raw(`,"active":`)
	w.Bool(info.Active)
	w.Raw(`,"pinned":`)
	w.Bool(info.Pinned)
	if l := &info.Lineage; !l.IsZero() {
		w.Raw(`,"lineage":{"source":"`)
		w.Raw(l.Source.String())
		w.Raw(`","position":`)
		httpjson.Str(w, l.At.String())
		w.Raw(`,"lossy":`)
		w.Bool(l.Lossy)
		w.Byte('}')
	}
	w.Raw(`,"size_bytes":`)
	if info.SizeBytes < 0 {
		w.Raw("null}")
		return
	}
	w.Int(info.SizeBytes)
	w.Byte('}')
}

// export sends the facet as a SQLite file.
func (h *Handler) export(w http.ResponseWriter, r *http.Request, name facet.Name) {
	_, err := h.onFacet(r, name, token.Read)
	if err == nil {
		_, err = query(r)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	e, err := h.svc.Export(r.Context(), name)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	defer e.Close() // it was only read
	head := w.Header()
	head.Set("Content-Type", "application/vnd.sqlite3")
	head.Set("Content-Length", strconv.FormatInt(e.Size(), 10))
	// Names of tenants and facets need no quoting.
	head.Set("Content-Disposition", `attachment; filename="`+string(name.Tenant)+"-"+name.Facet+`.sqlite"`)
	head.Set("Cache-Control", "no-store")
	head.Set(headerPosition, e.Position().String())
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	n, err := e.WriteTo(httpjson.NewStall(w, r))
	if err != nil || n != e.Size() {
		if r.Context().Err() == nil {
			h.log.Error("export", "facet", name.String(), "bytes", n, "of", e.Size(), "err", err)
		}
		panic(http.ErrAbortHandler) // so that the file is seen to be cut short
	}
}

// importFile makes or exchanges the facet by a SQLite file.
func (h *Handler) importFile(w http.ResponseWriter, r *http.Request, name facet.Name) {
	_, err := h.onFacet(r, name, token.Admin)
	var q url.Values
	if err == nil {
		q, err = query(r, "replace")
	}
	replace := false
	if err == nil && q.Has("replace") {
		replace, err = parseBool("replace", q.Get("replace"))
	}
	if err == nil && r.ContentLength > MaxImportLen {
		err = httpjson.ErrTooLarge
	}
	if err == nil {
		err = h.elsewhere(name)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	body := &failingReader{r: httpjson.NewStall(w, r), left: MaxImportLen}
	info, err := h.svc.Import(r.Context(), name, body, replace)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	status := http.StatusCreated
	if replace {
		status = http.StatusOK
	}
	answerInfo(w, status, &info)
}

// clone answers POST /v1/facets/T/F/clone {"to":"TENANT/FACET"}. Whoever asks may read
// the source and administer what is made of it.
func (h *Handler) clone(w http.ResponseWriter, r *http.Request, name facet.Name) {
	_, err := h.onFacet(r, name, token.Read)
	var to facet.Name
	if err == nil {
		to, err = h.cloneTo(w, r)
	}
	if err == nil {
		_, err = h.onFacet(r, to, token.Admin)
	}
	var info service.Info
	if err == nil {
		detail(w, slog.String("to", to.String()))
		info, err = h.svc.Clone(r.Context(), name, to)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	answerInfo(w, http.StatusCreated, &info)
}

// cloneTo reads the name of a clone from the body.
func (h *Handler) cloneTo(w http.ResponseWriter, r *http.Request) (to facet.Name, err error) {
	if _, err := query(r); err != nil {
		return to, err
	}
	body, err := httpjson.ReadBody(w, r, maxSmallBody, h.budget, "")
	if err != nil {
		return to, err
	}
	defer body.Close()
	err = decodeObject(body.Bytes, func(d *execDecoder, key []byte) error {
		if string(key) != "to" {
			return unknownField(key, "to")
		}
		return d.word(func(v string) (err error) {
			to, err = facet.ParseName(v)
			return err
		})
	})
	if err == nil && to == (facet.Name{}) {
		err = hinted(`send {"to":"TENANT/FACET"}`, "the body does not say what to clone it to")
	}
	return to, err
}

// elsewhere is the redirect to the owner of a facet, if it is known to be another
// node: where a body is long, it is better told before it is sent.
func (h *Handler) elsewhere(name facet.Name) error {
	l, ok := h.svc.(hrana.Locator)
	if !ok {
		return nil
	}
	at, local, epoch := l.Owner(name)
	if local || at == "" {
		return nil
	}
	e := facet.Errorf(facet.CodeNotOwner, "another node owns %v", name)
	e.Owner, e.Epoch = at, epoch
	return e
}

// failingReader ends a body with an error at its limit.
type failingReader struct {
	r    io.Reader
	left int64
}

func (f *failingReader) Read(p []byte) (int, error) {
	if f.left <= 0 {
		return 0, httpjson.ErrTooLarge
	}
	n, err := f.r.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	return n, err
}
