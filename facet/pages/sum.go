package pages

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"

	"github.com/facetd/facetd/facet"
)

// Hash is the contribution of one page to the rolling checksum: XXH3-128 of its
// content seeded with its number. A page of zeros contributes nothing, like a
// page that was never written, so that holes need no bookkeeping.
func Hash(pgno uint32, page []byte) facet.Sum {
	if binary.LittleEndian.Uint64(page) == 0 && isZero(page) {
		return facet.Sum{}
	}
	h := xxh3.Hash128Seed(page, uint64(pgno))
	return facet.Sum{Hi: h.Hi, Lo: h.Lo}
}

func isZero(p []byte) bool {
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p) != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
