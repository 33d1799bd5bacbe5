package placement

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// model is the table told naively: plain maps, searched from end to end.
type model struct {
	rows   map[facet.Incarnation]Facet
	dead   map[facet.Incarnation]bool
	nodes  map[cluster.NodeID]RegisterNode
	limits map[facet.Tenant]TenantLimits
	id     cluster.ID
	gen    uint16
}

func newModel() *model {
	return &model{rows: map[facet.Incarnation]Facet{}, dead: map[facet.Incarnation]bool{},
		nodes: map[cluster.NodeID]RegisterNode{}, limits: map[facet.Tenant]TenantLimits{}}
}

func (m *model) byName(n facet.Name) (Facet, bool) {
	for _, f := range m.rows {
		if f.Bound && f.Name == n {
			return f, true
		}
	}
	return Facet{}, false
}

func (m *model) full(t facet.Tenant) bool {
	n := uint64(0)
	for _, f := range m.rows {
		if f.Bound && f.Name.Tenant == t {
			n++
		}
	}
	return m.limits[t].Facets > 0 && n >= m.limits[t].Facets
}

func (m *model) badOwner(o Owner) Outcome {
	if n, ok := m.nodes[o.Node]; !ok {
		return RefusedNode
	} else if n.Boot != o.Boot {
		return RefusedBoot
	}
	return 0
}

func (m *model) badSet(s Set, o Owner) Outcome {
	for _, x := range s.Members() {
		if n, ok := m.nodes[x.Node]; !ok {
			return RefusedNode
		} else if n.Store != x.Store {
			return RefusedStore
		}
	}
	if !s.Has(o.Node) {
		return RefusedSet
	}
	return 0
}

func (m *model) next(e facet.Epoch) facet.Epoch {
	return max(e+1, facet.Epoch(m.gen)<<48+1)
}

func isLive(f Facet) bool { return f.State <= Active }

func first(os ...Outcome) Outcome {
	for _, o := range os {
		if o != 0 {
			return o
		}
	}
	return 0
}

