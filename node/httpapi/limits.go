package httpapi

import (
	"time"

	"github.com/facetd/facetd/facet"
)

const (
	// MaxBodyLen bounds the body of exec: the largest request, whose blobs take a
	// third more in base64.
	MaxBodyLen = facet.MaxRequestLen * 4 / 3

	// maxSmallBody bounds the bodies of management requests.
	maxSmallBody = 64 << 10

	// MaxImportLen bounds an imported file: the largest database there can be.
	MaxImportLen = facet.MaxPages * facet.PageSize

	// maxScriptResults is up to how many statements a SQL text is answered
	// statement by statement; a longer one is run as a script.
	maxScriptResults = 256

	// maxTimeout bounds timeout_ms; the server's own limit is below it.
	maxTimeout = 24 * time.Hour

	// DefaultListLimit and MaxListLimit bound one page of a listing.
	DefaultListLimit = 100
	MaxListLimit     = 1000

	// MaxHeaderBytes bounds the headers of a request; a token is the largest.
	MaxHeaderBytes = 64 << 10

	// DefaultMaxConns bounds the connections of a server: each costs some ten kilobytes
	// and a descriptor.
	DefaultMaxConns = 16 << 10

	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute

	// maxStreamsHTTP2 bounds the requests of one HTTP/2 connection under way.
	maxStreamsHTTP2 = 250

	// maxRequestID bounds a request id taken over from the client.
	maxRequestID = 64

	// maxIdempotencyKey bounds the header of that name.
	maxIdempotencyKey = 255

	// maxOperationID bounds the id of an operation in a path.
	maxOperationID = 63

	// maxShown is how much of a foreign string an error message repeats.
	maxShown = 60
)
