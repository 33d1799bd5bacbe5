// Package e2e tests facetd as its users meet it: the built binary as a process of
// its own, real disks, real sockets, kill -9. It has no code that runs outside of
// tests.
//
// The chaos tests run clusters under load and inflict faults on them, on loopback
// and, as root on Linux, on network namespaces with cables, disks and clocks that
// break. The short ones run with all other tests; an hour of everything is
//
//	go test ./internal/e2e -run TestChaosNetwork -chaos.time=1h -chaos.seed=7 -chaos.out=chaos.json -chaos.keep=/tmp/chaos -timeout=0 -v
//
// It begins with a fresh cluster every -chaos.each, prints the seed of each, and in the
// end a table of operations, faults and violations, which -chaos.out writes as JSON.
// -chaos.fault='disk|clock' inflicts only faults with such a word in their names.
// TestChaosProcesses does it on loopback, without root. docs/design/0010-proof.md says
// what is done and what is checked.
//
// How long faults keep callers waiting is measured by
//
//	go test ./internal/e2e -run Figures -figures -v
package e2e
