// Package wire is the native protocol, facet/1: frames, the messages in them,
// their limits, and the connection that carries them in batches. The text for
// people who write another client is docs/PROTOCOL.md.
//
// It owns the bytes: how a frame is cut, checked and named, how a request and an
// answer are laid out, how many frames become one write to the socket, and how a
// vanished peer is noticed. It refuses to know what a request means: it runs no
// SQL, follows no redirect, retries nothing, and opens no connection.
//
// The server side (node/native) and the SDK (client) call it. Encoders and
// decoders are plain functions without shared state; Conn says for itself which
// methods may be called from any goroutine.
package wire
