package sqlite

import (
	"testing"
	"unsafe"
)

// TestPrefetchIsAHint: lines that were never mapped, or are no more, do no harm.
func TestPrefetchIsAHint(t *testing.T) {
	var l Lines
	l.Prefetch()
	for _, p := range []uintptr{1, 4096, 1 << 47, ^uintptr(0) &^ 4095} {
		l.add(p, lineBytes)
	}
	l.Prefetch()
	l.PrefetchList()
	for range 2 * maxLines {
		l.Add(unsafe.Pointer(&l), unsafe.Sizeof(l))
	}
	if l.n != maxLines {
		t.Errorf("%d lines, want %d", l.n, maxLines)
	}
}

// TestLinesOfAConnection: they cover connection, statement and the pages it used,
// and outlive the connection.
func TestLinesOfAConnection(t *testing.T) {
	c, _ := open(t, Options{VFS: "test", Exclusive: true})
	exec(t, c, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1,'x')")
	s, _, err := c.Prepare([]byte("SELECT v FROM t WHERE id=1"))
	if err != nil {
		t.Fatal(err)
	}
	if more, err := s.Step(); !more || err != nil {
		t.Fatal(more, err)
	}
	s.Reset()
	var l Lines
	l.AddConn(c, s)
	if l.n < 40 {
		t.Errorf("only %d lines", l.n)
	}
	l.Prefetch()
	if err := s.Finalize(); err != nil {
		t.Fatal(err)
	}
	var none Lines
	none.AddConn(c, s)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	none.AddConn(c, s)
	if none.n != 0 {
		t.Errorf("%d lines of what is closed", none.n)
	}
	l.Prefetch()
}
