package engine

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
)

// TestAbuse runs what hostile tenants may send. Each gets its clear error in
// bounded time and memory, and the facet and its neighbour work on.
func TestAbuse(t *testing.T) {
	limits := Limits{StatementTime: 250 * time.Millisecond, RequestTime: 2 * time.Minute, MemoryBytes: 48 << 20, FacetBytes: 8 << 20, ResultBytes: 1 << 20}
	const sqlErr, denied, limit, timeout, bad = facet.CodeSQL, facet.CodeDenied, facet.CodeLimit, facet.CodeTimeout, facet.CodeBadRequest
	deep := func(n int) string { return "SELECT " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n) }
	cases := []struct {
		name  string
		setup string
		steps []facet.Step
		code  facet.Code
		text  string // in the message, or the name of the limit
	}{
		{"attach", "", []facet.Step{step("ATTACH 'x.db' AS x")}, denied, "ATTACH"},
		{"attach memory", "", []facet.Step{step("ATTACH ':memory:' AS x")}, denied, "ATTACH"},
		{"attach nothing", "", []facet.Step{step("ATTACH '' AS x")}, denied, "ATTACH"},
		{"attach argument", "", []facet.Step{step("ATTACH ? AS x", "/etc/passwd")}, denied, "ATTACH"},
		{"detach", "", []facet.Step{step("DETACH main")}, denied, "DETACH"},
		{"vacuum into", "", []facet.Step{step("VACUUM INTO '/tmp/facetd-stolen.db'")}, denied, "VACUUM INTO"},
		{"vacuum into uri", "", []facet.Step{step("VACUUM INTO 'file:/tmp/facetd-stolen.db?mode=memory'")}, denied, "VACUUM INTO"},
		{"writable_schema", "", []facet.Step{step("PRAGMA writable_schema=1")}, denied, "writable_schema"},
		{"writable_schema reset", "", []facet.Step{step("PRAGMA Writable_Schema=RESET")}, denied, "writable_schema"},
		{"schema insert", "", []facet.Step{step("INSERT INTO sqlite_schema VALUES('table','x','x',0,'CREATE TABLE x(y)')")}, sqlErr, "may not be modified"},
		{"schema_version", "", []facet.Step{step("PRAGMA schema_version=7")}, denied, "schema_version"},
		{"journal_mode", "", []facet.Step{step("PRAGMA journal_mode=WAL")}, denied, "facetd manages"},
		{"journal_mode off", "", []facet.Step{step("PRAGMA main.journal_mode=OFF")}, denied, "facetd manages"},
		{"synchronous", "", []facet.Step{step("PRAGMA synchronous=OFF")}, denied, "facetd manages"},
		{"locking_mode", "", []facet.Step{step("PRAGMA locking_mode=NORMAL")}, denied, "facetd manages"},
		{"mmap_size", "", []facet.Step{step("PRAGMA mmap_size=1000000000")}, denied, "facetd manages"},
		{"page_size", "", []facet.Step{step("PRAGMA page_size=512")}, denied, "fixed"},
		{"encoding", "", []facet.Step{step("PRAGMA encoding='UTF-16'")}, denied, "fixed"},
		{"max_page_count", "", []facet.Step{step("PRAGMA max_page_count=1000000000")}, denied, "quota"},
		{"wal_checkpoint", "", []facet.Step{step("PRAGMA wal_checkpoint(TRUNCATE)")}, denied, "facetd manages"},
		{"temp_store_directory", "", []facet.Step{step("PRAGMA temp_store_directory='/tmp'")}, denied, "temp_store_directory"},
		{"hard_heap_limit", "", []facet.Step{step("PRAGMA hard_heap_limit=1")}, denied, "hard_heap_limit"},
		{"trusted_schema", "", []facet.Step{step("PRAGMA trusted_schema=1")}, denied, "trusted_schema"},
		{"pragma function", "", []facet.Step{step("SELECT * FROM pragma_wal_checkpoint")}, sqlErr, "no such table"},
		{"unknown pragma", "", []facet.Step{step("PRAGMA vdbe_trace=1")}, denied, "list of allowed"},
		{"load_extension", "", []facet.Step{step("SELECT load_extension('x')")}, denied, "load_extension"},
		{"readfile", "", []facet.Step{step("SELECT readfile('/etc/passwd')")}, sqlErr, "no such function"},
		{"sqlite_dbpage", "", []facet.Step{step("SELECT data FROM sqlite_dbpage")}, denied, "sqlite_dbpage"},
		{"sqlite_dbpage count", "", []facet.Step{step("SELECT count(*) FROM SQLITE_DBPAGE")}, denied, "SQLITE_DBPAGE"},
		{"sqlite_dbpage write", "", []facet.Step{step("UPDATE sqlite_dbpage SET data=zeroblob(4096)")}, denied, "sqlite_dbpage"},
		{"dbpage table", "", []facet.Step{step("CREATE VIRTUAL TABLE x USING sqlite_dbpage")}, denied, "module"},
		{"dbpage in a view", "CREATE VIEW pv AS SELECT * FROM sqlite_dbpage", []facet.Step{step("SELECT * FROM pv")}, sqlErr, "unsafe use"},
		{"shadow table", "CREATE VIRTUAL TABLE ft USING fts5(x)", []facet.Step{step("UPDATE ft_data SET block='x'")}, sqlErr, "may not be modified"},
		{"drop shadow table", "CREATE VIRTUAL TABLE fu USING fts5(x)", []facet.Step{step("DROP TABLE fu_data")}, sqlErr, "may not be dropped"},
		{"reserved create", "", []facet.Step{step("CREATE TABLE _facetd_keys(x)")}, denied, "belong to facetd"},
		{"reserved create case", "", []facet.Step{step("CREATE TABLE \"_FacetD_Keys\"(x)")}, denied, "belong to facetd"},
		{"reserved temp", "", []facet.Step{step("CREATE TEMP TABLE _facetd_x(x)")}, denied, "belong to facetd"},
		{"reserved view", "", []facet.Step{step("CREATE VIEW _facetd_v AS SELECT 1")}, denied, "belong to facetd"},
		{"reserved index", "", []facet.Step{step("CREATE INDEX _facetd_i ON t(v)")}, denied, "belong to facetd"},
		{"reserved trigger", "", []facet.Step{step("CREATE TRIGGER _facetd_t AFTER INSERT ON t BEGIN SELECT 1; END")}, denied, "belong to facetd"},
		{"reserved virtual", "", []facet.Step{step("CREATE VIRTUAL TABLE _facetd USING fts5(x)")}, denied, "belong to facetd"},
		{"reserved rename", "", []facet.Step{step("ALTER TABLE t RENAME TO \"_facetd_keys\"")}, denied, "belong to facetd"},
		{"reserved savepoint", "", []facet.Step{step("SELECT 1"), step("RELEASE _facetd_atomic")}, denied, "belong to facetd"},
		{"reserved read", "", []facet.Step{step("SELECT * FROM _facetd_keys")}, denied, "belong to facetd"},
		{"reserved count", "", []facet.Step{step("SELECT count(*) FROM main._FACETD_keys")}, denied, "belong to facetd"},
		{"reserved write", "", []facet.Step{step("DELETE FROM _facetd_keys")}, denied, "belong to facetd"},
		{"reserved drop", "", []facet.Step{step("DROP TABLE _facetd_keys")}, denied, "belong to facetd"},
		{"reserved pragma", "", []facet.Step{step("PRAGMA table_info(_facetd_keys)")}, denied, "belong to facetd"},
		{"reserved by trigger", "", []facet.Step{step("CREATE TRIGGER tg AFTER INSERT ON t BEGIN DELETE FROM _facetd_keys; END"), step("INSERT INTO t VALUES(901,1)")}, denied, "belong to facetd"},
		{"reserved by view", "CREATE VIEW rv AS SELECT * FROM _facetd_keys", []facet.Step{step("SELECT * FROM rv")}, denied, "belong to facetd"},
		{"module", "", []facet.Step{step("CREATE VIRTUAL TABLE x USING csv(filename='/etc/passwd')")}, denied, "module csv"},

		{"endless CTE", "", []facet.Step{step("WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r) SELECT count(*) FROM r")}, timeout, "statement"},
		{"endless CTE rows", "", []facet.Step{step("WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r) SELECT i FROM r")}, limit, limitResultBytes},
		{"endless CTE set", "", []facet.Step{step("WITH RECURSIVE r(i) AS (VALUES(1) UNION SELECT i+1 FROM r) SELECT count(*) FROM r")}, 0, ""},
		{"endless insert", "", []facet.Step{step("WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r) INSERT INTO t(v) SELECT randomblob(200000) FROM r")}, limit, limitFacetBytes},
		{"endless returning", "", []facet.Step{step("INSERT INTO t(v) SELECT zeroblob(3000) FROM big LIMIT 900 RETURNING v")}, limit, limitResultBytes},
		{"cross join", "", []facet.Step{step("SELECT count(*) FROM big a, big b, big c, big d WHERE a.x+b.x+c.x+d.x=-1")}, timeout, "statement"},
		{"cross join sorted", "", []facet.Step{step("SELECT a.x FROM big a, big b, big c ORDER BY random()")}, 0, ""},
		{"instr", "", []facet.Step{step("SELECT instr(?,?||'b')", strings.Repeat("a", 8<<20), strings.Repeat("a", 4<<20))}, 0, ""},
		{"replace of much", "", []facet.Step{step("SELECT length(replace(?,?||'b','c'))", strings.Repeat("a", 8<<20), strings.Repeat("a", 4<<20))}, 0, ""},
		{"trim of much", "", []facet.Step{step("SELECT length(trim(?,?||'a'))", strings.Repeat("a", 8<<20), strings.Repeat("b", 4<<20))}, 0, ""},
		{"unhex of much", "", []facet.Step{step("SELECT length(unhex(?,?||'-'))", strings.Repeat("-", 8<<20), strings.Repeat("b", 4<<20))}, 0, ""},
		{"json_patch", "", []facet.Step{step("SELECT json_patch((SELECT json_group_object('a'||a.x||b.x,1) FROM big a, big b WHERE b.x<30),(SELECT json_group_object('b'||a.x||b.x,1) FROM big a, big b WHERE b.x<30))")}, limit, limitValueBytes},
		{"series", "", []facet.Step{step("SELECT sum(value) FROM generate_series(1,1000000000000)")}, sqlErr, "no such table"},
		{"zeroblob", "", []facet.Step{step("SELECT zeroblob(2147483648)")}, limit, limitValueBytes},
		{"randomblob", "", []facet.Step{step("SELECT randomblob(1000000000)")}, limit, limitValueBytes},
		{"printf", "", []facet.Step{step("SELECT printf('%.*c',1000000000,'x')")}, limit, limitValueBytes},
		{"replace", "", []facet.Step{step("SELECT replace(printf('%.*c',1000000,'x'),'x',printf('%.*c',1000,'y'))")}, limit, limitValueBytes},
		{"group_concat", "", []facet.Step{step("SELECT group_concat(printf('%.*c',1000000,'x')) FROM big")}, limit, limitValueBytes},
		{"json nesting", "", []facet.Step{step("SELECT json(printf('%.*c',100000,'['))")}, sqlErr, "malformed JSON"},
		{"value", "", []facet.Step{step("INSERT INTO t(v) VALUES(?||?)", strings.Repeat("x", 9<<20), strings.Repeat("y", 9<<20))}, limit, limitValueBytes},
		{"memory", "", []facet.Step{step("SELECT count(*) FROM (SELECT zeroblob(15000000) z, x FROM big ORDER BY x+random(), z)")}, limit, limitMemoryBytes},
		{"temp table memory", "", []facet.Step{step("CREATE TEMP TABLE m AS SELECT zeroblob(1000000) FROM big")}, limit, limitMemoryBytes},
		{"views doubled", doubledViews(24), []facet.Step{step("SELECT count(*) FROM dv24")}, 0, ""},

		{"long SQL", "", []facet.Step{step("SELECT '" + strings.Repeat("x", facet.MaxSQLLen) + "'")}, limit, limitSQLBytes},
		{"many arguments", "", []facet.Step{{SQL: []byte("SELECT 1"), NArgs: 100_000, Args: make(facet.Values, 100_000)}}, limit, limitArgs},
		{"parameter number", "", []facet.Step{step("SELECT ?99999")}, limit, limitArgs},
		{"many columns", "", []facet.Step{step("SELECT 1" + strings.Repeat(",1", 3000))}, limit, limitColumns},
		{"wide table", "", []facet.Step{step("CREATE TABLE w(c" + joinInts(",c", 3000) + ")")}, limit, limitColumns},
		{"expression depth", "", []facet.Step{step("SELECT 1" + strings.Repeat("+1", 100_000))}, limit, limitExprDepth},
		{"parentheses", "", []facet.Step{step(deep(100_000))}, limit, limitParserDepth},
		{"NOT chain", "", []facet.Step{step("SELECT " + strings.Repeat("NOT ", 100_000) + "1")}, limit, limitParserDepth},
		{"unions", "", []facet.Step{step("SELECT 1" + strings.Repeat(" UNION SELECT 1", 500))}, limit, limitCompoundSelect},
		{"LIKE pattern", "", []facet.Step{step("SELECT 'x' LIKE ?", strings.Repeat("%a", 50_000))}, limit, limitPatternBytes},
		{"GLOB pattern", "", []facet.Step{step("SELECT 'x' GLOB ?", strings.Repeat("*a", 50_000))}, limit, limitPatternBytes},
		{"function arguments", "", []facet.Step{step("SELECT max(1" + strings.Repeat(",1", 1500) + ")")}, limit, limitFunctionArgs},
		{"joins", "", []facet.Step{step("SELECT 1 FROM t" + strings.Repeat(",t", 100))}, sqlErr, "at most 64 tables"},
		{"trigger recursion", "CREATE TABLE tr(x); CREATE TRIGGER trt AFTER INSERT ON tr BEGIN INSERT INTO tr VALUES(new.x+1); END",
			[]facet.Step{step("SELECT 1")}, 0, ""},
		{"trigger storm", "CREATE TABLE ta(x); CREATE TABLE tb(x); CREATE TRIGGER tat AFTER INSERT ON ta BEGIN INSERT INTO tb SELECT x FROM big; END; CREATE TRIGGER tbt AFTER INSERT ON tb BEGIN INSERT INTO tc SELECT x FROM big; END; CREATE TABLE tc(x); CREATE TRIGGER tct AFTER INSERT ON tc BEGIN UPDATE tc SET x=x+1; END",
			[]facet.Step{step("INSERT INTO ta VALUES(1)")}, timeout, "statement"},
		{"heavy CHECK", "CREATE TABLE hc(x CHECK(length(hex(zeroblob(4000000+x)))>x))", []facet.Step{step("INSERT INTO hc SELECT x FROM big")}, timeout, "statement"},
		{"heavy generated column", "CREATE TABLE hg(x, y AS (length(hex(zeroblob(4000000+x)))))", []facet.Step{step("INSERT INTO hg SELECT x FROM big"), step("SELECT sum(y) FROM hg")}, timeout, "statement"},
		{"failing index", "CREATE TABLE fx(x)", []facet.Step{step("INSERT INTO fx VALUES('a')"), step("CREATE INDEX fxi ON fx(json(x))")}, sqlErr, "malformed JSON"},
		{"random in index", "", []facet.Step{step("CREATE INDEX ri ON t(random())")}, sqlErr, "non-deterministic"},
		{"long name", "", []facet.Step{step("SELECT " + strings.Repeat("n", 500_000))}, sqlErr, "…"},
		{"many steps", "", make([]facet.Step, facet.MaxSteps+1), limit, limitSteps},
		{"no steps", "", []facet.Step{}, bad, "no steps"},
		{"truncated UTF-8", "", []facet.Step{step("SELECT \xff\xfe")}, sqlErr, ""},
	}
	f, neighbour := open(t, limits), open(t, limits)
	f.quiet, neighbour.quiet = true, true
	const seed = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1,'one'); CREATE TABLE big(x); WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<1000) INSERT INTO big SELECT i FROM r"
	f.must(script(seed))
	if _, err := f.run(&facet.Request{Key: facet.Key{N: 1}, Steps: []facet.Step{step("UPDATE t SET v='one'")}}); err != nil {
		t.Fatal(err) // now there is a table of keys to reach for
	}
	neighbour.must(script(seed))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f.t, neighbour.t = t, t
			if c.setup != "" {
				f.must(script(c.setup))
			}
			// What another limit stops is not to be stopped by the time before, however slow
			// the machine is.
			statement := limits.StatementTime
			if c.code == limit {
				statement = time.Minute
			}
			f.db.SetLimits(0, statement, 0)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			out, err := f.run(&facet.Request{Atomic: true, Steps: c.steps})
			took := time.Since(start)
			f.db.SetLimits(0, time.Minute, 0)
			runtime.ReadMemStats(&after)
			// Without a limit these take hours; what this machine does beside takes no minute.
			if took > time.Minute {
				t.Errorf("took %v", took)
			}
			if grew := int64(after.HeapAlloc) - int64(before.HeapAlloc); grew > 64<<20 {
				t.Errorf("heap grew by %d MiB", grew>>20)
			}
			if used := f.db.MemoryUsed(); used > limits.MemoryBytes {
				t.Errorf("SQLite holds %d bytes", used)
			}
			if c.code != 0 {
				fe, ok := err.(*facet.Error)
				if !ok {
					t.Fatalf("no error, but %.200s", out)
				}
				if fe.Code != c.code || fe.Limit != c.text && !strings.Contains(fe.Message, c.text) {
					t.Errorf("got %v (limit %q, SQLite %d), want %v %s", fe, fe.Limit, fe.SQLite, c.code, c.text)
				}
				if len(fe.Message) > maxMessage+200 {
					t.Errorf("message of %d bytes", len(fe.Message))
				}
			} else if err != nil {
				t.Log(err)
			}
			if f.db.Broken() != nil {
				t.Fatal(f.db.Broken())
			}
			f.want("SELECT v FROM t WHERE id=1", `"one"`)
			f.must(step("UPDATE t SET v='two' WHERE id=1"), step("UPDATE t SET v='one' WHERE id=1"))
			f.want("PRAGMA quick_check", `"ok"`)
			f.samePages()
			neighbour.must(step("INSERT INTO t(v) VALUES(?)", c.name))
		})
	}
	f.t, neighbour.t = t, t
	if f.store.Pages() > uint32(limits.FacetBytes/pages.Size) {
		t.Errorf("%d pages", f.store.Pages())
	}
}

