package steward

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// world is a cluster as its placement leader sees it: a real table, nodes that live
// and die, and owners that do what they are asked to. Its clock is that of the
// bubble. It checks every entry against the rules the steward must keep.
type world struct {
	t     *testing.T
	table *placement.Table

	mu      sync.Mutex
	index   uint64
	term    uint64 // the one whose proposals are accepted
	nodes   map[cluster.NodeID]*machine
	boots   byte
	changed chan struct{}

	refuse func(to cluster.NodeID, o Order) error
	lose   func() error // of a proposal
	asked  int          // orders under way
	tally
}

// tally is what a world counts; count reads it.
type tally struct {
	entries  int // with takeovers in them
	takes    int
	atOnce   int // most orders under way
	copies   int // members that had to be filled
	removed  []cluster.NodeID
	finishes map[facet.Incarnation]int
}

func (w *world) count() tally {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.tally
	c.removed, c.finishes = slices.Clone(c.removed), maps.Clone(c.finishes)
	return c
}

// during sets what refuses orders and loses proposals.
func (w *world) during(refuse func(to cluster.NodeID, o Order) error, lose func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse, w.lose = refuse, lose
}

// machine is a node of the world.
type machine struct {
	alive bool
	quiet bool // alive, and answers nobody
	boot  cluster.BootID
	store cluster.StoreID
	died  chan struct{} // closed when it dies
}

func newWorld(t *testing.T) *world {
	return &world{t: t, table: placement.NewTable(), term: 1, nodes: map[cluster.NodeID]*machine{},
		changed: make(chan struct{}), tally: tally{finishes: map[facet.Incarnation]int{}}}
}

func nodeID(i int) cluster.NodeID { return cluster.NodeID(fmt.Sprintf("n%d", i)) }

func facetID(n int) facet.Incarnation {
	rng := rand.New(rand.NewPCG(uint64(n), 77))
	var id facet.Incarnation
	for i := range id {
		id[i] = byte(rng.UintN(256))
	}
	return id
}

// apply brings an entry into the log.
func (w *world) apply(cmds ...placement.Command) []placement.Result {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	res, err := w.table.ApplyCommands(w.index, cmds...)
	if err != nil {
		w.t.Error(err)
	}
	return res
}

func (w *world) must(cmds ...placement.Command) {
	w.t.Helper()
	for i, r := range w.apply(cmds...) {
		if r.Err() != nil {
			w.t.Fatalf("%+v: %v", cmds[i], r.Err())
		}
	}
}

// start boots nodes; one that has a store keeps it.
func (w *world) start(zone string, ids ...cluster.NodeID) {
	w.t.Helper()
	for _, id := range ids {
		w.mu.Lock()
		w.boots++
		m := w.nodes[id]
		if m == nil {
			m = &machine{store: cluster.StoreID{0: 0x50, 15: w.boots}}
			w.nodes[id] = m
		}
		m.alive, m.boot, m.died = true, cluster.BootID{0: 0xb0, 15: w.boots}, make(chan struct{})
		r := placement.RegisterNode{Node: id, Store: m.store, Boot: m.boot, Zone: zone, API: "a", Peer: "p", LeaseOver: true, ReplaceStore: true}
		w.mu.Unlock()
		w.must(r)
	}
	w.ring()
}

// kill ends nodes; their leases are over at once.
func (w *world) kill(ids ...cluster.NodeID) {
	w.mu.Lock()
	for _, id := range ids {
		w.nodes[id].alive = false
		close(w.nodes[id].died)
	}
	w.mu.Unlock()
	w.ring()
}

// hush has a node answer nobody, or again.
func (w *world) hush(id cluster.NodeID, quiet bool) {
	w.mu.Lock()
	w.nodes[id].quiet = quiet
	w.mu.Unlock()
	w.ring()
}

// replace gives a dead node an empty disk and boots it.
func (w *world) replace(zone string, id cluster.NodeID) {
	w.mu.Lock()
	w.boots++
	w.nodes[id].store = cluster.StoreID{0: 0x51, 15: w.boots}
	w.mu.Unlock()
	w.start(zone, id)
}

// ring tells that other nodes are dead now.
func (w *world) ring() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) Dead() (dead []cluster.NodeID, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, m := range w.nodes {
		if !m.alive {
			dead = append(dead, id)
		}
	}
	return dead, w.changed
}

func (w *world) Gone() (gone []cluster.NodeID, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, m := range w.nodes {
		if !m.alive || m.quiet {
			gone = append(gone, id)
		}
	}
	return gone, w.changed
}

func (w *world) Alive(id cluster.NodeID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.nodes[id]
	return m != nil && m.alive
}

