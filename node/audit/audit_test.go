package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func at(epoch facet.Epoch, seq facet.Seq, sum uint64) facet.Position {
	return facet.Position{Epoch: epoch, Seq: seq, Sum: facet.Sum{Lo: sum}}
}

func TestJudge(t *testing.T) {
	has := func(p facet.Position) copyOf {
		return copyOf{answered: true, CopyState: peer.CopyState{Held: true, Last: p}}
	}
	ill := func(h replica.Health, p facet.Position) copyOf {
		c := has(p)
		c.Health = h
		return c
	}
	silent, none := copyOf{}, copyOf{answered: true}
	a, b, other := has(at(3, 9, 1)), has(at(3, 9, 2)), has(at(3, 9, 3))
	for _, c := range []struct {
		name   string
		copies []copyOf
		want   verdict
	}{
		{"all alike", []copyOf{a, a, a}, verdict{}},
		{"the first is odd", []copyOf{b, a, a}, verdict{odd: []int{0}, bad: []int{0}}},
		{"the last is odd", []copyOf{a, a, b}, verdict{odd: []int{2}, bad: []int{2}}},
		{"all differ", []copyOf{a, b, other}, verdict{undecided: true}},
		{"one against one", []copyOf{a, b, silent}, verdict{bad: []int{2}, undecided: true}},
		{"one is silent", []copyOf{a, a, silent}, verdict{bad: []int{2}}},
		{"two of five are odd", []copyOf{a, b, a, other, a}, verdict{odd: []int{1, 3}, bad: []int{1, 3}}},
		{"two of five against two", []copyOf{a, b, a, b, silent}, verdict{bad: []int{4}, undecided: true}},
		{"three of five, one behind", []copyOf{a, b, a, has(at(3, 8, 7)), a}, verdict{odd: []int{1}, bad: []int{1}, behind: true}},
		{"behind", []copyOf{a, a, has(at(3, 7, 2))}, verdict{behind: true}},
		{"of another epoch", []copyOf{a, a, has(at(2, 9, 2))}, verdict{behind: true}},
		{"a member without a copy", []copyOf{a, a, none}, verdict{bad: []int{2}, behind: true}},
		{"damaged", []copyOf{a, ill(replica.Diverged, at(3, 9, 2)), a}, verdict{bad: []int{1}}},
		{"damaged ones have no vote", []copyOf{a, ill(replica.Holed, at(3, 9, 2)), ill(replica.Holed, at(3, 9, 2))}, verdict{bad: []int{1, 2}}},
		{"uncertain ones have one", []copyOf{b, ill(replica.Uncertain, at(3, 9, 1)), a}, verdict{odd: []int{0}, bad: []int{0, 1}}},
		{"alone", []copyOf{a}, verdict{}},
	} {
		if got := judge(c.copies); !slices.Equal(got.odd, c.want.odd) || !slices.Equal(got.bad, c.want.bad) ||
			got.undecided != c.want.undecided || got.behind != c.want.behind {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// hall is some nodes with stores and one table.
type hall struct {
	t     testing.TB
	table *placement.Table
	index uint64
	nodes map[cluster.NodeID]*resident
	log   strings.Builder

	mu     sync.Mutex
	silent map[cluster.NodeID]bool
	asked  map[string]int // messages by kind
	woken  []facet.Name
	hurt   []cluster.NodeID // whose own copies were outvoted
	inUse  bool
}

type resident struct {
	h     *hall
	id    cluster.NodeID
	store *replica.Store
	*Auditor
}

func newHall(t testing.TB, n int) *hall {
	h := &hall{t: t, table: placement.NewTable(), nodes: map[cluster.NodeID]*resident{}, silent: map[cluster.NodeID]bool{}, asked: map[string]int{}}
	for i := range n {
		r := &resident{h: h, id: cluster.NodeID(fmt.Sprintf("n%d", i+1))}
		store := cluster.StoreID{byte(i + 1), 15: 1}
		var err error
		r.store, _, err = replica.Open(replica.Options{
			FS: disk.NewMem(), Dir: "data", StoreID: [16]byte(store), Logger: slog.New(slog.DiscardHandler),
			Log:   commitlog.Options{SegmentBytes: 256 << 10, LowWaterBytes: -1, ReserveBytes: 16 << 10},
			Fatal: func(err error) { t.Error("fatal:", err) },
		})
		h.check(err)
		h.nodes[r.id] = r
		h.apply(placement.RegisterNode{Node: r.id, Store: store, Boot: cluster.BootID{byte(i + 1)}, Machine: cluster.MachineID{1}, API: "x:1", Peer: "x:2"})
	}
	return h
}

func (h *hall) check(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *hall) apply(c placement.Command) {
	h.t.Helper()
	h.index++
	res, err := h.table.ApplyCommands(h.index, c)
	h.check(err)
	h.check(res[0].Err())
}

// begin has every node compare.
func (h *hall) begin() (end func()) {
	h.mu.Lock() // the first one must not ask the last one before it is made
	defer h.mu.Unlock()
	for _, r := range h.nodes {
		var err error
		r.Auditor, err = New(Options{
			Store: r.store, Table: h.table, Node: r.id, Logger: slog.New(slog.NewTextHandler(&locked{h}, nil)),
			Peer: func(to cluster.NodeID) Peer { return way{h, r.id, to} },
			Wake: func(_ context.Context, n facet.Name) error {
				h.mu.Lock()
				defer h.mu.Unlock()
				h.woken = append(h.woken, n)
				return nil
			},
			InUse: func(facet.Incarnation) bool { return h.inUse },
			Damaged: func(facet.Incarnation) {
				h.mu.Lock()
				defer h.mu.Unlock()
				h.hurt = append(h.hurt, r.id)
			},
		})
		h.check(err)
	}
	return func() {
		for _, r := range h.nodes {
			r.Close()
			r.Close()
			h.check(r.store.Close())
		}
	}
}

// locked is where the nodes log.
type locked struct{ h *hall }

func (l *locked) Write(b []byte) (int, error) {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	return l.h.log.Write(b)
}

func (h *hall) logged() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.String()
}

// way is how one node reaches another.
type way struct {
	h        *hall
	from, to cluster.NodeID
}

func (w way) reach(kind string) (*resident, peer.Remote, error) {
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	w.h.asked[kind]++
	if w.h.silent[w.to] || w.h.silent[w.from] {
		return nil, peer.Remote{}, peer.ErrDown
	}
	return w.h.nodes[w.to], peer.Remote{Node: w.from}, nil
}

func (w way) Digests(context.Context) (*peer.Digests, error) {
	r, from, err := w.reach("digests")
	if err != nil {
		return nil, err
	}
	return r.Auditor.Digests(from), nil
}

func (w way) Copies(_ context.Context, ids []facet.Incarnation) (out []peer.CopyState, err error) {
	if len(ids) == 0 || len(ids) > peer.MaxItems {
		return nil, peer.ErrInvalid
	}
	r, _, err := w.reach("copies")
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		out = append(out, r.Copy(id))
	}
	return out, nil
}

func (w way) Outvoted(_ context.Context, id facet.Incarnation, at facet.Position) error {
	r, from, err := w.reach("outvoted")
	if err != nil {
		return err
	}
	return r.Auditor.Outvoted(from, id, at)
}

// found makes a facet, and a copy with that content at each of its members; none where
// it is nil.
func (h *hall) found(i int, owner cluster.NodeID, contents map[cluster.NodeID][]byte) facet.Incarnation {
	h.t.Helper()
	id := facet.Incarnation{byte(i), byte(i >> 8), 15: 1}
	var members []placement.Member
	for node := range contents {
		n, _ := h.table.Node(node)
		members = append(members, placement.Member{Node: node, Store: n.Store})
	}
	set, err := placement.NewSet(members...)
	h.check(err)
	n, _ := h.table.Node(owner)
	name := facet.Name{Tenant: "t", Facet: fmt.Sprintf("f%d", i)}
	h.apply(placement.Create{Name: name, Incarnation: id, Owner: placement.Owner{Node: owner, Boot: n.Boot}, Set: set, Active: true})
	for node, content := range contents {
		if content == nil {
			continue
		}
		r, err := h.nodes[node].store.Create(id)
		h.check(err)
		_, err = r.Install(context.Background(), replica.Snapshot{
			Epoch: 1, Boot: replica.Boot(n.Boot), Position: facet.Position{Epoch: 1, Seq: 5}, Source: bytes.NewReader(content), ComputeSum: true,
		})
		h.check(err)
	}
	return id
}

func page(b byte) []byte { return bytes.Repeat([]byte{b}, facet.PageSize) }

func same(b byte) map[cluster.NodeID][]byte {
	return map[cluster.NodeID][]byte{"n1": page(b), "n2": page(b), "n3": page(b)}
}

func (h *hall) health(node cluster.NodeID, id facet.Incarnation) replica.Health {
	h.t.Helper()
	r, err := h.nodes[node].store.Replica(id)
	h.check(err)
	return r.Meta().Health
}

func (h *hall) sent(kind string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked[kind]
}

// TestIdleIsCheap: copies that agree cost one question for each pair of nodes and hour,
// however many they are.
func TestIdleIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, 4)
		for i := range 600 {
			h.found(i, cluster.NodeID(fmt.Sprintf("n%d", 1+i%3)), same(byte(i)))
		}
		end := h.begin()
		defer end()
		time.Sleep(10*DefaultEvery + time.Minute)
		// n4 keeps nothing.
		if d := h.sent("digests"); d < 6*9 || d > 6*11 || h.sent("copies") != 0 || len(h.woken) > 0 {
			t.Errorf("in ten hours: %v, %d woken", h.asked, len(h.woken))
		}
		if h.logged() != "" {
			t.Errorf("something is said of a sound cluster:\n%s", h.logged())
		}
	})
}

