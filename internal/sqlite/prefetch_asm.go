//go:build amd64 || arm64

package sqlite

// prefetch asks the processor for the cache lines at n addresses. It waits for
// none of them and faults on none.
//
//go:noescape
func prefetch(lines *uintptr, n int)
