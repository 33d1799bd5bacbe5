package lease

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ttl  = quorum.LeaseTTL
	wait = quorum.LeaseTTL + quorum.LeaseMargin
	// slack is what a round and a few entries of the log may take.
	slack = RoundEvery + 20*time.Millisecond
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func nodeID(n byte) cluster.NodeID   { return cluster.NodeID(fmt.Sprintf("n%d", n)) }
func storeID(n byte) cluster.StoreID { return cluster.StoreID{n, 15: 0x5} }
func bootID(n byte) cluster.BootID   { return cluster.BootID{n, 15: 0xb} }
func testID(n int) facet.Incarnation { return facet.Incarnation{byte(n), byte(n >> 8), 15: 1} }
func ownerOf(n byte) placement.Owner { return placement.Owner{Node: nodeID(n), Boot: bootID(n)} }
func nameOf(n int) (name facet.Name) { return facet.Name{Tenant: "acme", Facet: fmt.Sprintf("f%d", n)} }

func register(n byte) placement.RegisterNode {
	return placement.RegisterNode{Node: nodeID(n), Store: storeID(n), Boot: bootID(n), Machine: cluster.MachineID{n},
		API: "a:1", Peer: "a:2"}
}

func set(nodes ...byte) placement.Set {
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

// bubbleClock is a clock that runs with the time of a synctest bubble.
func bubbleClock() Clock {
	start := time.Now().Add(-time.Hour)
	return func() quorum.Instant { return quorum.Instant(time.Since(start)) }
}

// counted is a Log that counts what is proposed through it, and holds it back while a
// gate is there.
type counted struct {
	Log
	entries, commands atomic.Int64
	gate              atomic.Pointer[chan struct{}]
}

// hold keeps entries back until the function it returns is called.
func (c *counted) hold() (open func()) {
	gate := make(chan struct{})
	c.gate.Store(&gate)
	return func() {
		c.gate.Store(nil)
		close(gate)
	}
}

func (c *counted) ProposeAs(ctx context.Context, term uint64, commands ...[]byte) ([][]byte, error) {
	c.entries.Add(1)
	c.commands.Add(int64(len(commands)))
	if gate := c.gate.Load(); gate != nil {
		<-*gate
	}
	return c.Log.ProposeAs(ctx, term, commands...)
}

// world is a placement log of one voter, n1, and the Grants there. Other nodes are
// registered and hold leases, but have no table of their own.
type world struct {
	t      testing.TB
	mem    *consensus.Memory
	clock  Clock
	table  *placement.Table
	raft   *consensus.Node
	log    *counted
	grants *Grants
	alone  bool

	mu      sync.Mutex
	process *Grants // guarded by mu; grants as the holders find it
}

// reach is what a holder that asks n1 finds.
func (w *world) reach() *Grants {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.process
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldBy(t, bubbleClock())
}

// newWorldBy is a world whose leader has the given clock.
func newWorldBy(t testing.TB, clock Clock) *world {
	t.Helper()
	w := &world{t: t, mem: consensus.NewMemory(), clock: clock}
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	w.table = placement.NewTable()
	var err error
	w.raft, err = consensus.Open(consensus.Config{ID: "n1", Memory: w.mem, Bootstrap: true, StateMachine: w.table,
		Fatal: func(err error) { w.t.Error("fatal:", err) }})
	check(w.t, err)
	check(w.t, w.raft.WaitLeader(w.t.Context()))
	w.log = &counted{Log: w.raft}
	w.grants, err = NewGrants(GrantsOptions{Log: w.log, Table: w.table, Node: "n1", Store: storeID(1), Clock: w.clock,
		Logger: quiet(), Alone: func() bool { return w.alone }})
	check(w.t, err)
	w.mu.Lock()
	w.process = w.grants
	w.mu.Unlock()
	synctest.Wait()
}

// stop ends the process of n1; the log stays.
func (w *world) stop() {
	w.t.Helper()
	check(w.t, w.grants.Close())
	check(w.t, w.raft.Close())
}

// do brings a command into the log as any node may.
func (w *world) do(c placement.Command) placement.Result {
	w.t.Helper()
	p := placement.Proposer{Propose: w.raft.Propose}
	r, err := p.Do(w.t.Context(), c)
	if err != nil {
		w.t.Fatalf("%T: %v", c, err)
	}
	return r
}

// settle gives the term time to know everything about leases of before it.
func (w *world) settle() { time.Sleep(wait + slack) }

// judgement is what became of a judged command.
type judgement struct {
	result placement.Result
	err    error
	after  time.Duration
}

// judge has a command judged, and gives where the answer will be.
func (w *world) judge(ctx context.Context, c placement.Command) chan judgement {
	begin, done := time.Now(), make(chan judgement, 1)
	w.grants.JudgeFunc(ctx, placement.AppendCommand(nil, c), func(b []byte, err error) {
		j := judgement{err: err, after: time.Since(begin)}
		if err == nil {
			if j.result, j.err = placement.DecodeResult(b); j.err == nil {
				j.err = j.result.Err()
			}
		}
		done <- j
	})
	return done
}

func (w *world) activate(id facet.Incarnation, e facet.Epoch, n byte) chan judgement {
	return w.judge(w.t.Context(), placement.Activate{Incarnation: id, Epoch: e, Boot: bootID(n)})
}

// serve makes a facet that n serves.
func (w *world) serve(i int, n byte) facet.Incarnation {
	w.t.Helper()
	id := testID(i)
	w.do(placement.Create{Name: nameOf(i), Incarnation: id, Owner: ownerOf(n), Set: set(1, 2)})
	check(w.t, (<-w.activate(id, 1, n)).err)
	return id
}

// take gives a facet to n1 in the epoch after e.
func (w *world) take(id facet.Incarnation, e facet.Epoch) placement.Result {
	w.t.Helper()
	return w.do(placement.Acquire{Incarnation: id, Owner: ownerOf(1), Expected: e})
}

// holder holds the lease of node n. Told is what its sessions were told; the table
// if zero.
type holder struct {
	*Holder
	told atomic.Uint64

	mu   sync.Mutex
	sent []time.Duration // stamps
}

// stamps are those of the renewals sent so far.
func (h *holder) stamps() []time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.sent)
}

