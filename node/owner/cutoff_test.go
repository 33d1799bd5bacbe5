package owner

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
)

// cutOffTown is three nodes, and a facet of each kind that the first one has no session
// of: one that was never used, one whose epoch is to be activated still.
func cutOffTown(t *testing.T) (w *town, fresh, taken facet.Name) {
	w = newTown(t, 3)
	fresh, taken = name("fresh"), name("taken")
	w.found(taken, 2, 1, 3)
	w.node(2).must(taken, "CREATE TABLE t (v)")
	w.found(fresh, 1, 2, 3)
	w.take(taken, 2, 1)
	return w, fresh, taken
}

// TestCutOff: a node that is cut off from everybody tells requests of facets it has no
// session of to go elsewhere, as soon as it can know that, and serves again when it is
// back.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, fresh, taken := cutOffTown(t)
		defer w.stop()
		r := w.node(1)
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"})
		r.deafen()
		began := time.Now()
		if _, err := r.run(taken, "SELECT count(*) FROM t"); !errors.Is(err, errCutOff) {
			t.Errorf("a request that began before it was known: %v", err)
		}
		if took := time.Since(began); took > townTTL+(cutOffAfter+1)*sweepEvery {
			t.Errorf("it waited for %v", took)
		}
		time.Sleep(10 * time.Second)
		for _, n := range []facet.Name{taken, fresh, name("unknown")} {
			began := time.Now()
			if _, err := r.run(n, "SELECT count(*) FROM t"); !errors.Is(err, facet.ErrUnavailable) {
				t.Errorf("%s: %v", n, err)
			}
			if took := time.Since(began); took > 0 {
				t.Errorf("%s waited for %v", n, took)
			}
		}
		w.net.HealAll()
		r.hear()
		time.Sleep(5 * time.Second) // peers dial again
		if got := r.count(taken); got != 0 {
			t.Errorf("%d rows", got)
		}
		r.must(fresh, "CREATE TABLE t (v)")
	})
}

// TestElectionIsNoCut: an election that takes longer than a lease is waited out.
func TestElectionIsNoCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, fresh, taken := cutOffTown(t)
		defer w.stop()
		r := w.node(1)
		r.deafen()
		_, first := r.submit(request(taken, stmt("SELECT count(*) FROM t")))
		time.Sleep(townTTL + (cutOffAfter-1)*sweepEvery - 100*time.Millisecond)
		r.hear()
		if _, err := r.answer(first); err != nil {
			t.Error(err)
		}
		// And what needs nobody but its members is served without a leader.
		r.deafen()
		time.Sleep(10 * time.Second)
		r.must(fresh, "CREATE TABLE t (v)")
	})
}

// TestShutdownBeforeActivation: a request whose turn to have its facet activated comes when
// the node has begun to shut down hears that, and its client goes elsewhere.
func TestShutdownBeforeActivation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, fresh, taken := cutOffTown(t)
		defer w.stop()
		r := w.node(1)
		r.m.stop() // what Close begins with
		for _, n := range []facet.Name{taken, fresh} {
			if _, err := r.run(n, "SELECT count(*) FROM t"); !errors.Is(err, facet.ErrUnavailable) {
				t.Errorf("%s: %v", n, err)
			}
		}
	})
}
