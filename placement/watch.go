package placement

import (
	"context"
	"slices"
	"sync"

	"github.com/facetd/facetd/facet"
)

// watchers wakes whoever waits for the table to move.
type watchers struct {
	mu      sync.Mutex
	applied uint64                // guarded by mu; the last index published
	waiting []*waiter             // guarded by mu
	all     map[*Watcher]struct{} // guarded by mu
}

type waiter struct {
	index uint64
	done  chan struct{}
}

// news is what an entry changed beside rows.
type news struct{ nodes, tenants bool }

func (w *watchers) publish(index uint64, changed []facet.Incarnation, more news) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake(index)
	for x := range w.all {
		x.add(index, changed, more)
	}
}

// reset is publish after the whole table was replaced.
func (w *watchers) reset(index uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake(index)
	for x := range w.all {
		x.overflow(index)
	}
}

func (w *watchers) wake(index uint64) {
	w.applied = index
	w.waiting = slices.DeleteFunc(w.waiting, func(x *waiter) bool {
		if x.index > index {
			return false
		}
		close(x.done)
		return true
	})
}

// WaitApplied waits until the entry at index was applied here. The number of
// waiters is the caller's to bound.
func (t *Table) WaitApplied(ctx context.Context, index uint64) error {
	w := &t.watch
	w.mu.Lock()
	if w.applied >= index {
		w.mu.Unlock()
		return nil
	}
	x := &waiter{index: index, done: make(chan struct{})}
	w.waiting = append(w.waiting, x)
	w.mu.Unlock()
	select {
	case <-x.done:
		return nil
	case <-ctx.Done():
		w.mu.Lock()
		w.waiting = slices.DeleteFunc(w.waiting, func(y *waiter) bool { return x == y })
		w.mu.Unlock()
		return ctx.Err()
	}
}

// Watcher collects which rows changed, for one reader that reconciles. It never
// holds Apply up: what a slow reader cannot keep is replaced by the advice to
// look at everything.
type Watcher struct {
	table *Table
	wake  chan struct{}

	mu   sync.Mutex
	news Changes // guarded by mu; since the last Take
}

// Changes is what a Watcher collected.
type Changes struct {
	// Rows are the incarnations whose rows changed, in order, some of them
	// perhaps more than once. A row is applied before it is told here.
	Rows []facet.Incarnation
	// All says that too much changed to tell, or that the table was replaced:
	// look at every row.
	All bool
	// Nodes says that a node was registered, changed or removed.
	Nodes bool
	// Tenants says that settings of tenants, or the defaults, were changed.
	Tenants bool
	// Index is a place in the log: every change up to it was told in these
	// Changes or in earlier ones. It may lag behind Table.Applied, and never
	// runs ahead of what was told, so a reader that has acted on Rows may say
	// that it is up to Index (rule R40). It goes up without a wake when an
	// entry changed nothing.
	Index uint64
}

// Watch begins to collect changes. A reader watches first and walks the table
// then, so it misses nothing: Index begins with what the walk must see. Close
// ends it.
func (t *Table) Watch() *Watcher {
	w := &Watcher{table: t, wake: make(chan struct{}, 1)}
	t.watch.mu.Lock()
	defer t.watch.mu.Unlock()
	w.news.Index = t.watch.applied
	if t.watch.all == nil {
		t.watch.all = map[*Watcher]struct{}{}
	}
	t.watch.all[w] = struct{}{}
	return w
}

// Wake receives after something changed since the last Take.
func (w *Watcher) Wake() <-chan struct{} { return w.wake }

// Take gives what changed since the last Take.
func (w *Watcher) Take() Changes {
	w.mu.Lock()
	defer w.mu.Unlock()
	news := w.news
	w.news = Changes{Index: news.Index}
	return news
}

// Close ends the watch. It may be called twice.
func (w *Watcher) Close() {
	w.table.watch.mu.Lock()
	defer w.table.watch.mu.Unlock()
	delete(w.table.watch.all, w)
}

func (w *Watcher) add(index uint64, changed []facet.Incarnation, more news) {
	w.mu.Lock()
	n := &w.news
	n.Index = index
	n.Nodes, n.Tenants = n.Nodes || more.nodes, n.Tenants || more.tenants
	switch {
	case n.All:
	case len(n.Rows)+len(changed) > MaxPendingChanges:
		n.Rows, n.All = nil, true
	default:
		n.Rows = append(n.Rows, changed...)
	}
	w.mu.Unlock()
	if len(changed) > 0 || more != (news{}) {
		w.ring()
	}
}

func (w *Watcher) overflow(index uint64) {
	w.mu.Lock()
	w.news = Changes{All: true, Nodes: true, Tenants: true, Index: index}
	w.mu.Unlock()
	w.ring()
}

func (w *Watcher) ring() {
	select {
	case w.wake <- struct{}{}:
	default: // it rings already
	}
}
