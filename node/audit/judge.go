package audit

import (
	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node/peer"
)

// copyOf is what one member of a facet has of it.
type copyOf struct {
	node     cluster.NodeID
	answered bool
	peer.CopyState
}

// sound reports whether nothing is known against a copy.
func (c *copyOf) sound() bool { return c.answered && c.Held && c.Health == replica.Healthy }

// votes reports whether what a copy says of itself can be believed: what is left of one
// that may have lost its tail is intact.
func (c *copyOf) votes() bool {
	return c.answered && c.Held && c.Health < replica.Holed && c.Last.Seq > 0
}

// verdict is what the copies of one facet say together.
type verdict struct {
	odd       []int // copies that are outvoted
	bad       []int // copies that are not sound, the odd ones and the silent ones among them
	undecided bool  // copies differ at one position, and no content has a majority
	behind    bool  // copies lack something, or do not end at one position
}

// judge decides by majority of all members, answered or not (R51).
func judge(copies []copyOf) (v verdict) {
	odd := make([]bool, len(copies))
	for i := range copies {
		a := &copies[i]
		if !a.votes() {
			continue
		}
		agree, best, differ := 0, 0, false
		for j := range copies {
			b := &copies[j]
			switch {
			case !b.votes():
				v.behind = v.behind || b.answered && b.Health < replica.Holed // none, or an empty one
			case !samePlace(a.Last, b.Last):
				v.behind = true
			case a.Last.Sum == b.Last.Sum || broken.Is(broken.BlindAudit):
				agree++
			default:
				differ = true
				best = max(best, count(copies, b.Last))
			}
		}
		if !differ {
			continue
		}
		switch most := len(copies)/2 + 1; {
		case best >= most:
			odd[i] = true
		case agree < most:
			v.undecided = true
		}
	}
	for i := range copies {
		if odd[i] {
			v.odd = append(v.odd, i)
		}
		if odd[i] || !copies[i].sound() {
			v.bad = append(v.bad, i)
		}
	}
	return v
}

func samePlace(a, b facet.Position) bool { return a.Epoch == b.Epoch && a.Seq == b.Seq }

// count is how many copies end at a position, content included.
func count(copies []copyOf, at facet.Position) (n int) {
	for i := range copies {
		if copies[i].votes() && copies[i].Last == at {
			n++
		}
	}
	return n
}
