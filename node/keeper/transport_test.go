package keeper

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus/memnet"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

// ears is the owner's side of appends.
type ears struct {
	ready chan struct{}

	mu   sync.Mutex
	acks []peer.Ack
}

func (e *ears) Ready(peer.Remote) {
	select {
	case e.ready <- struct{}{}:
	default:
	}
}

func (e *ears) Lost(peer.Remote, error) {}

func (e *ears) Acked(_ peer.Remote, acks []peer.Ack) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.acks = append(e.acks, acks...)
}

func (e *ears) last() peer.Ack {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.acks) == 0 {
		return peer.Ack{}
	}
	return e.acks[len(e.acks)-1]
}

// listen opens the transport of a node on a network in memory.
func listen(t *testing.T, net *memnet.Network, n byte, adjust func(*peer.Config)) *peer.Transport {
	t.Helper()
	host := net.Host(string(nodeID(n)))
	cfg := peer.Config{
		Node: nodeID(n), Boot: bootID(n), Store: storeID(n), Log: quiet(),
		Cluster:   func() cluster.ID { return cluster.ID{1} },
		AddressOf: func(id cluster.NodeID) (string, bool) { return string(id), true },
		Listener:  host.Listen(), Dial: host.Dial,
	}
	adjust(&cfg)
	tr, err := peer.Listen(cfg)
	check(t, err)
	return tr
}

// TestOverTheWire drives every call of a keeper as an owner elsewhere does.
func TestOverTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		net := memnet.New(1)
		there := listen(t, net, 2, func(c *peer.Config) { c.Handler, c.Inspector, c.Snapshots = w.k, w.k, w.k })
		defer there.Close()
		ears := &ears{ready: make(chan struct{}, 1)}
		here := listen(t, net, 1, func(c *peer.Config) { c.Acks = ears })
		defer here.Close()
		p := here.Peer("n2")
		ctx := t.Context()
		idB, idC := testID(2), testID(3)
		w.create(idA, 1, 2, 3)
		w.create(idB, 1, 2, 3)

		// One PREPARE of a facet that is known, and one that will be.
		go func() {
			time.Sleep(100 * time.Millisecond)
			w.create(idC, 1, 2, 3)
		}()
		res, err := p.Prepare(ctx, []peer.Session{{Incarnation: idA, Epoch: 1}, {Incarnation: idC, Epoch: 1}, {Incarnation: idA, Epoch: 2}})
		check(t, err)
		if res[0].Err != nil || res[1].Err != nil || !errors.Is(res[2].Err, replica.ErrUnknown) || res[0].From.Store != storeID(2) {
			t.Errorf("promises: %+v", res)
		}
		<-ears.ready

		a, b := newSession(w, 1, idA, 1), newSession(w, 1, idB, 1)
		send := func(s *session, c *facet.Commit, commit facet.Seq) {
			t.Helper()
			check(t, p.Append(peer.AppendItem{Epoch: s.epoch, Commit: commit, Entry: c}))
		}
		send(a, a.barrier(), 0)
		for range 3 {
			send(a, a.commit(), 1)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if ack := ears.last(); ack.Err != nil || ack.Seq != 4 {
			t.Errorf("acknowledged: %+v", ack)
		}
		_, yes, err := p.Check(ctx, []peer.Session{{Incarnation: idA, Epoch: 1}, {Incarnation: idB, Epoch: 1}})
		check(t, err)
		if !yes[0] || yes[1] {
			t.Errorf("checked: %v", yes)
		}
		copies, err := p.Inspect(ctx, []peer.Session{{Incarnation: idA, Epoch: 9}, {Incarnation: testID(99), Epoch: 1}})
		check(t, err)
		if c := copies[0]; c.Err != nil || c.Promise.Last.Seq != 4 || c.Promise.CommitKnown != 1 || c.From.Store != storeID(2) ||
			!errors.Is(copies[1].Err, replica.ErrUnknown) || w.store.Has(testID(99)) {
			t.Errorf("inspected: %+v", copies)
		}
		if r, err := w.store.Replica(idA); err != nil || r.Meta().Promised != 1 {
			t.Errorf("looking at a copy changed what it promised: %+v", r.Meta())
		}
		got, err := p.Fetch(ctx, peer.FetchRequest{Incarnation: idA, Epoch: 1, From: 2, To: 3})
		check(t, err)
		if len(got.Entries) != 2 || got.Entries[1].Seq != 3 {
			t.Errorf("fetched: %+v", got)
		}

		b.barrier()
		b.commit()
		sn, err := b.pages.Snapshot()
		check(t, err)
		_, base, err := p.SendSnapshot(ctx, b.offer(), sn)
		check(t, errors.Join(err, sn.Close()))
		if base != b.pages.Position() {
			t.Errorf("installed %v, want %v", base, b.pages.Position())
		}

		// The hint of an owner that goes to rest.
		check(t, p.Known(peer.KnownItem{Incarnation: idA, Epoch: 1, At: a.pages.Position()}))
		time.Sleep(2 * settleAfter)
		synctest.Wait()
		if r, err := w.store.Replica(idA); err != nil || r.Meta().Base.Seq != 4 {
			t.Errorf("the copy did not go to rest: %+v", r.Meta())
		}

		// A refused append comes back with its reason.
		w.apply(placement.Acquire{Incarnation: idA, Owner: ownerOf(3), Expected: 1})
		check(t, (<-w.prepare(3, idA, 2)).err)
		send(a, a.commit(), 4)
		time.Sleep(time.Second)
		if ack := ears.last(); !errors.Is(ack.Err, replica.ErrEpoch) || ack.Seq != 5 {
			t.Errorf("refused: %+v", ack)
		}
	})
}
