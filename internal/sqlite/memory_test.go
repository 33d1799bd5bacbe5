package sqlite

import (
	"errors"
	"fmt"
	"testing"
)

// TestMemoryLimit: a connection that asks for too much gets NOMEM and goes on;
// its neighbours notice nothing.
func TestMemoryLimit(t *testing.T) {
	c, _ := open(t, Options{VFS: "test", Exclusive: true, MemoryLimit: 2 << 20, CacheSize: 50})
	other, _ := open(t, bridged)
	exec(t, c, "CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
	for _, sql := range []string{
		"SELECT length(randomblob(5000000))",
		"CREATE TEMP TABLE x AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000) SELECT randomblob(3000) AS b FROM n",
		"SELECT count(*) FROM (SELECT DISTINCT randomblob(1000) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<9000) SELECT i FROM n))",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<9000) SELECT randomblob(1000) FROM n ORDER BY 1",
		"BEGIN; UPDATE t SET a=zeroblob(100); INSERT INTO t SELECT randomblob(4000000); COMMIT",
	} {
		err := c.ExecScript([]byte(sql))
		if code := CodeOf(err); code.Primary() != NOMEM {
			t.Errorf("%.60s: %v, want NOMEM", sql, err)
		}
		if !c.AutoCommit() {
			exec(t, c, "ROLLBACK")
		}
		if got := mustDump(t, c, "SELECT a FROM t"); got != "3:\"kept\" \n" {
			t.Errorf("%.60s: then %q", sql, got)
		}
		if c.MemoryUsed() > 2<<20 {
			t.Errorf("%d bytes used", c.MemoryUsed())
		}
		exec(t, other, "SELECT length(randomblob(5000000))")
	}
	c.SetMemoryLimit(0)
	exec(t, c, "SELECT length(randomblob(5000000))")
	if c.MemoryPeak() < 5000000 || c.MemoryPeak() <= c.MemoryUsed() {
		t.Errorf("peak %d, used %d", c.MemoryPeak(), c.MemoryUsed())
	}
	c.ResetMemoryPeak()
	if c.MemoryPeak() != c.MemoryUsed() {
		t.Error("peak was not reset")
	}
}

// TestNoMemoryAnywhere fails allocation after allocation of a workload: no
// crash, and the database stays sound.
func TestNoMemoryAnywhere(t *testing.T) {
	for limit := int64(10 << 10); limit < 400<<10; limit += 11 << 10 {
		c, f := open(t, Options{VFS: "test", Exclusive: true, CacheSize: 8})
		exec(t, c, stressSchema)
		c.SetMemoryLimit(limit)
		var failed int
		for i := range 30 {
			err := c.ExecScript(fmt.Appendf(nil, "INSERT INTO t VALUES(%d,%d,hex(randomblob(%d))); UPDATE t SET n=n+1; BEGIN; DELETE FROM t WHERE id%%5=0; ROLLBACK", i, i, i*100))
			if err != nil {
				failed++
				if p := CodeOf(err).Primary(); p != NOMEM && p != IOERR {
					t.Errorf("limit %d: %v", limit, err)
				}
				if !c.AutoCommit() {
					_ = c.ExecScript([]byte("ROLLBACK")) // may itself lack memory
				}
			}
		}
		c.SetMemoryLimit(0)
		if !c.AutoCommit() {
			exec(t, c, "ROLLBACK")
		}
		if got := mustDump(t, c, "PRAGMA integrity_check"); got != "3:\"ok\" \n" {
			t.Errorf("limit %d: %s", limit, got)
		}
		if limit == 10<<10 && failed == 0 {
			t.Error("nothing failed")
		}
		_ = f
	}
}

// TestMemoryReturns: closing gives everything back, to the byte.
func TestMemoryReturns(t *testing.T) {
	before := MemoryUsedGlobal()
	c, err := Open(newName(t), bridged)
	if err != nil {
		t.Fatal(err)
	}
	testVFS()
	a := c.acct
	exec(t, c, stressSchema)
	s := prep(t, c, "SELECT * FROM t")
	exec(t, c, "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) SELECT i,i,hex(randomblob(500)) FROM n; CREATE TEMP TABLE x AS SELECT * FROM t; CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES('some words')")
	if _, err := s.Step(); err != nil {
		t.Fatal(err)
	}
	if m := MemoryUsedGlobal(); m.Connections-before.Connections != c.MemoryUsed() || c.MemoryUsed() < 500*1000 {
		t.Errorf("global %+v, connection %d", m, c.MemoryUsed())
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if n := a.used.Load(); n != 0 {
		t.Errorf("%d bytes still accounted after Close", n)
	}
	if m := MemoryUsedGlobal(); m.Connections != before.Connections || m.Other != before.Other {
		t.Errorf("before %+v, after %+v", before, m)
	}
}

func TestReleaseMemory(t *testing.T) {
	c, _ := open(t, bridged)
	exec(t, c, stressSchema)
	exec(t, c, "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) SELECT i,i,hex(randomblob(500)) FROM n")
	before := c.MemoryUsed()
	c.ReleaseMemory()
	if after := c.MemoryUsed(); after > before/4 {
		t.Errorf("%d bytes, before %d", after, before)
	}
	if got := mustDump(t, c, "SELECT count(*) FROM t"); got != "1:\"500\" \n" {
		t.Error(got)
	}
}

func TestStockFiles(t *testing.T) {
	path := t.TempDir() + "/stock.db"
	var conns []*Conn
	for range 3 { // the stock VFS shares its lock table between connections
		c, err := Open(path, Options{CacheSize: 10})
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	exec(t, conns[0], "PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES(1)")
	for _, c := range conns {
		if got := mustDump(t, c, "SELECT a FROM t"); got != "1:\"1\" \n" || c.MemoryUsed() == 0 {
			t.Error(got, c.MemoryUsed())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := Open(path, Options{ReadOnly: true, MemoryLimit: 1}); CodeOf(err) != MISUSE {
		t.Error(err)
	}
	c, err := Open(path, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ExecScript([]byte("INSERT INTO t VALUES(2)")); CodeOf(err) != READONLY {
		t.Error(err)
	}
	if err := errors.Join(c.Close()); err != nil {
		t.Error(err)
	}
}
