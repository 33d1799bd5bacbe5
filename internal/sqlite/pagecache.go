package sqlite

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite's page cache, replaced because this build of SQLite (it is compiled
// with ENABLE_MEMORY_MANAGEMENT) keeps one LRU for all connections of the
// process: every page fetch takes one process-wide mutex and a busy connection
// evicts its neighbours' pages. It also allocates a page and its header as one
// 4,4xx-byte block, which a power-of-two allocator stores in 8 KiB.
//
// Here every cache belongs to one connection and takes no lock. Pages live in
// slots cut to measure from process-wide slabs; the slab lock is taken only when
// a cache grows or shrinks, for in the steady state a cache recycles its own
// least recently used page.
//
// Everything below is memory SQLite knows by address, so structs hold uintptrs
// and no Go pointers.

// pcache is one page cache. SQLite holds its address.
type pcache struct {
	szPage    int32
	szExtra   int32
	poolIndex int32 // in slotPools
	stride    int32 // of the pool
	purgeable bool

	max     uint32 // PRAGMA cache_size in pages
	pages   uint32 // pages held
	unused  uint32 // of them unpinned, on the LRU list
	maxKey  uint32 // upper bound of keys held
	nHash   uint32 // power of two
	hash    uintptr
	lruHead uintptr // most recently used *pslot
	lruTail uintptr
}

// pslot is one cached page: the page buffer lies before it in the slot, the
// extra space SQLite asked for behind it.
type pslot struct {
	page    sqlite3.Tsqlite3_pcache_page // what SQLite gets; must be first
	next    uintptr                      // in the hash bucket
	lruNext uintptr
	lruPrev uintptr
	key     uint32
	pinned  uint32
}

const (
	pslotBytes  = (unsafe.Sizeof(pslot{}) + 7) &^ 7
	initialHash = 16
)

func asCache(p uintptr) *pcache { return at[pcache](p) }
func asSlot(p uintptr) *pslot   { return at[pslot](p) }

// slots is the pool of c. Pools are written once, before any cache names them.
func (c *pcache) slots() *slotPool { return slotPools.all[c.poolIndex] }

func (c *pcache) bucket(key uint32) *uintptr {
	return word(c.hash + uintptr(key&(c.nHash-1))*unsafe.Sizeof(uintptr(0)))
}

func (c *pcache) lruRemove(p uintptr) {
	s := asSlot(p)
	if s.lruPrev != 0 {
		asSlot(s.lruPrev).lruNext = s.lruNext
	} else {
		c.lruHead = s.lruNext
	}
	if s.lruNext != 0 {
		asSlot(s.lruNext).lruPrev = s.lruPrev
	} else {
		c.lruTail = s.lruPrev
	}
	s.lruNext, s.lruPrev = 0, 0
	c.unused--
}

func (c *pcache) lruPush(p uintptr) {
	s := asSlot(p)
	s.lruPrev, s.lruNext = 0, c.lruHead
	if c.lruHead != 0 {
		asSlot(c.lruHead).lruPrev = p
	} else {
		c.lruTail = p
	}
	c.lruHead = p
	c.unused++
}

// unhash takes p out of its bucket.
func (c *pcache) unhash(p uintptr) {
	s := asSlot(p)
	at := c.bucket(s.key)
	for *at != p {
		at = &asSlot(*at).next
	}
	*at = s.next
	s.next = 0
}

// evict removes p, pinned or not, and gives its slot back.
func (c *pcache) evict(tls *libc.TLS, p uintptr) {
	c.unhash(p)
	if asSlot(p).pinned == 0 {
		c.lruRemove(p)
	}
	c.pages--
	c.slots().put(p - uintptr(c.szPage))
	if t := threadOf(tls); t != nil && t.acct != nil {
		t.acct.uncharge(int64(c.stride))
	}
}

func (c *pcache) trim(tls *libc.TLS, max uint32) {
	for c.pages > max && c.lruTail != 0 {
		c.evict(tls, c.lruTail)
	}
}

