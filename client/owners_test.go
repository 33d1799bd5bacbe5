package client

import (
	"fmt"
	"testing"

	"github.com/facetd/facetd/facet"
)

func TestOwners(t *testing.T) {
	a, b := &node{at: endpoint{host: "a"}}, &node{at: endpoint{host: "b"}}
	name := facet.Name{Tenant: "acme", Facet: "notes"}
	var o owners
	if o.get(name) != nil {
		t.Fatal("an empty cache knows an owner")
	}
	for i, step := range []struct {
		do   func() *node // the best known owner, where it tells
		want *node        // of get
	}{
		{func() *node { return o.learn(name, a, 5) }, a},
		{func() *node { return o.learn(name, b, 4) }, a}, // older
		{func() *node { return o.learn(name, b, 5) }, a}, // not newer
		{func() *node { return o.learn(name, b, 6) }, b},
		{func() *node { o.settle(name, a, 5, false); return b }, b}, // served long ago
		{func() *node { o.settle(name, a, 7, false); return a }, a},
		{func() *node { o.lose(name, b); return a }, a}, // not the owner
		{func() *node { o.lose(name, a); return a }, nil},
		{func() *node { return o.learn(name, b, 6) }, nil}, // lost, but of a later epoch
		{func() *node { o.settle(name, a, 7, false); return a }, a},
		{func() *node { o.settle(name, b, 1, true); return b }, b}, // made again
		{func() *node { return o.learn(name, a, 2) }, a},
		{func() *node { return o.learn(name, b, 0) }, b}, // of an unknown epoch
	} {
		want := step.want
		if want == nil {
			want = a
		}
		if best := step.do(); best != want {
			t.Errorf("step %d: the best known is %v", i, best.at)
		}
		if got := o.get(name); got != step.want {
			t.Errorf("step %d: got %v", i, got)
		}
	}
}

func TestOwnersAreBounded(t *testing.T) {
	n := &node{}
	var o owners
	kept := facet.Name{Tenant: "acme", Facet: "kept"}
	o.learn(kept, n, 1)
	for i := range 3 * maxOwners {
		o.learn(facet.Name{Tenant: "acme", Facet: fmt.Sprint(i)}, n, 1)
		if len(o.young)+len(o.old) > maxOwners {
			t.Fatalf("%d entries", len(o.young)+len(o.old))
		}
		if i%1000 == 0 && o.get(kept) != n {
			t.Fatalf("what is used was forgotten after %d others", i)
		}
	}
}

// The keys of one facet are consecutive, whatever is written elsewhere.
func TestKeysCountByFacet(t *testing.T) {
	var k keys
	k.draw()
	a := facet.Name{Tenant: "acme", Facet: "a"}
	seen := make(map[facet.Key]bool)
	first := k.next(a)
	for i := range 100_000 {
		key := k.next(facet.Name{Tenant: "acme", Facet: fmt.Sprint(i)})
		if seen[key] {
			t.Fatalf("%v came twice", key)
		}
		seen[key] = true
	}
	if next := k.next(a); next.Client != first.Client || next.N > first.N+200 {
		t.Errorf("%v after %v", next, first)
	}
}
