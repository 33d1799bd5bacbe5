package steward

import (
	"testing"
	"testing/synctest"
	"time"

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
