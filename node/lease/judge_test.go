package lease

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

// TestBatches: many activations cost few entries, those of a dead node's facets
// when its lease is over, those of new ones at once.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		w.settle()
		const n = 2000
		w.log.entries.Store(0)
		var js []chan judgement
		var creates []placement.Command
		for i := range n {
			creates = append(creates, placement.Create{Name: nameOf(i), Incarnation: testID(i), Owner: ownerOf(2), Set: set(1, 2)})
		}
		w.many(creates)
		// Everybody asks before the first entry is committed: what a moment of load
		// looks like, whoever is scheduled when.
		open := w.log.hold()
		for i := range n {
			js = append(js, w.activate(testID(i), 1, 2))
		}
		synctest.Wait()
		open()
		for _, j := range js {
			check(t, (<-j).err)
		}
		if k := w.log.entries.Load(); k > n/batchCommands+1+maxBatches {
			t.Errorf("%d entries for %d new facets", k, n)
		}
		h := w.hold(2)
		time.Sleep(time.Second)
		check(t, h.Close())
		var takes []placement.Command
		for i := range n {
			takes = append(takes, placement.Acquire{Incarnation: testID(i), Owner: ownerOf(1), Expected: 1})
		}
		w.many(takes)
		w.log.entries.Store(0)
		js = nil
		for i := range n {
			js = append(js, w.activate(testID(i), 2, 1), w.activate(testID(i), 2, 1)) // asked twice
		}
		var last time.Duration
		for _, j := range js {
			v := <-j
			check(t, v.err)
			last = max(last, v.after)
		}
		if k := w.log.entries.Load(); k > n/batchCommands+4 {
			t.Errorf("%d entries for %d facets of a dead node", k, n)
		}
		if last > wait+slack {
			t.Errorf("the last one was activated after %v", last)
		}
		w.grants.mu.Lock()
		defer w.grants.mu.Unlock()
		if c := &w.grants.court; c.askers != 0 || len(c.cases) != 0 || len(c.waiting) != 0 || len(c.byFacet) != 0 {
			t.Errorf("left over: %d askers, %d cases, %d waiting, %d facets", c.askers, len(c.cases), len(c.waiting), len(c.byFacet))
		}
	})
}

// many brings commands into the log in large entries.
func (w *world) many(cmds []placement.Command) {
	w.t.Helper()
	for len(cmds) > 0 {
		var b [][]byte
		for _, c := range cmds[:min(500, len(cmds))] {
			b = append(b, placement.AppendCommand(nil, c))
		}
		cmds = cmds[len(b):]
		results, err := w.raft.Accept(w.t.Context(), "", b)
		check(w.t, err)
		for _, r := range results {
			res, err := placement.DecodeResult(r)
			check(w.t, err)
			check(w.t, res.Err())
		}
	}
}

