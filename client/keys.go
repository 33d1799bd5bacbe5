package client

import (
	"crypto/rand"
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"

	"github.com/facetd/facetd/facet"
)

// keys makes idempotency keys. A facet remembers the last 1,024 numbers it saw of
// a client and refuses what is older, so numbers must not run away from a facet
// while the program writes to others: every facet counts with one of many
// counters, each of which is a client of its own to the facets.
type keys struct {
	seed   maphash.Seed
	client [16]byte // the last two bytes are the counter's index
	n      [keyCounters]atomic.Uint64
}

func (k *keys) draw() {
	k.seed = maphash.MakeSeed()
	rand.Read(k.client[:]) // never fails
}

// next makes a key for a write to the facet.
func (k *keys) next(name facet.Name) facet.Key {
	i := maphash.Comparable(k.seed, name) % keyCounters
	key := facet.Key{Client: k.client, N: k.n[i].Add(1)}
	binary.BigEndian.PutUint16(key.Client[14:], uint16(i))
	return key
}
