package replica

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
)

func TestScrubFindsRot(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, single(mem))
	o := newOwner(t, s, testID(1), 1)
	o.commit()
	o.checkpoint()
	check(t, o.r.Close(o.pages))
	read := 0
	check(t, o.r.Scrub(ctx, func(_ context.Context, n int) error { read += n; return nil }))
	if want := int(o.r.Meta().BasePages) * facet.PageSize; read != want || want == 0 {
		t.Errorf("paced for %d bytes of %d", read, want)
	}
	if _, n := s.Damaged(9); n != 0 {
		t.Errorf("%d damaged copies", n)
	}
	check(t, mem.Corrupt(s.dbName(o.r.ID()), func(b []byte) { b[100] ^= 1 }))
	if err := o.r.Scrub(ctx, nil); !errors.Is(err, facet.ErrCorrupt) {
		t.Fatalf("scrub of a rotten file: %v", err)
	}
	if _, err := o.r.Open(ctx, true); !errors.Is(err, facet.ErrCorrupt) {
		t.Fatalf("open: %v", err)
	}
	want := []Damage{{ID: o.r.ID(), Health: Diverged, Since: 1}}
	if list, n := s.Damaged(9); n != 1 || !slices.Equal(list, want) {
		t.Errorf("damaged copies: %v", list)
	}
	if list, n := s.Damaged(0); n != 1 || len(list) != 0 {
		t.Errorf("%d damaged copies, %d listed", n, len(list))
	}
	// And one whose file is gone.
	o = newOwner(t, s, testID(2), 1)
	o.commit()
	o.checkpoint()
	check(t, o.r.Close(o.pages))
	check(t, mem.Remove(s.dbName(o.r.ID())))
	if err := o.r.Scrub(ctx, nil); !errors.Is(err, facet.ErrCorrupt) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("scrub of a lost file: %v", err)
	}
	if ids := s.IDs(o.r.ID()[0]); !slices.Equal(ids, []facet.Incarnation{o.r.ID()}) {
		t.Errorf("ids: %v", ids)
	}
}

// TestOpeningFindsRot: a file that rotted at rest is found when it is opened, by an owner
// and for a view, before anything is read from it or changed on top of it (R51). A large
// file is left to the scrub.
func TestOpeningFindsRot(t *testing.T) {
	open := map[string]func(r Replica) error{
		"owner": func(r Replica) error {
			store, err := r.Open(ctx, true)
			if err != nil {
				return err
			}
			return r.Close(store)
		},
		"view": func(r Replica) error {
			v, err := r.OpenView()
			if err != nil {
				return err
			}
			return v.Close()
		},
	}
	for name, f := range open {
		t.Run(name, func(t *testing.T) {
			mem := disk.NewMem()
			s, _ := mustOpen(t, single(mem))
			rotten := func(id facet.Incarnation, n int) Replica {
				o := newOwner(t, s, id, 1)
				for i := range n {
					check(t, o.pages.WriteAt(bytes.Repeat([]byte{1}, facet.PageSize), int64(i)*facet.PageSize))
				}
				c, _, err := o.pages.Seal(o.r.ID(), o.epoch)
				check(t, err)
				check(t, o.append(&c))
				o.checkpoint()
				check(t, o.r.Close(o.pages))
				check(t, f(o.r))
				check(t, mem.Corrupt(s.dbName(o.r.ID()), func(b []byte) { b[100] ^= 1 }))
				return o.r
			}
			r := rotten(testID(1), 3)
			if err := f(r); !errors.Is(err, facet.ErrCorrupt) {
				t.Errorf("open a rotten file: %v", err)
			}
			if h := r.Meta().Health; h != Diverged {
				t.Errorf("the copy is %v", h)
			}
			check(t, f(rotten(testID(2), verifiedPages+1)))
		})
	}
}