// TestOddOneOut: within two hours a copy that differs from the majority is out of
// service, wherever it is, and no other.
func TestOddOneOut(t *testing.T) {
	for _, odd := range []cluster.NodeID{"n1", "n2", "n3"} {
		t.Run(string(odd), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHall(t, 3)
				for i := range 300 {
					h.found(i, "n1", same(byte(i)))
				}
				contents := same(7)
				contents[odd] = page(8)
				id := h.found(1000, "n1", contents)
				end := h.begin()
				defer end()
				time.Sleep(2 * DefaultEvery)
				for node, r := range h.nodes {
					list, n := r.store.Damaged(9)
					if want := node == odd; (n == 1) != want || n > 1 || n == 1 && (list[0].ID != id || list[0].Health != replica.Diverged) {
						t.Errorf("damaged copies at %s: %v", node, list)
					}
				}
				if !slices.Equal(h.hurt, []cluster.NodeID{odd}) {
					t.Errorf("told of it: %v", h.hurt)
				}
				if s := h.nodes["n1"].Stats(); s.Outvoted != 1 || s.Undecided != 0 || s.Endangered != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// TestNoMajority: where nobody has one, nobody is right, and it is said.
func TestNoMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, 3)
		id := h.found(1, "n1", map[cluster.NodeID][]byte{"n1": page(1), "n2": page(2), "n3": page(3)})
		end := h.begin()
		defer end()
		time.Sleep(2 * DefaultEvery)
		for node := range h.nodes {
			if got := h.health(node, id); got != replica.Healthy {
				t.Errorf("the copy at %s is %v", node, got)
			}
		}
		if s := h.nodes["n1"].Stats(); s.Undecided == 0 || s.Outvoted != 0 || !strings.Contains(h.logged(), "no content has a majority") {
			t.Errorf("%+v\n%s", s, h.logged())
		}
	})
}

