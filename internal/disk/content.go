package disk

import (
	"io"
	"math/rand/v2"
	"slices"
)

const sectorsPerBlock = BlockSize / SectorSize

// content is the bytes of one file on a Mem: what a reader sees now, and beside
// it what the device is certain to hold.
//
// Invariant: a block with dirty == 0 is the same now and on the device. A block
// with dirty != 0 has its index in unsynced unless it is lost.
type content struct {
	size       int64 // now
	syncedSize int64 // after a crash at the latest Datasync
	blocks     []block
	unsynced   []int // blocks written since the last Datasync, each once
}

// block is BlockSize bytes; a nil slice stands for zeros.
type block struct {
	cur   []byte // what a reader sees
	old   []byte // what the device holds, while dirty != 0
	dirty uint8  // a bit for each sector that differs from old in history
	own   bool   // cur belongs to this content alone and may be changed in place
	lost  bool   // a Datasync failed on it: clean for the cache, old on the device
}

func (c *content) readAt(p []byte, off int64) (int, error) {
	if off >= c.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), c.size-off))
	for done := 0; done < n; {
		i, in := int((off+int64(done))/BlockSize), int((off+int64(done))%BlockSize)
		dst := p[done:min(n, done+BlockSize-in)]
		if i < len(c.blocks) && c.blocks[i].cur != nil {
			copy(dst, c.blocks[i].cur[in:])
		} else {
			clear(dst)
		}
		done += len(dst)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (c *content) writeAt(p []byte, off int64) {
	if len(p) > 0 {
		c.size = max(c.size, off+int64(len(p)))
	}
	for len(p) > 0 {
		in := int(off % BlockSize)
		k := min(len(p), BlockSize-in)
		c.writeBlock(int(off/BlockSize), in, p[:k])
		p, off = p[k:], off+int64(k)
	}
}

func (c *content) writeBlock(i, in int, p []byte) {
	if i >= len(c.blocks) {
		c.blocks = slices.Grow(c.blocks, i+1-len(c.blocks))[:i+1]
	}
	b := &c.blocks[i]
	if b.cur == nil && b.dirty == 0 && allZero(p) {
		return // zeros over zeros: nothing a crash could show
	}
	if b.dirty == 0 {
		b.old, b.own = b.cur, false
		c.unsynced = append(c.unsynced, i)
	} else if b.lost {
		b.lost = false
		c.unsynced = append(c.unsynced, i)
	}
	if !b.own {
		cur := make([]byte, BlockSize)
		copy(cur, b.cur)
		b.cur, b.own = cur, true
	}
	copy(b.cur[in:], p)
	for s := in / SectorSize; s <= (in+len(p)-1)/SectorSize; s++ {
		b.dirty |= 1 << s
	}
}

func (c *content) truncate(size int64) {
	var zero [BlockSize]byte
	for off := size; off < c.size && off/BlockSize < int64(len(c.blocks)); {
		in := int(off % BlockSize)
		k := BlockSize - in
		c.writeBlock(int(off/BlockSize), in, zero[:k])
		off += int64(k)
	}
	c.size = size
}

func (c *content) sync() {
	for _, i := range c.unsynced {
		b := &c.blocks[i]
		b.old, b.dirty = nil, 0
	}
	c.unsynced = c.unsynced[:0]
	c.syncedSize = c.size
}

// failSync is what a failed fsync does on a real system: the written blocks
// count as clean, so that no later fsync writes them, and the device has the
// old ones.
func (c *content) failSync() {
	for _, i := range c.unsynced {
		c.blocks[i].lost = true
	}
	c.unsynced = c.unsynced[:0]
}

// dropCache forgets what only the cache knows.
func (c *content) dropCache() {
	for i := range c.blocks {
		if b := &c.blocks[i]; b.lost {
			*b = block{cur: b.old}
		}
	}
}

func (c *content) clone() content {
	for i := range c.blocks {
		c.blocks[i].own = false
	}
	d := *c
	d.blocks, d.unsynced = slices.Clone(c.blocks), slices.Clone(c.unsynced)
	return d
}

// settle is the power cut: unsynced sectors and sizes become old or new for
// good, as loss says.
func (c *content) settle(rng *rand.Rand, loss Loss) {
	switch lo, hi := min(c.size, c.syncedSize), max(c.size, c.syncedSize); {
	case loss == LoseAll:
		c.size = c.syncedSize
	case loss == KeepAll || lo == hi:
	default:
		switch rng.IntN(3) {
		case 0:
			c.size = c.syncedSize
		case 1:
			c.size = lo + rng.Int64N(hi-lo)
		}
	}
	for i := range c.blocks {
		b := &c.blocks[i]
		if b.dirty == 0 {
			continue
		}
		keepBlock := rng.IntN(2) == 0
		next := make([]byte, BlockSize)
		copy(next, b.old)
		for s := range sectorsPerBlock {
			if b.dirty&(1<<s) == 0 {
				continue
			}
			sector := next[s*SectorSize : (s+1)*SectorSize]
			var keep bool
			switch loss {
			case KeepAll:
				keep = !b.lost
			case KeepSome:
				keep = keepBlock
			case Tear:
				keep = rng.IntN(2) == 0
			case TearGarbage:
				if rng.IntN(8) == 0 {
					for j := range sector {
						sector[j] = byte(rng.Uint32())
					}
					continue
				}
				keep = rng.IntN(2) == 0
			}
			if keep {
				clear(sector)
				if b.cur != nil {
					copy(sector, b.cur[s*SectorSize:])
				}
			}
		}
		*b = block{cur: next, own: true}
	}
	c.unsynced = nil
	c.truncateSettled(c.size)
}

// truncateSettled drops what lies behind size without history.
func (c *content) truncateSettled(size int64) {
	keep := int((size + BlockSize - 1) / BlockSize)
	if keep < len(c.blocks) {
		clear(c.blocks[keep:])
		c.blocks = c.blocks[:keep]
	}
	if in := size % BlockSize; in != 0 && keep == len(c.blocks) {
		if b := &c.blocks[keep-1]; b.cur != nil {
			cur := slices.Clone(b.cur)
			clear(cur[in:])
			*b = block{cur: cur, own: true}
		}
	}
	c.size, c.syncedSize = size, size
}

func allZero(p []byte) bool {
	for _, x := range p {
		if x != 0 {
			return false
		}
	}
	return true
}
