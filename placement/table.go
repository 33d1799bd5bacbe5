package placement

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// Table is the placement table of one node: the state every node of the
// cluster arrives at by applying the same log.
//
// Reads take a read lock that a writer holds for a few commands at a time, so a
// reader waits microseconds at worst, however large the batch. A read sees all
// of a command or none of it; it may see a part of a batch.
type Table struct {
	mu sync.RWMutex
	s  *state // guarded by mu; replaced by Restore

	settingsVersion atomic.Uint64 // see TenantsVersion

	watch watchers
}

// NewTable makes an empty table.
func NewTable() *Table { return &Table{s: newState()} }

// Check tells whether Apply can carry out an encoded command. Whoever brings
// commands into the log asks first: an unreadable one there stops every node.
func (t *Table) Check(command []byte) error {
	_, err := DecodeCommand(command)
	return err
}

// Apply carries out the commands of the log entry at index, in order, and gives
// one encoded result for each. An error means that nothing was changed and that
// this node cannot follow the log any further. It keeps no part of commands.
func (t *Table) Apply(index uint64, commands [][]byte) ([][]byte, error) {
	if len(commands) > MaxBatch {
		return nil, fmt.Errorf("apply placement entry %d: %d commands, limit %d", index, len(commands), MaxBatch)
	}
	decoded := make([]Command, len(commands))
	for i, b := range commands {
		c, err := DecodeCommand(b)
		if err != nil {
			return nil, fmt.Errorf("apply placement entry %d: command %d: %w", index, i, err)
		}
		decoded[i] = c
	}
	out := make([][]byte, len(commands))
	buf := make([]byte, 0, 160*len(commands))
	err := t.apply(index, decoded, func(i int, r *Result) {
		from := len(buf)
		buf = r.AppendBinary(buf)
		out[i] = buf[from:len(buf):len(buf)]
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ApplyCommands is Apply for commands and results that are not encoded.
func (t *Table) ApplyCommands(index uint64, commands ...Command) ([]Result, error) {
	out := make([]Result, len(commands))
	return out, t.apply(index, commands, func(i int, r *Result) { out[i] = *r })
}

func (t *Table) apply(index uint64, commands []Command, result func(int, *Result)) error {
	if applied := t.Applied(); index <= applied {
		return fmt.Errorf("apply placement entry %d: entry %d is applied already", index, applied)
	}
	var results [applySlice]Result
	for from := 0; from < len(commands); from += applySlice {
		slice := commands[from:min(from+applySlice, len(commands))]
		t.mu.Lock()
		for i, c := range slice {
			results[i] = c.apply(t.s, index)
		}
		t.mu.Unlock()
		for i := range slice {
			result(from+i, &results[i])
		}
	}
	t.mu.Lock()
	t.s.applied = index
	changed, more := t.s.changed, news{nodes: t.s.nodesChanged, tenants: t.s.tenantsChanged}
	t.s.changed, t.s.nodesChanged, t.s.tenantsChanged = nil, false, false
	t.mu.Unlock()
	if more.tenants {
		t.settingsVersion.Add(1)
	}
	t.watch.publish(index, changed, more)
	return nil
}

// Applied is the index of the last entry applied.
func (t *Table) Applied() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.s.applied
}

// Cluster is the id of the cluster, zero until SetClusterID was applied, and
// the generation of its epochs.
func (t *Table) Cluster() (id cluster.ID, generation uint16) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.s.cluster, t.s.generation
}

// Lookup finds the facet a name leads to. It allocates nothing.
func (t *Table) Lookup(n facet.Name) (Facet, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	ref, ok := t.s.findName(n)
	if !ok {
		return Facet{}, false
	}
	return t.s.rows.at(ref).value(), true
}

// ByIncarnation finds a row by its id. It allocates nothing.
func (t *Table) ByIncarnation(id facet.Incarnation) (Facet, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	ref, ok := t.s.findID(id)
	if !ok {
		return Facet{}, false
	}
	return t.s.rows.at(ref).value(), true
}

// Tombstoned reports whether an incarnation was deleted for good: only then may
// its data go (rule R4).
func (t *Table) Tombstoned(id facet.Incarnation) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.s.tombs.has(t.s.hashID(id), id)
}

// List gives the facets of a tenant by name, those after the one given, at most
// limit (and MaxList).
func (t *Table) List(tenant facet.Tenant, after string, limit int) []Facet {
	var out []Facet
	t.list(facet.Name{Tenant: tenant, Facet: after}, limit, func(f Facet) bool {
		if f.Name.Tenant != tenant {
			return false
		}
		out = append(out, f)
		return true
	})
	return out
}

// ListAll gives the facets of all tenants by name, those after the one given,
// at most limit (and MaxList).
func (t *Table) ListAll(after facet.Name, limit int) []Facet {
	var out []Facet
	t.list(after, limit, func(f Facet) bool {
		out = append(out, f)
		return true
	})
	return out
}

