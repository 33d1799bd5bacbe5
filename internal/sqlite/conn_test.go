package sqlite

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
)

func TestBindRoundTrip(t *testing.T) {
	c, _ := open(t, bridged)
	exec(t, c, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	ins := prep(t, c, "INSERT INTO t VALUES(?,?)")
	sel := prep(t, c, "SELECT v,typeof(v),length(CAST(v AS BLOB)) FROM t WHERE id=?")
	long := strings.Repeat("x", 3*bindArenaMax)
	for i, tc := range []struct {
		bind func() error
		typ  Type
		want string // as bytes
	}{
		{func() error { return ins.BindNull(2) }, Null, ""},
		{func() error { return ins.BindText(2, "") }, Text, ""},
		{func() error { return ins.BindBlob(2, nil) }, Blob, ""},
		{func() error { return ins.BindBlob(2, []byte{}) }, Blob, ""},
		{func() error { return ins.BindText(2, "a\x00b") }, Text, "a\x00b"},
		{func() error { return ins.BindText(2, "\xff\xfe\x80") }, Text, "\xff\xfe\x80"},
		{func() error { return ins.BindTextBytes(2, []byte("bytes")) }, Text, "bytes"},
		{func() error { return ins.BindBlob(2, []byte{0, 1, 2}) }, Blob, "\x00\x01\x02"},
		{func() error { return ins.BindZeroBlob(2, 5) }, Blob, "\x00\x00\x00\x00\x00"},
		{func() error { return ins.BindZeroBlob(2, -1) }, Blob, ""},
		{func() error { return ins.BindInt64(2, math.MaxInt64) }, Integer, "9223372036854775807"},
		{func() error { return ins.BindInt64(2, math.MinInt64) }, Integer, "-9223372036854775808"},
		{func() error { return ins.BindFloat(2, 1.5) }, Float, "1.5"},
		{func() error { return ins.BindFloat(2, math.Inf(1)) }, Float, "Inf"},
		{func() error { return ins.BindFloat(2, math.NaN()) }, Null, ""},
		{func() error { return ins.BindText(2, long) }, Text, long},
		{func() error { return ins.BindBlob(2, []byte(long)) }, Blob, long},
	} {
		if err := errors.Join(ins.BindInt64(1, int64(i)), tc.bind()); err != nil {
			t.Fatal(err)
		}
		if _, err := ins.Step(); err != nil {
			t.Fatal(err)
		}
		ins.Reset()
		ins.ClearBindings()
		if err := sel.BindInt64(1, int64(i)); err != nil {
			t.Fatal(err)
		}
		if more, err := sel.Step(); !more || err != nil {
			t.Fatal(more, err)
		}
		if got := sel.ColumnType(0); got != tc.typ {
			t.Errorf("case %d: type %d, want %d", i, got, tc.typ)
		}
		b := sel.ColumnBytes(0)
		if string(b) != tc.want || (b == nil) != (tc.typ == Null) {
			t.Errorf("case %d: %q (nil %v), want %q", i, b, b == nil, tc.want)
		}
		if tc.typ == Text && sel.ColumnInt64(2) != int64(len(tc.want)) {
			t.Errorf("case %d: stored %d bytes", i, sel.ColumnInt64(2))
		}
		sel.Reset()
		sel.ClearBindings()
	}
	if err := ins.BindInt64(3, 1); CodeOf(err) != RANGE {
		t.Errorf("bind out of range: %v", err)
	}
}

// TestBindKeepsStatementsApart: values bound to two statements at once, rebinding
// without ClearBindings, and results that refer to bound memory.
func TestBindKeepsStatementsApart(t *testing.T) {
	c, _ := open(t, bridged)
	a, b := prep(t, c, "SELECT ?1||?2"), prep(t, c, "SELECT ?1")
	for i := range 200 {
		x, y := fmt.Sprintf("left-%d-%s", i, strings.Repeat("l", i%90)), fmt.Sprintf("right-%d", i)
		if err := errors.Join(a.BindText(1, x), a.BindText(2, y), b.BindText(1, y)); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*Stmt{a, b} {
			if more, err := s.Step(); !more || err != nil {
				t.Fatal(more, err)
			}
		}
		if a.ColumnText(0) != x+y || b.ColumnText(0) != y {
			t.Fatalf("round %d: %q %q", i, a.ColumnText(0), b.ColumnText(0))
		}
		a.Reset()
		b.Reset()
		if i%7 == 0 {
			a.ClearBindings()
		}
	}
}

func TestColumnConversions(t *testing.T) {
	for _, enc := range []string{"UTF-8", "UTF-16le"} {
		c, _ := open(t, bridged)
		exec(t, c, "PRAGMA encoding='"+enc+"'; CREATE TABLE t(i INTEGER, r REAL, s TEXT, b BLOB, n)")
		exec(t, c, "INSERT INTO t VALUES(7,3.0,'12é',x'3132',NULL)")
		s := prep(t, c, "SELECT i,r,s,b,n,zeroblob(3),i+0.5 AS e FROM t")
		if more, err := s.Step(); !more || err != nil {
			t.Fatal(more, err)
		}
		if s.ColumnType(1) != Float || s.ColumnFloat(1) != 3 || s.ColumnInt64(1) != 3 {
			t.Errorf("%s: real %v %v %v", enc, s.ColumnType(1), s.ColumnFloat(1), s.ColumnInt64(1))
		}
		if s.ColumnInt64(2) != 12 || s.ColumnText(2) != "12é" || s.ColumnType(4) != Null || s.ColumnInt64(4) != 0 {
			t.Errorf("%s: text %v %q", enc, s.ColumnInt64(2), s.ColumnText(2))
		}
		if s.ColumnText(0) != "7" || s.ColumnFloat(0) != 7 || s.ColumnText(3) != "12" || s.ColumnText(5) != "\x00\x00\x00" || s.ColumnText(6) != "7.5" {
			t.Errorf("%s: %q %q %q %q", enc, s.ColumnText(0), s.ColumnText(3), s.ColumnText(5), s.ColumnText(6))
		}
		if s.ColumnBytes(99) != nil || s.ColumnType(-1) != Null {
			t.Errorf("%s: column out of range has a value", enc)
		}
		if s.ColumnCount() != 7 || s.ColumnName(6) != "e" || s.ColumnDeclType(1) != "REAL" || s.ColumnDeclType(6) != "" {
			t.Errorf("%s: %d %q %q", enc, s.ColumnCount(), s.ColumnName(6), s.ColumnDeclType(1))
		}
		s.Reset()
		if s.ColumnType(0) != Null || s.ColumnBytes(0) != nil {
			t.Errorf("%s: value without a row", enc)
		}
	}
}

func TestPrepare(t *testing.T) {
	c, _ := open(t, bridged)
	const script = "  CREATE TABLE t(a);-- note\n INSERT INTO t VALUES(1) ; ; SELECT a FROM t /* end */"
	var got []string
	for sql := []byte(script); len(sql) > 0; {
		s, n, err := c.Prepare(sql)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			t.Fatal("no progress")
		}
		sql = sql[n:]
		if s == nil {
			continue
		}
		got = append(got, fmt.Sprint(strings.TrimSpace(s.SQL()), s.ReadOnly()))
		if _, err := s.Step(); err != nil {
			t.Fatal(err)
		}
		if err := s.Finalize(); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"CREATE TABLE t(a);false", "-- note\n INSERT INTO t VALUES(1) ;false", "; SELECT a FROM t /* end */true"}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("statements %q, want %q", got, want)
	}
	for _, sql := range []string{"", "  ", "-- x", ";"} {
		if s, n, err := c.Prepare([]byte(sql)); s != nil || err != nil || n != len(sql) {
			t.Errorf("%q: %v %d %v", sql, s, n, err)
		}
	}
	_, _, err := c.Prepare([]byte("SELECT a, nope FROM t"))
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != ERROR || e.Offset != 10 || !strings.Contains(e.Message, "nope") {
		t.Errorf("error %#v", err)
	}
	if c.ErrorOffset() != 10 || c.ExtendedErrCode() != ERROR || c.ErrMsg() != e.Message {
		t.Errorf("%d %d %q", c.ErrorOffset(), c.ExtendedErrCode(), c.ErrMsg())
	}
	if _, _, err := c.Prepare([]byte("SELECT 1\x00; DROP TABLE t")); CodeOf(err) != ERROR {
		t.Errorf("NUL in SQL: %v", err)
	}
	s := prep(t, c, "SELECT :a, @b, $c, ?7")
	if s.ParamCount() != 7 || s.ParamName(1) != ":a" || s.ParamName(7) != "?7" || s.ParamName(5) != "" || s.ParamIndex("$c") != 3 || s.ParamIndex(":z") != 0 {
		t.Error(s.ParamCount(), s.ParamName(1), s.ParamName(7), s.ParamName(5), s.ParamIndex("$c"))
	}
	if x := prep(t, c, "EXPLAIN QUERY PLAN SELECT 1"); x.IsExplain() != 2 || s.IsExplain() != 0 {
		t.Error("IsExplain")
	}
	long := "SELECT '" + strings.Repeat("y", 2*sqlScratch) + "'"
	if got := mustDump(t, c, long); len(got) < 2*sqlScratch {
		t.Error("long SQL was cut")
	}
}