// apply gives the outcome and the incarnation of the row in the answer.
func (m *model) apply(c Command, index uint64) (Outcome, facet.Incarnation) {
	var none facet.Incarnation
	missing := func(id facet.Incarnation) Outcome {
		if m.dead[id] {
			return RefusedTombstoned
		}
		return RefusedNoFacet
	}
	put := func(f Facet) (Outcome, facet.Incarnation) {
		f.Index = index
		m.rows[f.Incarnation] = f
		return Done, f.Incarnation
	}
	switch c := c.(type) {
	case RegisterNode:
		for _, n := range m.nodes {
			if n.Store == c.Store && n.Node != c.Node {
				return RefusedStore, none
			}
		}
		if old, ok := m.nodes[c.Node]; ok {
			if old.Store != c.Store && !c.ReplaceStore {
				return RefusedStore, none
			}
			same := !c.Machine.IsZero() && c.Machine == old.Machine
			if old.Boot != c.Boot && !same && !c.LeaseOver {
				return RefusedLease, none
			}
		}
		m.nodes[c.Node] = c
		return Done, none
	case Create:
		if f, ok := m.rows[c.Incarnation]; ok {
			if f.Name == c.Name && (c.Detached || f.Bound) {
				return Existed, f.Incarnation
			}
			return RefusedIncarnation, f.Incarnation
		}
		if f, ok := m.byName(c.Name); ok && !c.Detached {
			return Existed, f.Incarnation
		}
		if m.dead[c.Incarnation] {
			return RefusedTombstoned, none
		}
		if o := first(m.badOwner(c.Owner), m.badSet(c.Set, c.Owner)); o != 0 {
			return o, none
		}
		if !c.Detached && m.full(c.Name.Tenant) {
			return RefusedTenantLimit, none
		}
		return put(Facet{Name: c.Name, Incarnation: c.Incarnation, State: Creating, Bound: !c.Detached,
			Epoch: m.next(0), Owner: c.Owner, Next: c.Set})
	case Acquire:
		f, ok := m.rows[c.Incarnation]
		if !ok {
			return missing(c.Incarnation), none
		}
		set := c.Set
		if set.IsZero() {
			set = f.Active
		}
		if set.IsZero() {
			set = f.Next
		}
		again := isLive(f) && f.Owner == c.Owner && f.Epoch == m.next(c.Expected) && set.Equal(f.Next)
		wordStands := f.ActiveEpoch == f.Epoch || f.Holder.IsZero() || f.Holder.Boot != c.Released
		if again && wordStands {
			return Done, f.Incarnation
		}
		if !isLive(f) {
			return RefusedState, f.Incarnation
		}
		if f.Epoch != c.Expected {
			return RefusedEpoch, f.Incarnation
		}
		o := m.badOwner(c.Owner)
		if o == 0 && !c.Set.IsZero() {
			o = m.badSet(set, c.Owner)
		} else if o == 0 {
			if k, ok := set.Member(c.Owner.Node); !ok {
				o = RefusedSet
			} else if k.Store != m.nodes[c.Owner.Node].Store {
				o = RefusedStore
			}
		}
		if o != 0 {
			return o, f.Incarnation
		}
		f.Epoch, f.Owner, f.Next = m.next(f.Epoch), c.Owner, set
		if f.Holder.Boot == c.Released {
			f.Holder = Owner{}
		}
		if f.State == Active {
			f.State = Recovering
		}
		return put(f)
	case Activate:
		f, ok := m.rows[c.Incarnation]
		switch {
		case !ok:
			return missing(c.Incarnation), none
		case f.Epoch != c.Epoch:
			return RefusedEpoch, f.Incarnation
		case f.Owner.Boot != c.Boot:
			return RefusedBoot, f.Incarnation
		case f.State == Active:
			return Done, f.Incarnation
		}
		f.State, f.Active, f.ActiveEpoch, f.Holder = Active, f.Next, f.Epoch, f.Owner
		return put(f)
	case Release:
		f, ok := m.rows[c.Incarnation]
		switch {
		case !ok:
			return missing(c.Incarnation), none
		case f.Epoch > c.Epoch && f.ActiveEpoch == c.Epoch && f.Holder.IsZero():
			return Done, f.Incarnation
		case f.Epoch > c.Epoch && f.ActiveEpoch == c.Epoch && f.Holder.Boot == c.Boot:
			f.Holder = Owner{}
			return put(f)
		case f.Epoch != c.Epoch:
			return RefusedEpoch, f.Incarnation
		case isLive(f) && f.Owner.IsZero():
			return Done, f.Incarnation
		case f.Owner.Boot != c.Boot:
			return RefusedBoot, f.Incarnation
		}
		if f.Holder == f.Owner {
			f.Holder = Owner{}
		}
		f.Owner = Owner{}
		if f.State == Active {
			f.State = Recovering
		}
		return put(f)
	case Delete:
		f, ok := m.rows[c.Incarnation]
		switch {
		case m.dead[c.Incarnation]:
			return Done, none
		case !ok:
			return RefusedNoFacet, none
		case !isLive(f):
			return Done, f.Incarnation
		case c.Expected != 0 && c.Expected != f.Epoch:
			return RefusedEpoch, f.Incarnation
		}
		f.Epoch, f.Owner, f.State = m.next(f.Epoch), Owner{}, Deleting
		return put(f)
	case Tomb:
		f, ok := m.rows[c.Incarnation]
		switch {
		case m.dead[c.Incarnation]:
			return Done, none
		case !ok:
			return RefusedNoFacet, none
		case isLive(f):
			return RefusedState, f.Incarnation
		case f.Epoch != c.Epoch:
			return RefusedEpoch, f.Incarnation
		}
		delete(m.rows, c.Incarnation)
		m.dead[c.Incarnation] = true
		return Done, none
	case Bind:
		f, ok := m.rows[c.New]
		if !ok {
			return missing(c.New), none
		}
		if f.Bound && f.Name == c.Name {
			return Done, f.Incarnation
		}
		if !isLive(f) {
			return RefusedState, f.Incarnation
		}
		if f.Name.Tenant != c.Name.Tenant {
			return RefusedName, f.Incarnation
		}
		old, taken := m.byName(c.Name)
		switch {
		case taken && old.Incarnation != c.Old:
			return RefusedName, old.Incarnation
		case !taken && c.Old != none:
			return RefusedName, none
		case !taken && !f.Bound && m.full(c.Name.Tenant):
			return RefusedTenantLimit, f.Incarnation
		case taken && !isLive(old):
			return RefusedState, old.Incarnation
		case taken && old.Epoch != c.OldEpoch:
			return RefusedEpoch, old.Incarnation
		}
		if taken {
			old.Bound, old.Epoch, old.Owner, old.State = false, m.next(old.Epoch), Owner{}, Retired
			put(old)
		}
		f.Name, f.Bound = c.Name, true
		return put(f)
	case SetClusterID:
		if m.id != (cluster.ID{}) && m.id != c.ID {
			return RefusedCluster, none
		}
		m.id = c.ID
		return Done, none
	case SetTenantLimits:
		m.limits[c.Tenant] = c.Limits
		return Done, none
	case RaiseGeneration:
		if c.Generation < m.gen {
			return RefusedGeneration, none
		}
		m.gen = c.Generation
		return Done, none
	}
	panic("unknown command")
}

