package steward

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

func bubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t)) })
}

// TestDeletionsEnd: a row whose deletion nobody finishes is finished.
func TestDeletionsEnd(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		w.create(0, 50, 3, ids(1, 3)...)
		w.must(placement.Delete{Incarnation: facetID(0)}) // before the term
		s := w.steward(nil)
		s.Lead(1)
		for i := 1; i < 40; i++ {
			w.must(placement.Delete{Incarnation: facetID(i)})
		}
		time.Sleep(finishAfter - time.Second)
		if len(w.count().finishes) != 0 {
			t.Errorf("finished too soon")
		}
		w.eventually("the rows are gone", 10*time.Second, func() bool { return w.table.Counts().Rows == 10 })
		time.Sleep(time.Minute)
		for id, n := range w.count().finishes {
			if n != 2 { // the first one failed
				t.Errorf("%v was finished %d times", id, n)
			}
		}
		if st := s.Stats(); st.Finished != 40 {
			t.Errorf("%+v", st)
		}
	})
}

// TestAbandonedImports: a facet that never gets its name is deleted after a while, dead
// or alive its node; one that gets it is not.
func TestAbandonedImports(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		w.create(0, 3, 3, ids(1, 3)...)
		s := w.steward(nil)
		s.Lead(1)
		detached := func(i int, owner cluster.NodeID) facet.Incarnation {
			f, _ := w.table.ByIncarnation(facetID(0))
			n, _ := w.table.Node(owner)
			w.must(placement.Create{Name: facet.Name{Tenant: "t", Facet: "import"}, Incarnation: facetID(i), Owner: placement.Owner{Node: owner, Boot: n.Boot}, Set: base(&f), Detached: true})
			return facetID(i)
		}
		lost, alive, named := detached(100, "n3"), detached(101, "n1"), detached(102, "n1")
		time.Sleep(time.Minute)
		w.kill("n3")
		w.must(placement.Bind{Name: facet.Name{Tenant: "t", Facet: "named"}, New: named})
		time.Sleep(abandonedAfter - 2*time.Minute)
		for _, id := range []facet.Incarnation{lost, alive, named} {
			if f, ok := w.table.ByIncarnation(id); !ok || !live(&f) {
				t.Errorf("%v is gone already", id)
			}
		}
		time.Sleep(2 * time.Minute)
		for _, id := range []facet.Incarnation{lost, alive} {
			if _, ok := w.table.ByIncarnation(id); ok {
				t.Errorf("%v stays without a name", id)
			}
		}
		if f, ok := w.table.ByIncarnation(named); !ok || !live(&f) {
			t.Error("a facet with a name is deleted")
		}
		// One that got its name and is deleted then ends as soon as any.
		w.must(placement.Delete{Incarnation: named})
		w.eventually("the deletion ends", 2*finishAfter+time.Second, func() bool { _, ok := w.table.ByIncarnation(named); return !ok })
	})
}

// TestIdleScans: nothing walks the table when nothing happens.
func TestIdleScans(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		w.create(0, 10, 3, ids(1, 3)...)
		s := w.steward(nil)
		s.Lead(1)
		time.Sleep(10 * time.Minute)
		if n := s.Stats().Scans; n > 3 { // the first, one after the nodes were new, one when stores ripen
			t.Errorf("%d scans of a table that did not change", n)
		}
	})
}

// slowLives asks a second time while the first answer is on its way.
type slowLives struct {
	Lives
	between func()
}

func (l *slowLives) Gone() ([]cluster.NodeID, <-chan struct{}) {
	gone, changed := l.Lives.Gone()
	if f := l.between; f != nil {
		l.between = nil
		f()
	}
	return gone, changed
}

// TestViewsInOrder: a view begun before another one does not take its place.
func TestViewsInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.start("", ids(1, 3)...)
		lives := &slowLives{Lives: w}
		s := w.steward(func(c *Config) { c.Lives = lives })
		tm := &term{s: s}
		lives.between = func() {
			w.kill("n1")
			tm.look()
		}
		tm.look()
		if tm.view.Load().nodes["n1"].alive {
			t.Error("the older view counts")
		}
	})
}
