package replica

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
)

// TestView follows a facet through its life by views that are opened and advanced at
// random points: each shows exactly what was committed at its position, is never above
// what is known, and never goes back; and nothing of what goes on is in anybody's way.
func TestView(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 5))
		s, _ := mustOpen(t, options(disk.NewMem()))
		o := newOwner(t, s, testID(1), 1)
		o.rng = rng
		var known facet.Position
		tell := func() {
			check(t, s.Sync(ctx))
			known = o.pages.Position()
			check(t, o.r.Known(1, bootA, known))
		}
		var v *View
		var at facet.Seq
		reopened := 0
		look := func() {
			t.Helper()
			for {
				if v == nil {
					var err error
					v, err = o.r.OpenView()
					check(t, err)
					reopened++
				}
				_, err := v.Advance(ctx, 1<<20)
				if err == nil {
					break
				}
				if !errors.Is(err, ErrCompacted) || !v.Behind() {
					t.Fatalf("seed %d: %v", seed, err)
				}
				check(t, v.Close())
				v = nil
			}
			p := v.Store().Position()
			switch {
			case p.Seq > known.Seq:
				t.Fatalf("seed %d: view at %v, known is %v", seed, p, known)
			case p.Seq < known.Seq:
				t.Fatalf("seed %d: view stays at %v, known is %v", seed, p, known)
			case p.Seq < at:
				t.Fatalf("seed %d: view went from %v back to %v", seed, at, p)
			case !bytes.Equal(content(t, v.Store()), o.h.contents[tailOf(p)]):
				t.Fatalf("seed %d: view differs at %v", seed, p)
			}
			at = p.Seq
		}
		for range 80 {
			switch rng.IntN(8) {
			case 0:
				tell()
				o.checkpoint()
			case 1, 2:
				tell()
			case 3, 4:
				look()
			case 5:
				if v != nil { // what it showed stays, whatever was overwritten meanwhile
					p := v.Store().Position()
					if !bytes.Equal(content(t, v.Store()), o.h.contents[tailOf(p)]) {
						t.Fatalf("seed %d: view changed at %v", seed, p)
					}
				}
			default:
				o.commit()
			}
		}
		look()
		if reopened == 0 {
			t.Fatal("no view was opened")
		}
		// A snapshot takes the copy's place, as far as the view is concerned by a jump.
		check(t, o.r.Close(o.pages))
		was := v.Store().Position()
		o.h.contents[tail{}] = nil
		next := o.barrier(2, tailOf(o.pages.Position())).Position()
		if next.Seq == was.Seq {
			t.Fatal("the barrier is no new position")
		}
		check(t, s.Sync(ctx))
		_, err := o.r.Install(ctx, Snapshot{Epoch: 2, Boot: bootA, Position: next, Source: bytes.NewReader(o.h.contents[tailOf(next)])})
		check(t, err)
		if !bytes.Equal(content(t, v.Store()), o.h.contents[tailOf(was)]) {
			t.Fatalf("seed %d: a snapshot changed the view", seed)
		}
		known = next
		look()
		check(t, o.r.Drop(ctx, o.r.Meta().Promised))
		if _, err := v.Advance(ctx, 1<<20); err == nil {
			t.Error("a view of a dropped copy goes on")
		}
		if _, err := o.r.OpenView(); err == nil {
			t.Error("a view of a dropped copy is opened")
		}
		check(t, v.Close())
		check(t, v.Close())
		check(t, s.Sync(ctx))
		if st := s.lookup(testID(1), false); st.live != nil {
			t.Error("the facet is kept awake by nobody")
		}
		check(t, s.Close())
	}
}

// TestViewBounds: a view holds no more changed pages than it may, and no more of those
// that a checkpoint overwrites.
func TestViewBounds(t *testing.T) {
	s, _ := mustOpen(t, options(disk.NewMem()))
	o := newOwner(t, s, testID(1), 1)
	const many = maxViewSaved + 10
	fill := func(b byte) {
		t.Helper()
		page := bytes.Repeat([]byte{b}, facet.PageSize)
		for i := range int64(many) {
			check(t, o.pages.WriteAt(page, i*facet.PageSize))
		}
		c, _, err := o.pages.Seal(o.r.ID(), 1)
		check(t, err)
		check(t, o.append(&c))
		check(t, s.Sync(ctx))
		check(t, o.r.Known(1, bootA, c.Position()))
	}
	fill(1)
	v, err := o.r.OpenView()
	check(t, err)
	if _, err := v.Advance(ctx, many-1); !errors.Is(err, ErrViewFull) {
		t.Errorf("advanced over its bound: %v", err)
	}
	check(t, v.Close())
	o.checkpoint()
	v, err = o.r.OpenView()
	check(t, err)
	defer v.Close()
	if moved, err := v.Advance(ctx, 1); moved || err != nil || v.Behind() || v.Lost() != nil {
		t.Errorf("moved %v, %v, behind %v, lost %v", moved, err, v.Behind(), v.Lost())
	}
	fill(2)
	o.checkpoint()
	if !v.Behind() || v.Lost() == nil {
		t.Errorf("behind %v, lost: %v", v.Behind(), v.Lost())
	}
	if _, err := v.Advance(ctx, many); !errors.Is(err, ErrCompacted) {
		t.Errorf("advance over the base: %v", err)
	}
}

// TestMoved: who waits for more to be committed hears of it.
func TestMoved(t *testing.T) {
	s, _ := mustOpen(t, options(disk.NewMem()))
	o := newOwner(t, s, testID(1), 1)
	check(t, s.Sync(ctx))
	for range 3 {
		c := o.commit()
		check(t, s.Sync(ctx))
		ch := o.r.Moved()
		select {
		case <-ch:
			t.Fatal("told though nothing happened")
		default:
		}
		check(t, o.r.Known(1, bootA, c.Position()))
		<-ch
		if m := o.r.Meta(); m.CommitKnown != c.Seq {
			t.Errorf("known %v, want %v", m.CommitKnown, c.Seq)
		}
	}
}

// TestViewFindsRot: a view whose entries do not fit the file takes the copy out of
// service, like whoever else finds that (R51).
func TestViewFindsRot(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, options(mem))
	o := newOwner(t, s, testID(1), 1)
	write := func(b byte) {
		t.Helper()
		var page [facet.PageSize]byte
		page[0] = b
		check(t, o.pages.WriteAt(page[:], 0))
		c, _, err := o.pages.Seal(o.r.ID(), 1)
		check(t, err)
		check(t, o.append(&c))
		check(t, s.Sync(ctx))
		check(t, o.r.Known(1, bootA, c.Position()))
	}
	write(1)
	o.checkpoint()
	write(2)
	v, err := o.r.OpenView()
	check(t, err)
	check(t, mem.Corrupt(s.dbName(o.r.ID()), func(b []byte) { b[100] ^= 1 })) // behind the look at its opening
	if _, err := v.Advance(ctx, 10); !errors.Is(err, facet.ErrCorrupt) {
		t.Errorf("advance over rot: %v", err)
	}
	check(t, v.Close())
	if h := o.r.Meta().Health; h != Diverged {
		t.Errorf("the copy is %v", h)
	}
	if _, err := o.r.OpenView(); !errors.Is(err, ErrDamaged) {
		t.Errorf("another view: %v", err)
	}
}