func doubledViews(n int) string {
	var b strings.Builder
	b.WriteString("CREATE VIEW dv0 AS SELECT x FROM big;")
	for i := range n {
		fmt.Fprintf(&b, "CREATE VIEW dv%d AS SELECT a.x FROM dv%d a, dv%d b;", i+1, i, i)
	}
	return b.String()
}

func joinInts(sep string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprint(&b, sep, i)
	}
	return b.String()
}

// TestQuota fills a facet, and makes room again.
func TestQuota(t *testing.T) {
	f := open(t, Limits{FacetBytes: 1 << 20})
	f.quiet = true
	f.must(script("CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE INDEX i ON t(v); CREATE VIRTUAL TABLE ft USING fts5(x)"))
	var e *facet.Error
	for range 10_000 {
		var resp facet.Response
		if err := f.db.Run(&facet.Request{Atomic: true, Steps: []facet.Step{step("INSERT INTO t(v) VALUES(randomblob(500))")}}, &resp); err != nil {
			e = err.(*facet.Error)
			break
		}
	}
	if e == nil || e.Code != facet.CodeLimit || e.Limit != limitFacetBytes {
		t.Fatal(e)
	}
	// Reading and deleting still work, in a transaction too.
	f.must(step("SELECT sum(id) FROM t"), step("PRAGMA integrity_check"))
	f.must(step("BEGIN"), step("DELETE FROM t WHERE id%2"), step("COMMIT"))
	f.must(step("INSERT INTO t(v) VALUES(randomblob(500))"))
	f.must(step("DELETE FROM t"), step("VACUUM"))
	if n := f.store.Pages(); n > 16 {
		t.Fatalf("%d pages after VACUUM", n)
	}
	f.samePages()
	// A quota lowered below the size does not stop deleting.
	for range 50 {
		f.must(step("INSERT INTO t(v) VALUES(randomblob(5000))"))
	}
	f.limits.FacetBytes = 64 << 10
	f.reopen()
	if e := f.mustFail(step("INSERT INTO t(v) VALUES(zeroblob(50000))")); e.Limit != limitFacetBytes {
		t.Fatal(e)
	}
	f.must(step("DELETE FROM t"), step("VACUUM"))
	f.samePages()
	f.must(step("INSERT INTO t(v) VALUES(1)"))
}

