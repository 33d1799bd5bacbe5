package owner

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is what outlives a process: a disk, and a placement table that never
// forgets. A life is one process on it.
type world struct {
	mu       sync.Mutex
	mem      *disk.Mem
	rows     map[facet.Name]*Row
	detached map[facet.Incarnation]*Row
	boot     byte
	tune     func(*Options)
	log      *slog.Logger
}

func newWorld() *world {
	return &world{mem: disk.NewMem(), rows: make(map[facet.Name]*Row), detached: make(map[facet.Incarnation]*Row), log: slog.New(slog.DiscardHandler)}
}

type life struct {
	w     *world
	boot  byte
	store *replica.Store
	m     *Manager
	dead  chan struct{} // closed when the disk failed: the process would exit now
	die   sync.Once
}

func (w *world) start(t testing.TB) *life {
	t.Helper()
	w.boot++
	l := &life{w: w, boot: w.boot, dead: make(chan struct{})}
	var err error
	l.store, _, err = replica.Open(replica.Options{
		FS: w.mem, Dir: "data", StoreID: storeID,
		Fatal:  func(error) { l.die.Do(func() { close(l.dead) }) },
		Logger: w.log,
	})
	if err != nil {
		t.Fatal("open replica store:", err)
	}
	opts := Options{
		Self: l.self(), Placement: l, Store: l.store, Logger: w.log,
		Admit: func() error { return nil },
	}
	if w.tune != nil {
		w.tune(&opts)
	}
	if l.m, err = New(opts); err != nil {
		t.Fatal(err)
	}
	return l
}

// stop ends the process in an orderly way.
func (l *life) stop(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := l.m.Close(ctx); err != nil {
		t.Errorf("close manager: %v", err)
	}
	if err := l.store.Close(); err != nil {
		t.Errorf("close store: %v", err)
	}
}

// crash ends the process and leaves the disk as loss says.
func (l *life) crash(rng *rand.Rand, loss disk.Loss) {
	next := l.w.mem.Crash(rng, loss)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = l.m.Close(ctx)
	_ = l.store.Close()
	l.w.mem = next
}

// The life as its own placement.

var storeID = [16]byte{1}

func (l *life) self() Member {
	return Member{Node: "n1", Store: storeID, Boot: cluster.BootID{l.boot}}
}

func (l *life) view(r *Row) Row {
	v := *r
	v.Local, v.Owner = true, "n1"
	v.Mine = r.Boot == l.self().Boot
	v.NextSet = []Member{l.self()}
	v.ActiveSet = nil
	if v.ActiveEpoch != 0 {
		v.ActiveSet = v.NextSet
	}
	v.New, v.Active = v.ActiveEpoch == 0, v.ActiveEpoch == v.Epoch
	v.First = v.New && v.Epoch == 1
	return v
}

func (l *life) Lookup(name facet.Name) (Row, bool) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	r := l.w.rows[name]
	if r == nil {
		return Row{}, false
	}
	return l.view(r), true
}

func (l *life) ByIncarnation(id facet.Incarnation) (Row, bool) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if r := l.find(id); r != nil {
		return l.view(r), true
	}
	return Row{}, false
}

// find finds a row, with a name or not. mu is held.
func (l *life) find(id facet.Incarnation) *Row {
	for _, r := range l.w.rows {
		if r.Incarnation == id {
			return r
		}
	}
	return l.w.detached[id]
}

func (l *life) Confirm(_ context.Context, name facet.Name) (Row, bool, error) {
	row, ok := l.Lookup(name)
	return row, ok, nil
}

func (l *life) fresh(name facet.Name) *Row {
	return &Row{Name: name, Incarnation: facet.NewIncarnation(), Epoch: 1, Boot: l.self().Boot}
}

func (l *life) Create(_ context.Context, name facet.Name) (Row, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	r := l.w.rows[name]
	if r == nil {
		r = l.fresh(name)
		l.w.rows[name] = r
	}
	return l.view(r), nil
}

