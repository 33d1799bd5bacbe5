package client

import (
	"sync"
	"sync/atomic"

	"github.com/facetd/facetd/facet"
)

// owners is the placement cache: which node owns a facet, and since which epoch.
// It is kept in two generations: when the young one is half the bound it becomes
// the old one, and what is still used moves back, so that what was used least
// recently goes. Only facets that live elsewhere than where requests go by
// themselves are in it.
//
// It is a cache of hints: what it says wrong costs a redirect and nothing else.
//
// Invariant: an entry is replaced by what a node says only when that is of a later
// epoch, because nodes learn of moves at different times. What an owner proves by
// serving a request counts more than anybody's word; see settle.
type owners struct {
	count      atomic.Int64 // of entries: nobody locks while there are none
	mu         sync.Mutex
	young, old map[facet.Name]ownerEntry
}

type ownerEntry struct {
	node  *node
	epoch facet.Epoch
	lost  bool // the node could not be reached since; its epoch still counts
}

// get is the owner to ask first; nil when none is known, or not reached.
func (o *owners) get(name facet.Name) *node {
	if o.count.Load() == 0 {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if e, ok := o.look(name); ok && !e.lost {
		return e.node
	}
	return nil
}

// look finds an entry and makes it a young one. o.mu is held.
func (o *owners) look(name facet.Name) (ownerEntry, bool) {
	if e, ok := o.young[name]; ok {
		return e, true
	}
	e, ok := o.old[name]
	if ok {
		o.put(name, e)
	}
	return e, ok
}

// learn takes in that somebody names n the owner since the epoch (0: of an unknown
// one), and tells who is the owner by all that is known.
func (o *owners) learn(name facet.Name, n *node, epoch facet.Epoch) *node {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e, ok := o.look(name); ok && (epoch != 0 || e.node == n) && epoch <= e.epoch {
		return e.node
	}
	o.put(name, ownerEntry{node: n, epoch: epoch})
	return n
}

// settle takes in that n answered as the owner since the epoch (0: not known).
// With force it overrules a later epoch, whose owner said that it is none: a facet
// that was deleted and made again begins with a low epoch.
func (o *owners) settle(name facet.Name, n *node, epoch facet.Epoch, force bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e, ok := o.look(name)
	switch {
	case ok && e.node == n:
		e.epoch, e.lost = max(e.epoch, epoch), false
		if force {
			e.epoch = epoch
		}
		o.put(name, e)
	case ok && !force && epoch != 0 && epoch < e.epoch:
	default:
		o.put(name, ownerEntry{node: n, epoch: epoch})
	}
}

func (o *owners) put(name facet.Name, e ownerEntry) {
	if _, there := o.young[name]; !there && len(o.young) >= maxOwners/2 {
		o.old, o.young = o.young, nil
	}
	if o.young == nil {
		o.young = make(map[facet.Name]ownerEntry)
	}
	delete(o.old, name)
	o.young[name] = e
	o.count.Store(int64(len(o.young) + len(o.old)))
}

// lose notes that n, if it is the owner, could not be reached.
func (o *owners) lose(name facet.Name, n *node) {
	if o.count.Load() == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if e, ok := o.look(name); ok && e.node == n {
		e.lost = true
		o.put(name, e)
	}
}
