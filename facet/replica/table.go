package replica

import (
	"hash/maphash"
	"sync"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
)

// state is what a store knows of one facet at rest. There is one for every facet
// the node has ever kept: its size is the cost of an idle facet.
type state struct {
	mu sync.Mutex
	id facet.Incarnation // never changes

	// Guarded by mu.
	promised   facet.Epoch // R6; zero is none
	basePos    facet.Position
	basePages  uint32
	boot       uint32 // number of the boot promised, see boots
	promiseSeg uint32 // segment of the newest durable PROMISE or CARRY, zero for none
	baseSeg    uint32 // segment of the newest durable BASE, TOMB or CARRY
	flags      uint8
	health     Health
	live       *live // nil while the facet is at rest
}

const (
	flagTomb    = 1 << iota // the facet was deleted; nothing else counts
	flagFiled               // its file is in the trash
	flagCreated             // the facet is kept here (R4)
	flagDropped             // it was kept here; of that only the promise counts
)

func (st *state) tomb() bool { return st.flags&flagTomb != 0 }

// gone says why there is nothing of the facet here: ErrDeleted, ErrUnknown or nil.
func (st *state) gone() error {
	switch {
	case st.tomb():
		return ErrDeleted
	case st.flags&flagCreated == 0:
		return ErrUnknown
	}
	return nil
}

func (st *state) base() pages.Base { return pages.Base{Position: st.basePos, Pages: st.basePages} }

func (st *state) setBase(b pages.Base) { st.basePos, st.basePages = b.Position, b.Pages }

const chunkLen = 1024

// table finds states by id: an open-addressed hash table of numbers into a slab
// whose chunks never move, so a *state stays good for the life of the store.
//
// Invariant: slots is a power of two long and at most four fifths full; a slot
// holds 1 + the state's number, or 0.
type table struct {
	seed   maphash.Seed
	chunks []*[chunkLen]state
	n      int
	slots  []uint32
}

func newTable() table {
	return table{seed: maphash.MakeSeed(), slots: make([]uint32, 64)}
}

func (t *table) at(i int) *state { return &t.chunks[i/chunkLen][i%chunkLen] }

// slot is where id is, or where it would go.
func (t *table) slot(id facet.Incarnation) int {
	mask := len(t.slots) - 1
	i := int(maphash.Bytes(t.seed, id[:])) & mask
	for t.slots[i] != 0 && t.at(int(t.slots[i]-1)).id != id {
		i = (i + 1) & mask
	}
	return i
}

func (t *table) find(id facet.Incarnation) *state {
	if n := t.slots[t.slot(id)]; n != 0 {
		return t.at(int(n - 1))
	}
	return nil
}

// add makes a state for id, which is not in the table.
func (t *table) add(id facet.Incarnation) *state {
	if t.n == len(t.chunks)*chunkLen {
		t.chunks = append(t.chunks, new([chunkLen]state))
	}
	if 5*(t.n+1) > 4*len(t.slots) {
		t.slots = make([]uint32, 2*len(t.slots))
		for i := range t.n {
			t.slots[t.slot(t.at(i).id)] = uint32(i + 1)
		}
	}
	st := t.at(t.n)
	st.id = id
	t.n++
	t.slots[t.slot(id)] = uint32(t.n)
	return st
}

// boots gives every boot id seen a number: there are few of them (one for each
// start of each owner node named in the log) and many promises.
type boots struct {
	mu      sync.RWMutex
	ids     []Boot
	numbers map[Boot]uint32
}

func (b *boots) number(id Boot) uint32 {
	b.mu.RLock()
	n, ok := b.numbers[id]
	b.mu.RUnlock()
	if ok {
		return n
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n, ok := b.numbers[id]; ok {
		return n
	}
	if b.numbers == nil {
		b.numbers = make(map[Boot]uint32)
	}
	n = uint32(len(b.ids))
	b.ids = append(b.ids, id)
	b.numbers[id] = n
	return n
}

func (b *boots) id(n uint32) Boot {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if int(n) >= len(b.ids) {
		return Boot{}
	}
	return b.ids[n]
}
