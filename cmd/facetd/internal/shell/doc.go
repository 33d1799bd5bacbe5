// Package shell is the SQL shell of facetd: it reads statements and dot commands
// from a terminal or a pipe, runs them on one facet through the SDK, and prints
// what comes back.
//
// It owns the cutting of input into statements, the output modes, the dot
// commands, and the interactive transaction between prompts. It refuses to read
// flags, environment or signals: package main does that and hands over a Config.
//
// A Shell belongs to one goroutine.
package shell
