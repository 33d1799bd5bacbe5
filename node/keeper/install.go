package keeper

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/peer"
)

// Install implements peer.Installer: a snapshot takes the place of the copy (R44).
func (k *Keeper) Install(ctx context.Context, from peer.Remote, offer peer.SnapshotOffer, source io.Reader) (facet.Position, error) {
	id := offer.Incarnation
	k.installs.begin(id)
	defer k.installs.end(id)
	r, err := k.copyFor(from, id, offer.Epoch) // R6, before a page is read
	if err != nil {
		return facet.Position{}, fmt.Errorf("install %v at %v: %w", id, offer.Position, err)
	}
	base, err := r.Install(ctx, replica.Snapshot{
		Epoch: offer.Epoch, Boot: replica.Boot(from.Boot), Position: offer.Position,
		Source: source, MaxPages: offer.Pages,
	})
	return base.Position, err
}

// installs are the snapshots being received: a copy that is being filled is
// wanted, whatever the table says so far. The transport bounds their number.
type installs struct {
	mu sync.Mutex
	of map[facet.Incarnation]int
}

func (x *installs) init() { x.of = make(map[facet.Incarnation]int) }

func (x *installs) begin(id facet.Incarnation) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.of[id]++
}

func (x *installs) end(id facet.Incarnation) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.of[id]--; x.of[id] == 0 {
		delete(x.of, id)
	}
}

func (x *installs) running(id facet.Incarnation) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.of[id] > 0
}
