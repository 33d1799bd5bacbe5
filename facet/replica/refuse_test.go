package replica

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/disk"
)

// TestAppendRefuses gives a copy entries that do not belong where they say they do. The
// copy has a base at 3, knows 5 to be committed, and ends at 7, all of epoch 1.
func TestAppendRefuses(t *testing.T) {
	const base, known, end = 3, 5, 7
	for _, c := range []struct {
		name  string
		epoch facet.Epoch
		at    facet.Seq // the barrier of epoch 2 is made to stand here
		bend  func(c *facet.Commit)
		want  error // nil: any, and the copy stays sound
	}{
		{"of another facet", 2, end + 1, func(c *facet.Commit) { c.Incarnation = testID(2) }, nil},
		{"above the epoch of its session", 2, end + 1, func(c *facet.Commit) { c.Epoch = 3 }, nil},
		{"of no epoch", 2, end + 1, func(c *facet.Commit) { c.Epoch = 0 }, nil},
		{"of no place", 2, end + 1, func(c *facet.Commit) { c.Seq = 0 }, nil},
		{"of an epoch given up (R7)", 0, end + 1, nil, ErrEpoch},
		{"behind a gap (R7)", 2, end + 2, nil, ErrGap},
		{"behind an entry of another epoch (R7)", 2, end + 1, func(c *facet.Commit) { c.PrevEpoch = 2 }, ErrGap},
		{"behind other content (R51)", 2, end + 1, func(c *facet.Commit) { c.PreSum.Lo ^= 1; c.PostSum.Lo ^= 1 }, ErrDiverged},
		{"inside, behind an entry of another epoch (R7)", 2, known + 2, func(c *facet.Commit) { c.PrevEpoch = 2 }, ErrGap},
		{"inside, behind other content (R51)", 2, known + 2, func(c *facet.Commit) { c.PreSum.Lo ^= 1; c.PostSum.Lo ^= 1 }, ErrDiverged},
		{"in place of what is committed (R8)", 2, known, nil, ErrDiverged},
		{"in place of the base (R8)", 2, base, nil, ErrDiverged},
		{"below the base, of a later epoch (R8)", 2, base - 1, nil, ErrDiverged},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := mustOpen(t, options(disk.NewMem()))
			o := newOwner(t, s, testID(1), 1)
			list := []*facet.Commit{o.h.commits[tail{1, 1}]}
			for o.pages.Position().Seq < end {
				list = append(list, o.commit())
				if at := o.pages.Position(); at.Seq == base {
					check(t, s.Sync(ctx))
					check(t, o.r.Known(1, bootA, at))
					o.checkpoint()
				}
			}
			check(t, s.Sync(ctx))
			check(t, o.r.Known(1, bootA, list[known-1].Position()))
			check(t, o.r.Close(o.pages))
			before := o.r.Meta()
			if before.Base.Seq != base || before.CommitKnown != known || before.Last.Seq != end {
				t.Fatalf("%+v", before)
			}

			var b facet.Commit
			if n := int(c.at) - 2; n < len(list) {
				p := o.h.store(t, tailOf(list[n].Position()))
				b = p.Barrier(o.r.ID(), 2)
			} else {
				p := o.h.store(t, tail{1, end})
				b = p.Barrier(o.r.ID(), 2)
				b.Seq = c.at
			}
			if c.bend != nil {
				c.bend(&b)
			}
			if c.epoch == 0 {
				b.Epoch = 0
				_, err := s.Prepare(ctx, o.r.ID(), 3, bootB)
				check(t, err)
				before.Promised, before.Boot, b.Epoch, c.epoch = 3, bootB, 2, 2
			}
			err := o.r.Append(c.epoch, bootB, &b, 0, o.acks)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			var gap *GapError
			if errors.As(err, &gap) && gap.Last != before.Last {
				t.Errorf("it is told that the log ends at %v, it does at %v", gap.Last, before.Last)
			}
			check(t, s.Sync(ctx))
			after := o.r.Meta()
			if c.want == ErrDiverged {
				if after.Health != Diverged {
					t.Errorf("the copy is %v, it must not be used", after.Health)
				}
				return
			}
			if after != before {
				t.Errorf("it left %+v, was %+v", after, before)
			}
		})
	}
}

// TestNamedDamage: of a batch that rotted in its middle the heads of records can be read.
// They say whom it hits, so that nobody else is suspected, and a promise among them holds
// although its record is lost (R6, R14).
func TestNamedDamage(t *testing.T) {
	for _, last := range []bool{true, false} {
		mem := disk.NewMem()
		s, _ := mustOpen(t, single(mem))
		hit, sound := newOwner(t, s, testID(1), 1), newOwner(t, s, testID(2), 1)
		check(t, s.Sync(ctx))
		_, from := logSegment(t, mem)
		// The promise of epoch 2 and its first entry are one batch of some blocks (R7).
		rng := rand.New(rand.NewPCG(1, 1))
		for p := range int64(4) {
			var page [pages.Size]byte
			for i := range page {
				page[i] = byte(rng.Uint32())
			}
			check(t, hit.pages.WriteAt(page[:], p*pages.Size))
		}
		c, _, err := hit.pages.Seal(hit.r.ID(), 2)
		check(t, err)
		check(t, hit.r.Append(2, bootB, &c, 0, hit.acks))
		check(t, s.Sync(ctx))
		if !last {
			sound.commit()
			check(t, s.Sync(ctx))
		}
		want := content(t, sound.pages)
		mem = mem.Image(rand.New(rand.NewPCG(1, 1)), disk.KeepAll)
		check(t, hit.r.Close(hit.pages))
		check(t, sound.r.Close(sound.pages))
		name, _ := logSegment(t, mem)
		check(t, mem.Corrupt(name, func(b []byte) { b[from+3*disk.BlockSize+100] ^= 1 }))

		s, report := mustOpen(t, single(mem))
		if len(report.Log.Damage) != 1 || len(report.Log.Damage[0].Named) != 2 {
			t.Fatalf("%+v", report.Log.Damage)
		}
		health := map[bool]Health{true: Uncertain, false: Holed}[last]
		if report.Uncertain+report.Holed != 1 {
			t.Errorf("%+v", report)
		}
		r, err := s.Replica(hit.r.ID())
		check(t, err)
		if m := r.Meta(); m.Promised != 2 || m.Health != health {
			t.Errorf("%+v, want a promise of 2 and %v", m, health)
		}
		if _, err := s.Prepare(ctx, hit.r.ID(), 1, bootA); !errors.Is(err, ErrEpoch) {
			t.Errorf("the lost promise does not hold: %v", err)
		}
		// To whom it was made is lost too: nobody may go on in that epoch (R2).
		if _, err := s.Prepare(ctx, hit.r.ID(), 2, bootB); !errors.Is(err, ErrBoot) {
			t.Errorf("the epoch is given again: %v", err)
		}
		o := newOwner(t, s, sound.r.ID(), 2)
		if got := content(t, o.pages); string(got) != string(want) {
			t.Error("the other facet differs")
		}
		check(t, o.r.Close(o.pages))
		check(t, s.Close())
	}
}
