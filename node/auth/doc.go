// Package auth knows who may come in: it holds the keys of a running node, from a
// file that may change while it runs, and tells the faces what the bearer of a token
// may reach.
//
// It owns the file's content in memory, what was verified lately, and the goroutine
// that looks whether the file has changed. It refuses to know protocols: what a
// request wants, and what is answered, is the matter of the faces and of package
// node, which call it for every request. What a token may look like is the matter of
// internal/token. All methods may be called from any goroutine.
package auth
