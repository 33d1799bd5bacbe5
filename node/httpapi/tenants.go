package httpapi

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
	"github.com/facetd/facetd/node/internal/httpjson"
	"github.com/facetd/facetd/node/service"
)

// routeTenant finds the endpoint of [TENANT[/ACTION]].
func (h *Handler) routeTenant(w *recorder, r *http.Request, rest string) {
	name, action, _ := strings.Cut(rest, "/")
	action = strings.TrimSuffix(action, "/")
	if name == "" {
		if h.allow(w, r, http.MethodGet) {
			h.tenants(w, r)
		}
		return
	}
	tenant, err := facet.ParseTenant(name)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	switch action {
	case "":
		if !h.allow(w, r, http.MethodGet, http.MethodPatch) {
			return
		}
		if r.Method == http.MethodPatch {
			h.audited(w, r, "set tenant", string(tenant), func() { h.setLimits(w, r, tenant) })
			return
		}
		h.tenant(w, r, tenant)
	case "freeze":
		if !h.allow(w, r, http.MethodPut, http.MethodDelete) {
			return
		}
		what := "freeze tenant"
		if r.Method == http.MethodDelete {
			what = "unfreeze tenant"
		}
		h.audited(w, r, what, string(tenant), func() { h.freeze(w, r, tenant) })
	default:
		h.notFound(w, r, "below a tenant there is freeze; its facets are listed by /v1/facets?tenant="+string(tenant))
	}
}

