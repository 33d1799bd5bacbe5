package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/cluster/consensus/memnet"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/httpapi"
	"github.com/facetd/facetd/node/native"
	"github.com/facetd/facetd/node/native/nativetest"
)

// world is three nodes and a client's machine on a network in memory, inside of a
// synctest bubble: its time is exact and costs nothing.
type world struct {
	t       *testing.T
	net     *memnet.Network
	cluster *nativetest.Cluster
	addrs   []string
	stops   []func()
}

const clientHost = "app:1"

func inWorld(t *testing.T, run func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: memnet.New(1), addrs: []string{"n0:7400", "n1:7400", "n2:7400"}}
		w.cluster = nativetest.NewCluster(w.addrs...)
		w.net.Host(clientHost)
		w.stops = make([]func(), len(w.addrs))
		for i := range w.addrs {
			w.start(i)
		}
		run(t, w)
		for _, stop := range w.stops {
			stop()
		}
	})
}

// start runs a node as everything it is on its API port.
func (w *world) start(i int) {
	log := slog.New(slog.DiscardHandler)
	node := w.cluster.Node(i)
	nat := native.New(node, native.Options{Log: log})
	api := httpapi.New(node, httpapi.Options{Log: log, Native: nat, NativePath: wire.Path})
	srv := httpapi.NewServer(api, httpapi.ServerOptions{Log: log})
	l := w.net.Host(w.addrs[i]).Listen()
	var served sync.WaitGroup
	served.Go(func() { srv.Serve(l) })
	w.stops[i] = sync.OnceFunc(func() {
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		nat.Close(gone)
		srv.Close()
		served.Wait()
	})
}

// kill ends a node at once; its connections are reset.
func (w *world) kill(i int) {
	w.net.Kill(w.addrs[i])
	w.stops[i]()
}

// vanish takes a node off the network: nothing is refused, nothing is answered.
func (w *world) vanish(i int) {
	for _, a := range append([]string{clientHost}, w.addrs...) {
		if a != w.addrs[i] {
			w.net.Cut(a, w.addrs[i])
			w.net.Cut(w.addrs[i], a)
		}
	}
}

// open makes a client with these endpoints; closeIt is called before the world
// ends.
func (w *world) open(opt client.Options, endpoints ...int) (f *client.Facet, closeIt func()) {
	w.t.Helper()
	opt.Dial = func(ctx context.Context, _, addr string) (net.Conn, error) {
		return w.net.Host(clientHost).Dial(ctx, addr)
	}
	var eps []string
	for _, i := range endpoints {
		eps = append(eps, w.addrs[i])
	}
	c, err := client.Open(w.t.Context(), eps, opt)
	if err != nil {
		w.t.Fatal(err)
	}
	return openFacet(w.t, c), func() { c.Close() }
}

func (w *world) exec(ctx context.Context, f *client.Facet, sql string) {
	w.t.Helper()
	if _, err := f.Exec(ctx, sql); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) asked(want ...int) {
	w.t.Helper()
	for i := range w.addrs {
		if got := w.cluster.Node(i).Asked(); got != want[i] {
			w.t.Errorf("node %d was asked %d times, want %d", i, got, want[i])
		}
	}
}

// later moves the facet as the placement leader does when the owner's lease is
// over.
const leaseTime = 1600 * time.Millisecond

func (w *world) later(to int, epoch facet.Epoch) {
	time.AfterFunc(leaseTime, func() { w.cluster.Move(notes, to, epoch) })
}

func TestMovesAreFollowedAndRemembered(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		f, closeIt := w.open(client.Options{}, 0)
		defer closeIt()
		ctx := t.Context()
		w.cluster.Move(notes, 1, 2)
		for range 3 {
			w.exec(ctx, f, "INSERT 1")
		}
		w.asked(1, 3, 0)
		w.cluster.Move(notes, 2, 3)
		for range 3 {
			w.exec(ctx, f, "SELECT COUNT")
		}
		w.asked(0, 1, 3)
		if w.cluster.Writes(notes) != 3 {
			t.Errorf("%d writes", w.cluster.Writes(notes))
		}
	})
}

