// Package e2e tests facetd as its users meet it: the built binary as a process of
// its own, real disks, real sockets, kill -9. It has no code that runs outside of
// tests.
//
// The chaos tests run clusters under load and inflict faults on them, on loopback
// and, as root on Linux, on network namespaces whose links can be cut. The short
// ones run with all other tests; the long run is
//
//	go test ./internal/e2e -run Chaos -chaos.time=10m -chaos.seed=7 -timeout=0 -v
//
// and prints its seed. How long faults keep callers waiting is measured by
//
//	go test ./internal/e2e -run Figures -figures -v
package e2e
