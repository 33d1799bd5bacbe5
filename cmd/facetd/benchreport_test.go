package main

import "testing"

// The command line of a run goes into reports that are passed on; tokens do not.
func TestBenchLineHidesTokens(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"bench", "--token", "secret", "--json"}, "facetd bench --token ... --json"},
		{[]string{"bench", "-token=secret"}, "facetd bench -token=..."},
		{[]string{"bench", "--data", "token", "--rate=5"}, "facetd bench --data token --rate=5"},
		{[]string{"bench", "--token"}, "facetd bench --token"},
	} {
		before := len(c.args)
		if got := benchLine(c.args); got != c.want {
			t.Errorf("%q gives %q, want %q", c.args, got, c.want)
		}
		if c.args[before-1] == "..." {
			t.Error("the arguments themselves were changed")
		}
	}
}
