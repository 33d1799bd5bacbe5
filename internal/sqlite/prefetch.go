package sqlite

import (
	"unsafe"

	sqlite3 "modernc.org/sqlite/lib"
)

// Lines are the cache lines a connection touches when it runs a statement again.
// With a thousand connections that take turns, none of them is in the processor's
// cache when its turn comes, and most of an execution is waiting for one line after
// the other, each found through the one before. Who knows whose turn is next asks
// for all of them at once, while the turn before goes on.
//
// Lines are a hint: they may be out of date, and point to what was freed; asking
// for them changes nothing. They are written once, by Add and AddConn, and may then
// be used by any goroutine.
type Lines struct {
	n    int
	list [maxLines]uintptr
}

const (
	lineBytes = 64
	// maxLines bounds what is asked for at once: 8 KiB.
	maxLines = 128
	// hotPages is how many pages are asked for, the most recently used first: a
	// root, a leaf and the first page.
	hotPages = 3
)

// Add adds size bytes at p.
func (l *Lines) Add(p unsafe.Pointer, size uintptr) { l.add(uintptr(p), size) }

func (l *Lines) add(p, size uintptr) {
	if p == 0 {
		return
	}
	for q := p &^ (lineBytes - 1); q < p+size && l.n < maxLines; q += lineBytes {
		l.list[l.n] = q
		l.n++
	}
}

// AddConn adds what c touches to run s.
func (l *Lines) AddConn(c *Conn, s *Stmt) {
	if c.db == 0 || s.p == 0 {
		return
	}
	v := at[sqlite3.TVdbe](s.p)
	main := at[sqlite3.Tsqlite3](c.db).FaDb
	tree := at[sqlite3.TDb](main).FpBt
	shared := at[sqlite3.TBtree](tree).FpBt
	pager := at[sqlite3.TBtShared](shared).FpPager
	list := at[sqlite3.TPager](pager).FpPCache
	cache := at[sqlite3.TPCache](list).FpCache

	l.Add(unsafe.Pointer(c), unsafe.Sizeof(*c))
	l.Add(unsafe.Pointer(s), unsafe.Sizeof(*s))
	l.add(s.p, unsafe.Sizeof(*v))
	l.add(c.db, 4*lineBytes)
	l.add(v.FaVar, lineBytes)
	l.add(v.FaOp, min(uintptr(v.FnOp)*unsafe.Sizeof(sqlite3.TVdbeOp{}), 6*lineBytes))
	l.add(v.FaMem, min(uintptr(v.FnMem)*unsafe.Sizeof(sqlite3.TMem{}), 6*lineBytes))
	l.add(main, unsafe.Sizeof(sqlite3.TDb{}))
	l.add(tree, unsafe.Sizeof(sqlite3.TBtree{}))
	l.add(shared, unsafe.Sizeof(sqlite3.TBtShared{}))
	l.add(pager, unsafe.Sizeof(sqlite3.TPager{}))
	l.add(list, unsafe.Sizeof(sqlite3.TPCache{}))
	l.add(cache, unsafe.Sizeof(pcache{}))
	pc := asCache(cache)
	l.add(pc.hash, min(uintptr(pc.nHash)*unsafe.Sizeof(uintptr(0)), 4*lineBytes))
	for n, p := 0, pc.lruHead; p != 0 && n < hotPages; n, p = n+1, asSlot(p).lruNext {
		l.add(p, pslotBytes+uintptr(pc.szExtra))
		l.add(p-uintptr(pc.szPage), 2*lineBytes)
	}
	if c.acct != nil {
		l.Add(unsafe.Pointer(c.acct), 4*lineBytes)
	}
}

// Prefetch asks for the lines.
func (l *Lines) Prefetch() { prefetch(&l.list[0], l.n) }

// PrefetchList asks for l itself, so that Prefetch finds it in the cache.
func (l *Lines) PrefetchList() {
	var own [maxLines*8/lineBytes + 1]uintptr
	p := uintptr(unsafe.Pointer(l)) // never followed: only a hint
	for i := range own {
		own[i] = p + uintptr(i)*lineBytes
	}
	prefetch(&own[0], len(own))
}
