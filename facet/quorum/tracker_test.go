package quorum

import (
	"math/rand/v2"
	"testing"

	"github.com/facetd/facetd/facet"
)

// naive counts for every sequence number how many members reached it.
func naive(n int, acked []facet.Seq, barrier facet.Seq) facet.Seq {
	var best facet.Seq
	for k := facet.Seq(1); k <= 200; k++ {
		have := 0
		for _, a := range acked {
			if a >= k {
				have++
			}
		}
		if 2*have > n && k >= barrier {
			best = k
		}
	}
	return best
}

func TestAgainstNaive(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 2))
		n := 1 + rng.IntN(MaxMembers)
		barrier := facet.Seq(1 + rng.IntN(50))
		tr, err := NewTracker(n, barrier)
		if err != nil {
			t.Fatal(err)
		}
		acked := make([]facet.Seq, n)
		last := facet.Seq(0)
		for range 200 {
			m, s := rng.IntN(n), facet.Seq(rng.IntN(200))
			acked[m] = max(acked[m], s)
			got := tr.Ack(m, s)
			if want := naive(n, acked, barrier); got != want || got != tr.Committed() {
				t.Fatalf("seed %d: commit index %d, want %d", seed, got, want)
			}
			if got < last {
				t.Fatalf("seed %d: commit index fell from %d to %d", seed, last, got)
			}
			last = got
		}
	}
}

func TestAdoptedEntriesAreNotCounted(t *testing.T) {
	tr, err := NewTracker(3, 10)
	if err != nil {
		t.Fatal(err)
	}
	for m := range 3 {
		if got := tr.Ack(m, 9); got != 0 {
			t.Fatalf("entries below the barrier were committed up to %d by counting", got)
		}
	}
	tr.Ack(0, 10)
	if got := tr.Ack(2, 10); got != 10 {
		t.Fatalf("commit index %d, want the barrier", got)
	}
}

func TestRefusals(t *testing.T) {
	for _, n := range []int{0, -1, MaxMembers + 1} {
		if _, err := NewTracker(n, 1); err == nil {
			t.Errorf("a set of %d was accepted", n)
		}
	}
	if _, err := NewTracker(3, 0); err == nil {
		t.Error("no barrier was accepted")
	}
	tr, _ := NewTracker(3, 1)
	if tr.Ack(3, 5) != 0 || tr.Ack(-1, 5) != 0 {
		t.Error("a stranger was counted")
	}
}
