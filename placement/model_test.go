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
	counts := map[cluster.NodeID]NodeCount{}
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
		for _, id := range []cluster.NodeID{"n1", "n2", "n3"} {
			c := counts[id]
			if f.Owner.Node == id {
				c.Owned++
			}
			if f.Next.Has(id) || f.Active.Has(id) {
				c.Held++
			}
			if c != (NodeCount{}) {
				counts[id] = c
			}
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
	if got := tab.NodeCounts(); !maps.Equal(got, counts) {
		t.Fatalf("NodeCounts = %v, want %v", got, counts)
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
		if (use != TenantUse{uint64(bound), uint64(rows), m.tenants[tn]}) {
			t.Fatalf("Tenant(%s) = %+v, want %d bound of %d, %+v", tn, use, bound, rows, m.tenants[tn])
		}
		i := slices.IndexFunc(tab.Tenants("", MaxList), func(r TenantRow) bool { return r.Tenant == tn })
		if set := m.tenants[tn]; i < 0 != set.IsZero() || i >= 0 && tab.Tenants("", MaxList)[i] != (TenantRow{tn, uint64(bound), set}) {
			t.Fatalf("Tenants() = %+v, want %s with %+v", tab.Tenants("", MaxList), tn, set)
		}
		if n := len(tab.List(tn, "", MaxList)); n != bound {
			t.Fatalf("List(%s) has %d, want %d", tn, n, bound)
		}
	}
	if tab.Defaults() != m.defaults {
		t.Fatalf("Defaults() = %+v, want %+v", tab.Defaults(), m.defaults)
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
		if g, ok := tab.Node(id); !ok || g.Store != n.Store || g.Boot != n.Boot || g.API != n.API || g.Version != n.Version || g.State != m.states[id] {
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
