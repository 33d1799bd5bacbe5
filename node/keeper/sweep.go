package keeper

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/placement"
)

// sweeper is what one Sweep tells the next.
type sweeper struct {
	mu       sync.Mutex // held by Sweep
	unwanted map[facet.Incarnation]unwanted
}

// unwanted is a copy the table names in no set, and how it looked when that was
// seen first. One that changes is being filled: it will be a member soon (R42).
type unwanted struct {
	since    time.Time
	promised facet.Epoch
	last     facet.Position
	base     facet.Position
}

// same reports whether the copy looks as it did.
func (u unwanted) same(m *replica.Meta) bool {
	return u.promised == m.Promised && u.last == m.Last && u.base == m.Base
}

// Sweep compares the copies here with the placement table once and takes away
// those that are not wanted: copies of tombstoned incarnations (R47), and after
// the grace period copies of active facets whose sets do not name this store. A
// copy the table does not know is left alone, counted, and told in the log when
// there are more of them than last time (R4).
//
// The node calls it now and then, when it has caught up with the table. What fails
// is tried again by the next Sweep; the error is that of ctx.
func (k *Keeper) Sweep(ctx context.Context) error {
	k.sweep.mu.Lock()
	defer k.sweep.mu.Unlock()
	tombs, drops := k.findUnwanted(ctx)
	k.each(ctx, len(tombs), func(i int) { k.tomb(ctx, tombs[i]) })
	k.each(ctx, len(drops), func(i int) { k.drop(ctx, drops[i]) })
	return ctx.Err()
}

// findUnwanted walks all copies.
func (k *Keeper) findUnwanted(ctx context.Context) (tombs, drops []facet.Incarnation) {
	now := time.Now()
	seen := make(map[facet.Incarnation]unwanted)
	unknown, example := int64(0), facet.Incarnation{}
	k.store.Facets(func(m replica.Meta) bool {
		row, ok := k.table.ByIncarnation(m.ID)
		switch {
		case !ok && (k.table.Tombstoned(m.ID) || broken.Is(broken.DeleteUnknown)):
			if len(tombs) < maxTombs {
				tombs = append(tombs, m.ID)
			}
		case !ok:
			unknown, example = unknown+1, m.ID
		case k.unwanted(&row, &m):
			u, known := k.sweep.unwanted[m.ID]
			if !known || !u.same(&m) {
				u = unwanted{now, m.Promised, m.Last, m.Base}
			}
			if now.Sub(u.since) >= k.grace(&row, &m) {
				drops = append(drops, m.ID)
			}
			if len(seen) < maxUnwanted {
				seen[m.ID] = u
			}
		}
		return ctx.Err() == nil
	})
	if ctx.Err() == nil {
		k.sweep.unwanted = seen
		if before := k.counts.unknown.Swap(unknown); unknown > before {
			k.log.Warn("copies of facets the placement table does not know are kept, and not touched",
				"copies", unknown, "example", example.String())
		}
	}
	return tombs, drops
}

// unwanted reports whether the table says that nobody needs the copy here: the
// facet is served without it. A session that counts on this store would be of a
// higher epoch, whose row names the store.
func (k *Keeper) unwanted(row *placement.Facet, m *replica.Meta) bool {
	if broken.Is(broken.DropEarly) {
		return !row.Next.Has(k.opts.Node)
	}
	return row.State == placement.Active && !row.Active.Has(k.opts.Node) && !row.Next.Has(k.opts.Node) &&
		m.Promised <= row.Epoch && !m.Open && !k.installs.running(m.ID)
}

// grace is how long an unwanted copy is kept.
func (k *Keeper) grace(row *placement.Facet, m *replica.Meta) time.Duration {
	if m.Last.Epoch == row.Epoch {
		// The session of this epoch has filled it: sets are changed by a new epoch, so it
		// was not taken out of one.
		return max(LearnerGrace, k.opts.Grace)
	}
	return k.opts.Grace
}

// each calls f for 0 to n-1, some at a time.
func (k *Keeper) each(ctx context.Context, n int, f func(int)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, sweepWorkers)
	for i := range n {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			f(i)
			<-slots
		})
	}
}

// tomb deletes the copy of a facet that is gone for good.
func (k *Keeper) tomb(ctx context.Context, id facet.Incarnation) {
	r, err := k.store.Replica(id)
	if err != nil {
		return
	}
	if err := r.Tomb(ctx, time.Now()); err != nil {
		k.swept(ctx, "delete the copy of a deleted facet", id, err)
		return
	}
	k.counts.tombed.Add(1)
}

// drop drops a copy that was unwanted for the grace period.
func (k *Keeper) drop(ctx context.Context, id facet.Incarnation) {
	r, err := k.store.Replica(id)
	if err != nil {
		return
	}
	// The copy first, then the row: what the row does not know yet has raised the
	// promise, and Drop refuses then. Without that an entry of a new session could
	// be acknowledged and dropped.
	m := r.Meta()
	row, ok := k.table.ByIncarnation(id)
	if !ok || !k.unwanted(&row, &m) {
		return
	}
	if err := r.Drop(ctx, m.Promised); err != nil {
		k.swept(ctx, "drop a copy that belongs to other nodes now", id, err)
		return
	}
	k.counts.dropped.Add(1)
}

func (k *Keeper) swept(ctx context.Context, what string, id facet.Incarnation, err error) {
	if errors.Is(err, replica.ErrOpen) || errors.Is(err, replica.ErrEpoch) || ctx.Err() != nil || !k.alarm() {
		return // the next Sweep will do
	}
	k.log.Warn(what, "facet", id.String(), "error", err)
}
