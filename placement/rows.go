package placement

import (
	"slices"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// rows holds the rows of the table in chunks, by number. A snapshot takes the
// list of chunks and raises gen; a chunk older than gen may be in a snapshot
// and is copied before its first change. So taking a snapshot of a million
// facets copies 14,000 pointers, and an untouched chunk is never copied.
//
// Invariant: a chunk with gen < rows.gen is never written to.
type rows struct {
	chunks []*chunk
	free   []uint32 // numbers of unused rows below len(chunks)*chunkRows
	live   int
	gen    uint64
}

// chunkRows makes a chunk fill the allocator's 8 KiB class.
const chunkRows = 73

type chunk struct {
	gen  uint64
	rows [chunkRows]row
}

// row is a facet in 112 bytes. Tenant, owner, holder and sets are shared.
//
// Invariant: an unused row is zero; a used one has an incarnation.
type row struct {
	incarnation facet.Incarnation
	facet       string
	tenant      *tenant
	owner       *Owner
	holder      *Owner
	next        *members
	active      *members
	lineage     *facet.Lineage // nil: none; never changed
	epoch       facet.Epoch
	activeEpoch facet.Epoch
	index       uint64
	state       State
	bound       bool
	pinned      bool
}

// tenant is shared by the rows of one tenant. Its name never changes; the rest
// is guarded by the table's lock.
type tenant struct {
	name     facet.Tenant
	bound    uint32
	rows     uint32
	settings *facet.TenantSettings // nil: none; replaced, never changed
}

func (r *row) name() facet.Name { return facet.Name{Tenant: r.tenant.name, Facet: r.facet} }

func (r *row) value() Facet {
	f := Facet{
		Name: r.name(), Incarnation: r.incarnation, State: r.state, Bound: r.bound, Pinned: r.pinned,
		Epoch: r.epoch, Next: Set{r.next}, Active: Set{r.active}, ActiveEpoch: r.activeEpoch, Index: r.index,
	}
	if r.owner != nil {
		f.Owner = *r.owner
	}
	if r.holder != nil {
		f.Holder = *r.holder
	}
	if r.lineage != nil {
		f.Lineage = *r.lineage
	}
	return f
}

// heldBy reports whether a process life was activated last and has not said
// since that it serves no more.
func (r *row) heldBy(boot cluster.BootID) bool { return r.holder != nil && r.holder.Boot == boot }

// at is a row to read.
func (rs *rows) at(ref uint32) *row { return &rs.chunks[ref/chunkRows].rows[ref%chunkRows] }

// edit is a row to change.
func (rs *rows) edit(ref uint32) *row {
	c := rs.chunks[ref/chunkRows]
	if c.gen < rs.gen {
		copied := *c
		copied.gen = rs.gen
		c = &copied
		rs.chunks[ref/chunkRows] = c
	}
	return &c.rows[ref%chunkRows]
}

// add stores a new row.
func (rs *rows) add(r row) uint32 {
	if len(rs.free) == 0 {
		first := uint32(len(rs.chunks)) * chunkRows
		rs.chunks = append(rs.chunks, &chunk{gen: rs.gen})
		for i := uint32(chunkRows); i > 0; i-- {
			rs.free = append(rs.free, first+i-1)
		}
	}
	ref := rs.free[len(rs.free)-1]
	rs.free = rs.free[:len(rs.free)-1]
	*rs.edit(ref) = r
	rs.live++
	return ref
}

// drop frees a row.
func (rs *rows) drop(ref uint32) {
	*rs.edit(ref) = row{}
	rs.free = append(rs.free, ref)
	rs.live--
}

// freeze gives the chunks as they are now; nobody writes to them any more.
func (rs *rows) freeze() []*chunk {
	rs.gen++
	return slices.Clone(rs.chunks)
}

// tombs remembers the ids of facets deleted for good (rules R4 and R47), 16
// bytes each and an index. It only grows; blocks behind n are never changed, so
// a snapshot shares them.
type tombs struct {
	blocks []*[tombBlockLen]facet.Incarnation
	n      int
	idx    index
}

const tombBlockLen = 512

func (t *tombs) at(i uint32) *facet.Incarnation { return &t.blocks[i/tombBlockLen][i%tombBlockLen] }

func (t *tombs) add(h uint64, id facet.Incarnation, hash func(facet.Incarnation) uint64) {
	if t.n == len(t.blocks)*tombBlockLen {
		t.blocks = append(t.blocks, new([tombBlockLen]facet.Incarnation))
	}
	*t.at(uint32(t.n)) = id
	t.idx.insert(h, uint32(t.n), func(i uint32) uint64 { return hash(*t.at(i)) })
	t.n++
}

func (t *tombs) has(h uint64, id facet.Incarnation) bool {
	_, ok := t.idx.find(h, func(i uint32) bool { return *t.at(i) == id })
	return ok
}
