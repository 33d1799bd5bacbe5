package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/cluster/consensus/memnet"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

// fleet is a cluster of three voters, each with its table, Grants and Holder, on a
// network in memory.
type fleet struct {
	t   *testing.T
	net *memnet.Network

	mu   sync.Mutex
	of   map[cluster.NodeID]*voter
	away map[cluster.NodeID]bool // cut off from the others
}

type voter struct {
	id     cluster.NodeID
	n      byte
	table  *placement.Table
	raft   *consensus.Node
	grants *Grants
	holder *Holder
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{t: t, net: memnet.New(1), of: map[cluster.NodeID]*voter{}, away: map[cluster.NodeID]bool{}}
	f.net.Latency(200*time.Microsecond, 100*time.Microsecond, 0)
	for n := byte(1); n <= 3; n++ {
		f.start(n)
	}
	var members []cluster.Member
	for id := range f.of {
		members = append(members, cluster.Member{ID: id, Peer: string(id), Status: cluster.StatusAlive})
	}
	for id, v := range f.of {
		view, err := cluster.NewView(cluster.ID{}, id, slices.Clone(members))
		check(t, err)
		v.raft.SetView(view)
	}
	for n := byte(1); n <= 3; n++ {
		f.do(register(n))
	}
	return f
}

func (f *fleet) start(n byte) {
	f.t.Helper()
	v := &voter{id: nodeID(n), n: n, table: placement.NewTable()}
	var err error
	v.raft, err = consensus.Open(consensus.Config{ID: v.id, Memory: consensus.NewMemory(), Expect: 3,
		StateMachine: v.table, Stream: f.net.Host(string(v.id)).Listen(), Address: string(v.id),
		Exchange: func(_ context.Context, address string, message []byte) ([]byte, error) {
			to := f.reach(v.id, cluster.NodeID(address))
			if to == nil {
				return nil, errors.New("no way to " + address)
			}
			return to.raft.Answer(message)
		},
		Fatal: func(err error) { f.t.Errorf("%s: %v", v.id, err) }})
	check(f.t, err)
	clock := bubbleClock()
	v.grants, err = NewGrants(GrantsOptions{Log: v.raft, Table: v.table, Node: v.id, Store: storeID(n), Answered: v.raft.Answered, Clock: clock, Logger: quiet()})
	check(f.t, err)
	v.holder, err = NewHolder(HolderOptions{
		Send:  func(ctx context.Context, r peer.RenewRequest) (peer.Grant, error) { return f.renew(ctx, v, r) },
		Told:  v.table.Applied,
		Clock: clock, Clocks: func() Reading { t := clock(); return Reading{t, t, t} }, Logger: quiet(),
	})
	check(f.t, err)
	f.mu.Lock()
	f.of[v.id] = v
	f.mu.Unlock()
}

// reach is the node at the other end, nil when the network is cut between.
func (f *fleet) reach(from, to cluster.NodeID) *voter {
	f.mu.Lock()
	defer f.mu.Unlock()
	if from != to && (f.away[from] || f.away[to]) {
		return nil
	}
	return f.of[to]
}

// renew is the wiring of a node: to the Grants of whoever leads.
func (f *fleet) renew(ctx context.Context, v *voter, r peer.RenewRequest) (peer.Grant, error) {
	leader, _, ok := v.raft.Leader()
	if !ok {
		return peer.Grant{}, &peer.NotLeaderError{}
	}
	to := f.reach(v.id, leader)
	if to == nil {
		<-ctx.Done() // a network that swallows
		return peer.Grant{}, ctx.Err()
	}
	return renewAt(ctx, to.grants, v.n, r)
}

// cut cuts a voter off from the others.
func (f *fleet) cut(v *voter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away[v.id] = true
	var rest []string
	for other := range f.of {
		if other != v.id {
			rest = append(rest, string(other))
		}
	}
	f.net.Partition([]string{string(v.id)}, rest)
}

// heal joins all voters again.
func (f *fleet) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.away)
	f.net.HealAll()
}

func (f *fleet) close() {
	for _, v := range f.of {
		check(f.t, v.holder.Close())
		check(f.t, v.grants.Close())
	}
	for _, v := range f.of {
		check(f.t, v.raft.Close())
	}
}