func TestCounts(t *testing.T) {
	c, _ := open(t, bridged)
	exec(t, c, "CREATE TABLE t(a INTEGER PRIMARY KEY); INSERT INTO t VALUES(5),(6),(9)")
	if c.Changes() != 3 || c.LastInsertRowID() != 9 || c.TotalChanges() != 3 || !c.AutoCommit() {
		t.Error(c.Changes(), c.LastInsertRowID(), c.TotalChanges())
	}
	exec(t, c, "BEGIN; DELETE FROM t WHERE a<9")
	if c.AutoCommit() || c.TxnState() != TxnWrite || c.Changes() != 2 {
		t.Error(c.AutoCommit(), c.TxnState(), c.Changes())
	}
	exec(t, c, "ROLLBACK")
	if !c.AutoCommit() || c.TxnState() != TxnNone {
		t.Error("transaction still open")
	}
}

func TestClosed(t *testing.T) {
	c, _ := open(t, bridged)
	s := prep(t, c, "SELECT 1")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Step(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, _, err := c.Prepare([]byte("SELECT 1")); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := errors.Join(s.Finalize(), s.BindNull(1)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	s.Reset()
	s.ClearBindings()
	c.Interrupt()
	c.ReleaseMemory()
	if s.ColumnCount() != 0 || c.Changes() != 0 || c.MemoryUsed() != 0 {
		t.Error("closed connection has state")
	}
}

func TestAuthorizer(t *testing.T) {
	c, _ := open(t, bridged)
	exec(t, c, "CREATE TABLE t(a, secret); INSERT INTO t VALUES(1,2)")
	var seen []string
	if err := c.SetAuthorizer(func(a Action, arg1, arg2, db, trigger string) Verdict {
		seen = append(seen, fmt.Sprintf("%d/%s/%s/%s", a, arg1, arg2, db))
		switch {
		case a == ActionDelete, a == ActionAttach, a == ActionPragma && arg1 == "user_version":
			return Deny
		case a == ActionRead && arg2 == "secret":
			return Ignore
		case a == ActionCreateIndex:
			panic("bad authorizer")
		}
		return Allow
	}); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"DELETE FROM t", "ATTACH 'x' AS y", "PRAGMA user_version"} {
		wantCode(t, c.ExecScript([]byte(sql)), AUTH)
	}
	if got := mustDump(t, c, "SELECT a,secret FROM t"); got != "1:\"1\" 5:\"\" \n" {
		t.Errorf("ignored column: %q", got)
	}
	if want := fmt.Sprintf("%d/t/a/main", ActionRead); !strings.Contains(strings.Join(seen, " "), want) {
		t.Errorf("no %s in %v", want, seen)
	}
	err := c.ExecScript([]byte("CREATE INDEX i ON t(a)"))
	wantCode(t, err, AUTH)
	if p, ok := errors.AsType[*PanicError](err); !ok || p.Value != "bad authorizer" {
		t.Errorf("panic was lost: %v", err)
	}
	if err := c.SetAuthorizer(nil); err != nil {
		t.Fatal(err)
	}
	exec(t, c, "DELETE FROM t; DROP TABLE t")
}

const endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n"

func TestProgressInterrupts(t *testing.T) {
	c, _ := open(t, bridged)
	calls := 0
	c.SetProgressHandler(1000, func() bool { calls++; return calls == 50 })
	wantCode(t, c.ExecScript([]byte(endless)), INTERRUPT)
	if calls != 50 {
		t.Errorf("%d calls", calls)
	}
	c.SetProgressHandler(1000, func() bool { panic("bad handler") })
	err := c.ExecScript([]byte(endless))
	wantCode(t, err, INTERRUPT)
	if _, ok := errors.AsType[*PanicError](err); !ok {
		t.Errorf("panic was lost: %v", err)
	}
	c.SetProgressHandler(0, nil)
	exec(t, c, "SELECT 1")
}

func TestInterruptFromElsewhere(t *testing.T) {
	c, _ := open(t, bridged)
	started := make(chan struct{})
	var once sync.Once
	c.SetProgressHandler(1000, func() bool { once.Do(func() { close(started) }); return false })
	var wg sync.WaitGroup
	wg.Go(func() {
		<-started
		c.Interrupt()
	})
	wantCode(t, c.ExecScript([]byte(endless)), INTERRUPT)
	wg.Wait()
	c.Interrupt() // nothing runs: no effect
	exec(t, c, "SELECT 1")
	// Interrupt races with Close safely.
	d, err := Open(newName(t), bridged)
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		for range 1000 {
			d.Interrupt()
		}
	})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

