// Package bearer reads the token of an HTTP request, in one way for all faces. It
// judges nothing but the form of the header: what a token is worth is the matter of
// node/auth. It has no state, so any goroutine may use it.
package bearer

import (
	"net/http"
	"strings"

	"github.com/facetd/facetd/facet"
)

// Token is the token a request shows, empty where it shows none. A request with two
// is refused: what stands before this node might have looked at the other one.
func Token(r *http.Request) (string, error) {
	shown := r.Header["Authorization"]
	switch len(shown) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", facet.Errorf(facet.CodeUnauthorized, "the request has %d Authorization headers; send one", len(shown))
	}
	scheme, tok, ok := strings.Cut(shown[0], " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return "", facet.Errorf(facet.CodeUnauthorized, "the Authorization header is not Bearer TOKEN")
	}
	return strings.TrimSpace(tok), nil
}