// TestJudgedByTheTable: what the table answers needs no entry.
func TestJudgedByTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		w.settle()
		id := w.serve(1, 2)
		gone := testID(2)
		w.do(placement.Create{Name: nameOf(2), Incarnation: gone, Owner: ownerOf(2), Set: set(2)})
		w.do(placement.Delete{Incarnation: gone})
		w.log.entries.Store(0)
		is := func(what string, c placement.Command, want placement.Outcome) {
			t.Helper()
			v := <-w.judge(t.Context(), c)
			if want == placement.Done && v.err != nil || want != placement.Done && !errors.Is(v.err, want) {
				t.Errorf("%s: %v, want %v", what, v.err, want)
			}
		}
		is("again", placement.Activate{Incarnation: id, Epoch: 1, Boot: bootID(2)}, placement.Done)
		is("another boot", placement.Activate{Incarnation: id, Epoch: 1, Boot: bootID(1)}, placement.RefusedBoot)
		is("being deleted", placement.Activate{Incarnation: gone, Epoch: 1, Boot: bootID(2)}, placement.RefusedEpoch)
		is("nobody's epoch", placement.Activate{Incarnation: gone, Epoch: 2}, placement.RefusedState)
		is("tomb of a live one", placement.Tomb{Incarnation: id, Epoch: 1}, placement.RefusedState)
		is("tomb in an old epoch", placement.Tomb{Incarnation: gone, Epoch: 1}, placement.RefusedEpoch)
		if n := w.log.entries.Load(); n != 0 {
			t.Errorf("%d entries", n)
		}
		is("tomb", placement.Tomb{Incarnation: gone, Epoch: 2}, placement.Done)
		is("tomb again", placement.Tomb{Incarnation: gone, Epoch: 2}, placement.Done)
		is("gone", placement.Activate{Incarnation: gone, Epoch: 2, Boot: bootID(2)}, placement.RefusedTombstoned)
		if n := w.log.entries.Load(); n != 1 {
			t.Errorf("%d entries", n)
		}

		// The entry that issues the epoch comes later: the command waits for it, and
		// for the lease it takes the facet from.
		h := w.hold(2)
		defer h.Close()
		h.told.Store(w.table.Applied())
		time.Sleep(time.Second)
		j := w.activate(id, 2, 1)
		none := w.activate(testID(7), 1, 2)
		time.Sleep(time.Second)
		if !pending(j) || !pending(none) {
			t.Fatal("judged before the row was there")
		}
		r := w.take(id, 1)
		w.do(placement.Create{Name: nameOf(7), Incarnation: testID(7), Owner: ownerOf(2), Set: set(2)})
		check(t, (<-none).err)
		if !pending(j) {
			t.Fatal("activated while n2 serves")
		}
		h.told.Store(r.Index)
		h.Wake()
		check(t, (<-j).err)
	})
}

// TestTombWaits: a facet is not gone before nobody can read it any more (R47).
func TestTombWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		w.settle()
		id := w.serve(1, 2)
		h := w.hold(2)
		defer h.Close()
		h.told.Store(w.table.Applied())
		time.Sleep(time.Second)
		w.do(placement.Delete{Incarnation: id})
		j := w.judge(t.Context(), placement.Tomb{Incarnation: id, Epoch: 2})
		for pending(j) {
			time.Sleep(10 * time.Millisecond)
		}
		if v := <-j; v.err != nil || h.Valid() {
			t.Errorf("%v; the old lease holds: %v", v.err, h.Valid())
		}
	})
}

// TestBindWaits: a name does not lead to the facet made of a surviving copy while
// somebody may be answered by the old one, and never while that is served (R25).
func TestBindWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		w.settle()
		id := w.serve(1, 2)
		h := w.hold(2)
		defer h.Close()
		h.told.Store(w.table.Applied()) // deaf: it hears of no change from here on
		time.Sleep(time.Second)
		old, _ := w.table.ByIncarnation(id)
		next := facet.Incarnation{15: 200}
		w.do(placement.Create{Name: old.Name, Incarnation: next, Owner: old.Owner, Set: old.Active, Detached: true})

		bind := placement.Bind{Name: old.Name, Old: id, OldEpoch: old.Epoch, New: next, Unserved: true}
		if v := <-w.judge(t.Context(), bind); v.result.Outcome != placement.RefusedState || v.after > slack {
			t.Errorf("of a facet that is served: %v, %v after %v", v.result.Outcome, v.err, v.after)
		}
		w.do(placement.Acquire{Incarnation: id, Owner: old.Owner, Expected: old.Epoch})
		bind.OldEpoch++
		j := w.judge(t.Context(), bind)
		for pending(j) {
			time.Sleep(10 * time.Millisecond)
		}
		if v := <-j; v.err != nil || v.result.Outcome != placement.Done || h.Valid() {
			t.Errorf("%v, %v; the old lease holds: %v", v.result.Outcome, v.err, h.Valid())
		}
		if v := <-w.judge(t.Context(), bind); v.result.Outcome != placement.Done || v.after > slack {
			t.Errorf("asked for again: %v, %v after %v", v.result.Outcome, v.err, v.after)
		}
	})
}

