// Package mutation proves that the tests would notice a broken rule: for every way to
// break one that package internal/broken knows, it builds the test of a package with
// that mistake in it and wants it to fail. A rule whose breaking no test notices is an
// untested rule. It has no code that runs in the product and nobody imports it.
//
//	go test ./internal/mutation -run TestMutations -v          all, with a table
//	go test ./internal/mutation -run TestMutations -v -mutation.only 'NO_.*'
//	go test ./internal/mutation -run TestRules -update         docs/RULES.md, its table of switches
//
// One switch, by hand, in the test or the program:
//
//	FACETD_BREAK=NO_PREV go test -tags facetd_broken ./facet/replica
//	FACETD_BREAK=NO_PREV go run -tags facetd_broken ./cmd/facetd version
package mutation