// TestBehind: who lacks something in an idle facet is brought it; in one that is in use
// its session is at it.
func TestBehind(t *testing.T) {
	for _, inUse := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := newHall(t, 3)
			h.inUse = inUse
			contents := same(1)
			contents["n2"] = nil
			h.found(1, "n1", contents)
			h.found(2, "n1", same(2))
			end := h.begin()
			defer end()
			time.Sleep(2 * DefaultEvery)
			h.mu.Lock()
			defer h.mu.Unlock()
			if (len(h.woken) > 0) == inUse || slices.ContainsFunc(h.woken, func(n facet.Name) bool { return n.Facet != "f1" }) {
				t.Errorf("in use %v, woken: %v", inUse, h.woken)
			}
		})
	}
}

// TestEndangered: facets without enough sound copies are counted and told once, and
// forgotten when they have them again.
func TestEndangered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, 3)
		for i := range 20 {
			h.found(i, "n1", same(byte(i)))
		}
		id := h.found(100, "n1", same(9))
		for _, node := range []cluster.NodeID{"n2", "n3"} {
			r, err := h.nodes[node].store.Replica(id)
			h.check(err)
			h.check(r.Outvoted(r.Position()))
		}
		end := h.begin()
		defer end()
		a := h.nodes["n1"]
		set := func(silent ...cluster.NodeID) {
			h.mu.Lock()
			for node := range h.nodes {
				h.silent[node] = slices.Contains(silent, node)
			}
			h.mu.Unlock()
			time.Sleep(3 * DefaultEvery)
		}
		set()
		if n := a.Stats().Endangered; n != 1 {
			t.Errorf("%d facets with two damaged copies of three", n)
		}
		set("n3")
		if n := a.Stats().Endangered; n != 1 {
			t.Errorf("%d, with one node silent", n)
		}
		set("n2", "n3")
		if n := a.Stats().Endangered; n != 21 {
			t.Errorf("%d, with two nodes silent", n)
		}
		for _, node := range []cluster.NodeID{"n2", "n3"} { // they are replaced
			r, err := h.nodes[node].store.Replica(id)
			h.check(err)
			at := a.Copy(id).Last
			_, err = r.Install(context.Background(), replica.Snapshot{Epoch: 2, Boot: replica.Boot{9}, Position: facet.Position{Epoch: 2, Seq: at.Seq + 1}, Source: bytes.NewReader(page(9)), ComputeSum: true})
			h.check(err)
		}
		own, err := a.store.Replica(id)
		h.check(err)
		_, err = own.Install(context.Background(), replica.Snapshot{Epoch: 2, Boot: replica.Boot{9}, Position: facet.Position{Epoch: 2, Seq: 6}, Source: bytes.NewReader(page(9)), ComputeSum: true})
		h.check(err)
		set()
		if n := a.Stats().Endangered; n != 0 {
			t.Errorf("%d, with all sound again", n)
		}
		if n := strings.Count(h.logged(), "fewer sound copies"); n != 2 {
			t.Errorf("said %d times:\n%s", n, h.logged())
		}
	})
}

