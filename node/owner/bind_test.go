package owner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
)

// exported writes what a facet holds to a file that can be imported.
func (r *resident) exported(n facet.Name) (path string, pages uint32, sum facet.Sum) {
	w := r.town
	w.t.Helper()
	e, err := r.m.Export(w.t.Context(), n)
	w.check(err)
	path = filepath.Join(w.t.TempDir(), "x.db")
	f, err := os.Create(path)
	w.check(err)
	_, err = e.WriteTo(f)
	w.check(errors.Join(err, f.Close()))
	pages, sum = uint32(e.Size()/facet.PageSize), e.Position().Sum
	w.check(e.Close())
	return path, pages, sum
}

// before has f stand before every BIND of a node, and says whether it can confirm
// anything afterwards.
func (r *resident) before(unsure bool, f func(ctx context.Context, bind func() error) error) {
	r.town.mu.Lock()
	defer r.town.mu.Unlock()
	r.binding, r.unsure = f, unsure
}

var errLost = facet.Errorf(facet.CodeUnknownOutcome, "the answer was lost")

// TestImportBindUnknown: whatever becomes of a BIND whose answer is lost, the facet that
// the name leads to is there: the new one if it took effect, at once or late, else the
// old one.
func TestImportBindUnknown(t *testing.T) {
	var late func() error
	for _, c := range []struct {
		name   string
		unsure bool
		bind   func(ctx context.Context, bind func() error) error
		want   error // of the import
		bound  bool  // the name leads to the import then
		kept   bool  // the new facet is there
	}{
		{"took effect", false, func(_ context.Context, bind func() error) error { return errors.Join(bind(), errLost) }, nil, true, true},
		{"took effect, and nobody can say", true, func(_ context.Context, bind func() error) error { return errors.Join(bind(), errLost) }, facet.ErrUnknownOutcome, true, true},
		{"on its way", false, func(_ context.Context, bind func() error) error { late = bind; return errLost }, facet.ErrUnknownOutcome, false, true},
		{"the caller gives up", false, func(ctx context.Context, bind func() error) error {
			<-ctx.Done()
			return errors.Join(bind(), errLost)
		}, facet.ErrUnknownOutcome, true, true},
		{"refused", false, func(_ context.Context, bind func() error) error {
			return facet.Errorf(facet.CodeUnavailable, "refused")
		}, facet.ErrUnavailable, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTown(t, 3)
				defer w.stop()
				n := name("a")
				old := w.found(n, 1, 2, 3)
				r := w.node(1)
				r.must(n, "CREATE TABLE t (v)")
				r.must(n, "INSERT INTO t VALUES (1)")
				path, pages, sum := r.exported(n)
				r.must(n, "INSERT INTO t VALUES (2)")
				late = nil
				r.before(c.unsure, c.bind)
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				if err := r.m.Import(ctx, n, path, pages, sum, facet.Lineage{}, true); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
					t.Fatalf("import: %v, want %v", err, c.want)
				}
				r.before(false, nil)
				synctest.Wait()
				row, ok := r.Lookup(n)
				if !ok || (row.Incarnation != old) != c.bound {
					t.Fatalf("the name leads to %+v, %v", row, ok)
				}
				want := int64(2)
				if c.bound {
					want = 1
				}
				if got := r.count(n); got != want {
					t.Errorf("%d rows, want %d", got, want)
				}
				if late != nil {
					w.check(late())
					if row, ok = r.Lookup(n); !ok || row.Incarnation == old || r.count(n) != 1 {
						t.Errorf("the name leads to %+v, %v", row, ok)
					}
				}
				made := 0
				for f := range r.table.Facets() {
					if f.Incarnation != old {
						made++
					}
				}
				if (made == 1) != c.kept {
					t.Errorf("%d new facets", made)
				}
			})
		})
	}
}

// TestImportGivenUp: an import whose caller gives up before the name is led anywhere
// takes its facet away, and never leads the name there later.
func TestImportGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t, 3)
		defer w.stop()
		n := name("a")
		old := w.found(n, 1, 2, 3)
		r := w.node(1)
		r.must(n, "CREATE TABLE t (v)")
		path, pages, sum := r.exported(n)
		hold, entered := make(chan struct{}), make(chan struct{})
		go func() {
			_ = r.m.do(context.Background(), n, job{}, func(*session) error {
				close(entered)
				<-hold
				return nil
			})
		}()
		<-entered
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := r.m.Import(ctx, n, path, pages, sum, facet.Lineage{}, true); !errors.Is(err, facet.ErrUnknownOutcome) {
			t.Errorf("import: %v", err)
		}
		close(hold)
		synctest.Wait()
		r.must(n, "INSERT INTO t VALUES (1)")
		if row, ok := r.Lookup(n); !ok || row.Incarnation != old || r.count(n) != 1 {
			t.Errorf("the name leads to %+v, %v", row, ok)
		}
		for f := range r.table.Facets() {
			if f.Incarnation != old {
				t.Errorf("left over: %v, %v", f.Incarnation, f.State)
			}
		}
	})
}
