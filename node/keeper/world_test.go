package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func nodeID(n byte) cluster.NodeID    { return cluster.NodeID(fmt.Sprintf("n%d", n)) }
func storeID(n byte) cluster.StoreID  { return cluster.StoreID{n, 15: 0x5} }
func bootID(n byte) cluster.BootID    { return cluster.BootID{n, 15: 0xb} }
func testID(n byte) facet.Incarnation { return facet.Incarnation{n, 15: 1} }

func ownerOf(n byte) placement.Owner { return placement.Owner{Node: nodeID(n), Boot: bootID(n)} }

func remote(n byte) peer.Remote {
	return peer.Remote{Node: nodeID(n), Boot: bootID(n), Store: storeID(n)}
}

func setOf(nodes ...byte) placement.Set {
	var list []placement.Member
	for _, n := range nodes {
		list = append(list, placement.Member{Node: nodeID(n), Store: storeID(n)})
	}
	s, err := placement.NewSet(list...)
	if err != nil {
		panic(err)
	}
	return s
}

// world is one keeper, on node n2, with its store and its table.
type world struct {
	t     testing.TB
	table *placement.Table
	index uint64
	store *replica.Store
	k     *Keeper
}

// newWorld registers nodes n1 to n4.
func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOn(t, disk.NewMem())
}

func newWorldOn(t testing.TB, fs disk.FS) *world {
	t.Helper()
	w := &world{t: t, table: placement.NewTable()}
	for n := byte(1); n <= 4; n++ {
		w.apply(placement.RegisterNode{Node: nodeID(n), Store: storeID(n), Boot: bootID(n), Machine: cluster.MachineID{n},
			API: "a:1", Peer: "a:2"})
	}
	w.store = openStore(t, fs, storeID(2))
	var err error
	w.k, err = New(Options{Store: w.store, Table: w.table, Node: "n2", StoreID: storeID(2), Logger: quiet()})
	check(t, err)
	return w
}

func openStore(t testing.TB, fs disk.FS, id cluster.StoreID) *replica.Store {
	t.Helper()
	s, _, err := replica.Open(replica.Options{
		FS: fs, StoreID: id, Logger: quiet(),
		Log:   commitlog.Options{SegmentBytes: 64 << 10, LowWaterBytes: -1, ReserveBytes: 16 << 10},
		Fatal: func(err error) { t.Error("fatal:", err) },
	})
	check(t, err)
	return s
}

func (w *world) close() {
	check(w.t, w.k.Close())
	check(w.t, w.store.Close())
}

// apply brings commands into the table; all must be done.
func (w *world) apply(cmds ...placement.Command) {
	w.t.Helper()
	w.index++
	results, err := w.table.ApplyCommands(w.index, cmds...)
	check(w.t, err)
	for i := range results {
		check(w.t, results[i].Err())
	}
}

func nameOf(id facet.Incarnation) facet.Name {
	return facet.Name{Tenant: "acme", Facet: fmt.Sprintf("f%d", id[0])}
}

// create makes a facet owned by n1 and kept by the nodes given.
func (w *world) create(id facet.Incarnation, nodes ...byte) {
	w.t.Helper()
	w.apply(placement.Create{Name: nameOf(id), Incarnation: id, Owner: ownerOf(1), Set: setOf(nodes...)})
}

func (w *world) activate(id facet.Incarnation, epoch facet.Epoch, n byte) {
	w.t.Helper()
	w.apply(placement.Activate{Incarnation: id, Epoch: epoch, Boot: bootID(n)})
}

// sync waits until everything is durable and acknowledged.
func (w *world) sync() {
	w.t.Helper()
	check(w.t, w.store.Sync(w.t.Context()))
}

// answer is what a keeper said to one PREPARE.
type answer struct {
	promise replica.Promise
	err     error
}

// prepare sends PREPARE and gives where the answer will be.
func (w *world) prepare(n byte, id facet.Incarnation, epoch facet.Epoch) chan answer {
	c := make(chan answer, 2)
	w.k.prepare(remote(n), peer.Session{Incarnation: id, Epoch: epoch}, func(p replica.Promise, err error) { c <- answer{p, err} })
	return c
}

// acks remembers what was acknowledged last.
type acks struct {
	mu  sync.Mutex
	seq map[facet.Epoch]facet.Seq
}

func (a *acks) Acked(_ facet.Incarnation, epoch facet.Epoch, seq facet.Seq) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seq == nil {
		a.seq = make(map[facet.Epoch]facet.Seq)
	}
	a.seq[epoch] = seq
}

func (a *acks) last(epoch facet.Epoch) facet.Seq {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seq[epoch]
}

// session is the log of a facet as its owner, somewhere else, makes it.
type session struct {
	w     *world
	n     byte
	id    facet.Incarnation
	epoch facet.Epoch
	pages *pages.Store
	log   []facet.Commit
	salt  byte // what this session writes
	acks  acks
}

func newSession(w *world, n byte, id facet.Incarnation, epoch facet.Epoch) *session {
	return &session{w: w, n: n, id: id, epoch: epoch,
		pages: pages.New(pages.Base{}, func() (pages.File, error) { return nil, errors.New("no file") })}
}

// barrier makes the session's first entry.
func (s *session) barrier() *facet.Commit {
	c := s.pages.Barrier(s.id, s.epoch)
	return s.keep(c)
}

// commit makes one entry.
func (s *session) commit() *facet.Commit {
	s.w.t.Helper()
	page := bytes.Repeat([]byte{s.salt + byte(len(s.log)) + 1}, pages.Size)
	check(s.w.t, s.pages.WriteAt(page, 0))
	c, ok, err := s.pages.Seal(s.id, s.epoch)
	check(s.w.t, err)
	if !ok {
		s.w.t.Fatal("the transaction changed nothing")
	}
	return s.keep(c)
}

func (s *session) keep(c facet.Commit) *facet.Commit {
	c.Pages = bytes.Clone(c.Pages)
	s.log = append(s.log, c)
	return &s.log[len(s.log)-1]
}

// send appends one entry at the keeper.
func (s *session) send(c *facet.Commit, commit facet.Seq) error {
	return s.w.k.append(remote(s.n), &peer.AppendItem{Epoch: s.epoch, Commit: commit, Entry: c}, &s.acks)
}

// hint says that everything is committed.
func (s *session) hint() {
	s.w.k.known(remote(s.n), &peer.KnownItem{Incarnation: s.id, Epoch: s.epoch, At: s.pages.Position()})
}

// snapshot is the whole database.
func (s *session) snapshot() *bytes.Reader {
	s.w.t.Helper()
	sn, err := s.pages.Snapshot()
	check(s.w.t, err)
	defer sn.Close()
	var b bytes.Buffer
	_, err = sn.WriteTo(&b)
	check(s.w.t, err)
	return bytes.NewReader(b.Bytes())
}

func (s *session) offer() peer.SnapshotOffer {
	return peer.SnapshotOffer{Incarnation: s.id, Epoch: s.epoch, Position: s.pages.Position(), Pages: s.log[len(s.log)-1].DBPages}
}