func sameFacet(a, b Facet) bool {
	if !a.Next.Equal(b.Next) || !a.Active.Equal(b.Active) {
		return false
	}
	a.Next, a.Active, b.Next, b.Active = Set{}, Set{}, Set{}, Set{}
	return a == b
}

// check compares everything that can be read.
func (m *model) check(t *testing.T, tab *Table) {
	t.Helper()
	seen := map[facet.Incarnation]bool{}
	for f := range tab.Facets() {
		if seen[f.Incarnation] || !sameFacet(f, m.rows[f.Incarnation]) {
			t.Fatalf("table has %+v, model %+v", f, m.rows[f.Incarnation])
		}
		seen[f.Incarnation] = true
	}
	var names []facet.Name
	owned, held := 0, 0
	for id, f := range m.rows {
		if g, ok := tab.ByIncarnation(id); !ok || !sameFacet(f, g) {
			t.Fatalf("ByIncarnation(%v) = %+v, want %+v", id, g, f)
		}
		g, ok := tab.Lookup(f.Name)
		if want, wok := m.byName(f.Name); ok != wok || !sameFacet(g, want) {
			t.Fatalf("Lookup(%v) = %+v, want %+v", f.Name, g, want)
		}
		if f.Bound {
			names = append(names, f.Name)
		}
		if f.Owner.Node == "n1" {
			owned++
		}
		if f.Next.Has("n1") || f.Active.Has("n1") {
			held++
		}
	}
	if n := len(slices.Collect(tab.OwnedBy("n1"))); n != owned {
		t.Fatalf("OwnedBy: %d rows, want %d", n, owned)
	}
	if n := len(slices.Collect(tab.HeldBy("n1"))); n != held {
		t.Fatalf("HeldBy: %d rows, want %d", n, held)
	}
	slices.SortFunc(names, func(a, b facet.Name) int { return strings.Compare(a.String(), b.String()) })
	var got []facet.Name
	for after := (facet.Name{}); ; {
		page := tab.ListAll(after, 3)
		if len(page) == 0 {
			break
		}
		for _, f := range page {
			got = append(got, f.Name)
		}
		after = got[len(got)-1]
	}
	if !slices.Equal(got, names) {
		t.Fatalf("ListAll = %v, want %v", got, names)
	}
	for _, tn := range []facet.Tenant{"acme", "bolt"} {
		use, _ := tab.Tenant(tn)
		rows, bound := 0, 0
		for _, f := range m.rows {
			if f.Name.Tenant == tn {
				rows++
				if f.Bound {
					bound++
				}
			}
		}
		if (use != TenantUse{uint64(bound), uint64(rows), m.limits[tn]}) {
			t.Fatalf("Tenant(%s) = %+v, want %d bound of %d, %+v", tn, use, bound, rows, m.limits[tn])
		}
		if n := len(tab.List(tn, "", MaxList)); n != bound {
			t.Fatalf("List(%s) has %d, want %d", tn, n, bound)
		}
	}
	for id := range m.dead {
		if !tab.Tombstoned(id) {
			t.Fatalf("%v is not tombstoned", id)
		}
	}
	c := tab.Counts()
	if c.Rows != len(m.rows) || c.Facets != len(names) || c.Tombstones != len(m.dead) || c.Nodes != len(m.nodes) {
		t.Fatalf("counts %+v, want %d rows, %d names, %d dead, %d nodes", c, len(m.rows), len(names), len(m.dead), len(m.nodes))
	}
	for id, n := range m.nodes {
		if g, ok := tab.Node(id); !ok || g.Store != n.Store || g.Boot != n.Boot || g.API != n.API {
			t.Fatalf("Node(%s) = %+v, want %+v", id, g, n)
		}
	}
	if id, gen := tab.Cluster(); id != m.id || gen != m.gen {
		t.Fatalf("Cluster = %v %d, want %v %d", id, gen, m.id, m.gen)
	}
}

