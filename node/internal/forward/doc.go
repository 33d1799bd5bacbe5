// Package forward carries HTTP requests from a node that cannot answer them to one
// that can, for clients that do not follow redirects.
//
// It owns the connections between API ports, the bound on how often a request is
// carried on, and what of a request's and an answer's headers goes along. It
// refuses to know what the requests mean and to find out who should answer them.
// Package hrana calls it.
//
// A Forwarder is safe for concurrent use. Close ends its idle connections.
package forward