func TestLimits(t *testing.T) {
	c, _ := open(t, bridged)
	if old := c.SetLimit(LimitSQLLength, 100); old != 1e9 {
		t.Errorf("limit was %d", old)
	}
	wantCode(t, c.ExecScript([]byte("SELECT '"+strings.Repeat("x", 100)+"'")), TOOBIG)
	c.SetLimit(LimitVariableNumber, 3)
	wantCode(t, c.ExecScript([]byte("SELECT ?4")), ERROR)
	c.SetLimit(LimitLength, 1000)
	wantCode(t, c.ExecScript([]byte("SELECT zeroblob(2000)")), TOOBIG)
	s := prep(t, c, "SELECT ?")
	wantCode(t, s.BindText(1, strings.Repeat("x", 2000)), TOOBIG)
	if c.SetLimit(LimitLength, -1) != 1000 {
		t.Error("reading a limit changed it")
	}
}

func TestDBConfig(t *testing.T) {
	c, _ := open(t, bridged)
	exec(t, c, "CREATE TABLE t(a)")
	if err := c.DBConfig(ConfigDefensive, true); err != nil {
		t.Fatal(err)
	}
	exec(t, c, "PRAGMA writable_schema=on")
	if err := c.ExecScript([]byte("UPDATE sqlite_schema SET sql=''")); err == nil {
		t.Error("defensive mode let the schema be written")
	}
	if err := errors.Join(c.DBConfig(ConfigDoubleQuotedDML, false), c.DBConfig(ConfigTrustedSchema, false), c.DBConfig(ConfigLoadExtension, false)); err != nil {
		t.Fatal(err)
	}
	if err := c.ExecScript([]byte(`SELECT "nope"`)); err == nil {
		t.Error("double-quoted string accepted")
	}
	if err := c.DBConfig(ConfigOp(99), true); err == nil {
		t.Error("unknown switch accepted")
	}
}