// TestRegister: a new boot replaces the old one when that one's lease is over (R3).
func TestRegister(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		lie := register(1)
		lie.LeaseOver = true
		for _, c := range []placement.RegisterNode{lie, register(2)} {
			if v := <-w.judge(t.Context(), c); v.err != nil || v.after > slack {
				t.Errorf("a new node: %v after %v", v.err, v.after)
			}
		}
		w.settle()
		h := w.hold(2)
		time.Sleep(time.Second)

		// Another machine: while the old process renews, the new one waits.
		moved := register(2)
		moved.Boot, moved.Machine, moved.LeaseOver = bootID(22), cluster.MachineID{99}, true
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if v := <-w.judge(ctx, moved); !errors.Is(v.err, context.DeadlineExceeded) || v.after < 10*time.Second {
			t.Errorf("while the old process lives: %v after %v", v.err, v.after)
		}
		// Two new lives at once: each waits for the one it replaces.
		third := moved
		third.Boot, third.Machine = bootID(23), cluster.MachineID{98}
		a, b := w.judge(t.Context(), moved), w.judge(t.Context(), third)
		check(t, h.Close())
		va := <-a
		check(t, va.err)
		if va.after < wait-time.Second || va.after > wait+slack {
			t.Errorf("after the old process: %v", va.after)
		}
		vb := <-b
		check(t, vb.err)
		// Whichever came first, the other one's lease could not have been granted yet.
		if n, _ := w.table.Node("n2"); n.Boot != bootID(22) && n.Boot != bootID(23) {
			t.Errorf("registered: %v", n.Boot)
		}

		// The same machine: the lock proves it.
		n, _ := w.table.Node("n2")
		next := register(2)
		next.Boot, next.Machine = bootID(24), n.Machine
		if v := <-w.judge(t.Context(), next); v.err != nil || v.after > slack {
			t.Errorf("the same machine: %v after %v", v.err, v.after)
		}
	})
}

// TestRestartAlone: a node alone that does not know its machine starts without
// waiting for itself, and so do its facets.
func TestRestartAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.alone = true
		first := register(1)
		first.Machine = cluster.MachineID{}
		w.do(register(2)) // a member that does not vote
		check(t, (<-w.judge(t.Context(), first)).err)
		id := w.serve(1, 1)
		_, err := w.grants.Renew(t.Context(), bootID(1), peer.RenewRequest{Applied: w.table.Applied(), Stamp: time.Duration(w.clock())})
		check(t, err)
		w.stop()
		w.start()
		defer w.stop()
		second := first
		second.Boot = bootID(11)
		if v := <-w.judge(t.Context(), second); v.err != nil || v.after > slack {
			t.Errorf("registered again: %v after %v", v.err, v.after)
		}
		w.do(placement.Acquire{Incarnation: id, Owner: placement.Owner{Node: "n1", Boot: bootID(11)}, Expected: 1})
		if v := <-w.activate(id, 2, 11); v.err != nil || v.after > slack {
			t.Errorf("activated: %v after %v", v.err, v.after)
		}
	})
}

