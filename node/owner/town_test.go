package owner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus/memnet"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/node/keeper"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/placement"
)

// town is several managers with all that carries them: disks and a network in
// memory, real stores, keepers and transports, and a placement log that decides at
// once. It stands in a synctest bubble.
type town struct {
	t     testing.TB
	net   *memnet.Network
	names []string
	tune  func(*Options)
	clog  *slog.Logger

	mu     sync.Mutex
	log    []placement.Command
	of     map[cluster.NodeID]*resident
	gone   map[cluster.BootID]time.Time // when process lives that are over had their last lease
	leases bool                         // else every read asks a majority
}

const townTTL = 1500 * time.Millisecond

// resident is one node in one process life.
type resident struct {
	town   *town
	node   cluster.NodeID
	boot   cluster.BootID
	mem    *disk.Mem
	table  *placement.Table
	store  *replica.Store
	keeper *keeper.Keeper
	peers  *peer.Transport
	m      *Manager
	ears   ears
	killed atomic.Bool

	// Guarded by town.mu.
	applied int
	deaf    bool                                               // hears nothing of the placement log and is granted nothing
	until   time.Time                                          // end of the lease of a deaf one
	hook    func()                                             // called by the next Lookup, once
	binding func(ctx context.Context, bind func() error) error // stands before every BIND
	unsure  bool                                               // nothing can be confirmed
}

// ears passes on what peers answer, once there is a manager.
type ears struct {
	mu sync.Mutex
	m  *Manager
}

func (e *ears) get() *Manager {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.m
}

func (e *ears) Ready(to peer.Remote) {
	if m := e.get(); m != nil {
		m.Ready(to)
	}
}

func (e *ears) Acked(from peer.Remote, list []peer.Ack) {
	if m := e.get(); m != nil {
		m.Acked(from, list)
	}
}

func (e *ears) Lost(to peer.Remote, why error) {
	if m := e.get(); m != nil {
		m.Lost(to, why)
	}
}

// keptByThree runs f in a bubble with a town of three, of which the first owns n, a facet
// with an empty table t(v).
func keptByThree(t *testing.T, f func(t *testing.T, w *town, n facet.Name, id facet.Incarnation, r *resident)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		n := name("a")
		id := w.found(n, 1, 2, 3)
		r := w.node(1)
		r.must(n, "CREATE TABLE t (v)")
		f(t, w, n, id, r)
	})
}

func newTown(t testing.TB, nodes int) *town {
	w := &town{t: t, net: memnet.New(1), of: map[cluster.NodeID]*resident{}, gone: map[cluster.BootID]time.Time{}, leases: true}
	w.net.Latency(time.Millisecond, 0, 0)
	w.clog = slog.New(slog.DiscardHandler)
	if os.Getenv("TOWN_LOG") != "" {
		w.clog = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for i := range nodes {
		w.names = append(w.names, string(townNode(i+1)))
	}
	for i := range nodes {
		w.start(i+1, disk.NewMem(), 1)
	}
	return w
}

func townNode(n int) cluster.NodeID { return cluster.NodeID(fmt.Sprintf("n%d", n)) }

func townStore(n int) cluster.StoreID { return cluster.StoreID{byte(n), 15: 5} }

// start begins a process life.
func (w *town) start(n int, mem *disk.Mem, life byte) *resident {
	w.t.Helper()
	r := &resident{town: w, node: townNode(n), boot: cluster.BootID{byte(n), life, 15: 0xb}, mem: mem, table: placement.NewTable()}
	var err error
	r.store, _, err = replica.Open(replica.Options{
		FS: mem, Dir: "data", StoreID: townStore(n), Logger: w.clog,
		Log: commitlog.Options{SegmentBytes: 1 << 20, LowWaterBytes: -1, ReserveBytes: 64 << 10},
		Fatal: func(err error) {
			if !r.killed.Load() {
				w.t.Error("fatal:", err)
			}
		},
	})
	w.check(err)
	r.keeper, err = keeper.New(keeper.Options{Store: r.store, Table: r.table, Node: r.node, StoreID: townStore(n), Logger: w.clog})
	w.check(err)
	host := w.net.Host(string(r.node))
	r.peers, err = peer.Listen(peer.Config{
		Node: r.node, Boot: r.boot, Store: townStore(n), Log: w.clog,
		Cluster:   func() cluster.ID { return cluster.ID{1} },
		AddressOf: func(id cluster.NodeID) (string, bool) { return string(id), true },
		Listener:  host.Listen(), Dial: host.Dial, Handler: r.keeper, Inspector: r.keeper, Snapshots: r.keeper, Acks: &r.ears,
	})
	w.check(err)
	opts := Options{
		Self:      Member{Node: r.node, Store: townStore(n), Boot: r.boot},
		Placement: r, Store: r.store, Peers: r.peers, Lease: r, Led: r.led, Logger: w.clog,
		Admit: func() error { return nil },
	}
	if w.tune != nil {
		w.tune(&opts)
	}
	r.m, err = New(opts)
	w.check(err)
	r.ears.mu.Lock()
	r.ears.m = r.m
	r.ears.mu.Unlock()
	w.mu.Lock()
	w.of[r.node] = r
	w.catchUp(r)
	w.mu.Unlock()
	_, err = r.propose(placement.RegisterNode{Node: r.node, Store: townStore(n), Boot: r.boot, Machine: cluster.MachineID{byte(n)}, API: string(r.node) + ":1", Peer: "x:1"})
	w.check(err)
	return r
}

func (w *town) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *town) node(n int) *resident {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.of[townNode(n)]
}

