package placement

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestIndex compares the index with a map. Hashes are poor on purpose, so that
// entries collide in shard, slot and tag.
func TestIndex(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, mask := range []uint64{^uint64(0), 3<<62 | 0xff00 | 3, 0} {
		keys := make([]uint64, 3000)
		for i := range keys {
			keys[i] = rng.Uint64()
		}
		hash := func(ref uint32) uint64 { return (keys[ref] * 0x9e3779b97f4a7c15) & mask }
		n := len(keys)
		if mask == 0 {
			n = 300
		}
		var x index
		in := map[uint32]bool{}
		for range 20000 {
			ref := uint32(rng.IntN(n))
			same := func(r uint32) bool { return keys[r] == keys[ref] }
			got, ok := x.find(hash(ref), same)
			if ok != in[ref] || ok && got != ref {
				t.Fatalf("mask %x: find(%d) = %d, %v, want %v", mask, ref, got, ok, in[ref])
			}
			if ok {
				if !x.remove(hash(ref), same) {
					t.Fatalf("remove(%d) found nothing", ref)
				}
				delete(in, ref)
			} else {
				if x.remove(hash(ref), same) {
					t.Fatalf("remove(%d) found what is not there", ref)
				}
				x.insert(hash(ref), ref, hash)
				in[ref] = true
			}
			if x.live != len(in) {
				t.Fatalf("live %d, want %d", x.live, len(in))
			}
		}
	}
}

// TestNameOrder compares the ordered list with a sorted slice of numbers.
func TestNameOrder(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, universe := range []int{50, 5000} {
		var o nameOrder
		var want []uint32
		for step := range 15000 {
			key := uint32(rng.IntN(universe))
			if step < universe/2 {
				key = uint32(step) // in order at first
			}
			by := func(ref uint32) int { return cmp.Compare(ref, key) }
			i, ok := slices.BinarySearch(want, key)
			// Grow for a while, then shrink to nothing.
			if shrink := step > 9000; ok && (shrink || rng.IntN(4) == 0) {
				if !o.remove(by) {
					t.Fatalf("remove(%d) found nothing", key)
				}
				want = slices.Delete(want, i, i+1)
			} else if !ok {
				if o.remove(by) {
					t.Fatalf("remove(%d) found what is not there", key)
				}
				if !shrink {
					o.insert(key, by)
					want = slices.Insert(want, i, key)
				}
			}
			if step%97 == 0 {
				var got []uint32
				b, at := o.seek(func(uint32) int { return 1 })
				o.ascend(b, at, func(ref uint32) bool { got = append(got, ref); return true })
				if !slices.Equal(got, want) || o.n != len(want) {
					t.Fatalf("step %d: order is wrong: %d of %d", step, len(got), len(want))
				}
				i, _ := slices.BinarySearch(want, key)
				b, at = o.seek(by)
				var first []uint32
				o.ascend(b, at, func(ref uint32) bool { first = append(first, ref); return len(first) < 3 })
				if !slices.Equal(first, want[i:min(i+3, len(want))]) {
					t.Fatalf("seek(%d) gives %v", key, first)
				}
				for _, b := range o.blocks {
					if b.n == 0 {
						t.Fatal("empty block")
					}
				}
			}
		}
		for _, key := range slices.Clone(want) {
			o.remove(func(ref uint32) int { return cmp.Compare(ref, key) })
		}
		if o.n != 0 || len(o.blocks) != 0 {
			t.Fatalf("%d entries in %d blocks are left", o.n, len(o.blocks))
		}
	}
}
