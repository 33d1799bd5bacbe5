package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
	"github.com/facetd/facetd/node/service"
)

// Options of a Handler. The zero value lets everybody in and offers no native
// protocol.
type Options struct {
	// Log gets panics and what goes wrong after an answer has begun. Default:
	// slog.Default().
	Log *slog.Logger

	// Grant tells what the bearer of a token may reach now; the token is empty where
	// a request shows none. Its error, best a *facet.Error, is answered as it is. It is
	// asked for every request, so it must be quick. Default: everybody may do
	// everything.
	Grant func(tok string) (*token.Grant, error)

	// Audit gets a line for every administrative request, whatever came of it.
	// Default: Log.
	Audit *slog.Logger

	// Operator does what operators ask for: moves, pins, operations. Default: a
	// node that refuses it all.
	Operator service.Operator

	// Tenants tells about tenants and takes their limits. Default: a node without any.
	Tenants service.Tenants

	// NativePath and Native mount the native protocol, which takes the connection
	// over. Native answers everything at and below NativePath and authorises for
	// itself. Default: not mounted.
	NativePath string
	Native     http.Handler

	// ForwardTLS and ForwardDial reach the API ports of other nodes, to which
	// requests of libSQL clients are carried; ForwardTLS is asked for each connection,
	// which gets what it gives. Default: the system's roots, and TCP.
	ForwardTLS  func() *tls.Config
	ForwardDial func(ctx context.Context, network, addr string) (net.Conn, error)

	// BaseURL is the URL that Hrana clients must come back to while they hold a
	// baton, with a trailing slash; "" lets them stay where they are. Default: the
	// address by which other nodes know this one, for requests that came through
	// another node.
	BaseURL func(r *http.Request, name facet.Name) string

	// BatonSecret signs the batons of Hrana. Default: drawn at start.
	BatonSecret []byte

	// TrustedOrigins are web origins ("https://app.example") whose pages may send
	// requests that change something. Default: none but this server itself.
	TrustedOrigins []string

	// LoopbackHosts refuses requests whose Host is neither an IP address nor
	// localhost. A server without tokens on a loopback address needs it: it keeps
	// out web pages that have their name point to 127.0.0.1.
	LoopbackHosts bool

	// Version is shown on the first page.
	Version string
}

// Validate reports what in the options cannot work.
func (o *Options) Validate() error {
	if (o.Native == nil) != (o.NativePath == "") {
		return errors.New("httpapi: Native and NativePath go together")
	}
	if o.NativePath != "" && !strings.HasPrefix(o.NativePath, "/") {
		return fmt.Errorf("httpapi: NativePath %q does not begin with a slash", o.NativePath)
	}
	for _, origin := range o.TrustedOrigins {
		if err := http.NewCrossOriginProtection().AddTrustedOrigin(origin); err != nil {
			return fmt.Errorf("httpapi: trusted origin %q: %w", origin, err)
		}
	}
	return nil
}
