package consensus

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestForm(t *testing.T) {
	for _, n := range []int{3, 5} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, nil)
			defer f.stopAll()
			start := time.Now()
			l := f.form(n)
			t.Logf("%d nodes have a leader after %v", n, time.Since(start))
			for _, b := range f.up() {
				if b.node.ClusterID() != l.node.ClusterID() || b.node.ClusterID().IsZero() {
					t.Errorf("%s is of cluster %v, %s of %v", b.id, b.node.ClusterID(), l.id, l.node.ClusterID())
				}
				start := time.Now()
				if err := f.propose(b, "hello "+string(b.id), time.Second); err != nil {
					t.Error(err)
				}
				t.Logf("proposed at %s in %v", b.id, time.Since(start))
			}
			f.check()
			if v := l.node.Stats().Voters; v != n {
				t.Errorf("%d voters", v)
			}
		})
	}
}
