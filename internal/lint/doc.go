// Package lint holds the rules of the house that a compiler does not know, as
// tests over the source: who may import whom, which package holds which engine,
// and that every package says what it is for. It has no code that runs.
package lint
