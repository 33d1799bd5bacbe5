package placement

// index is a hash index from keys to row numbers. It keeps 32-bit numbers and
// one byte of the hash each, no keys: the caller compares with the row. At a
// million rows that is 6 to 9 bytes a row, where a map with the key inside
// takes 40 and more. It is split in shards, so that growing (which happens
// under the table's write lock) moves a few thousand entries, never a million.
//
// Rejected: a copy-on-write tree with the rows inside, which needs no second
// structure but a dozen cache misses for each lookup; and Go's map, because of
// its size.
type index struct {
	shards [indexShards]indexShard
	live   int
}

const (
	indexShards = 512
	shardShift  = 64 - 9 // the top 9 bits of the hash choose the shard

	tagEmpty = 0 // slot never used since the shard grew last
	tagDead  = 1 // slot of a removed entry
)

// indexShard is an open-addressing table with linear probing.
//
// Invariant: used counts the slots that are not empty and is below len(tags),
// so every probe ends.
type indexShard struct {
	tags []uint8
	refs []uint32
	live uint32
	used uint32
}

func tagOf(h uint64) uint8 {
	if t := uint8(h); t > tagDead {
		return t
	}
	return uint8(h) + 2
}

// slotOf maps 32 hash bits, independent of shard and tag, onto n slots.
func slotOf(h uint64, n int) int { return int(uint64(uint32(h>>8)) * uint64(n) >> 32) }

// find gives the number whose entry has hash h and satisfies same.
func (x *index) find(h uint64, same func(ref uint32) bool) (uint32, bool) {
	s := &x.shards[h>>shardShift]
	if i := s.slot(h, same); i >= 0 {
		return s.refs[i], true
	}
	return 0, false
}

func (s *indexShard) slot(h uint64, same func(ref uint32) bool) int {
	n := len(s.tags)
	if n == 0 {
		return -1
	}
	tag := tagOf(h)
	for i := slotOf(h, n); ; {
		switch s.tags[i] {
		case tagEmpty:
			return -1
		case tag:
			if same(s.refs[i]) {
				return i
			}
		}
		if i++; i == n {
			i = 0
		}
	}
}

// insert adds ref under h. The caller knows that it is not there yet. hashOf
// gives the hash of any number in the index, for growing.
func (x *index) insert(h uint64, ref uint32, hashOf func(ref uint32) uint64) {
	s := &x.shards[h>>shardShift]
	if int(s.used+1)*16 > len(s.tags)*13 {
		s.rebuild(hashOf)
	}
	s.put(h, ref)
	x.live++
}

func (s *indexShard) put(h uint64, ref uint32) {
	i := slotOf(h, len(s.tags))
	for s.tags[i] > tagDead {
		if i++; i == len(s.tags) {
			i = 0
		}
	}
	if s.tags[i] == tagEmpty {
		s.used++
	}
	s.tags[i], s.refs[i] = tagOf(h), ref
	s.live++
}

// rebuild makes room for one and a half times the live entries and drops the
// dead ones.
func (s *indexShard) rebuild(hashOf func(ref uint32) uint64) {
	n := max(8, int(s.live+1)*2)
	old := *s
	*s = indexShard{tags: make([]uint8, n), refs: make([]uint32, n)}
	for i, tag := range old.tags {
		if tag > tagDead {
			s.put(hashOf(old.refs[i]), old.refs[i])
		}
	}
}

// remove takes the entry with hash h that satisfies same out.
func (x *index) remove(h uint64, same func(ref uint32) bool) bool {
	s := &x.shards[h>>shardShift]
	i := s.slot(h, same)
	if i < 0 {
		return false
	}
	s.tags[i] = tagDead
	s.live--
	x.live--
	if s.live == 0 {
		*s = indexShard{}
	}
	return true
}
