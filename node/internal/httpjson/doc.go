// Package httpjson is the JSON and body plumbing the HTTP faces share: a
// bounded reader of request bodies, a pull decoder over them, a writer that
// encodes answers straight from a result to the socket, and the names of
// SQLite's result codes.
//
// It knows nothing of requests, endpoints or statuses; node/httpapi and
// node/hrana own those and are its only callers.
//
// A Reader, a Body and a Writer belong to one goroutine at a time. A Budget is
// shared by all requests and safe for concurrent use.
package httpjson
