package httpapi

import (
	"net/http"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
	"github.com/facetd/facetd/node/internal/bearer"
)

// Every endpoint asks here before it looks anything up, so neither what it answers
// nor how long that takes depends on what the caller may not know of. What he cannot
// reach is answered as what does not exist; "forbidden" is for what he may reach,
// there or not, and for the cluster, of which everybody knows.

// everything is what everybody may do where no tokens are wanted.
var everything = func() *token.Grant {
	g, err := token.Claims{Tenant: token.AllTenants, Facets: []string{"*"}, Access: token.Admin}.Grant()
	if err != nil {
		panic(err) // it depends on nothing
	}
	return g
}()

// grant is what the caller may reach.
func (h *Handler) grant(r *http.Request) (*token.Grant, error) {
	if h.opts.Grant == nil {
		return everything, nil
	}
	tok, err := bearer.Token(r)
	if err != nil {
		return nil, err
	}
	return h.opts.Grant(tok)
}

// onFacet lets through who may do want with a facet, and tells what more he may do.
func (h *Handler) onFacet(r *http.Request, name facet.Name, want token.Access) (token.Access, error) {
	g, err := h.grant(r)
	if err != nil {
		return token.None, err
	}
	access := g.Facet(name)
	switch {
	case access == token.None:
		return access, facet.NoSuchFacet(name)
	case access < want:
		return access, facet.Errorf(facet.CodeForbidden, "the token allows %v on %s; this needs %v", access, name, want)
	}
	return access, nil
}

// onCluster lets through supervisors who may do want.
func (h *Handler) onCluster(r *http.Request, want token.Access) error {
	g, err := h.grant(r)
	if err == nil && g.Cluster() < want {
		err = facet.Errorf(facet.CodeForbidden, "this needs the token of a supervisor with access %v", want)
	}
	return err
}
