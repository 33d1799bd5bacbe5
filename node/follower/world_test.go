package follower

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/placement"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func nodeID(n byte) cluster.NodeID   { return cluster.NodeID(fmt.Sprintf("n%d", n)) }
func storeID(n byte) cluster.StoreID { return cluster.StoreID{n, 15: 0x5} }
func bootID(n byte) cluster.BootID   { return cluster.BootID{n, 15: 0xb} }

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

// world is the manager of node n2 with its store and table. Owners on node n1 write
// into the copies here.
type world struct {
	t     testing.TB
	table *placement.Table
	index uint64
	store *replica.Store
	m     *Manager

	mu     sync.Mutex
	onTell func(facet.Incarnation) // what the owner does when it is asked
	asked  int
	handed []*service.Call // left to the owner, not answered yet
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, table: placement.NewTable()}
	for n := byte(1); n <= 4; n++ {
		w.apply(placement.RegisterNode{Node: nodeID(n), Store: storeID(n), Boot: bootID(n), Machine: cluster.MachineID{n}, API: "a:1", Peer: "a:2"})
	}
	var err error
	w.store, _, err = replica.Open(replica.Options{
		FS: disk.NewMem(), StoreID: storeID(2), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Log:   commitlog.Options{SegmentBytes: 4 << 20, LowWaterBytes: -1, ReserveBytes: 64 << 10},
		Fatal: func(err error) { t.Error("fatal:", err) },
	})
	check(t, err)
	w.m, err = New(Options{Store: w.store, Table: w.table, Node: "n2", StoreID: storeID(2), Owner: w.owner, Tell: w.tell})
	check(t, err)
	return w
}

func (w *world) close() {
	check(w.t, w.m.Close())
	check(w.t, w.m.Close())
	check(w.t, w.store.Close())
}

func (w *world) apply(c placement.Command) {
	w.t.Helper()
	w.index++
	res, err := w.table.ApplyCommands(w.index, c)
	check(w.t, err)
	check(w.t, res[0].Err())
}

// owner keeps what is left to it.
func (w *world) owner(c *service.Call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handed = append(w.handed, c)
	c.Err = facet.ErrNotOwner
	c.Done(c)
}

func (w *world) tell(_ context.Context, owner cluster.NodeID, id facet.Incarnation, epoch facet.Epoch) error {
	w.mu.Lock()
	w.asked++
	f := w.onTell
	w.mu.Unlock()
	if owner != "n1" || epoch != 1 {
		w.t.Errorf("%v is asked, of epoch %v", owner, epoch)
	}
	if f != nil {
		f(id)
	}
	return nil
}

func (w *world) told(f func(facet.Incarnation)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.onTell = f
}

func (w *world) asks() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked
}

// source is the owner of one facet, on n1.
type source struct {
	w     *world
	name  facet.Name
	id    facet.Incarnation
	r     replica.Replica
	pages *pages.Store
	db    *engine.DB
}

type noAck struct{}

func (noAck) Acked(facet.Incarnation, facet.Epoch, facet.Seq) {}

func (w *world) found(facetName string) *source {
	w.t.Helper()
	s := &source{w: w, name: facet.Name{Tenant: "acme", Facet: facetName}, id: facet.NewIncarnation()}
	w.apply(placement.Create{Name: s.name, Incarnation: s.id, Owner: placement.Owner{Node: "n1", Boot: bootID(1)}, Set: setOf(1, 2, 3), Active: true})
	var err error
	s.r, err = w.store.Create(s.id)
	check(w.t, err)
	s.pages = pages.New(pages.Base{}, func() (pages.File, error) { return nil, io.ErrUnexpectedEOF })
	b := s.pages.Barrier(s.id, 1)
	check(w.t, s.append(&b))
	s.db, err = engine.Open(engine.Options{ID: s.id, Epoch: 1, Store: s.pages, Commits: s.append})
	check(w.t, err)
	w.t.Cleanup(func() { s.db.Close() })
	return s
}

func (s *source) append(c *facet.Commit) error {
	for {
		err := s.r.Append(1, replica.Boot(bootID(1)), c, 0, noAck{})
		if err == nil || !errors.Is(err, replica.ErrBusy) {
			return err
		}
		if err := s.w.store.Sync(s.w.t.Context()); err != nil {
			return err
		}
	}
}

func (s *source) exec(sql string, args ...int64) {
	s.w.t.Helper()
	var resp facet.Response
	check(s.w.t, s.db.Run(&facet.Request{Atomic: true, Steps: []facet.Step{stmt(sql, args...)}}, &resp))
}

// tell says that all so far is committed.
func (s *source) tell() {
	s.w.t.Helper()
	check(s.w.t, s.w.store.Sync(s.w.t.Context()))
	check(s.w.t, s.r.Known(1, replica.Boot(bootID(1)), s.pages.Position()))
}

func (s *source) bookmark() facet.Bookmark {
	p := s.pages.Position()
	return facet.Bookmark{Facet: s.id, Epoch: p.Epoch, Seq: p.Seq}
}

func stmt(sql string, args ...int64) facet.Step {
	st := facet.Step{SQL: []byte(sql), NArgs: len(args)}
	for _, a := range args {
		st.Args = facet.AppendInt(st.Args, a)
	}
	return st
}

func (s *source) request(sql string) facet.Request {
	return facet.Request{Name: s.name, Read: facet.ReadFollower, Atomic: true, Steps: []facet.Step{stmt(sql)}}
}

func (w *world) submit(req facet.Request) (*service.Call, chan *service.Call) {
	done := make(chan *service.Call, 1)
	c := &service.Call{Request: req, Done: func(c *service.Call) { done <- c }}
	w.m.Submit(c)
	return c, done
}

// ask runs one request to its end.
func (w *world) ask(req facet.Request) (*service.Call, error) {
	c, done := w.submit(req)
	select {
	case <-done:
		return c, c.Err
	case <-time.After(time.Minute):
		w.t.Fatal("a request is never answered")
		return nil, nil
	}
}

// number is the one value of a one-row answer.
func number(t testing.TB, c *service.Call) int64 {
	t.Helper()
	for rest := c.Response.Result; len(rest) > 0; {
		it, next, err := rest.Next()
		check(t, err)
		if it.Kind == facet.ItemRow {
			v, _, err := facet.Values(it.Body).Next()
			check(t, err)
			return v.Int
		}
		rest = next
	}
	t.Fatal("the answer has no row")
	return 0
}

// read reads one number and checks that its bookmark is the position.
func (s *source) read(after facet.Bookmark, sql string) (int64, facet.Bookmark) {
	s.w.t.Helper()
	req := s.request(sql)
	req.After = after
	c, err := s.w.ask(req)
	if err != nil {
		s.w.t.Fatalf("%s: %v", sql, err)
	}
	b, p := c.Response.Bookmark, c.Response.Position
	if b.Facet != s.id || b.Seq != p.Seq || b.Epoch != p.Epoch || !after.IsZero() && !after.Covered(p) {
		s.w.t.Errorf("%s: bookmark %v, position %v, after %v", sql, b, p, after)
	}
	return number(s.w.t, c), b
}
