// Package native is the server side of the native protocol: it turns the frames
// of a connection into calls of a service.Service and their answers into frames.
//
// It owns the connections of SDK clients: the HTTP Upgrade, the handshake, what
// is in flight on each, the interactive transactions each opened, and their end
// when the connection ends. It refuses to run, route or retry anything: a request
// goes to the Service as it came, an answer goes back as it came.
//
// The node mounts Server as an http.Handler at wire.Path. One goroutine per
// connection reads (net/http's own), one writes (wire.Conn's). Answers arrive
// from whatever goroutine calls Done and are encoded there, straight into the
// connection's write buffer; that never blocks.
package native
