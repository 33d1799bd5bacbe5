// Package e2e tests facetd as its users meet it: the built binary as a process of
// its own, real disks, real sockets, kill -9. It has no code that runs outside of
// tests.
package e2e
