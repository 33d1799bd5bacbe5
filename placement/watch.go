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

func (w *watchers) publish(index uint64, changed []facet.Incarnation) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake(index)
	if len(changed) == 0 {
		return
	}
	for x := range w.all {
		x.add(changed)
	}
}

// reset is publish after the whole table was replaced.
func (w *watchers) reset(index uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake(index)
	for x := range w.all {
		x.overflow()
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

	mu      sync.Mutex
	changed []facet.Incarnation // guarded by mu
	all     bool                // guarded by mu
}

// Watch begins to collect changes. A reader watches first and walks the table
// then, so it misses nothing. Close ends it.
func (t *Table) Watch() *Watcher {
	w := &Watcher{table: t, wake: make(chan struct{}, 1)}
	t.watch.mu.Lock()
	defer t.watch.mu.Unlock()
	if t.watch.all == nil {
		t.watch.all = map[*Watcher]struct{}{}
	}
	t.watch.all[w] = struct{}{}
	return w
}

// Wake receives after something changed since the last Take.
func (w *Watcher) Wake() <-chan struct{} { return w.wake }

// Take gives the incarnations that changed since the last Take, in order, some
// of them perhaps more than once. all says that too much changed to tell: look
// at the whole table. A row is always applied before it is told here.
func (w *Watcher) Take() (changed []facet.Incarnation, all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	changed, all = w.changed, w.all
	w.changed, w.all = nil, false
	return changed, all
}

// Close ends the watch. It may be called twice.
func (w *Watcher) Close() {
	w.table.watch.mu.Lock()
	defer w.table.watch.mu.Unlock()
	delete(w.table.watch.all, w)
}

func (w *Watcher) add(changed []facet.Incarnation) {
	w.mu.Lock()
	if !w.all {
		if len(w.changed)+len(changed) > MaxPendingChanges {
			w.changed, w.all = nil, true
		} else {
			w.changed = append(w.changed, changed...)
		}
	}
	w.mu.Unlock()
	w.ring()
}

func (w *Watcher) overflow() {
	w.mu.Lock()
	w.changed, w.all = nil, true
	w.mu.Unlock()
	w.ring()
}

func (w *Watcher) ring() {
	select {
	case w.wake <- struct{}{}:
	default: // it rings already
	}
}
