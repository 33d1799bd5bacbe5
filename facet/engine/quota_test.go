package engine

import (
	"errors"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
)

// TestGrow: the database never has more pages than were asked for, what is refused is
// rolled back with the error that refused it, and statements that make room may go a
// megabyte beyond it, together and not each.
func TestGrow(t *testing.T) {
	f := open(t, Limits{})
	full := &facet.Error{Code: facet.CodeLimit, Limit: "total_bytes", Message: "no room"}
	left := int64(64 * pages.Size)
	run := func(sql string) error {
		t.Helper()
		var resp facet.Response
		req := facet.Request{Atomic: true, Steps: []facet.Step{step(sql)}}
		return f.db.RunWith(&req, &resp, RunOptions{Grow: func(bytes int64) error {
			if bytes > left {
				return full
			}
			left -= bytes
			return nil
		}})
	}
	must := func(sql string) {
		t.Helper()
		if err := run(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if n := int64(f.store.Pages()) * pages.Size; n > 64*pages.Size-left {
			t.Fatalf("%s: the database has %d bytes, %d were asked for", sql, n, 64*pages.Size-left)
		}
	}
	must("CREATE TABLE t (v)")
	must("CREATE TABLE u (v)")
	must("CREATE TRIGGER more AFTER DELETE ON t BEGIN INSERT INTO u VALUES (zeroblob(300000)); END")
	must("INSERT INTO t VALUES (zeroblob(50000)), (1), (2), (3), (4), (5), (6), (7), (8)")
	before := f.store.Position()
	for range 3 {
		if err := run("INSERT INTO t VALUES (zeroblob(500000))"); !errors.Is(err, facet.ErrLimit) || err.Error() != full.Error() {
			t.Fatalf("beyond what was asked for: %v", err)
		}
	}
	if f.store.Position() != before {
		t.Error("what was refused left something")
	}
	must("UPDATE t SET v = v WHERE rowid = 2")
	refused := 0
	for i := range 6 {
		err := run("DELETE FROM t WHERE rowid = " + string(rune('2'+i)))
		if errors.Is(err, facet.ErrLimit) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if most := uint32(64 + reservePages); f.store.Pages() > most || refused == 0 || refused == 6 {
		t.Errorf("%d deletions that grow were refused; the database has %d pages, at most %d were to be", refused, f.store.Pages(), most)
	}
	left = 1 << 30
	if err := run("INSERT INTO t VALUES (zeroblob(500000))"); err != nil {
		t.Error(err)
	}
}

// TestSetLimits: limits that change between two requests hold from the next one on, and
// zero is what the facet was opened with.
func TestSetLimits(t *testing.T) {
	f := open(t, Limits{FacetBytes: 1 << 20})
	try := func() error {
		var resp facet.Response
		req := facet.Request{Atomic: true, Steps: []facet.Step{step("INSERT INTO t VALUES (zeroblob(600000))")}}
		return f.db.Run(&req, &resp)
	}
	var resp facet.Response
	if err := f.db.Run(&facet.Request{Steps: []facet.Step{step("CREATE TABLE t (v)")}}, &resp); err != nil {
		t.Fatal(err)
	}
	for i, set := range []struct {
		bytes int64
		fits  bool
	}{{0, true}, {0, false}, {2 << 20, true}, {1 << 20, false}, {0, false}, {4 << 20, true}} {
		f.db.SetLimits(set.bytes, 0, 0)
		err := try()
		if set.fits != (err == nil) || err != nil && !errors.Is(err, facet.ErrLimit) {
			t.Errorf("step %d: %v", i, err)
		}
	}
}