// TestOutvotedByWhom: only the owner of a facet may have a copy taken out of service,
// and only one that is what was judged.
func TestOutvotedByWhom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, 3)
		id := h.found(1, "n1", same(1))
		end := h.begin()
		defer end()
		a := h.nodes["n2"]
		last := a.Copy(id).Last
		if err := a.Outvoted(peer.Remote{Node: "n3"}, id, last); !errors.Is(err, peer.ErrRefused) {
			t.Errorf("by a member: %v", err)
		}
		if err := a.Outvoted(peer.Remote{Node: "n1"}, id, at(1, 4, 4)); !errors.Is(err, replica.ErrGap) {
			t.Errorf("at another position: %v", err)
		}
		if h.health("n2", id) != replica.Healthy {
			t.Error("the copy is out of service")
		}
		h.check(a.Outvoted(peer.Remote{Node: "n1"}, id, last))
		if err := a.Outvoted(peer.Remote{Node: "n1"}, id, last); !errors.Is(err, replica.ErrDamaged) {
			t.Errorf("again: %v", err)
		}
	})
}

// BenchmarkDigests is what one comparison of a hundred thousand facets costs each of two
// nodes an hour, but for 4 KiB on the wire.
func BenchmarkDigests(b *testing.B) {
	h := newHall(b, 3)
	n, _ := h.table.Node("n1")
	var members []placement.Member
	for _, node := range h.table.Nodes() {
		members = append(members, placement.Member{Node: node.ID, Store: node.Store})
	}
	set, err := placement.NewSet(members...)
	h.check(err)
	for i := range 100_000 {
		id := facet.Incarnation{byte(i), byte(i >> 8), byte(i >> 16), 15: 1}
		h.apply(placement.Create{Name: facet.Name{Tenant: "t", Facet: fmt.Sprint(i)}, Incarnation: id, Owner: placement.Owner{Node: "n1", Boot: n.Boot}, Set: set, Active: true})
		for {
			if _, err = h.nodes["n1"].store.Create(id); !errors.Is(err, replica.ErrBusy) {
				break
			}
			h.check(h.nodes["n1"].store.Wait(context.Background(), 0))
		}
		h.check(err)
	}
	end := h.begin()
	defer end()
	for b.Loop() {
		if _, n := h.nodes["n1"].digests("n1", "n2"); n != 100_000 {
			b.Fatal(n)
		}
	}
}
