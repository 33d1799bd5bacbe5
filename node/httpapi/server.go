package httpapi

import (
	"log/slog"
	"net/http"
)

// ServerOptions of NewServer.
type ServerOptions struct {
	// Log gets, at debug level, what goes wrong on connections before a request
	// is read. Default: slog.Default().
	Log *slog.Logger
	// MaxConns bounds the connections, those of the native protocol not among them.
	// Default DefaultMaxConns.
	MaxConns int
}

// NewServer makes the http.Server of an API port: HTTP/1.1 and HTTP/2, the
// latter also without TLS for clients that know it is there. Bodies and answers
// have no deadline here, for exports are long; each endpoint watches that they
// keep moving.
func NewServer(h http.Handler, opts ServerOptions) *http.Server {
	log := opts.Log
	if log == nil {
		log = slog.Default()
	}
	if opts.MaxConns <= 0 {
		opts.MaxConns = DefaultMaxConns
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreamsHTTP2},
		ConnState:         newConns(opts.MaxConns).changed,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
