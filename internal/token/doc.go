// Package token is the tokens of facetd as text: what a token says, how it is
// signed, and which tokens the keys of a file let in.
//
// A token is a JSON Web Token in the compact form of a JWS, signed with Ed25519. It
// is made by the platform, offline, with a private key that no node has; a node has
// the public keys. The package owns the form, its limits and the judgement of one
// token at one moment. It reads no files, no clock and no network, and it refuses
// whatever it does not know to be harmless: any other algorithm, headers that bring
// keys along, members that come twice, claims of two kinds in one token.
//
// package node/auth holds the keys of a running node, the command line makes keys and
// tokens. Keys and Grant do not change once made, so any goroutine may use them.
package token