// stop ends all.
func (w *town) stop() {
	var g sync.WaitGroup
	w.net.HealAll()
	for n := range w.names {
		if r := w.node(n + 1); r != nil {
			g.Go(func() { r.stop(20 * time.Second) })
		}
	}
	g.Wait()
}

// stop ends a process life: in an orderly way if it has the time.
func (r *resident) stop(within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := r.m.Close(ctx); err != nil && within > 0 {
		r.town.t.Errorf("close manager of %s: %v", r.node, err)
	}
	r.peers.Close()
	r.keeper.Close()
	r.store.Close()
	r.town.mu.Lock()
	defer r.town.mu.Unlock()
	delete(r.town.of, r.node)
	at := time.Now()
	if r.deaf {
		at = r.until.Add(-townTTL)
	}
	r.town.gone[r.boot] = at
}

// kill ends a process life as a crash does. The disk keeps what was synced.
func (r *resident) kill() *disk.Mem {
	r.killed.Store(true)
	r.town.net.Kill(string(r.node))
	mem := r.mem.Restart()
	r.stop(0)
	return mem
}

// deafen keeps the placement log and leases from a node.
func (r *resident) deafen() {
	r.town.mu.Lock()
	defer r.town.mu.Unlock()
	r.deaf, r.until = true, time.Now().Add(townTTL)
}

func (r *resident) hear() {
	r.town.mu.Lock()
	r.deaf = false
	r.town.catchUp(r)
	r.town.mu.Unlock()
	r.m.Changed(nil, true)
}

// catchUp applies what a resident has not applied. mu is held.
func (w *town) catchUp(r *resident) (last placement.Result) {
	for ; !r.deaf && r.applied < len(w.log); r.applied++ {
		res, err := r.table.ApplyCommands(uint64(r.applied+1), w.log[r.applied])
		w.check(err)
		last = res[0]
	}
	return last
}

// propose brings a command into the log.
func (r *resident) propose(c placement.Command) (placement.Result, error) {
	w := r.town
	w.mu.Lock()
	if r.deaf {
		w.mu.Unlock()
		return placement.Result{}, facet.Errorf(facet.CodeUnavailable, "the placement table cannot be reached")
	}
	w.log = append(w.log, c)
	var res placement.Result
	var told []*resident
	for _, x := range w.of {
		if got := w.catchUp(x); x == r {
			res = got
		}
		if !x.deaf {
			told = append(told, x)
		}
	}
	w.mu.Unlock()
	for _, x := range told {
		x.m.Changed(nil, true)
	}
	if err := res.Err(); err != nil {
		return res, facet.Errorf(facet.CodeUnavailable, "refused: %v", err)
	}
	return res, nil
}

// A resident as its own lease.

func (r *resident) Wake() {}

func (r *resident) Valid() bool {
	r.town.mu.Lock()
	defer r.town.mu.Unlock()
	return r.town.leases && (!r.deaf || time.Now().Before(r.until))
}

// led reports whether the node knows a placement leader.
func (r *resident) led() bool {
	r.town.mu.Lock()
	defer r.town.mu.Unlock()
	return !r.deaf
}

// overAt is when a process life serves nothing of a facet that was taken from it.
func (w *town) overAt(boot cluster.BootID) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.gone[boot]; ok {
		return at.Add(townTTL)
	}
	for _, r := range w.of {
		if r.boot == boot && r.deaf {
			return r.until
		}
	}
	return time.Time{} // told already
}

