//go:build !amd64 && !arm64

package sqlite

func prefetch(lines *uintptr, n int) {}