// TestLargeTransaction goes beyond what one commit may hold.
func TestLargeTransaction(t *testing.T) {
	f := open(t, Limits{})
	f.quiet = true
	f.must(script("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1,'one')"))
	pos := f.store.Position()
	e := f.mustFail(step("WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<80) INSERT INTO t(v) SELECT zeroblob(1000000) FROM r"))
	if e.Code != facet.CodeLimit || e.Limit != limitTransactionBytes {
		t.Fatal(e)
	}
	if f.store.Position() != pos {
		t.Fatal("something was committed")
	}
	f.want("SELECT count(*) FROM t", "1")
	out, err := f.run(&facet.Request{KeepTx: true, Steps: []facet.Step{step("BEGIN"), step("INSERT INTO t VALUES(2,2)"),
		step("WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<80) INSERT INTO t(v) SELECT zeroblob(1000000) FROM r")}})
	if err != nil || !strings.Contains(out, limitTransactionBytes) || f.db.InTx() {
		t.Fatal(out, err, f.db.InTx())
	}
	f.want("SELECT count(*) FROM t", "1")
	// One that rewrites large rows spills old pages into its journal and back.
	f.must(step("WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<8) INSERT INTO t(v) SELECT randomblob(1000000) FROM r"))
	sum := f.rows("SELECT sum(length(v)) FROM t")
	if _, err := f.run(&facet.Request{KeepTx: true, Steps: []facet.Step{step("BEGIN"), step("UPDATE t SET v=zeroblob(1100000) WHERE id>1")}}); err != nil {
		t.Fatal(err)
	}
	if !f.store.Staged() {
		t.Fatal("nothing spilled")
	}
	if err := f.db.Rollback(); err != nil {
		t.Fatal(err)
	}
	f.want("SELECT sum(length(v)) FROM t", sum)
	f.want("PRAGMA integrity_check", `"ok"`)
	f.samePages()
}