func TestMaxPageCount(t *testing.T) {
	c, _ := open(t, Options{VFS: "test", Exclusive: true, MaxPageCount: 10})
	exec(t, c, "CREATE TABLE t(a)")
	wantCode(t, c.ExecScript([]byte("INSERT INTO t VALUES(randomblob(100000))")), FULL)
	exec(t, c, "INSERT INTO t VALUES(1)")
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	c, f := open(t, bridged)
	exec(t, c, "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, v TEXT)")
	ins, sel := prep(t, c, "INSERT OR REPLACE INTO t VALUES(1,?,?)"), prep(t, c, "SELECT a,v FROM t WHERE id=?")
	f.data = append(make([]byte, 0, 1<<20), f.data...)
	n := testing.AllocsPerRun(200, func() {
		insert(t, ins, 0)
		pointRead(t, sel, 1)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestParkedConnections(t *testing.T) {
	c, _ := open(t, bridged)
	exec(t, c, "CREATE TABLE t(a); INSERT INTO t VALUES(1),(2); BEGIN; INSERT INTO t VALUES(3)")
	s := prep(t, c, "SELECT a FROM t")
	for i := 1; i <= 3; i++ {
		c.Park()
		if more, err := s.Step(); !more || err != nil || s.ColumnInt64(0) != int64(i) {
			t.Fatal(more, err)
		}
		c.Park()
		// Somebody else uses the stack in between.
		d, _ := open(t, bridged)
		exec(t, d, "CREATE TABLE x(a); SELECT 1")
	}
	c.Park()
	exec(t, c, "COMMIT")
	c.Park()
	s.Reset()
	if got := mustDump(t, c, "SELECT sum(a) FROM t"); got != "1:\"6\" \n" {
		t.Error(got)
	}
}
