//go:build race

package engine

// raced: the race detector makes everything so slow that only outcomes count.
const raced = true