func (w *world) hold(n byte, tweak ...func(*HolderOptions)) *holder {
	w.t.Helper()
	h := &holder{}
	o := HolderOptions{
		Send: func(ctx context.Context, r peer.RenewRequest) (peer.Grant, error) {
			h.mu.Lock()
			h.sent = append(h.sent, r.Stamp)
			h.mu.Unlock()
			return renewAt(ctx, w.reach(), n, r)
		},
		Told: func() uint64 {
			if x := h.told.Load(); x != 0 {
				return x
			}
			return w.table.Applied()
		},
		Clock: w.clock, Clocks: func() Reading { t := w.clock(); return Reading{t, t, t} }, Logger: quiet(),
	}
	for _, f := range tweak {
		f(&o)
	}
	var err error
	h.Holder, err = NewHolder(o)
	check(w.t, err)
	return h
}

// renewAt is the way from one node to another.
func renewAt(ctx context.Context, g *Grants, n byte, r peer.RenewRequest) (peer.Grant, error) {
	type answer struct {
		g   peer.Grant
		err error
	}
	c := make(chan answer, 1)
	g.RenewFunc(nodeID(n), bootID(n), r, func(g peer.Grant, err error) { c <- answer{g, err} })
	select {
	case a := <-c:
		return a.g, a.err
	case <-ctx.Done():
		return peer.Grant{}, ctx.Err()
	}
}

func (w *world) dead() []cluster.NodeID {
	list, _ := w.grants.Dead()
	return slices.Clone(list)
}