func TestInterrupt(t *testing.T) {
	f := open(t, Limits{StatementTime: 20 * time.Second})
	f.must(step("CREATE TABLE t(x)"))
	const endless = "WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r) SELECT count(*) FROM r"
	started := make(chan struct{})
	req := &facet.Request{Steps: []facet.Step{step("INSERT INTO t VALUES(1)"), step(endless), step("INSERT INTO t VALUES(2)")}}
	canceled := func() bool { return true }
	go func() {
		<-started
		f.db.Interrupt()
	}()
	first := true
	sink := f.db.handOff
	f.db.handOff = func(c *facet.Commit) error {
		if first {
			first = false
			close(started)
		}
		return sink(c)
	}
	var resp facet.Response
	if err := f.db.RunWith(req, &resp, RunOptions{Canceled: func() bool { return !first && canceled() }}); err != nil {
		t.Fatal(err)
	}
	if out := render(t, resp.Result); !strings.HasPrefix(out, "done changes=1 rows=0\nerror canceled") || strings.Count(out, "canceled:") != 2 {
		t.Fatal(out)
	}
	// An interrupt that was meant for somebody else does nothing.
	f.db.interrupted.Store(true)
	resp = facet.Response{}
	if err := f.db.RunWith(&facet.Request{Steps: []facet.Step{step("SELECT count(*) FROM t")}}, &resp, RunOptions{Canceled: func() bool { return false }}); err != nil {
		t.Fatal(err)
	}
	if out := render(t, resp.Result); !strings.Contains(out, "\n1\n") {
		t.Fatal(out)
	}
	// Deadlines of the request.
	start := time.Now()
	if _, err := f.run(&facet.Request{Atomic: true, Timeout: 50 * time.Millisecond, Steps: []facet.Step{step(endless)}}); err == nil || err.(*facet.Error).Code != facet.CodeTimeout {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Fatal(took)
	}
}