// rehash doubles the table; on failure the buckets just stay longer.
func (c *pcache) rehash(tls *libc.TLS) {
	if c.nHash >= 1<<26 {
		return
	}
	n := c.nHash * 2
	h := zalloc(tls, int32(n)*int32(unsafe.Sizeof(uintptr(0))))
	if h == 0 {
		return
	}
	oldHash, oldN := c.hash, c.nHash
	c.hash, c.nHash = h, n
	for i := uint32(0); i < oldN; i++ {
		p := *word(oldHash + uintptr(i)*unsafe.Sizeof(uintptr(0)))
		for p != 0 {
			s := asSlot(p)
			next := s.next
			b := c.bucket(s.key)
			s.next, *b = *b, p
			p = next
		}
	}
	memFree(tls, oldHash)
}

func zalloc(tls *libc.TLS, n int32) uintptr {
	p := memMalloc(tls, n)
	if p != 0 {
		clear(view(p, n))
	}
	return p
}

// stockCacheInit is the init function of the cache this one replaces.
var stockCacheInit uintptr

// pcacheInit runs the stock initialisation too: scratch pages still come from
// the stock module, whose counters need its mutex.
func pcacheInit(tls *libc.TLS, arg uintptr) int32 {
	return (*(*func(*libc.TLS, uintptr) int32)(unsafe.Pointer(&struct{ f uintptr }{stockCacheInit})))(tls, arg)
}

func pcacheShutdown(tls *libc.TLS, arg uintptr) {}

func pcacheCreate(tls *libc.TLS, szPage, szExtra, purgeable int32) uintptr {
	pool := poolFor(uintptr(szPage) + pslotBytes + uintptr(szExtra))
	if pool < 0 {
		return 0
	}
	p := zalloc(tls, int32(unsafe.Sizeof(pcache{})))
	if p == 0 {
		return 0
	}
	h := zalloc(tls, initialHash*int32(unsafe.Sizeof(uintptr(0))))
	if h == 0 {
		memFree(tls, p)
		return 0
	}
	*asCache(p) = pcache{szPage: szPage, szExtra: szExtra, poolIndex: pool, stride: int32(slotPools.all[pool].stride), purgeable: purgeable != 0, hash: h, nHash: initialHash}
	return p
}

func pcacheCachesize(tls *libc.TLS, p uintptr, n int32) {
	c := asCache(p)
	c.max = uint32(max(n, 0))
	if c.purgeable {
		c.trim(tls, c.max)
	}
}

func pcachePagecount(tls *libc.TLS, p uintptr) int32 { return int32(asCache(p).pages) }

// pcacheFetch answers the page for key, making room for it according to create:
// 0 never, 1 if that is cheap (else SQLite writes a dirty page out and asks
// again), 2 unless memory is gone.
func pcacheFetch(tls *libc.TLS, p uintptr, key uint32, create int32) uintptr {
	c := asCache(p)
	for q := *c.bucket(key); q != 0; {
		s := asSlot(q)
		if s.key == key {
			if s.pinned == 0 {
				c.lruRemove(q)
				s.pinned = 1
			}
			return q
		}
		q = s.next
	}
	if create == 0 {
		return 0
	}
	if create == 1 && c.purgeable {
		// Nearly everything is pinned (dirty): ask SQLite to spill first.
		if pinned := c.pages - c.unused; pinned >= max(c.max-c.max/10, 1) {
			return 0
		}
	}
	if c.pages >= c.nHash {
		c.rehash(tls)
	}
	var q uintptr
	if c.purgeable && c.lruTail != 0 && c.pages+1 > c.max {
		q = c.lruTail
		c.lruRemove(q)
		c.unhash(q)
	} else if q = c.newSlot(tls); q == 0 {
		// Out of memory: fall back to a page nobody is using.
		if q = c.lruTail; q == 0 {
			return 0
		}
		c.lruRemove(q)
		c.unhash(q)
	} else {
		c.pages++
	}
	s := asSlot(q)
	s.key, s.pinned = key, 1
	*word(s.page.FpExtra) = 0 // tells SQLite the page is new
	b := c.bucket(key)
	s.next, *b = *b, q
	c.maxKey = max(c.maxKey, key)
	return q
}

