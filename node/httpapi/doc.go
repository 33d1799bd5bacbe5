// Package httpapi is a node's HTTP port: the plain JSON endpoint, management of
// facets, the operator's endpoints, and the routes to the other faces on the
// same port (Hrana and the native protocol).
//
// It owns URLs, methods, bodies, statuses and the http.Server. It refuses to
// know how a node works: everything goes through service.Service, and who may
// do what is asked of Options.Grant. Package node mounts it; docs/HTTP.md is
// its text.
//
// A Handler is safe for concurrent use and holds nothing but the bytes of the
// requests under way.
package httpapi
