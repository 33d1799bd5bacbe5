// Package certs makes and reads the certificates of facetd: a small private CA for
// people who have none, and the files in which certificates, keys and CAs are kept.
//
// It owns what a certificate says about a node, and the judgement whether one is of a
// node. It refuses to open files, to keep anything, and to know connections: what it
// is given is in memory. "facetd cert" and node/credentials call it. It has no state, so
// any goroutine may call anything.
//
// # Whose certificate it is
//
// A certificate made here names its node as the URI facetd://node/ID, and a client as
// facetd://client/NAME. What else is in it says nothing about that then: a host name that
// looks like the id of a node makes nobody that node. In a certificate of another CA,
// without such a URI, the node's id is the common name or a DNS name.
package certs