// Two nodes that each name the other are asked with pauses between, and the call
// goes through when they agree.
func TestNodesThatNameEachOther(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		f, closeIt := w.open(client.Options{}, 0)
		defer closeIt()
		w.cluster.Move(notes, 2, 9)
		w.cluster.Node(0).Believe(notes, 1, 5)
		w.cluster.Node(1).Believe(notes, 0, 5)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := f.Exec(ctx, "INSERT 1"); !errors.Is(err, facet.ErrNotOwner) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took < 2900*time.Millisecond || took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
		// Pauses of 50 to 100 ms make 30 to 60 rounds of two requests, and the first
		// ones are shorter.
		if n := w.cluster.Node(0).Asked() + w.cluster.Node(1).Asked(); n < 30 || n > 150 {
			t.Errorf("%d requests in 3 s", n)
		}
		time.AfterFunc(time.Second, func() {
			w.cluster.Node(0).Thaw()
			w.cluster.Node(1).Thaw()
		})
		begin = time.Now()
		w.exec(t.Context(), f, "INSERT 1")
		if took := time.Since(begin); took > 1100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

// A node that is behind names an owner of an older epoch: nobody is sent there.
func TestOlderEpochIsNotBelieved(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		f, closeIt := w.open(client.Options{}, 1)
		defer closeIt()
		ctx := t.Context()
		w.cluster.Move(notes, 2, 7)
		w.exec(ctx, f, "INSERT 1")
		w.asked(0, 1, 1)
		w.cluster.Node(1).Believe(notes, 0, 5)
		// The connection to the owner breaks, so node 1 is asked, then the owner.
		w.net.Kill(w.addrs[2])
		w.stops[2]()
		w.start(2)
		w.exec(ctx, f, "SELECT COUNT")
		if n := w.cluster.Node(0).Asked(); n != 0 {
			t.Errorf("the node of an older epoch was asked %d times", n)
		}
	})
}

// A facet that was deleted and made again begins with a low epoch.
func TestFacetMadeAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		f, closeIt := w.open(client.Options{}, 0)
		defer closeIt()
		ctx := t.Context()
		w.cluster.Move(notes, 1, 30)
		w.exec(ctx, f, "INSERT 1")
		w.cluster.Move(notes, 2, 1)
		w.exec(ctx, f, "INSERT 1")
		w.asked(1, 2, 1)
		w.exec(ctx, f, "INSERT 1")
		w.asked(0, 0, 1)
		// And once more, with the old owner gone for good.
		w.cluster.Move(notes, 1, 30)
		w.exec(ctx, f, "INSERT 1")
		w.kill(1)
		w.cluster.Move(notes, 2, 1)
		w.exec(ctx, f, "SELECT COUNT")
	})
}

// An owner dies: reads and keyed writes do not notice, a write without a key is
// answered or of unknown outcome, and all of it costs little more than the lease.
func TestOwnerDies(t *testing.T) {
	for name, end := range map[string]func(*world, int){"killed": (*world).kill, "vanished": (*world).vanish} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				f, closeIt := w.open(client.Options{}, 0) // one endpoint, which dies
				defer closeIt()
				ctx := t.Context()
				w.exec(ctx, f, "INSERT 1")
				synctest.Wait() // the other nodes are known
				begin := time.Now()
				end(w, 0)
				w.later(1, 2)
				limit := leaseTime + 110*time.Millisecond
				if name == "vanished" {
					limit = 2600 * time.Millisecond // three pings and a pause
				}
				var calls sync.WaitGroup
				for i := range 8 {
					calls.Go(func() {
						sql, g := "INSERT 1", f.Idempotent()
						if i%2 == 0 {
							sql, g = "SELECT COUNT", f
						}
						if _, err := g.Exec(ctx, sql); err != nil {
							t.Errorf("%s: %v", sql, err)
						}
						if took := time.Since(begin); took > limit {
							t.Errorf("%s took %v", sql, took)
						}
					})
				}
				calls.Wait()
				if n := w.cluster.Writes(notes); n != 5 {
					t.Errorf("%d writes", n)
				}
				begin = time.Now()
				w.exec(ctx, f, "INSERT 1")
				if took := time.Since(begin); took > 0 {
					t.Errorf("the next write took %v", took)
				}
			})
		})
	}
}

// Only a write that was sent, without a key, and whose connection broke, is of
// unknown outcome. Every other one goes through.
func TestUnknownOnlyWhenItMust(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var armed atomic.Bool
		w.cluster.After = func(*facet.Request) {
			if armed.CompareAndSwap(true, false) {
				w.net.Kill(w.addrs[0])
				w.later(1, 2)
			}
		}
		f, closeIt := w.open(client.Options{}, 0, 1, 2)
		defer closeIt()
		ctx := t.Context()
		armed.Store(true)
		if _, err := f.Exec(ctx, "INSERT 1"); !errors.Is(err, facet.ErrUnknownOutcome) {
			t.Errorf("got %v", err)
		}
		w.stops[0]()
		// Connection refused: not sent.
		w.exec(ctx, f, "INSERT 1")
		if n := w.cluster.Writes(notes); n != 2 {
			t.Errorf("%d writes", n)
		}
	})
	inWorld(t, func(t *testing.T, w *world) {
		var armed atomic.Bool
		w.cluster.After = func(*facet.Request) {
			if armed.CompareAndSwap(true, false) {
				w.net.Kill(w.addrs[0])
				w.later(1, 2)
			}
		}
		f, closeIt := w.open(client.Options{Idempotent: true}, 0)
		defer closeIt()
		synctest.Wait()
		armed.Store(true)
		if res, err := f.Exec(t.Context(), "INSERT 1"); err != nil || res.LastInsertID != 1 {
			t.Errorf("%+v, %v", res, err)
		}
		if n := w.cluster.Writes(notes); n != 1 {
			t.Errorf("%d writes", n)
		}
	})
}