// TestModulesAndFunctions fails when an upgrade of SQLite brings something that
// nobody has judged yet.
func TestModulesAndFunctions(t *testing.T) {
	f := open(t, Limits{})
	for _, name := range strings.Split(f.rows("SELECT name FROM pragma_module_list"), "\n") {
		name = strings.Trim(name, `"`)
		if !modules[name] && refusedTables[name] == "" && !strings.HasPrefix(name, "pragma_") {
			t.Errorf("module %s is neither allowed nor refused", name)
		}
	}
	known := map[string]bool{}
	for _, n := range strings.Fields(knownFunctions) {
		known[n] = true
	}
	for _, name := range strings.Split(f.rows("SELECT DISTINCT name FROM pragma_function_list"), "\n") {
		if name = strings.Trim(name, `"`); !known[name] && refusedFunctions[name] == "" {
			t.Errorf("function %s is neither known to be harmless nor refused", name)
		}
	}
	for _, name := range strings.Split(f.rows("SELECT name FROM pragma_pragma_list"), "\n") {
		if _, _, ok := pragmaOf(strings.Trim(name, `"`)); !ok {
			t.Logf("PRAGMA %s is refused by default", name)
		}
	}
}

// TestPragmas: settings libraries send out of habit do no harm and are no error.
func TestPragmas(t *testing.T) {
	f := open(t, Limits{})
	f.must(step("CREATE TABLE t(a UNIQUE)"))
	for _, p := range []string{
		"busy_timeout=5000", "cache_size=-2000", "temp_store=memory", "temp_store=0", "wal_autocheckpoint=1000", "journal_size_limit=5",
		"foreign_keys=ON", "table_info(t)", "table_xinfo('t')", "table_list", "index_list(t)", "index_info(sqlite_autoindex_t_1)",
		"index_xinfo(sqlite_autoindex_t_1)", "foreign_key_list(t)", "foreign_key_check", "integrity_check", "quick_check(t)", "user_version",
		"user_version=5", "application_id=7", "page_count", "page_size", "freelist_count", "encoding", "journal_mode", "synchronous",
		"schema_version", "data_version", "collation_list", "compile_options", "function_list", "database_list", "optimize",
		"incremental_vacuum", "auto_vacuum", "defer_foreign_keys=1", "recursive_triggers=1", "Case_Sensitive_Like=0", "shrink_memory",
	} {
		f.must(step("PRAGMA " + p))
	}
	f.want("PRAGMA user_version", "5")
	f.want("PRAGMA page_size", "4096")
	f.want("PRAGMA cache_size", "-256")
	f.want("PRAGMA temp_store", "2")
	if bytes.Contains([]byte(f.rows("PRAGMA database_list")), []byte("/")) {
		t.Error("database_list shows a path of the server")
	}
}