// propose is the way into the log for the steward of a term.
func (w *world) propose(ctx context.Context, term uint64, cmds ...placement.Command) ([]placement.Result, error) {
	if err := wait(ctx, time.Millisecond); err != nil {
		return nil, err
	}
	w.mu.Lock()
	deposed, lose := term != w.term, w.lose
	w.mu.Unlock()
	if deposed {
		return nil, errors.New("another node leads")
	}
	if lose != nil {
		if err := lose(); err != nil {
			return nil, err
		}
	}
	if len(cmds) > placement.MaxBatch {
		w.t.Errorf("%d commands in one entry", len(cmds))
	}
	took := false
	for _, c := range cmds {
		if a, ok := c.(placement.Acquire); ok {
			took = true
			w.checkTakeover(a)
		}
	}
	res := w.apply(cmds...)
	if _, ok := cmds[0].(placement.SetNode); ok {
		_ = wait(ctx, time.Millisecond) // others see it before who proposed it
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if took {
		w.entries++
	}
	for i, c := range cmds {
		if _, ok := c.(placement.Acquire); ok && res[i].Outcome == placement.Done {
			w.takes++
		}
	}
	return res, nil
}

// checkTakeover checks that an epoch the steward issues is for a facet nobody
// serves, goes to a living member, and finds a majority. A command that will be
// refused for its epoch is nothing to check.
func (w *world) checkTakeover(a placement.Acquire) {
	f, ok := w.table.ByIncarnation(a.Incarnation)
	if !ok || f.Epoch != a.Expected {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.nodes[f.Owner.Node]; m != nil && m.alive && !m.quiet && m.boot == f.Owner.Boot && !(pending(&f) && !w.quorum(f.Next)) {
		w.t.Errorf("%v was taken from %s, which lives", a.Incarnation, f.Owner.Node)
	}
	set := f.Active
	switch {
	case !set.IsZero() && !a.Set.IsZero():
		w.t.Errorf("%v: takeover with a set", a.Incarnation)
	case set.IsZero() && !a.Set.IsZero():
		set = a.Set
	case set.IsZero():
		set = f.Next
	}
	// A node may have died since the steward looked, not much earlier.
	if !set.Has(a.Owner.Node) {
		w.t.Errorf("%v was given to %s, no member of %v", a.Incarnation, a.Owner.Node, set)
	}
}

// quorum reports whether a majority of a set lives with its stores. w.mu is held.
func (w *world) quorum(s placement.Set) bool {
	n := 0
	for _, m := range s.Members() {
		if x := w.nodes[m.Node]; x != nil && x.alive && x.store == m.Store {
			n++
		}
	}
	return n > s.Len()/2
}

// desk gives the orders of one steward, and checks that it never asks for two things
// about a facet at a time.
type desk struct {
	w     *world
	about map[facet.Incarnation]bool // guarded by w.mu
}

func (d *desk) Order(ctx context.Context, to cluster.NodeID, o Order) error {
	d.w.mu.Lock()
	if d.about[o.Incarnation] {
		d.w.t.Errorf("two orders about %v at a time", o.Incarnation)
	}
	d.about[o.Incarnation] = true
	d.w.mu.Unlock()
	defer func() {
		d.w.mu.Lock()
		delete(d.about, o.Incarnation)
		d.w.mu.Unlock()
	}()
	return d.w.Order(ctx, to, o)
}

// Order is what an owner does when it is asked: take the facet back after a
// restart, open it, fill new members, hand it over. It needs the majorities an
// owner needs.
func (w *world) Order(ctx context.Context, to cluster.NodeID, o Order) error {
	w.mu.Lock()
	w.asked++
	w.atOnce = max(w.atOnce, w.asked)
	refuse := w.refuse
	m := w.nodes[to]
	var died chan struct{}
	if m != nil {
		died = m.died
	}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.asked--
		w.mu.Unlock()
	}()
	if m == nil {
		return errors.New("no such node")
	}
	select {
	case <-died:
		_ = wait(ctx, 500*time.Millisecond)
		return errors.New("connection refused")
	case <-time.After(5 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	if refuse != nil {
		if err := refuse(to, o); err != nil {
			return err
		}
	}
	f, ok := w.table.ByIncarnation(o.Incarnation)
	if !ok || f.Owner.Node != to {
		return errors.New("not the owner")
	}
	w.mu.Lock()
	self := placement.Owner{Node: to, Boot: m.boot}
	w.mu.Unlock()
	if f.Epoch != o.Epoch {
		return errors.New("another epoch")
	}
	if f.Owner != self {
		r := w.apply(placement.Acquire{Incarnation: f.Incarnation, Owner: self, Expected: f.Epoch})[0]
		if r.Err() != nil {
			return r.Err()
		}
		f = r.Facet
	}
	if f.State != placement.Active {
		w.mu.Lock()
		ok := (f.Active.IsZero() || w.quorum(f.Active)) && w.quorum(f.Next)
		w.mu.Unlock()
		if !ok {
			_ = wait(ctx, time.Second)
			return errors.New("no majority")
		}
		r := w.apply(placement.Activate{Incarnation: f.Incarnation, Epoch: f.Epoch, Boot: self.Boot})[0]
		if r.Err() != nil {
			return r.Err()
		}
		f = r.Facet
	}
	if o.Kind == Wake {
		return nil
	}
	set := o.Set
	if set.IsZero() {
		set = f.Next
	}
	w.mu.Lock()
	ok = w.quorum(f.Active) && w.quorum(set)
	heir := w.nodes[o.Owner]
	for _, x := range set.Members() {
		if !f.Active.Has(x.Node) || slices.Index(f.Active.Members(), x) < 0 {
			w.copies++
			ok = ok && w.nodes[x.Node].alive
		}
	}
	w.mu.Unlock()
	if !ok {
		return errors.New("cannot fill")
	}
	if set.Len()%2 == 0 {
		w.t.Errorf("%v is to move to %v", o.Incarnation, set)
	}
	return w.apply(placement.Acquire{Incarnation: f.Incarnation, Expected: f.Epoch, Released: self.Boot, Set: o.Set,
		Owner: placement.Owner{Node: o.Owner, Boot: heir.boot}})[0].Err()
}

func (w *world) finish(ctx context.Context, f placement.Facet) error {
	if err := wait(ctx, 20*time.Millisecond); err != nil {
		return err
	}
	w.mu.Lock()
	w.finishes[f.Incarnation]++
	n := w.finishes[f.Incarnation]
	w.mu.Unlock()
	if n == 1 {
		return errors.New("not yet")
	}
	if live(&f) { // the fence
		r := w.apply(placement.Delete{Incarnation: f.Incarnation, Expected: f.Epoch})[0]
		if r.Err() != nil {
			return r.Err()
		}
		f = r.Facet
	}
	return w.apply(placement.Tomb{Incarnation: f.Incarnation, Epoch: f.Epoch})[0].Err()
}

func (w *world) remove(ctx context.Context, node cluster.NodeID) error {
	if r := w.apply(placement.RemoveNode{Node: node})[0]; r.Err() != nil {
		return r.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removed = append(w.removed, node)
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// steward makes the steward of a node; it is closed when the test ends.
func (w *world) steward(change func(*Config)) *Steward {
	w.t.Helper()
	cfg := Config{Table: w.table, Propose: w.propose, Lives: w, Orders: &desk{w: w, about: map[facet.Incarnation]bool{}}, Finish: w.finish, RemoveMember: w.remove}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.Close() })
	return s
}

// create makes n active facets, owned in turn by the nodes given, each in a set of
// the given size that follows its owner.
func (w *world) create(from, n, size int, nodes ...cluster.NodeID) {
	w.t.Helper()
	for i := range n {
		var list []placement.Member
		for k := range size {
			id := nodes[(i+k)%len(nodes)]
			list = append(list, placement.Member{Node: id, Store: w.nodes[id].store})
		}
		set, err := placement.NewSet(list...)
		if err != nil {
			w.t.Fatal(err)
		}
		owner := placement.Owner{Node: nodes[i%len(nodes)], Boot: w.nodes[nodes[i%len(nodes)]].boot}
		id := facetID(from + i)
		w.must(placement.Create{Name: facet.Name{Tenant: "acme", Facet: fmt.Sprintf("f%d", from+i)}, Incarnation: id, Owner: owner, Set: set},
			placement.Activate{Incarnation: id, Epoch: 1, Boot: owner.Boot})
	}
}

func (w *world) owned() map[cluster.NodeID]int {
	n := map[cluster.NodeID]int{}
	for f := range w.table.Facets() {
		n[f.Owner.Node]++
	}
	return n
}

func (w *world) held() map[cluster.NodeID]int {
	n := map[cluster.NodeID]int{}
	for f := range w.table.Facets() {
		for _, m := range base(&f).Members() {
			n[m.Node]++
		}
	}
	return n
}

// eventually waits until what is asked for is so.
func (w *world) eventually(what string, within time.Duration, ok func() bool, tell ...func()) {
	w.t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			for _, f := range tell {
				f()
			}
			w.t.Fatalf("after %v still not: %s; owned %v, held %v", within, what, w.owned(), w.held())
		}
	}
}

// ends waits until an operation has ended.
func (w *world) ends(s *Steward, id string, within time.Duration) Operation {
	w.t.Helper()
	var o Operation
	w.eventually("operation "+id+" ends", within, func() bool {
		i := slices.IndexFunc(s.List(), func(o Operation) bool { return o.ID == id })
		if i < 0 {
			return false
		}
		o = s.List()[i]
		return o.Status != Running
	})
	return o
}

func ids(from, to int) (out []cluster.NodeID) {
	for i := from; i <= to; i++ {
		out = append(out, nodeID(i))
	}
	return out
}

func text(n map[cluster.NodeID]int) string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(n)) {
		fmt.Fprintf(&b, " %s:%d", id, n[id])
	}
	return b.String()
}
