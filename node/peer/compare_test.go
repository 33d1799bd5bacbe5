package peer

import (
	"errors"
	"slices"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
)

// comparer answers with what it was made with.
type comparer struct {
	all      Digests
	copies   map[facet.Incarnation]CopyState
	outvoted chan facet.Position
	wait     chan struct{}
}

func (c *comparer) Digests(Remote) *Digests {
	if c.wait != nil {
		<-c.wait
	}
	return &c.all
}

func (c *comparer) Copy(id facet.Incarnation) CopyState { return c.copies[id] }

func (c *comparer) Outvoted(from Remote, id facet.Incarnation, at facet.Position) error {
	if from.Node != "n1" || id != idA {
		return replica.ErrUnknown
	}
	c.outvoted <- at
	return nil
}

func TestCompare(t *testing.T) {
	where := newAddresses()
	c := &comparer{copies: map[facet.Incarnation]CopyState{idB: {true, replica.Holed, pos}}, outvoted: make(chan facet.Position, 1)}
	c.all[0], c.all[255] = Digest{1, 15: 2}, Digest{3}
	start(t, "n2", where, func(cfg *Config) { cfg.Comparer = func() Comparer { return c } })
	start(t, "n3", where, nil)
	tr := start(t, "n1", where, nil)
	p := tr.Peer("n2")
	all, err := p.Digests(t.Context())
	if check(t, err); *all != c.all {
		t.Error("other digests")
	}
	got, err := p.Copies(t.Context(), []facet.Incarnation{idA, idB})
	if check(t, err); !slices.Equal(got, []CopyState{{}, c.copies[idB]}) {
		t.Errorf("copies: %v", got)
	}
	check(t, p.Outvoted(t.Context(), idA, pos))
	if at := <-c.outvoted; at != pos {
		t.Errorf("outvoted at %v", at)
	}
	if err := p.Outvoted(t.Context(), idB, pos); !errors.Is(err, replica.ErrUnknown) {
		t.Errorf("outvoted without a copy: %v", err)
	}
	if _, err := p.Copies(t.Context(), nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("copies of nothing: %v", err)
	}
	if _, err := tr.Peer("n3").Digests(t.Context()); !errors.Is(err, ErrRefused) {
		t.Errorf("a node that does not compare: %v", err)
	}
}

// TestOneComparison: a peer that asks again before it was answered is not walked for
// twice at a time.
func TestOneComparison(t *testing.T) {
	where := newAddresses()
	c := &comparer{wait: make(chan struct{})}
	start(t, "n2", where, func(cfg *Config) { cfg.Comparer = func() Comparer { return c } })
	tr := start(t, "n1", where, nil)
	errs := make(chan error, 2)
	for range 2 {
		go func() { _, err := tr.Peer("n2").Digests(t.Context()); errs <- err }()
	}
	if err := <-errs; !errors.Is(err, ErrBusy) {
		t.Errorf("the second one: %v", err)
	}
	close(c.wait)
	check(t, <-errs)
	_, err := tr.Peer("n2").Digests(t.Context())
	check(t, err)
}
