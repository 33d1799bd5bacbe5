package sqlite

import (
	"errors"
	"sync"
	"unsafe"

	"modernc.org/libc"
)

// A thread is the context translated C code runs in: its C stack and errno.
// SQLite keeps nothing in it between two calls, and it grows to the deepest
// call it ran, so an idle connection gives it back (Conn.Park) and the next
// call takes any other.
//
// Callbacks from SQLite get *libc.TLS and nothing else that names a Go object
// cheaply. Invariant: the TLS of a thread is its first field and has a negative
// ID, and every TLS from elsewhere has a positive one; so a callback finds its
// Conn from the TLS without a table or a lock.
type thread struct {
	libc.TLS
	id   int32
	conn *Conn
	acct *account // of conn, nil if the connection's memory is not accounted

	out uintptr // 64 bytes for out parameters and argument lists
	sql uintptr // sqlScratch+1 bytes
}

var threads struct {
	sync.Mutex
	idle []*thread
}

var errThreads = errors.New("sqlite: thread identifiers exhausted")

func takeThread() (*thread, error) {
	threads.Lock()
	if n := len(threads.idle); n > 0 {
		t := threads.idle[n-1]
		threads.idle = threads.idle[:n-1]
		threads.Unlock()
		return t, nil
	}
	threads.Unlock()
	tls := libc.NewTLS()
	if tls.ID <= 0 || tls.ID > 1<<30 {
		tls.Close()
		return nil, errThreads
	}
	t := &thread{TLS: *tls, id: tls.ID}
	t.ID = -tls.ID
	t.out = libc.Xmalloc(nil, 64)
	t.sql = libc.Xmalloc(nil, sqlScratch+1)
	if t.out == 0 || t.sql == 0 {
		t.close()
		return nil, &Error{Code: NOMEM, Message: "out of memory", Offset: -1}
	}
	return t, nil
}

func (t *thread) close() {
	libc.Xfree(nil, t.out)
	libc.Xfree(nil, t.sql)
	t.ID = t.id // Close unregisters by the original id
	t.TLS.Close()
}

// release gives t back to the pool.
func (t *thread) release() {
	t.conn, t.acct = nil, nil
	threads.Lock()
	if len(threads.idle) < maxIdleThreads {
		threads.idle = append(threads.idle, t)
		threads.Unlock()
		return
	}
	threads.Unlock()
	t.close()
}

// trimThreads closes the idle ones.
func trimThreads() {
	threads.Lock()
	idle := threads.idle
	threads.idle = nil
	threads.Unlock()
	for _, t := range idle {
		t.close()
	}
}

// threadOf returns the thread tls belongs to, or nil for a foreign one.
func threadOf(tls *libc.TLS) *thread {
	if tls == nil || tls.ID >= 0 {
		return nil
	}
	return (*thread)(unsafe.Pointer(tls))
}