// A resident as its own placement.

func (r *resident) owner() placement.Owner { return placement.Owner{Node: r.node, Boot: r.boot} }

func (r *resident) members(s placement.Set) (out []Member) {
	for _, m := range s.Members() {
		x := Member{Node: m.Node, Store: m.Store}
		if n, ok := r.table.Node(m.Node); ok && n.Store == m.Store {
			x.Boot = n.Boot
		}
		out = append(out, x)
	}
	return out
}

func (r *resident) row(f placement.Facet) Row {
	row := Row{
		Name: f.Name, Incarnation: f.Incarnation, Epoch: f.Epoch, Owner: f.Owner.Node, OwnerURL: "http://" + string(f.Owner.Node), Boot: f.Owner.Boot,
		Mine: f.Owner == r.owner(), Active: f.State == placement.Active && f.ActiveEpoch == f.Epoch,
		New: f.ActiveEpoch <= 1, First: f.Epoch == 1,
		ActiveSet: r.members(f.Active), NextSet: r.members(f.Next), ActiveEpoch: f.ActiveEpoch,
		Lineage: f.Lineage,
	}
	row.Local = row.Owner == r.node
	return row
}

func townGone(f placement.Facet) bool {
	return f.State == placement.Deleting || f.State == placement.Retired
}

func (r *resident) Lookup(n facet.Name) (Row, bool) {
	r.town.mu.Lock()
	hook := r.hook
	r.hook = nil
	r.town.mu.Unlock()
	if hook != nil {
		hook()
	}
	f, ok := r.table.Lookup(n)
	if !ok || townGone(f) {
		return Row{}, false
	}
	return r.row(f), true
}

func (r *resident) ByIncarnation(id facet.Incarnation) (Row, bool) {
	f, ok := r.table.ByIncarnation(id)
	if !ok {
		return Row{}, false
	}
	return r.row(f), true
}

func (r *resident) Confirm(_ context.Context, n facet.Name) (Row, bool, error) {
	r.town.mu.Lock()
	unsure := r.unsure
	r.town.mu.Unlock()
	if unsure {
		return Row{}, false, facet.Errorf(facet.CodeUnavailable, "the placement table cannot be reached")
	}
	if _, err := r.propose(placement.Renew{}); err != nil {
		return Row{}, false, err
	}
	row, ok := r.Lookup(n)
	return row, ok, nil
}

func (w *town) set(nodes ...int) placement.Set {
	var list []placement.Member
	for _, n := range nodes {
		list = append(list, placement.Member{Node: townNode(n), Store: townStore(n)})
	}
	s, err := placement.NewSet(list...)
	w.check(err)
	return s
}

// successors is the set of what is made without a name: the first three nodes there are.
func (w *town) successors() placement.Set {
	var nodes []int
	for n := range w.names {
		if len(nodes) < 3 && w.node(n+1) != nil {
			nodes = append(nodes, n+1)
		}
	}
	return w.set(nodes...)
}

// found makes a facet that node first owns.
func (w *town) found(n facet.Name, nodes ...int) facet.Incarnation {
	w.t.Helper()
	id := facet.NewIncarnation()
	r := w.node(nodes[0])
	_, err := r.propose(placement.Create{Name: n, Incarnation: id, Owner: r.owner(), Set: w.set(nodes...), Active: true})
	w.check(err)
	return id
}

func (r *resident) Create(_ context.Context, n facet.Name) (Row, error) {
	return Row{}, errors.New("facets are founded")
}

func (r *resident) CreateDetached(_ context.Context, n facet.Name, of facet.Lineage) (Row, error) {
	id := facet.NewIncarnation()
	res, err := r.propose(placement.Create{Name: n, Incarnation: id, Owner: r.owner(), Set: r.town.successors(), Detached: true, Lineage: of})
	if err != nil {
		return Row{}, err
	}
	return r.row(res.Facet), nil
}

func (r *resident) Acquire(ctx context.Context, row Row, t Transfer) (Row, error) {
	c := placement.Acquire{Incarnation: row.Incarnation, Owner: r.owner(), Expected: row.Epoch}
	if t.Owner != "" && t.Owner != r.node {
		n, ok := r.table.Node(t.Owner)
		if !ok {
			return Row{}, errors.New("no such node")
		}
		c.Owner = placement.Owner{Node: n.ID, Boot: n.Boot}
	}
	if t.Released {
		c.Released = r.boot
	}
	var list []placement.Member
	for _, m := range t.Set {
		list = append(list, placement.Member{Node: m.Node, Store: m.Store})
	}
	var err error
	if c.Set, err = placement.NewSet(list...); err != nil {
		return Row{}, err
	}
	if err := ctx.Err(); err != nil {
		return Row{}, err
	}
	res, err := r.propose(c)
	if err != nil {
		return Row{}, err
	}
	return r.row(res.Facet), nil
}

