package replica

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/disk"
)

// readBase reads a base file whole, in an order drawn by rng.
func readBase(t testing.TB, base pages.Base, f *BaseFile, rng *rand.Rand) []byte {
	t.Helper()
	b := make([]byte, int(base.Pages)*facet.PageSize)
	for _, i := range rng.Perm(int(base.Pages)) {
		check(t, f.ReadPage(uint32(i+1), b[i*facet.PageSize:]))
	}
	return b
}

// TestBaseStaysWhatItIs takes base files of a facet at many points of its life and
// reads each one much later, after checkpoints that overwrote, cut and added pages,
// after a snapshot, after the facet is gone.
func TestBaseStaysWhatItIs(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 4))
		s, _ := mustOpen(t, single(disk.NewMem()))
		o := newOwner(t, s, testID(1), 1)
		type source struct {
			base pages.Base
			f    *BaseFile
		}
		var open []source
		take := func() {
			base, f, err := o.r.BaseSource()
			check(t, err)
			open = append(open, source{base, f})
		}
		verify := func(i int) {
			src := open[i]
			if got := readBase(t, src.base, src.f, rng); !bytes.Equal(got, o.h.contents[tailOf(src.base.Position)]) {
				t.Fatalf("seed %d: base %v differs", seed, src.base.Position)
			}
		}
		for range 60 {
			switch rng.IntN(6) {
			case 0:
				if len(open) < maxSources {
					take()
				}
			case 1:
				if n := len(open); n > 0 {
					i := rng.IntN(n)
					verify(i)
					check(t, open[i].f.Close())
					open = append(open[:i], open[i+1:]...)
				}
			case 2, 3:
				o.checkpoint()
			default:
				o.commit()
			}
		}
		check(t, o.r.Close(o.pages))
		if len(open) == 0 {
			take()
		}
		at := tailOf(o.barrier(2, tailOf(o.pages.Position())).Position())
		for i := range open {
			verify(i)
		}
		check(t, s.Sync(ctx))
		_, err := o.r.Install(ctx, Snapshot{Epoch: 2, Boot: bootA, Position: o.h.commits[at].Position(), Source: bytes.NewReader(o.h.contents[at])})
		check(t, err)
		for i := range open {
			verify(i)
		}
		check(t, o.r.Drop(ctx, o.r.Meta().Promised))
		for i := range open {
			verify(i)
			check(t, open[i].f.Close())
			check(t, open[i].f.Close())
		}
		check(t, s.Sync(ctx))
		if st := s.lookup(testID(1), false); st.live != nil {
			t.Fatalf("seed %d: it does not come to rest: %+v", seed, st.live)
		}
		check(t, s.Close())
	}
}

// TestBaseWhileOthersWork reads a base while its owner commits and checkpoints.
func TestBaseWhileOthersWork(t *testing.T) {
	s, _ := mustOpen(t, single(disk.NewMem()))
	o := newOwner(t, s, testID(1), 1)
	for range 5 {
		o.commit()
	}
	o.checkpoint()
	base, f, err := o.r.BaseSource()
	check(t, err)
	want := o.h.contents[tailOf(base.Position)]
	var wg sync.WaitGroup
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(3, 3))
		for range 200 {
			if got := readBase(t, base, f, rng); !bytes.Equal(got, want) {
				t.Error("it changed")
				return
			}
		}
	})
	for range 40 {
		o.commit()
		o.checkpoint()
	}
	wg.Wait()
	check(t, f.Close())
	check(t, o.r.Close(o.pages))
}

func TestBaseSourceRefusals(t *testing.T) {
	mem := disk.NewMem()
	s, _ := mustOpen(t, single(mem))
	o := newOwner(t, s, testID(1), 1)
	// Nothing but a position: no file, no pages.
	base, f, err := o.r.BaseSource()
	check(t, err)
	if base.Pages != 0 || f.ReadPage(1, make([]byte, facet.PageSize)) == nil {
		t.Fatalf("an empty base: %+v", base)
	}
	check(t, f.Close())
	for range 4 {
		o.commit()
	}
	o.checkpoint()
	var open []*BaseFile
	for range maxSources {
		_, f, err := o.r.BaseSource()
		check(t, err)
		open = append(open, f)
	}
	if _, _, err := o.r.BaseSource(); !errors.Is(err, ErrBusy) {
		t.Fatalf("one too many: %v", err)
	}
	check(t, open[0].Close())
	if err := open[0].ReadPage(1, make([]byte, facet.PageSize)); err == nil {
		t.Fatal("a closed base was read")
	}
	o.r.st.live.checkpointing = true
	if _, _, err := o.r.BaseSource(); !errors.Is(err, ErrOpen) {
		t.Fatalf("while it is being written: %v", err)
	}
	o.r.st.live.checkpointing = false
	// What cannot be kept is told, and the checkpoint goes on.
	open[1].limit = 0
	for o.r.Meta().Base.Seq < 12 {
		o.commit()
		o.checkpoint()
	}
	if err := open[1].ReadPage(1, make([]byte, facet.PageSize)); !errors.Is(err, pages.ErrSnapshotTooOld) {
		t.Fatalf("too much to keep: %v", err)
	}
	check(t, open[2].ReadPage(1, make([]byte, facet.PageSize)))
	for _, f := range open {
		check(t, f.Close())
	}
	check(t, o.r.Close(o.pages))
	// A file that is cut short costs the facet.
	db, err := mem.OpenFile(s.dbName(testID(1)), os.O_RDWR, 0)
	check(t, err)
	check(t, db.Truncate(100))
	check(t, db.Close())
	base, f, err = o.r.BaseSource()
	check(t, err)
	if err := f.ReadPage(base.Pages, make([]byte, facet.PageSize)); !errors.Is(err, facet.ErrCorrupt) {
		t.Fatalf("read of a short file: %v", err)
	}
	check(t, f.Close())
	if _, _, err := o.r.BaseSource(); !errors.Is(err, ErrDamaged) {
		t.Fatalf("base of a damaged facet: %v", err)
	}
}
