package quorum

import (
	"testing"

	"github.com/facetd/facetd/facet"
)

// TestRecoverable: a recovery by force is for facets no session could recover, and for
// no others (R25).
func TestRecoverable(t *testing.T) {
	at := func(seq facet.Seq) Promise {
		return Promise{Last: facet.Position{Epoch: 3, Seq: seq, Sum: facet.Sum{Lo: uint64(seq)}}}
	}
	sick := func(h Health, p Promise) Promise { p.Health = h; return p }
	knows := func(known facet.Seq, p Promise) Promise { p.Known = known; return p }
	for _, c := range []struct {
		what   string
		n      int
		copies []Promise
		want   bool
	}{
		{"nobody", 3, nil, false},
		{"one of three", 3, []Promise{at(9)}, false},
		{"two of three", 3, []Promise{at(9), at(7)}, true},
		{"the only one", 1, []Promise{at(9)}, true},
		{"two of five", 5, []Promise{at(9), at(9)}, false},
		{"three of five", 5, []Promise{at(9), at(9), at(8)}, true},
		{"two of three, one broken", 3, []Promise{at(9), sick(Broken, at(0))}, false},
		{"two of three, one uncertain", 3, []Promise{at(9), sick(Uncertain, at(9))}, false},
		{"all, two uncertain", 3, []Promise{at(9), sick(Uncertain, at(9)), sick(Uncertain, at(8))}, true},
		{"all, the longest broken", 3, []Promise{at(7), sick(Broken, at(9)), sick(Uncertain, at(7))}, false},
		{"all broken", 3, []Promise{sick(Broken, at(9)), sick(Broken, at(9)), sick(Broken, at(9))}, false},
		{"two of three, more is known committed", 3, []Promise{at(7), knows(9, at(7))}, false},
		{"more than there are", 1, []Promise{at(7), at(7)}, false},
	} {
		if got := Recoverable(c.n, c.copies); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