// routeDefaults answers /v1/tenant-defaults.
func (h *Handler) routeDefaults(w *recorder, r *http.Request) {
	if !h.allow(w, r, http.MethodGet, http.MethodPatch) {
		return
	}
	if r.Method == http.MethodPatch {
		h.audited(w, r, "set tenant defaults", "all tenants", func() { h.setLimits(w, r, "") })
		return
	}
	err := h.onCluster(r, token.Read)
	if err == nil {
		_, err = query(r)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.answerDefaults(w, r)
}

func (h *Handler) answerDefaults(w http.ResponseWriter, r *http.Request) {
	l, err := h.opts.Tenants.Defaults(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	jsonHeader(w)
	jw := httpjson.NewWriter(w, http.StatusOK)
	jw.Raw(`{"limits":`)
	writeLimits(jw, &l, false)
	jw.Raw("}\n")
	jw.Close() // a peer that is gone needs no answer
}

// busiest answers GET /v1/busiest-tenants?by=time&limit=N: of this node alone.
func (h *Handler) busiest(w http.ResponseWriter, r *http.Request) {
	list, over, err := h.busiestPage(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	jsonHeader(w)
	jw := httpjson.NewWriter(w, http.StatusOK)
	jw.Raw(`{"seconds":`)
	jw.Int(int64(over / time.Second))
	jw.Raw(`,"tenants":[`)
	for i, b := range list {
		if i > 0 {
			jw.Byte(',')
		}
		jw.Raw("\n" + `{"tenant":`)
		httpjson.Str(jw, string(b.Name))
		jw.Raw(`,"requests":`)
		jw.Int(b.Requests)
		jw.Raw(`,"writes":`)
		jw.Int(b.Writes)
		jw.Raw(`,"bytes":`)
		jw.Int(b.Bytes)
		jw.Raw(`,"time_ms":`)
		jw.Int(b.Time.Milliseconds())
		jw.Byte('}')
	}
	jw.Raw("]}\n")
	jw.Close() // a peer that is gone needs no answer
}

func (h *Handler) busiestPage(r *http.Request) ([]service.BusyTenant, time.Duration, error) {
	if err := h.onCluster(r, token.Read); err != nil {
		return nil, 0, err
	}
	q, err := query(r, "by", "limit")
	if err != nil {
		return nil, 0, err
	}
	limit, err := pageLimit(q.Get("limit"))
	if err != nil {
		return nil, 0, err
	}
	by := q.Get("by")
	if by == "" {
		by = "time"
	}
	return h.opts.Tenants.Busiest(r.Context(), by, limit)
}

// tenants answers GET /v1/tenants?after=TENANT&limit=N.
func (h *Handler) tenants(w http.ResponseWriter, r *http.Request) {
	list, more, limit, err := h.tenantsPage(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	jsonHeader(w)
	jw := httpjson.NewWriter(w, http.StatusOK)
	jw.Raw(`{"tenants":[`)
	for i := range list {
		if i > 0 {
			jw.Byte(',')
		}
		jw.Raw("\n{")
		writeTenantRow(jw, &list[i])
		jw.Byte('}')
	}
	jw.Raw(`],"more":`)
	jw.Bool(more)
	if more && len(list) > 0 {
		jw.Raw(`,"next":`)
		httpjson.Str(jw, "/v1/tenants?after="+url.QueryEscape(string(list[len(list)-1].Name))+"&limit="+strconv.Itoa(limit))
	}
	jw.Raw("}\n")
	jw.Close() // a peer that is gone needs no answer
}

func (h *Handler) tenantsPage(r *http.Request) (list []service.TenantRow, more bool, limit int, err error) {
	if err := h.onCluster(r, token.Read); err != nil {
		return nil, false, 0, err
	}
	q, err := query(r, "after", "limit")
	if err != nil {
		return nil, false, 0, err
	}
	var after facet.Tenant
	if v := q.Get("after"); v != "" {
		if after, err = facet.ParseTenant(v); err != nil {
			return nil, false, 0, err
		}
	}
	if limit, err = pageLimit(q.Get("limit")); err != nil {
		return nil, false, 0, err
	}
	list, more, err = h.opts.Tenants.Tenants(r.Context(), after, limit)
	return list, more, limit, err
}

// tenant answers GET /v1/tenants/T. Supervisors are told of every node; a token for all
// facets of the tenant, what the tenant has and may.
func (h *Handler) tenant(w http.ResponseWriter, r *http.Request, name facet.Tenant) {
	g, err := h.grant(r)
	if err == nil && g.WholeTenant(name) < token.Read {
		err = facet.Errorf(facet.CodeNotFound, "tenant %s does not exist", name)
		if g.Tenant(name) >= token.Read {
			err = facet.Errorf(facet.CodeForbidden, "this needs a token for all facets of the tenant")
		}
	}
	if err == nil {
		_, err = query(r)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.answerTenant(w, r, name, g.Cluster() >= token.Read)
}

func (h *Handler) answerTenant(w http.ResponseWriter, r *http.Request, name facet.Tenant, nodes bool) {
	t, err := h.opts.Tenants.Tenant(r.Context(), name)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	jsonHeader(w)
	jw := httpjson.NewWriter(w, http.StatusOK)
	jw.Byte('{')
	writeTenantRow(jw, &t.TenantRow)
	jw.Raw(`,"in_force":`)
	writeLimits(jw, &t.InForce, true)
	jw.Raw(`,"use":`)
	sum := t.Use()
	sum.Facets = t.Facets
	writeUse(jw, &sum)
	if nodes {
		jw.Raw(`,"nodes":[`)
		for i := range t.Nodes {
			if i > 0 {
				jw.Byte(',')
			}
			writeTenantNode(jw, &t.Nodes[i])
		}
		jw.Byte(']')
	}
	jw.Raw("}\n")
	jw.Close() // a peer that is gone needs no answer
}

func writeTenantRow(w *httpjson.Writer, t *service.TenantRow) {
	w.Raw(`"tenant":`)
	httpjson.Str(w, string(t.Name))
	w.Raw(`,"facets":`)
	w.Uint(t.Facets)
	w.Raw(`,"frozen":"`)
	w.Raw(t.Settings.Freeze.String())
	w.Raw(`","limits":`)
	writeLimits(w, &t.Settings.Limits, false)
}

// writeLimits writes the limits that are set. Those in force are written all, null for
// none.
func writeLimits(w *httpjson.Writer, l *facet.TenantLimits, inForce bool) {
	w.Byte('{')
	first := true
	for i, v := range l.All() {
		if *v == 0 && !inForce {
			continue
		}
		if !first {
			w.Byte(',')
		}
		first = false
		w.Raw(`"` + facet.LimitNames[i] + `":`)
		switch {
		case *v == 0:
			w.Raw("null")
		case *v == facet.NoLimit:
			w.Raw(`"none"`)
		default:
			w.Uint(*v)
		}
	}
	w.Byte('}')
}

func writeUse(w *httpjson.Writer, u *service.TenantUse) {
	open := byte('{')
	for _, f := range [...]struct {
		name string
		v    uint64
	}{
		{"facets", u.Facets}, {"open", u.Open}, {"bytes", u.Bytes}, {"granted_bytes", u.Granted}, {"memory_bytes", u.Memory},
		{"concurrent_requests", u.UnderWay}, {"requests_per_second", u.Requests}, {"refused_per_second", u.Refused}, {"rows_per_second", u.Rows},
	} {
		w.Byte(open)
		open = ','
		w.Raw(`"` + f.name + `":`)
		w.Uint(f.v)
	}
	w.Byte('}')
}

func writeTenantNode(w *httpjson.Writer, u *service.TenantUse) {
	w.Raw("\n" + `{"node":`)
	httpjson.Str(w, string(u.Node))
	if u.Problem != "" {
		w.Raw(`,"problem":`)
		httpjson.Str(w, u.Problem)
		w.Byte('}')
		return
	}
	w.Raw(`,"frozen":"`)
	w.Raw(u.Freeze.String())
	w.Raw(`","use":`)
	writeUse(w, u)
	w.Byte('}')
}

// setLimits answers PATCH of a tenant, or of the defaults: {"facets":100,"total_bytes":null}.
func (h *Handler) setLimits(w http.ResponseWriter, r *http.Request, name facet.Tenant) {
	body, err := h.smallBody(w, r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	l, fields, err := decodeLimits(body.Bytes)
	body.Close()
	if err == nil {
		detail(w, limitAttrs(&l, fields)...)
		err = h.opts.Tenants.Change(r.Context(), name, fields, facet.TenantSettings{Limits: l})
	}
	switch {
	case err != nil:
		h.fail(w, r, err)
	case name == "":
		h.answerDefaults(w, r)
	default:
		h.answerTenant(w, r, name, true)
	}
}

// limitAttrs is what an audited request sets, with 0 for the default.
func limitAttrs(l *facet.TenantLimits, fields facet.TenantFields) (attrs []slog.Attr) {
	for i, v := range l.All() {
		if fields&facet.FieldOf(i) == 0 {
			continue
		}
		value := strconv.FormatUint(*v, 10)
		if *v == facet.NoLimit {
			value = "none"
		}
		attrs = append(attrs, slog.String(facet.LimitNames[i], value))
	}
	return attrs
}

// decodeLimits reads limits by their names: a number, "none", or null for the default.
func decodeLimits(src []byte) (l facet.TenantLimits, fields facet.TenantFields, err error) {
	err = decodeObject(src, func(d *execDecoder, key []byte) error {
		i := slices.Index(facet.LimitNames[:], string(key))
		if i < 0 {
			return unknownField(key, strings.Join(facet.LimitNames[:], ", "))
		}
		fields |= facet.FieldOf(i)
		v := l.All()[i]
		switch d.Kind() {
		case 'n':
			return d.Null()
		case '"':
			return d.word(func(s string) error {
				if s != "none" {
					return badRequest(`%s is a number, "none" for no limit, or null for the default`, facet.LimitNames[i])
				}
				*v = facet.NoLimit
				return nil
			})
		}
		n, err := d.Int()
		if err == nil && n < 1 {
			err = hinted(`"none" is no limit, null the default; to stop a tenant altogether, freeze it`, "%s is at least 1", facet.LimitNames[i])
		}
		*v = uint64(n)
		return err
	})
	if err == nil && fields == 0 {
		err = hinted("there are "+strings.Join(facet.LimitNames[:], ", "), "the body names no limit")
	}
	return l, fields, err
}

// freeze answers PUT /v1/tenants/T/freeze, with a body {"reads":true} or none, and DELETE
// of the same.
func (h *Handler) freeze(w http.ResponseWriter, r *http.Request, name facet.Tenant) {
	body, err := h.smallBody(w, r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	to, given := facet.FreezeAll, len(bytes.TrimSpace(body.Bytes)) > 0
	switch {
	case r.Method == http.MethodDelete:
		if to = facet.NotFrozen; given {
			err = badRequest("unfreezing takes no body")
		}
	case given:
		err = decodeObject(body.Bytes, func(d *execDecoder, key []byte) error {
			if string(key) != "reads" {
				return unknownField(key, "reads")
			}
			reads, err := d.Bool()
			if reads {
				to = facet.FreezeWrites
			}
			return err
		})
	}
	body.Close()
	if err == nil {
		detail(w, slog.String("frozen", to.String()))
		err = h.opts.Tenants.Change(r.Context(), name, facet.FieldFreeze, facet.TenantSettings{Freeze: to})
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.answerTenant(w, r, name, true)
}

// noTenants are the tenants of a node that was given none.
type noTenants struct{}

var errNoTenants = facet.Errorf(facet.CodeBadRequest, "this node knows nothing of tenants")

// Tenant implements service.Tenants.
func (noTenants) Tenant(context.Context, facet.Tenant) (service.Tenant, error) {
	return service.Tenant{}, errNoTenants
}

// Tenants implements service.Tenants.
func (noTenants) Tenants(context.Context, facet.Tenant, int) ([]service.TenantRow, bool, error) {
	return nil, false, errNoTenants
}

// Defaults implements service.Tenants.
func (noTenants) Busiest(context.Context, string, int) ([]service.BusyTenant, time.Duration, error) {
	return nil, 0, errNoTenants
}

func (noTenants) Defaults(context.Context) (facet.TenantLimits, error) {
	return facet.TenantLimits{}, errNoTenants
}

// Change implements service.Tenants.
func (noTenants) Change(context.Context, facet.Tenant, facet.TenantFields, facet.TenantSettings) error {
	return errNoTenants
}