// TestModel drives the table and the naive model with the same random batches,
// encoded, and now and then puts the table through a snapshot taken earlier
// than it is written.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	outcomes := map[Outcome]int{}
	for round := range rounds {
		rng := rand.New(rand.NewPCG(seed, uint64(round)))
		tab, m := NewTable(), newModel()
		var index uint64
		for step := range 400 {
			index += 1 + uint64(rng.IntN(3))
			var batch [][]byte
			var want []Outcome
			var ids []facet.Incarnation
			var rows []Facet
			for range 1 + rng.IntN(4) {
				c := randomCommand(rng)
				if step < 3 {
					n := byte(step + 1)
					c = register(string(rune('n'))+string(rune('0'+n)), n)
				}
				batch = append(batch, AppendCommand(nil, c))
				o, id := m.apply(c, index)
				want, ids, rows = append(want, o), append(ids, id), append(rows, m.rows[id])
				outcomes[o]++
			}
			var frozen *Snapshot
			var before map[facet.Incarnation]Facet
			if rng.IntN(20) == 0 {
				frozen = tab.Freeze()
				before = map[facet.Incarnation]Facet{}
				for f := range tab.Facets() {
					before[f.Incarnation] = f
				}
			}
			got, err := tab.Apply(index, batch)
			if err != nil {
				t.Fatalf("round %d step %d: %v", round, step, err)
			}
			for i := range got {
				r, err := DecodeResult(got[i])
				if err != nil {
					t.Fatalf("round %d step %d: %v", round, step, err)
				}
				if r.Outcome != want[i] || r.Facet.Incarnation != ids[i] || r.Index != index || !sameFacet(r.Facet, rows[i]) {
					c, _ := DecodeCommand(batch[i])
					t.Fatalf("round %d step %d: %T%+v = %v %+v, want %v %+v", round, step, c, c, r.Outcome, r.Facet, want[i], rows[i])
				}
			}
			if step%7 == 0 {
				m.check(t, tab)
			}
			if frozen != nil {
				checkFrozen(t, frozen, before)
				var buf bytes.Buffer
				if _, err := tab.Freeze().WriteTo(&buf); err != nil {
					t.Fatal(err)
				}
				tab = NewTable()
				if err := tab.Restore(&buf); err != nil {
					t.Fatal(err)
				}
				if tab.Applied() != index {
					t.Fatalf("restored at %d, want %d", tab.Applied(), index)
				}
				m.check(t, tab)
			}
		}
	}
	if !testing.Short() {
		for o := range maps.Keys(outcomeNames) {
			if outcomes[o] == 0 && o != RefusedFull {
				t.Errorf("outcome %q was never met: %v", o, outcomes)
			}
		}
	}
}

// checkFrozen restores a snapshot that was written after the table went on.
func checkFrozen(t *testing.T, frozen *Snapshot, before map[facet.Incarnation]Facet) {
	t.Helper()
	var buf bytes.Buffer
	if n, err := frozen.WriteTo(&buf); err != nil || n != int64(buf.Len()) {
		t.Fatalf("wrote %d of %d, %v", n, buf.Len(), err)
	}
	old := NewTable()
	if err := old.Restore(&buf); err != nil {
		t.Fatal(err)
	}
	n := 0
	for f := range old.Facets() {
		if n++; !sameFacet(f, before[f.Incarnation]) {
			t.Fatalf("frozen row %+v became %+v", before[f.Incarnation], f)
		}
	}
	if n != len(before) {
		t.Fatalf("frozen snapshot has %d rows, want %d", n, len(before))
	}
}