// waitOut waits until the lease of a facet's last holder is over.
func (r *resident) waitOut(ctx context.Context, id facet.Incarnation) error {
	for {
		f, _ := r.table.ByIncarnation(id)
		if f.Holder.IsZero() || f.Holder.Boot == r.boot {
			return nil
		}
		wait := time.Until(r.town.overAt(f.Holder.Boot))
		if wait <= 0 {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *resident) Activate(ctx context.Context, row Row) error {
	if err := r.waitOut(ctx, row.Incarnation); err != nil {
		return err
	}
	_, err := r.propose(placement.Activate{Incarnation: row.Incarnation, Epoch: row.Epoch, Boot: r.boot})
	return err
}

func (r *resident) Bind(ctx context.Context, n facet.Name, old, row Row, unserved bool) error {
	if unserved {
		if err := r.waitOut(ctx, old.Incarnation); err != nil {
			return err
		}
	}
	bind := func() error {
		_, err := r.propose(placement.Bind{Name: n, Old: old.Incarnation, OldEpoch: old.Epoch, New: row.Incarnation, Unserved: unserved})
		return err
	}
	r.town.mu.Lock()
	binding := r.binding
	r.town.mu.Unlock()
	if binding != nil {
		return binding(ctx, bind)
	}
	return bind()
}

func (r *resident) Delete(_ context.Context, row Row) error {
	_, err := r.propose(placement.Delete{Incarnation: row.Incarnation, Expected: row.Epoch})
	return err
}

func (r *resident) Tomb(_ context.Context, id facet.Incarnation) error {
	f, ok := r.table.ByIncarnation(id)
	if !ok {
		return nil
	}
	_, err := r.propose(placement.Tomb{Incarnation: id, Epoch: f.Epoch})
	return err
}

// Requests.

func (r *resident) submit(req facet.Request) (*service.Call, <-chan *service.Call) {
	done := make(chan *service.Call, 1)
	c := &service.Call{Request: req, Done: func(c *service.Call) { done <- c }}
	r.m.Submit(c)
	return c, done
}

// answer waits for one; one that does not come within a minute never comes.
func (r *resident) answer(done <-chan *service.Call) ([][]facet.Value, error) {
	r.town.t.Helper()
	select {
	case c := <-done:
		if c.Err != nil {
			return nil, c.Err
		}
		return rows(r.town.t, c.Response.Result), nil
	case <-time.After(time.Minute):
		r.town.t.Error("a request is never answered")
		return nil, errDied
	}
}

func (r *resident) run(n facet.Name, sql string, args ...any) ([][]facet.Value, error) {
	r.town.t.Helper()
	_, done := r.submit(request(n, stmt(sql, args...)))
	return r.answer(done)
}

func (r *resident) must(n facet.Name, sql string, args ...any) [][]facet.Value {
	r.town.t.Helper()
	out, err := r.run(n, sql, args...)
	if err != nil {
		r.town.t.Fatalf("%s at %s: %v", sql, r.node, err)
	}
	return out
}

// sum is what the facet counts to.
func (r *resident) count(n facet.Name) int64 {
	r.town.t.Helper()
	return r.must(n, "SELECT count(*) FROM t")[0][0].Int
}

// take issues the next epoch, as the steward does.
func (w *town) take(n facet.Name, by, to int) {
	w.t.Helper()
	r := w.node(by)
	row, ok := r.Lookup(n)
	if !ok {
		w.t.Fatal("no such facet")
	}
	_, err := r.propose(placement.Acquire{Incarnation: row.Incarnation, Owner: w.node(to).owner(), Expected: row.Epoch})
	w.check(err)
}

// holds waits until a copy holds everything another one has.
func (w *town) holds(id facet.Incarnation, n, like int, within time.Duration) {
	w.t.Helper()
	end := time.Now().Add(within)
	for {
		have, err := w.node(n).store.Replica(id)
		want, werr := w.node(like).store.Replica(id)
		if err := cmp.Or(err, werr); err == nil && have.Position() == want.Position() {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("copy of n%d does not come to hold what n%d has: %v, %v", n, like, err, werr)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