func (l *life) CreateDetached(_ context.Context, name facet.Name, _ facet.Lineage) (Row, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	r := l.fresh(name)
	l.w.detached[r.Incarnation] = r
	return l.view(r), nil
}

func (l *life) Acquire(_ context.Context, row Row, t Transfer) (Row, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	r := l.find(row.Incarnation)
	if r == nil || r.Epoch != row.Epoch || t.Owner != "" && t.Owner != "n1" {
		return Row{}, facet.Errorf(facet.CodeUnavailable, "another epoch")
	}
	r.Epoch, r.Boot = r.Epoch+1, l.self().Boot
	return l.view(r), nil
}

func (l *life) Activate(_ context.Context, row Row) error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	r := l.find(row.Incarnation)
	if r == nil || r.Epoch != row.Epoch || r.Boot != l.self().Boot {
		return facet.Errorf(facet.CodeUnavailable, "another epoch")
	}
	r.ActiveEpoch = r.Epoch
	return nil
}

func (l *life) Bind(_ context.Context, name facet.Name, old, row Row, _ bool) error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	if r := l.w.rows[name]; r != nil && r.Incarnation != old.Incarnation {
		return facet.Errorf(facet.CodeExists, "changed meanwhile")
	}
	r := l.find(row.Incarnation)
	delete(l.w.detached, row.Incarnation)
	l.w.rows[name] = r
	return nil
}

func (l *life) Delete(_ context.Context, row Row) error {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	for n, r := range l.w.rows {
		if r.Incarnation == row.Incarnation {
			delete(l.w.rows, n)
		}
	}
	return nil
}

func (l *life) Tomb(context.Context, facet.Incarnation) error { return nil }

// Requests.

func name(s string) facet.Name {
	n, err := facet.ParseName("acme/" + s)
	if err != nil {
		panic(err)
	}
	return n
}

func stmt(sql string, args ...any) facet.Step {
	s := facet.Step{SQL: []byte(sql), NArgs: len(args)}
	for _, a := range args {
		switch a := a.(type) {
		case int:
			s.Args = facet.AppendInt(s.Args, int64(a))
		case string:
			s.Args = facet.AppendText(s.Args, a)
		default:
			panic(a)
		}
	}
	return s
}

func request(n facet.Name, steps ...facet.Step) facet.Request {
	return facet.Request{Name: n, Steps: steps}
}

// submit starts a request and returns the call with a channel that gets it back.
func (l *life) submit(req facet.Request) (*service.Call, <-chan *service.Call) {
	done := make(chan *service.Call, 1)
	c := &service.Call{Request: req, Done: func(c *service.Call) { done <- c }}
	l.m.Submit(c)
	return c, done
}

// errDied is what a client of a process that exited sees.
var errDied = facet.Errorf(facet.CodeUnknownOutcome, "the process died")

// run runs a request and waits for its answer or the end of the process.
func (l *life) run(req facet.Request) (*service.Call, error) {
	call, done := l.submit(req)
	select {
	case <-done:
	case <-l.dead:
		return call, errDied
	}
	c, err := call, call.Err
	for r := c.Response.Result; err == nil && len(r) > 0; {
		it, rest, derr := r.Next()
		if derr != nil {
			return c, derr
		}
		if it.Kind == facet.ItemError {
			e, derr := facet.DecodeError(it.Body)
			if derr != nil {
				return c, derr
			}
			err = e
		}
		r = rest
	}
	return c, err
}

func (l *life) must(t testing.TB, n facet.Name, sql string, args ...any) [][]facet.Value {
	t.Helper()
	c, err := l.run(request(n, stmt(sql, args...)))
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return rows(t, c.Response.Result)
}

func rows(t testing.TB, r facet.Result) (out [][]facet.Value) {
	t.Helper()
	for len(r) > 0 {
		it, rest, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if it.Kind == facet.ItemRow {
			vs, err := facet.Values(it.Body).Decode(nil)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, vs)
		}
		r = rest
	}
	return out
}
