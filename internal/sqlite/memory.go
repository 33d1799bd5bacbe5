package sqlite

import (
	"sync/atomic"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite's allocator, replaced for three reasons: the stock one takes a
// process-wide mutex per call, rounds every size up to a power of two, and
// cannot say (or limit) what one connection holds.
//
// A connection over a bridged VFS has an account: small allocations come from
// chunks only that connection uses, so they take no lock, and Close drops the
// chunks whole. Large ones, and all of connections over the stock VFS (which
// keeps process-wide tables that outlive a connection), come from libc.
//
// Invariant: memory of an account is allocated and freed under a thread bound
// to that account's connection. SQLite keeps that for us because such a
// connection shares nothing: no shared cache, no stock VFS, not the stock page
// cache (whose pages wander between connections), and the bridge refuses PRAGMA
// temp_store_directory, a process-wide string.
//
// Every allocation has an 8-byte header before the pointer SQLite sees: usable
// size in the low 32 bits, class in the high 32.

const (
	headerBytes = 8
	nClasses    = 29
	classLarge  = 0xfe // libc, counted in the account
	classPlain  = 0xff // libc, not counted
	maxSmall    = 4608 // largest class, header included: a page image fits

	// growBlock is from what size on a block that grows is given an eighth more.
	growBlock = 1 << 20
)

// classBytes are the slot sizes, header included. The steps keep rounding loss
// under a fifth; the last classes hold one 4096-byte page with its header.
var classBytes = [nClasses]uint16{
	16, 32, 48, 64, 80, 96, 112, 128,
	160, 192, 224, 256,
	320, 384, 448, 512,
	640, 768, 896, 1024,
	1280, 1536, 1792, 2048,
	2560, 3072, 3584, 4096,
	maxSmall,
}

// classFor maps (bytes+15)/16 to a class.
var classFor = func() (t [maxSmall/16 + 1]uint8) {
	c := 0
	for i := range t {
		for int(classBytes[c]) < i*16 {
			c++
		}
		t[i] = uint8(c)
	}
	return t
}()

// An account is what one connection holds. Owned by the goroutine that uses the
// connection; used and peak are atomics so that others may read them.
type account struct {
	used   atomic.Int64 // live bytes: allocations and page slots
	peak   atomic.Int64
	limit  int64 // 0: none
	refuse int64 // allocations refused because of limit

	free   [nClasses]uintptr // singly linked through the first word
	cur    uintptr           // unused tail of the newest chunk
	end    uintptr
	chunks uintptr // linked through the first word of each chunk
	arena  int     // bytes of chunks
}

// Totals of the process, for MemoryUsedGlobal.
var (
	globalUsed  atomic.Int64 // accounted and plain bytes in use
	globalPages atomic.Int64 // bytes of slabs held for page slots
)

// charge books n more bytes, or refuses.
func (a *account) charge(n int64) bool {
	u := a.used.Load() + n
	if a.limit > 0 && u > a.limit {
		a.refuse++
		return false
	}
	// Plain load and store: one goroutine writes.
	a.used.Store(u)
	if u > a.peak.Load() {
		a.peak.Store(u)
	}
	return true
}

func (a *account) uncharge(n int64) { a.used.Store(a.used.Load() - n) }

// at is the T at address p, which is outside Go's heap.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// view is n bytes at address p as a slice, without copying.
func view(p uintptr, n int32) []byte { return unsafe.Slice(at[byte](p), n) }

func header(p uintptr) *[2]uint32 { return at[[2]uint32](p - headerBytes) }

func word(p uintptr) *uintptr { return at[uintptr](p) }

// chunks are what the arenas of all connections are made of.
var chunks = slotPool{stride: arenaChunk}

// small allocates a slot of class c, or 0 when the arena may not grow.
func (a *account) small(c int) uintptr {
	if p := a.free[c]; p != 0 {
		a.free[c] = *word(p)
		return p
	}
	n := uintptr(classBytes[c])
	if a.end-a.cur < n && !a.grow() {
		return 0
	}
	p := a.cur
	a.cur += n
	return p
}

// grow starts a new chunk, handing what is left of the old one to the free
// lists.
func (a *account) grow() bool {
	if a.arena+arenaChunk > arenaMax {
		return false
	}
	p := chunks.get()
	if p == 0 {
		return false
	}
	for c := nClasses - 1; c >= 0; c-- {
		for n := uintptr(classBytes[c]); a.end-a.cur >= n; a.cur += n {
			*word(a.cur) = a.free[c]
			a.free[c] = a.cur
		}
	}
	*word(p) = a.chunks
	a.chunks = p
	a.arena += arenaChunk
	a.cur, a.end = p+16, p+arenaChunk-slotTail
	return true
}

// drop returns all chunks. Nothing of the connection may be in use any more.
func (a *account) drop() {
	for p := a.chunks; p != 0; {
		next := *word(p)
		chunks.put(p)
		p = next
	}
	a.chunks, a.cur, a.end, a.arena = 0, 0, 0, 0
	a.free = [nClasses]uintptr{}
}

func memMalloc(tls *libc.TLS, n int32) uintptr {
	if n < 0 || n > maxValue-64 {
		return 0
	}
	total := (int(n) + headerBytes + 7) &^ 7
	t := threadOf(tls)
	if t == nil || t.acct == nil {
		p := libc.Xmalloc(nil, libc.Tsize_t(total))
		if p == 0 {
			return 0
		}
		globalUsed.Add(int64(total))
		*at[[2]uint32](p) = [2]uint32{uint32(total - headerBytes), classPlain}
		return p + headerBytes
	}
	a := t.acct
	if total <= maxSmall {
		c := int(classFor[(total+15)/16])
		size := int64(classBytes[c])
		if !a.charge(size) {
			return 0
		}
		if p := a.small(c); p != 0 {
			*at[[2]uint32](p) = [2]uint32{uint32(size - headerBytes), uint32(c)}
			return p + headerBytes
		}
		a.uncharge(size)
	}
	if !a.charge(int64(total)) {
		return 0
	}
	p := libc.Xmalloc(nil, libc.Tsize_t(total))
	if p == 0 {
		a.uncharge(int64(total))
		return 0
	}
	*at[[2]uint32](p) = [2]uint32{uint32(total - headerBytes), classLarge}
	return p + headerBytes
}

func memFree(tls *libc.TLS, p uintptr) {
	if p == 0 {
		return
	}
	h := header(p)
	size := int64(h[0]) + headerBytes
	switch class := h[1]; class {
	case classPlain:
		globalUsed.Add(-size)
		libc.Xfree(nil, p-headerBytes)
	case classLarge:
		if t := threadOf(tls); t != nil && t.acct != nil {
			t.acct.uncharge(size)
		}
		libc.Xfree(nil, p-headerBytes)
	default:
		t := threadOf(tls)
		if class >= nClasses || t == nil || t.acct == nil {
			panic("sqlite: memory freed outside its connection, or its header was overwritten")
		}
		t.acct.uncharge(size)
		*word(p - headerBytes) = t.acct.free[class]
		t.acct.free[class] = p - headerBytes
	}
}

func memSize(tls *libc.TLS, p uintptr) int32 {
	if p == 0 {
		return 0
	}
	return int32(header(p)[0])
}

func memRealloc(tls *libc.TLS, p uintptr, n int32) uintptr {
	have := memSize(tls, p)
	// Keep the block unless it is too small or would waste over half of a large
	// one.
	if n >= 0 && n <= have && (have <= maxSmall || n >= have/2) {
		return p
	}
	// SQLite doubles a text that grows up to half of the longest there may be, and then
	// asks for what it needs: one more byte each time, at worst, and a copy of all for it,
	// so one call of strftime ran for hours. It looks at how much it was given.
	var q uintptr
	if n > have && have >= growBlock {
		q = memMalloc(tls, n+n/8)
	}
	if q == 0 {
		q = memMalloc(tls, n)
	}
	if q == 0 {
		return 0
	}
	copy(view(q, min(have, memSize(tls, q))), view(p, have))
	memFree(tls, p)
	return q
}

func memRoundup(tls *libc.TLS, n int32) int32 {
	total := (int(n) + headerBytes + 7) &^ 7
	if total <= maxSmall {
		return int32(classBytes[classFor[(total+15)/16]]) - headerBytes
	}
	return int32(total - headerBytes)
}

func memInit(tls *libc.TLS, arg uintptr) int32 { return sqlite3.SQLITE_OK }

func memShutdown(tls *libc.TLS, arg uintptr) {}
