// Package credentials holds what a running node proves itself with and knows others
// by: the certificate of its API port, the certificate and CA of nodes, and any other
// secrets that are kept in files which change while the node runs.
//
// It owns the content of the files in memory and one goroutine that looks whether they
// have changed, and when what is in force ends. New content is in force for the next
// connection; content that cannot be used changes nothing, is logged once and counted.
// It refuses to know what is said over a connection. Package node calls it. All methods
// may be called from any goroutine.
package credentials