func (t *Table) list(after facet.Name, limit int, yield func(Facet) bool) {
	left := min(limit, MaxList)
	if left <= 0 {
		return
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	block, i := t.s.order.seek(func(ref uint32) int { return t.s.compareName(ref, after) })
	t.s.order.ascend(block, i, func(ref uint32) bool {
		r := t.s.rows.at(ref)
		if r.facet == after.Facet && r.tenant.name == after.Tenant {
			return true
		}
		left--
		return yield(r.value()) && left > 0
	})
}

// Node finds a registered node.
func (t *Table) Node(id cluster.NodeID) (Node, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.s.nodes[id]; n != nil {
		return *n, true
	}
	return Node{}, false
}

// Nodes lists the registered nodes, sorted by id.
func (t *Table) Nodes() []Node {
	t.mu.RLock()
	out := make([]Node, 0, len(t.s.nodes))
	for _, n := range t.s.nodes {
		out = append(out, *n)
	}
	t.mu.RUnlock()
	slices.SortFunc(out, func(a, b Node) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out
}

// Counts sums the table up.
type Counts struct {
	Facets     int // names that lead to a facet
	Rows       int // rows in all
	Tenants    int // tenants with rows or settings
	Nodes      int
	Tombstones int
}

// Counts sums the table up without walking it.
func (t *Table) Counts() Counts {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s := t.s
	return Counts{Facets: s.order.n, Rows: s.rows.live, Tenants: s.tenantIdx.live, Nodes: len(s.nodes), Tombstones: s.tombs.n}
}

// Facets walks all rows, in no order. It holds the lock for a few hundred rows
// at a time and never while the caller works: a row that is there all along is
// seen once, one that comes or goes meanwhile may or may not be seen.
func (t *Table) Facets() iter.Seq[Facet] {
	return t.walk(func(*row) bool { return true })
}

// OwnedBy walks the rows whose epoch was issued to a node, in whatever process
// life, like Facets.
func (t *Table) OwnedBy(id cluster.NodeID) iter.Seq[Facet] {
	return t.walk(func(r *row) bool { return r.owner != nil && r.owner.Node == id })
}

// HeldBy walks the rows that have a node in their active or next set, like
// Facets.
func (t *Table) HeldBy(id cluster.NodeID) iter.Seq[Facet] {
	return t.walk(func(r *row) bool { return Set{r.active}.Has(id) || Set{r.next}.Has(id) })
}

// NodeCount is what a node has to do with.
type NodeCount struct {
	Owned int // rows whose epoch was issued to it, in whatever process life
	Held  int // rows that have it in their active or next set
}

// NodeCounts counts for every node that rows name what OwnedBy and HeldBy walk,
// in one walk for all of them.
func (t *Table) NodeCounts() map[cluster.NodeID]NodeCount {
	// Rows share owners and sets: count those first, nodes then.
	type sets struct{ next, active *members }
	owned, held := map[*Owner]int{}, map[sets]int{}
	t.chunks(func(c *chunk) {
		for i := range c.rows {
			if r := &c.rows[i]; r.tenant != nil {
				owned[r.owner]++
				held[sets{r.next, r.active}]++
			}
		}
	})
	out := map[cluster.NodeID]NodeCount{}
	for o, n := range owned {
		if o != nil {
			c := out[o.Node]
			c.Owned += n
			out[o.Node] = c
		}
	}
	for s, n := range held {
		add := func(id cluster.NodeID) {
			c := out[id]
			c.Held += n
			out[id] = c
		}
		for _, m := range (Set{s.next}).Members() {
			add(m.Node)
		}
		for _, m := range (Set{s.active}).Members() {
			if !(Set{s.next}).Has(m.Node) {
				add(m.Node)
			}
		}
	}
	return out
}

// chunks shows every chunk of rows to see, which may not keep it: it runs under
// the read lock, which is let go of every walkChunks chunks.
func (t *Table) chunks(see func(*chunk)) {
	for at, more := 0, true; more; at += walkChunks {
		more = t.someChunks(at, see)
	}
}

// someChunks is one step of chunks; it reports whether there are more.
func (t *Table) someChunks(at int, see func(*chunk)) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	chunks := t.s.rows.chunks
	to := min(at+walkChunks, len(chunks))
	if at >= to {
		return false
	}
	for _, c := range chunks[at:to] {
		see(c)
	}
	return to < len(chunks)
}

func (t *Table) walk(want func(*row) bool) iter.Seq[Facet] {
	return func(yield func(Facet) bool) {
		var found []Facet
		for at := 0; ; at += walkChunks {
			found = found[:0]
			more := t.someChunks(at, func(c *chunk) {
				for i := range c.rows {
					if r := &c.rows[i]; r.tenant != nil && want(r) {
						found = append(found, r.value())
					}
				}
			})
			for _, f := range found {
				if !yield(f) {
					return
				}
			}
			if !more {
				return
			}
		}
	}
}