const knownFunctions = `-> ->> abs acos acosh asin asinh atan atan2 atanh avg bm25 ceil ceiling changes char coalesce concat concat_ws cos cosh count
cume_dist current_date current_time current_timestamp date datetime degrees dense_rank exp first_value floor format fts5 fts5_get_locale
fts5_insttoken fts5_locale fts5_source_id geopoly_area geopoly_bbox geopoly_blob geopoly_ccw geopoly_contains_point
geopoly_group_bbox geopoly_json geopoly_overlap geopoly_regular geopoly_svg geopoly_within geopoly_xform glob group_concat hex highlight if
ifnull iif instr json json_array json_array_insert json_array_length json_error_position json_extract json_group_array json_group_object
json_insert json_object json_patch json_pretty json_quote json_remove json_replace json_set json_type json_valid jsonb jsonb_array
jsonb_array_insert jsonb_extract jsonb_group_array jsonb_group_object jsonb_insert jsonb_object jsonb_patch jsonb_remove jsonb_replace
jsonb_set julianday lag last_insert_rowid last_value lead length like likelihood likely ln log log10 log2 lower ltrim match max min mod
nth_value ntile nullif octet_length percent_rank pi pow power printf quote radians random randomblob rank replace round row_number rtreecheck
rtreedepth rtreenode rtrim sign sin sinh snippet soundex sqlite_compileoption_get sqlite_compileoption_used sqlite_offset sqlite_source_id
sqlite_version sqrt strftime string_agg substr substring subtype sum tan tanh time timediff total total_changes trim trunc typeof unhex
unicode unistr unistr_quote unixepoch unlikely upper zeroblob`
