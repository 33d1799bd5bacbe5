package placement

import (
	"hash/maphash"
	"math/bits"
	"strings"

	"github.com/tidwall/btree"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// state is the table without its lock: rows, indexes and what they share.
//
// Invariant: a bound row is in byName and order and no two bound rows share a
// name; every row is in byID; no row is of a tombstoned incarnation; the
// counts of a tenant are those of its rows.
type state struct {
	applied    uint64
	generation uint16
	cluster    cluster.ID

	seed   maphash.Seed // of this process; no result depends on it
	rows   rows
	byID   index
	byName index
	order  nameOrder
	tombs  tombs
	nodes  map[cluster.NodeID]*Node // values are replaced, never changed
	stores map[cluster.StoreID]cluster.NodeID

	tenants     []*tenant // by number; nil when free
	tenantsFree []uint32
	tenantIdx   index
	settings    btree.Map[facet.Tenant, *facet.TenantSettings] // of the tenants that have any
	defaults    facet.TenantLimits

	// owners and sets hold one copy of each for the rows to share. They are
	// swept when they have doubled since the last sweep.
	owners     map[Owner]*Owner
	sets       map[string]*members
	ownersBase int
	setsBase   int

	changed        []facet.Incarnation // rows changed by the entry being applied
	nodesChanged   bool                // nodes changed by the entry being applied
	tenantsChanged bool                // settings changed by the entry being applied
}

// sweepSlack is how many shared values may pile up before a sweep is worth it.
const sweepSlack = 1024

func newState() *state {
	return &state{
		seed:   maphash.MakeSeed(),
		nodes:  map[cluster.NodeID]*Node{},
		stores: map[cluster.StoreID]cluster.NodeID{},
		owners: map[Owner]*Owner{},
		sets:   map[string]*members{},
	}
}

func (s *state) hashID(id facet.Incarnation) uint64 { return maphash.Bytes(s.seed, id[:]) }

func (s *state) hashTenant(t facet.Tenant) uint64 { return maphash.String(s.seed, string(t)) }

func (s *state) hashName(t facet.Tenant, name string) uint64 {
	return bits.RotateLeft64(maphash.String(s.seed, string(t)), 23) ^ maphash.String(s.seed, name)
}

func (s *state) hashRowID(ref uint32) uint64 { return s.hashID(s.rows.at(ref).incarnation) }

func (s *state) hashRowName(ref uint32) uint64 {
	r := s.rows.at(ref)
	return s.hashName(r.tenant.name, r.facet)
}

func (s *state) findID(id facet.Incarnation) (uint32, bool) {
	return s.byID.find(s.hashID(id), func(ref uint32) bool { return s.rows.at(ref).incarnation == id })
}

func (s *state) findName(n facet.Name) (uint32, bool) {
	return s.byName.find(s.hashName(n.Tenant, n.Facet), func(ref uint32) bool {
		r := s.rows.at(ref)
		return r.facet == n.Facet && r.tenant.name == n.Tenant
	})
}

func (s *state) compareName(ref uint32, n facet.Name) int {
	r := s.rows.at(ref)
	if c := strings.Compare(string(r.tenant.name), string(n.Tenant)); c != 0 {
		return c
	}
	return strings.Compare(r.facet, n.Facet)
}

func (s *state) findTenant(t facet.Tenant) (uint32, bool) {
	return s.tenantIdx.find(s.hashTenant(t), func(i uint32) bool { return s.tenants[i].name == t })
}

// tenantOf finds a tenant or makes it.
func (s *state) tenantOf(name facet.Tenant) *tenant {
	if i, ok := s.findTenant(name); ok {
		return s.tenants[i]
	}
	t := &tenant{name: name}
	var i uint32
	if n := len(s.tenantsFree); n > 0 {
		i, s.tenantsFree = s.tenantsFree[n-1], s.tenantsFree[:n-1]
		s.tenants[i] = t
	} else {
		i = uint32(len(s.tenants))
		s.tenants = append(s.tenants, t)
	}
	s.tenantIdx.insert(s.hashTenant(name), i, func(i uint32) uint64 { return s.hashTenant(s.tenants[i].name) })
	return t
}

// forgetTenant drops a tenant that has neither rows nor settings.
func (s *state) forgetTenant(t *tenant) {
	if t.rows != 0 || t.settings != nil {
		return
	}
	h := s.hashTenant(t.name)
	if i, ok := s.findTenant(t.name); ok {
		s.tenantIdx.remove(h, func(j uint32) bool { return j == i })
		s.tenants[i] = nil
		s.tenantsFree = append(s.tenantsFree, i)
	}
}

// addRow stores r, indexes it and counts it.
func (s *state) addRow(r row) uint32 {
	ref := s.rows.add(r)
	s.byID.insert(s.hashID(r.incarnation), ref, s.hashRowID)
	r.tenant.rows++
	if r.bound {
		s.indexName(ref)
	}
	return ref
}

// dropRow undoes addRow.
func (s *state) dropRow(ref uint32) {
	s.unbind(ref)
	r := s.rows.at(ref)
	s.byID.remove(s.hashID(r.incarnation), func(x uint32) bool { return x == ref })
	t := r.tenant
	t.rows--
	s.rows.drop(ref)
	s.forgetTenant(t)
}

func (s *state) indexName(ref uint32) {
	r := s.rows.at(ref)
	n := r.name()
	s.byName.insert(s.hashName(n.Tenant, n.Facet), ref, s.hashRowName)
	s.order.insert(ref, func(x uint32) int { return s.compareName(x, n) })
	r.tenant.bound++
}

// bind gives a detached row a name that leads nowhere.
func (s *state) bind(ref uint32, name string) {
	r := s.rows.edit(ref)
	r.facet = name
	r.bound = true
	s.indexName(ref)
}

// unbind takes the name of a row away, if it has one.
func (s *state) unbind(ref uint32) {
	r := s.rows.at(ref)
	if !r.bound {
		return
	}
	n := r.name()
	s.byName.remove(s.hashName(n.Tenant, n.Facet), func(x uint32) bool { return x == ref })
	s.order.remove(func(x uint32) int { return s.compareName(x, n) })
	r.tenant.bound--
	s.rows.edit(ref).bound = false
}

func (s *state) shareOwner(o Owner) *Owner {
	if o.IsZero() {
		return nil
	}
	if p, ok := s.owners[o]; ok {
		return p
	}
	if len(s.owners) >= 2*s.ownersBase+sweepSlack {
		s.sweep()
	}
	if n := s.nodes[o.Node]; n != nil {
		o.Node = n.ID // share the string too
	}
	s.owners[o] = &o
	return &o
}

func (s *state) shareSet(set Set) *members {
	if set.m == nil {
		return nil
	}
	if p, ok := s.sets[set.m.key]; ok {
		return p
	}
	if len(s.sets) >= 2*s.setsBase+sweepSlack {
		s.sweep()
	}
	s.sets[set.m.key] = set.m
	return set.m
}

// names reports whether a row names a node as owner or in a set. Rows share
// their owners and sets, so only a node that is named by a shared value, which
// may be one that no row uses any more, needs a look at all rows.
func (s *state) names(id cluster.NodeID) bool {
	owners, sets := map[*Owner]bool{}, map[*members]bool{}
	for _, o := range s.owners {
		if o.Node == id {
			owners[o] = true
		}
	}
	for _, m := range s.sets {
		if (Set{m}).Has(id) {
			sets[m] = true
		}
	}
	if len(owners)+len(sets) == 0 {
		return false
	}
	for _, c := range s.rows.chunks {
		for i := range c.rows {
			if r := &c.rows[i]; owners[r.owner] || sets[r.next] || sets[r.active] {
				return true
			}
		}
	}
	return false
}

// sweep forgets the owners and sets that no row refers to.
func (s *state) sweep() {
	owners, sets := map[Owner]*Owner{}, map[string]*members{}
	for _, c := range s.rows.chunks {
		for i := range c.rows {
			r := &c.rows[i]
			for _, o := range [...]*Owner{r.owner, r.holder} {
				if o != nil {
					owners[*o] = o
				}
			}
			for _, m := range [...]*members{r.next, r.active} {
				if m != nil {
					sets[m.key] = m
				}
			}
		}
	}
	s.owners, s.sets = owners, sets
	s.ownersBase, s.setsBase = len(owners), len(sets)
}