func (c *pcache) newSlot(tls *libc.TLS) uintptr {
	var a *account
	if t := threadOf(tls); t != nil {
		a = t.acct
	}
	if a != nil && !a.charge(int64(c.stride)) {
		return 0
	}
	base := c.slots().get()
	if base == 0 {
		if a != nil {
			a.uncharge(int64(c.stride))
		}
		return 0
	}
	p := base + uintptr(c.szPage)
	*asSlot(p) = pslot{page: sqlite3.Tsqlite3_pcache_page{FpBuf: base, FpExtra: p + pslotBytes}}
	return p
}

func pcacheUnpin(tls *libc.TLS, p, page uintptr, discard int32) {
	c := asCache(p)
	// The page counts as pinned (off the LRU list) until here, whichever way it
	// goes.
	if discard != 0 || c.pages > c.max && c.purgeable {
		c.evict(tls, page)
		return
	}
	asSlot(page).pinned = 0
	c.lruPush(page)
}

func pcacheRekey(tls *libc.TLS, p, page uintptr, oldKey, newKey uint32) {
	c := asCache(p)
	for q := *c.bucket(newKey); q != 0; q = asSlot(q).next {
		if asSlot(q).key == newKey && q != page {
			c.evict(tls, q)
			break
		}
	}
	c.unhash(page)
	s := asSlot(page)
	s.key = newKey
	b := c.bucket(newKey)
	s.next, *b = *b, page
	c.maxKey = max(c.maxKey, newKey)
}

func pcacheTruncate(tls *libc.TLS, p uintptr, limit uint32) {
	c := asCache(p)
	if limit > c.maxKey || c.pages == 0 {
		return
	}
	if c.maxKey-limit < c.nHash {
		// Few keys: look each up rather than walk the table.
		for key := limit; ; key++ {
			for q := *c.bucket(key); q != 0; q = asSlot(q).next {
				if asSlot(q).key == key {
					c.evict(tls, q)
					break
				}
			}
			if key == c.maxKey {
				break
			}
		}
	} else {
		for i := uint32(0); i < c.nHash; i++ {
			q := *c.bucket(i)
			for q != 0 {
				next := asSlot(q).next
				if asSlot(q).key >= limit {
					c.evict(tls, q)
				}
				q = next
			}
		}
	}
	c.maxKey = 0
	if limit > 0 {
		c.maxKey = limit - 1
	}
}

func pcacheDestroy(tls *libc.TLS, p uintptr) {
	c := asCache(p)
	pcacheTruncate(tls, p, 0)
	memFree(tls, c.hash)
	memFree(tls, p)
}

func pcacheShrink(tls *libc.TLS, p uintptr) {
	if c := asCache(p); c.purgeable {
		c.trim(tls, 0)
	}
}

// A slotPool hands out equal slots cut from slabs. Safe for concurrent use.
type slotPool struct {
	stride uintptr

	mu      sync.Mutex
	partial uintptr // *slab with a free slot, doubly linked
}

// Slabs come from the system and go back to it. libc's allocator would keep the
// mapping of whatever was ever in use, with one resident page for each 64 KiB.

func mapSlab() uintptr {
	p, err := unix.MmapPtr(-1, 0, nil, slabBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return 0
	}
	return uintptr(p)
}

func unmapSlab(s uintptr) {
	if err := unix.MunmapPtr(*(*unsafe.Pointer)(unsafe.Pointer(&s)), slabBytes); err != nil {
		panic(fmt.Sprintf("sqlite: unmap slab: %v", err)) // Invariant: s came from mapSlab
	}
}

