package placement

import (
	"slices"
	"sort"
)

// nameOrder keeps row numbers in the order of their names: a list of sorted
// blocks. Four bytes a row, filled to half or more; a block is split when it is
// full and dropped when it is empty. A million rows are some 3,000 blocks, so
// inserting moves at most 2 KiB, and now and then the list of blocks.
//
// Callers compare: cmp(ref) is negative when the name of ref is before the one
// looked for, zero when it is that name.
type nameOrder struct {
	blocks []*nameBlock
	n      int
}

const nameBlockLen = 511

// nameBlock has no pointers and fills 2 KiB exactly.
//
// Invariant: 0 < n for every block in a nameOrder.
type nameBlock struct {
	n    uint32
	refs [nameBlockLen]uint32
}

func (b *nameBlock) used() []uint32 { return b.refs[:b.n] }

// block is the last block that begins at or before the name, or the first.
func (o *nameOrder) block(cmp func(ref uint32) int) int {
	return max(0, sort.Search(len(o.blocks), func(i int) bool { return cmp(o.blocks[i].refs[0]) > 0 })-1)
}

// seek is the place of the first name that is not before the one looked for.
func (o *nameOrder) seek(cmp func(ref uint32) int) (block, i int) {
	if len(o.blocks) == 0 {
		return 0, 0
	}
	block = o.block(cmp)
	used := o.blocks[block].used()
	i = sort.Search(len(used), func(i int) bool { return cmp(used[i]) >= 0 })
	if i == len(used) {
		return block + 1, 0
	}
	return block, i
}

// ascend calls yield for every row from a place on, in order, until it says no.
func (o *nameOrder) ascend(block, i int, yield func(ref uint32) bool) {
	for ; block < len(o.blocks); block, i = block+1, 0 {
		for _, ref := range o.blocks[block].used()[i:] {
			if !yield(ref) {
				return
			}
		}
	}
}

// insert puts ref, whose name is not there yet, in its place.
func (o *nameOrder) insert(ref uint32, cmp func(ref uint32) int) {
	o.n++
	if len(o.blocks) == 0 {
		o.blocks = append(o.blocks, &nameBlock{})
		o.blocks[0].put(0, ref)
		return
	}
	at := o.block(cmp)
	b := o.blocks[at]
	i := sort.Search(int(b.n), func(i int) bool { return cmp(b.refs[i]) > 0 })
	if b.n < nameBlockLen {
		b.put(i, ref)
		return
	}
	half := nameBlockLen / 2
	if at == len(o.blocks)-1 && i == nameBlockLen {
		half = nameBlockLen // names come in order: leave the full block full
	}
	right := &nameBlock{n: uint32(nameBlockLen - half)}
	copy(right.refs[:], b.refs[half:])
	b.n = uint32(half)
	if i > half || half == nameBlockLen {
		right.put(i-half, ref)
	} else {
		b.put(i, ref)
	}
	o.blocks = slices.Insert(o.blocks, at+1, right)
}

func (b *nameBlock) put(i int, ref uint32) {
	copy(b.refs[i+1:b.n+1], b.refs[i:b.n])
	b.refs[i] = ref
	b.n++
}

// remove takes out the row with exactly the name looked for.
func (o *nameOrder) remove(cmp func(ref uint32) int) bool {
	at, i := o.seek(cmp)
	if at == len(o.blocks) || cmp(o.blocks[at].refs[i]) != 0 {
		return false
	}
	b := o.blocks[at]
	copy(b.refs[i:], b.refs[i+1:b.n])
	b.n--
	o.n--
	switch {
	case b.n == 0:
		o.blocks = slices.Delete(o.blocks, at, at+1)
	case at+1 < len(o.blocks) && b.n+o.blocks[at+1].n <= nameBlockLen/2:
		next := o.blocks[at+1]
		copy(b.refs[b.n:], next.used())
		b.n += next.n
		o.blocks = slices.Delete(o.blocks, at+1, at+2)
	}
	return true
}