// leader is the voter that leads with the grants open, among those not away.
func (f *fleet) leader() *voter {
	f.t.Helper()
	for range 1000 {
		for _, v := range f.of {
			if now, _ := v.raft.Leadership(); now.Leading && f.reach(v.id, v.id) != nil && !f.away[v.id] {
				return v
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.t.Fatal("nobody leads")
	return nil
}

func (f *fleet) do(c placement.Command) placement.Result {
	f.t.Helper()
	p := placement.Proposer{Propose: f.leader().raft.Propose}
	r, err := p.Do(f.t.Context(), c)
	if err != nil {
		f.t.Fatalf("%T: %v", c, err)
	}
	return r
}

// activate has the leader judge the ACTIVATE of a facet for a voter, and waits for it.
func (f *fleet) activate(leader, v *voter, id facet.Incarnation, epoch facet.Epoch) {
	f.t.Helper()
	b, err := leader.grants.Judge(f.t.Context(), placement.AppendCommand(nil, placement.Activate{Incarnation: id, Epoch: epoch, Boot: bootID(v.n)}))
	check(f.t, err)
	if r, err := placement.DecodeResult(b); err != nil || r.Err() != nil {
		f.t.Fatalf("%v, %v", r.Err(), err)
	}
}

// TestLeaderChange cuts the leader off, which holds a lease and serves a facet: the
// next leader lets nobody else serve it before that lease is over, and grants the
// others theirs.
func TestLeaderChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		defer f.close()
		time.Sleep(2 * time.Second)
		old := f.leader()
		for _, v := range f.of {
			if !v.holder.Valid() {
				t.Errorf("%s has no lease", v.id)
			}
		}
		id := testID(1)
		f.do(placement.Create{Name: nameOf(1), Incarnation: id, Owner: ownerOf(old.n), Set: set(1, 2, 3)})
		f.activate(old, old, id, 1)
		time.Sleep(time.Second)

		f.cut(old)
		cut := time.Now()
		next := f.leader()
		if next == old {
			t.Fatal("the same leader")
		}
		if list, _ := next.grants.Dead(); len(list) != 0 {
			t.Errorf("dead already: %v", list)
		}
		elected := time.Since(cut)
		f.do(placement.Acquire{Incarnation: id, Owner: ownerOf(next.n), Expected: 1})
		f.activate(next, next, id, 2)
		if old.holder.Valid() {
			t.Error("activated while the old holder had a lease")
		}
		d := time.Since(cut)
		t.Logf("elected %v, activated %v after the cut", elected, d)
		if d > max(wait, elected+silentAfter)+slack {
			t.Error("the wait for the old leader's grants began later than with its last entry")
		}
		time.Sleep(silentAfter) // the election may have ended just before
		if next.grants.Alive(old.id) {
			t.Error("the node cut off is not taken for dead")
		}
		for _, v := range f.of {
			if v != old && (!v.holder.Valid() || !next.grants.Alive(v.id)) {
				t.Errorf("%s lost its lease", v.id)
			}
		}
		if _, err := old.grants.Renew(t.Context(), bootID(old.n), peer.RenewRequest{Applied: 1 << 40, Stamp: 1}); err == nil {
			t.Error("a leader that was deposed grants a lease")
		}

		f.heal()
		time.Sleep(5 * time.Second)
		leader := f.leader()
		for _, v := range f.of {
			if !v.holder.Valid() || !leader.grants.Alive(v.id) {
				t.Errorf("%s has no lease after it came back", v.id)
			}
		}
		_, err := old.grants.Judge(t.Context(), placement.AppendCommand(nil, placement.Activate{Incarnation: id, Epoch: 2, Boot: bootID(next.n)}))
		var nl *consensus.NotLeaderError
		if leader != old && (!errors.As(err, &nl) || nl.Leader != leader.id) {
			t.Error(fmt.Errorf("the old leader judges: %w", err))
		}
	})
}

// TestLateElection keeps a cluster without a leader for longer than leases last: the
// next one takes nobody for dead who answers it, though no lease is left, and whoever
// is silent soon.
func TestLateElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		defer f.close()
		time.Sleep(2 * time.Second)
		old := f.leader()
		f.mu.Lock()
		for id := range f.of {
			f.away[id] = true
		}
		f.mu.Unlock()
		f.net.Partition([]string{"n1"}, []string{"n2"}, []string{"n3"})
		time.Sleep(4 * time.Second)
		var rest []string
		f.mu.Lock()
		for id := range f.of {
			if id != old.id {
				delete(f.away, id)
				rest = append(rest, string(id))
			}
		}
		f.mu.Unlock()
		f.net.HealAll()
		f.net.Partition([]string{string(old.id)}, rest)
		// Nodes that were apart may elect more than once. What counts is the last time;
		// leases a leader of a term in between may have granted are waited for.
		var next *voter
		var led consensus.Leadership
		var elected time.Time
		var soon time.Duration
		for next == nil || time.Since(elected) < 3*time.Second {
			if next != nil {
				now, _ := next.raft.Leadership()
				if !now.Leading || now.Term != led.Term {
					next = nil
				}
			}
			if next == nil {
				next = f.leader()
				if led, _ = next.raft.Leadership(); !led.Leading {
					next = nil
					continue
				}
				elected = time.Now()
				soon = max(silentAfter, wait-elected.Sub(led.Heard)) + slack
			}
			list, _ := next.grants.Dead()
			for _, id := range list {
				if id != old.id {
					t.Fatalf("%s is taken for dead %v after the election", id, time.Since(elected))
				}
			}
			if d := time.Since(elected); d > soon && len(list) != 1 {
				t.Fatalf("%s is not taken for dead after %v", old.id, d)
			}
			time.Sleep(10 * time.Millisecond)
		}
		for _, v := range f.of {
			if v != old && !v.holder.Valid() {
				t.Errorf("%s has no lease", v.id)
			}
		}
	})
}