// TestAsking: callers that give up, ask for nonsense, or ask the wrong node.
func TestAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.do(register(1))
		w.do(register(2))
		w.settle()
		id := w.serve(1, 2)
		h := w.hold(2)
		defer h.Close()
		h.told.Store(w.table.Applied())
		time.Sleep(time.Second)
		w.take(id, 1)

		ctx, cancel := context.WithCancel(t.Context())
		impatient := w.judge(ctx, placement.Activate{Incarnation: id, Epoch: 2, Boot: bootID(1)})
		patient := w.activate(id, 2, 1)
		synctest.Wait()
		cancel()
		if v := <-impatient; !errors.Is(v.err, context.Canceled) || errors.Is(v.err, consensus.ErrUnknownOutcome) {
			t.Errorf("gave up: %v", v.err)
		}
		if v := <-w.judge(ctx, placement.Activate{Incarnation: id, Epoch: 2, Boot: bootID(1)}); !errors.Is(v.err, context.Canceled) {
			t.Errorf("asked too late: %v", v.err)
		}
		check(t, (<-patient).err)
		if _, err := w.grants.Judge(t.Context(), placement.AppendCommand(nil, placement.Renew{})); !errors.Is(err, consensus.ErrInvalid) {
			t.Errorf("a command that needs no judgement: %v", err)
		}
		if _, err := w.grants.Judge(t.Context(), []byte{200}); !errors.Is(err, consensus.ErrInvalid) || Judged([]byte{200}) {
			t.Errorf("nonsense: %v", err)
		}

		// Nobody waits for a command any more: nothing of it stays.
		ctx, cancel = context.WithCancel(t.Context())
		for range 100 {
			w.judge(ctx, placement.Activate{Incarnation: testID(77), Epoch: 1, Boot: bootID(1)})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		w.grants.mu.Lock()
		if c := &w.grants.court; c.askers != 0 || len(c.cases) != 0 || len(c.waiting) != 0 {
			t.Errorf("left over: %d askers, %d cases, %d waiting", c.askers, len(c.cases), len(c.waiting))
		}
		w.grants.court.askers = maxAskers
		w.grants.mu.Unlock()
		if v := <-w.activate(id, 2, 1); !errors.Is(v.err, peer.ErrBusy) {
			t.Errorf("one too many: %v", v.err)
		}
		w.grants.mu.Lock()
		w.grants.court.askers = 0
		w.grants.mu.Unlock()

		// The end of the term answers those who wait.
		last := w.activate(testID(78), 1, 1)
		synctest.Wait()
		w.stop()
		if v := <-last; !errors.Is(v.err, consensus.ErrNotLeader) {
			t.Errorf("at the end: %v", v.err)
		}
		if v := <-w.activate(id, 2, 1); !errors.Is(v.err, consensus.ErrNotLeader) {
			t.Errorf("afterwards: %v", v.err)
		}
	})
}

// TestServer: what other nodes ask goes where it belongs.
func TestServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		hold := make(chan struct{})
		close(hold)
		s := NewServer(w.grants, func(ctx context.Context, from cluster.NodeID, commands [][]byte) ([][]byte, error) {
			<-hold
			return w.raft.Accept(ctx, from, commands)
		})
		defer s.Close()
		propose := func(cmds ...placement.Command) []error {
			t.Helper()
			var b [][]byte
			for _, c := range cmds {
				b = append(b, placement.AppendCommand(nil, c))
			}
			type one struct {
				i   int
				err error
			}
			answers := make(chan one, len(b))
			s.propose("n2", b, func(i int, result []byte, err error) {
				if err == nil {
					var r placement.Result
					if r, err = placement.DecodeResult(result); err == nil {
						err = r.Err()
					}
				}
				answers <- one{i, err}
			})
			errs := make([]error, len(b))
			for range b {
				a := <-answers
				errs[a.i] = a.err
			}
			return errs
		}
		id := testID(1)
		for i, err := range propose(
			placement.Create{Name: nameOf(1), Incarnation: id, Owner: ownerOf(2), Set: set(2)},
			placement.Activate{Incarnation: id, Epoch: 1, Boot: bootID(2)}, // waits for the row
			placement.Create{Name: nameOf(2), Incarnation: testID(2), Owner: ownerOf(2), Set: set(2)},
		) {
			if err != nil {
				t.Errorf("command %d: %v", i, err)
			}
		}
		// A judgement that does not come in time: nothing was done.
		if errs := propose(placement.Activate{Incarnation: testID(9), Epoch: 1, Boot: bootID(2)}); !errors.Is(errs[0], peer.ErrBusy) {
			t.Errorf("too long: %v", errs[0])
		}
		hold = make(chan struct{})
		done := make(chan error, maxAccepts+1)
		b := [][]byte{placement.AppendCommand(nil, placement.Renew{})}
		for range maxAccepts + 1 {
			s.propose("n2", b, func(_ int, _ []byte, err error) { done <- err })
		}
		if err := <-done; !errors.Is(err, peer.ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
		close(hold)
		for range maxAccepts {
			check(t, <-done)
		}
		check(t, s.Close())
		s.propose("n2", b, func(_ int, _ []byte, err error) { done <- err })
		if err := <-done; !errors.Is(err, peer.ErrBusy) {
			t.Errorf("after Close: %v", err)
		}
	})
}