// TestScrubOfAFacetInUse: a facet that is written all the time is read at a base of its
// own, and rot in it is found all the same.
func TestScrubOfAFacetInUse(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, single(mem))
	o := newOwner(t, s, testID(1), 1)
	put := func(page int64, b byte) {
		check(t, o.pages.WriteAt(bytes.Repeat([]byte{b}, facet.PageSize), page*facet.PageSize))
		c, _, err := o.pages.Seal(o.r.ID(), o.epoch)
		check(t, err)
		check(t, o.append(&c))
	}
	for i := range int64(4) {
		put(i, 1)
	}
	o.checkpoint()
	n := byte(1)
	write := func(context.Context, int) error {
		n++
		put(int64(1+n%3), n)
		o.checkpoint()
		return nil
	}
	before := o.r.Meta().Base
	for range 20 {
		check(t, o.r.Scrub(ctx, write))
	}
	if o.r.Meta().Base.Seq < before.Seq+20 {
		t.Error("the base did not move")
	}
	check(t, mem.Corrupt(s.dbName(o.r.ID()), func(b []byte) { b[77] ^= 1 }))
	if err := o.r.Scrub(ctx, write); !errors.Is(err, facet.ErrCorrupt) {
		t.Errorf("scrub of a rotten file: %v", err)
	}
	check(t, o.r.Close(o.pages))
}

// TestScrubLog: of a segment of the log that has rotted nothing is needed for long.
func TestScrubLog(t *testing.T) {
	for _, open := range []bool{true, false} {
		mem := disk.NewMem()
		s, _ := mustOpen(t, single(mem))
		o := newOwner(t, s, testID(1), 1)
		for range 5 {
			o.commit()
		}
		check(t, s.Sync(ctx))
		want := content(t, o.pages)
		if !open {
			check(t, o.r.Close(o.pages))
		}
		segs := s.Log().Segments()
		check(t, s.ScrubLog(ctx, segs[0].ID, nil))
		check(t, s.ScrubLog(ctx, 99, nil)) // removed meanwhile
		if c, err := s.Collect(ctx); err != nil || len(c.Pins) > 0 || s.Rotten() != 0 {
			t.Fatalf("a sound log: %+v, %v", c, err)
		}
		at := o.r.st.live.entries[2].Offset
		check(t, mem.Corrupt("data/log/00000001.seg", func(b []byte) { b[at] ^= 1 }))
		if err := s.ScrubLog(ctx, segs[0].ID, nil); len(segs) != 1 || !errors.Is(err, facet.ErrCorrupt) || s.Rotten() != segs[0].ID {
			t.Fatalf("%d segments, scrub of a rotten one: %v", len(segs), err)
		}
		c, err := s.Collect(ctx)
		if err != nil || len(c.Pins) != 1 {
			t.Fatalf("%+v, %v", c, err)
		}
		if open { // its pages are in memory: nothing of it is lost
			o.checkpoint()
			check(t, s.Sync(ctx))
			if c, err = s.Collect(ctx); err != nil || c.Removed != 1 || s.Rotten() != 0 {
				t.Errorf("%+v, %v", c, err)
			}
			check(t, o.r.Scrub(ctx, nil))
			check(t, o.r.Close(o.pages))
			check(t, s.Close())
			s, report := mustOpen(t, single(mem))
			if report.Holed+report.Uncertain > 0 {
				t.Errorf("%+v", report)
			}
			o = newOwner(t, s, testID(1), 2)
			if got := content(t, o.pages); !slices.Equal(got, want) {
				t.Error("another database after the start")
			}
			check(t, o.r.Close(o.pages))
			continue
		}
		if err := o.r.CheckpointIdle(ctx); !errors.Is(err, facet.ErrCorrupt) {
			t.Errorf("checkpoint from what cannot be read: %v", err)
		}
		if list, _ := s.Damaged(9); len(list) != 1 || list[0].Health != Holed {
			t.Errorf("damaged copies: %v", list)
		}
	}
}
