//go:build !linux

package sqlite

// populate is for systems that can bring memory in without touching it.
func populate(p, n uintptr) {}