func TestEveryNodeIsDead(t *testing.T) {
	for name, end := range map[string]func(*world, int){"killed": (*world).kill, "vanished": (*world).vanish} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				f, closeIt := w.open(client.Options{}, 0, 1, 2)
				defer closeIt()
				w.exec(t.Context(), f, "INSERT 1")
				for i := range w.addrs {
					end(w, i)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				begin := time.Now()
				_, err := f.Exec(ctx, "SELECT COUNT")
				if took := time.Since(begin); err == nil || took > 5*time.Second || took < 4800*time.Millisecond {
					t.Errorf("with a deadline: %v after %v", err, took)
				}
				begin = time.Now()
				_, err = f.Exec(t.Context(), "INSERT 1")
				if took := time.Since(begin); !errors.Is(err, facet.ErrUnavailable) || took > 30*time.Second || took < 29*time.Second {
					t.Errorf("without: %v after %v", err, took)
				}
				// The machines come back.
				if w.net.HealAll(); name == "killed" {
					for i := range w.addrs {
						w.start(i)
					}
				}
				begin = time.Now()
				w.exec(t.Context(), f, "INSERT 1")
				if took := time.Since(begin); took > time.Second {
					t.Errorf("the first write after it took %v", took)
				}
			})
		})
	}
}

// A redirect to a node that is not there costs one dial, once.
func TestVanishedNodeIsAvoided(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.vanish(1)
		f, closeIt := w.open(client.Options{}, 1, 0)
		defer closeIt()
		w.cluster.Move(notes, 1, 2)
		w.later(2, 3)
		begin := time.Now()
		w.exec(t.Context(), f, "INSERT 1")
		if took := time.Since(begin); took > leaseTime+110*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

func TestTransactionsWhenTheOwnerChanges(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		f, closeIt := w.open(client.Options{}, 0)
		defer closeIt()
		ctx := t.Context()
		synctest.Wait()

		// Before COMMIT: closed, with a clear error.
		tx, err := f.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(ctx, "INSERT 1"); err != nil {
			t.Fatal(err)
		}
		w.cluster.Move(notes, 1, 2)
		if _, err := tx.Exec(ctx, "INSERT 1"); !errors.Is(err, facet.ErrTxClosed) {
			t.Errorf("a statement: %v", err)
		}
		if err := tx.Commit(ctx); !errors.Is(err, facet.ErrTxClosed) {
			t.Errorf("its COMMIT: %v", err)
		}
		// A COMMIT that was refused for it is as if it had not been sent.
		if tx, err = f.Begin(ctx); err != nil {
			t.Fatal(err)
		}
		w.cluster.Move(notes, 2, 3)
		if err := tx.Commit(ctx); !errors.Is(err, facet.ErrTxClosed) {
			t.Errorf("a COMMIT that was refused: %v", err)
		}

		// Tx calls its function again.
		moves := []int{0, 1}
		runs := 0
		err = f.Tx(ctx, func(tx *client.Tx) error {
			runs++
			if _, err := tx.Exec(ctx, "INSERT 1"); err != nil {
				return err
			}
			if len(moves) > 0 {
				w.cluster.Move(notes, moves[0], facet.Epoch(3+runs))
				moves = moves[1:]
			}
			_, err := tx.Exec(ctx, "INSERT 1")
			return err
		})
		if err != nil || runs != 3 || w.cluster.Writes(notes) != 2 {
			t.Errorf("%v after %d runs, %d writes", err, runs, w.cluster.Writes(notes))
		}

		// The owner dies in it, before COMMIT.
		runs = 0
		err = f.Tx(ctx, func(tx *client.Tx) error {
			if runs++; runs == 1 {
				w.kill(1)
				w.later(2, 9)
			}
			if _, err := tx.Exec(ctx, "INSERT 1"); err != nil {
				return fmt.Errorf("my own words: %w", err)
			}
			return nil
		})
		if err != nil || runs != 2 || w.cluster.Writes(notes) != 3 {
			t.Errorf("%v after %d runs, %d writes", err, runs, w.cluster.Writes(notes))
		}

		// It dies after COMMIT was sent.
		w.cluster.After = func(r *facet.Request) {
			if string(r.Steps[0].SQL) == "COMMIT" {
				w.net.Kill(w.addrs[2])
			}
		}
		runs = 0
		err = f.Tx(ctx, func(tx *client.Tx) error {
			runs++
			_, err := tx.Exec(ctx, "INSERT 1")
			return err
		})
		if !errors.Is(err, facet.ErrUnknownOutcome) || runs != 1 {
			t.Errorf("%v after %d runs", err, runs)
		}
	})
}

// Management calls find a living node, too.
func TestManagementFindsANode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		f, closeIt := w.open(client.Options{}, 0)
		defer closeIt()
		synctest.Wait()
		w.kill(0)
		// The toy refuses it, which is an answer.
		if _, err := f.Stat(t.Context()); !errors.Is(err, facet.ErrInternal) {
			t.Errorf("got %v", err)
		}
	})
}
