package sqlite

import "testing"

// TestTrim: once nothing is open Trim leaves no slab and no C stack, and the next
// connection finds its own.
func TestTrim(t *testing.T) {
	for range 2 {
		c, _ := open(t, Options{VFS: "test", Exclusive: true})
		exec(t, c, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1,zeroblob(100000))")
		Trim() // what is in use stays
		exec(t, c, "INSERT INTO t SELECT id+1, v FROM t")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		engine.mu.Lock()
		others := len(engine.accounts)
		engine.mu.Unlock()
		Trim()
		if m := MemoryUsedGlobal(); others == 0 && m.PageSlabs != 0 {
			t.Errorf("%d bytes of slabs are left", m.PageSlabs)
		}
		threads.Lock()
		if n := len(threads.idle); n != 0 {
			t.Errorf("%d C stacks are left", n)
		}
		threads.Unlock()
	}
}