// slab is the head of a block of slots.
type slab struct {
	next, prev uintptr
	free       uintptr // slots given back, linked through their first word
	fresh      uintptr // first slot never used
	ready      uintptr // memory below it is there, the rest faults in when touched
	end        uintptr
	used       int64
}

const slabHead = 64

// A slot ends with the address of its slab, behind what the cache uses.
const slotTail = unsafe.Sizeof(uintptr(0))

func asSlab(p uintptr) *slab { return at[slab](p) }

// trim gives empty slabs back.
func (p *slotPool) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := p.partial; s != 0; {
		next := asSlab(s).next
		if asSlab(s).used == 0 {
			p.unlink(s)
			globalPages.Add(-slabBytes)
			unmapSlab(s)
		}
		s = next
	}
}

// Trim gives back what idle connections and those that were closed left for the
// next ones: C stacks and empty slabs. It may be called at any time.
func Trim() {
	trimThreads()
	chunks.trim()
	slotPools.Lock()
	all := slotPools.all[:slotPools.n]
	slotPools.Unlock()
	for _, p := range all {
		p.trim()
	}
}

var slotPools struct {
	sync.Mutex
	n   int
	all [maxSlotPools]*slotPool
}

// poolFor returns the index of the pool of slots that hold n bytes, or -1 if the process
// uses more slot sizes than maxSlotPools.
func poolFor(n uintptr) int32 {
	stride := (n + slotTail + 63) &^ 63
	slotPools.Lock()
	defer slotPools.Unlock()
	for i, p := range slotPools.all[:slotPools.n] {
		if p.stride == stride {
			return int32(i)
		}
	}
	if slotPools.n == maxSlotPools {
		return -1
	}
	slotPools.all[slotPools.n] = &slotPool{stride: stride}
	slotPools.n++
	return int32(slotPools.n - 1)
}

func (p *slotPool) unlink(s uintptr) {
	sl := asSlab(s)
	if sl.prev != 0 {
		asSlab(sl.prev).next = sl.next
	} else {
		p.partial = sl.next
	}
	if sl.next != 0 {
		asSlab(sl.next).prev = sl.prev
	}
	sl.next, sl.prev = 0, 0
}

func (p *slotPool) link(s uintptr) {
	sl := asSlab(s)
	sl.next, sl.prev = p.partial, 0
	if p.partial != 0 {
		asSlab(p.partial).prev = s
	}
	p.partial = s
}

func (p *slotPool) get() (base uintptr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.partial
	if s == 0 {
		if s = mapSlab(); s == 0 {
			return 0
		}
		globalPages.Add(slabBytes)
		*asSlab(s) = slab{fresh: s + slabHead, ready: s, end: s + slabBytes}
		p.link(s)
	}
	sl := asSlab(s)
	if base = sl.free; base != 0 {
		sl.free = *word(base)
	} else {
		base = sl.fresh
		sl.fresh += p.stride
		if sl.fresh > sl.ready {
			to := min(sl.end, (sl.fresh+slabAhead-1)&^(slabAhead-1))
			populate(sl.ready, to-sl.ready)
			sl.ready = to
		}
	}
	sl.used++
	if sl.free == 0 && sl.end-sl.fresh < p.stride {
		p.unlink(s)
	}
	*word(base + p.stride - slotTail) = s
	return base
}

func (p *slotPool) put(base uintptr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := *word(base + p.stride - slotTail)
	sl := asSlab(s)
	full := sl.free == 0 && sl.end-sl.fresh < p.stride
	*word(base) = sl.free
	sl.free = base
	sl.used--
	if full {
		p.link(s)
	}
	// Keep one empty slab, so that a cache at the border does not map and unmap.
	if sl.used == 0 && (p.partial != s || sl.next != 0) {
		p.unlink(s)
		globalPages.Add(-slabBytes)
		unmapSlab(s)
	}
}
