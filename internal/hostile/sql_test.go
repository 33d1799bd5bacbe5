package hostile

import (
	"encoding/json"
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/facetd/facetd/client"
)

// statement is SQL no tenant should get away with, or that must at least do no harm.
type statement struct {
	name string
	sql  string
	args []any
	code string // of the error; "" where it succeeds, anyOutcome where both is fine
	text string // in the message, or the limit's name
}

const (
	anyOutcome = "any"
	codeSQL    = "sql_error"
	denied     = "denied"
	tooMuch    = "limit_exceeded"
	tooLong    = "timeout"
	badRequest = "bad_request"
)

func rep(s string, n int) string { return strings.Repeat(s, n) }

// statements are run by mallory in mallory/den, where sqlSetup is.
func statements() []statement {
	list := []statement{
		// Out of the database.
		{name: "attach a file", sql: "ATTACH '/etc/passwd' AS x", code: denied, text: "ATTACH"},
		{name: "attach a URI", sql: "ATTACH 'file:/etc/passwd?mode=ro&immutable=1' AS x", code: denied, text: "ATTACH"},
		{name: "attach another VFS", sql: "ATTACH 'file:x?vfs=unix' AS x", code: denied, text: "ATTACH"},
		{name: "attach memory", sql: "ATTACH ':memory:' AS x", code: denied, text: "ATTACH"},
		{name: "attach by argument", sql: "ATTACH ? AS ?", args: []any{"/tmp/stolen.db", "x"}, code: denied, text: "ATTACH"},
		{name: "attach behind a comment", sql: "/* ; */ -- x\nAtTaCh DATABASE 'x' AS y", code: denied, text: "ATTACH"},
		{name: "explain attach", sql: "EXPLAIN ATTACH 'x' AS y", code: denied, text: "ATTACH"},
		{name: "detach", sql: "DETACH main", code: denied, text: "DETACH"},
		{name: "vacuum into", sql: "VACUUM INTO '/tmp/stolen.db'", code: denied, text: "VACUUM INTO"},
		{name: "vacuum into by argument", sql: "VACUUM INTO ?", args: []any{"/tmp/stolen.db"}, code: denied, text: "VACUUM INTO"},
		{name: "vacuum into a URI", sql: "VACUUM main INTO 'file:/tmp/stolen.db?mode=rwc'", code: denied, text: "VACUUM INTO"},
		{name: "load_extension", sql: "SELECT load_extension('/lib/x86_64-linux-gnu/libc.so.6')", code: denied, text: "load_extension"},
		{name: "load_extension with an entry", sql: "SELECT load_extension('libc.so.6','system')", code: denied, text: "load_extension"},
		{name: "LOAD_EXTENSION in a view", sql: "CREATE VIEW IF NOT EXISTS le AS SELECT LOAD_EXTENSION('x') AS y; SELECT y FROM le", code: codeSQL, text: "unsafe use"},
		{name: "readfile", sql: "SELECT readfile('/etc/passwd')", code: codeSQL, text: "no such function"},
		{name: "writefile", sql: "SELECT writefile('/tmp/x','y')", code: codeSQL, text: "no such function"},
		{name: "edit", sql: "SELECT edit('x','vi')", code: codeSQL, text: "no such function"},
		{name: "sqlite_log", sql: "SELECT sqlite_log(1,'flood the log')", code: denied, text: "sqlite_log"},
		{name: "fts3_tokenizer", sql: "SELECT fts3_tokenizer('simple', x'4141414141414141')", code: anyOutcome, text: ""},
		{name: "geopoly_debug", sql: "SELECT geopoly_debug(1)", code: anyOutcome, text: "geopoly_debug"},
		{name: "shell function", sql: "SELECT shell('id')", code: codeSQL, text: "no such function"},
		{name: "generate_series", sql: "SELECT sum(value) FROM generate_series(1,1000000000000)", code: codeSQL, text: "no such table"},
		{name: "a path as a table", sql: `SELECT * FROM "/etc/passwd"`, code: codeSQL, text: "no such table"},
		{name: "another schema", sql: "SELECT * FROM victim.gold", code: codeSQL, text: "no such table"},
		{name: "the victim's table", sql: "SELECT * FROM gold", code: codeSQL, text: "no such table"},

		// Virtual tables.
		{name: "dbpage read", sql: "SELECT data FROM sqlite_dbpage(1)", code: anyOutcome, text: ""},
		{name: "dbpage select", sql: "SELECT data FROM sqlite_dbpage WHERE pgno=1", code: denied, text: "sqlite_dbpage"},
		{name: "dbpage write", sql: "UPDATE sqlite_dbpage SET data=zeroblob(4096) WHERE pgno=1", code: denied, text: "sqlite_dbpage"},
		{name: "dbpage insert", sql: "INSERT INTO SQLITE_DBPAGE(pgno,data) VALUES(1,NULL)", code: denied, text: "sqlite_dbpage"},
		{name: "dbpage by module", sql: "CREATE VIRTUAL TABLE p USING sqlite_dbpage", code: denied, text: "module"},
		{name: "csv module", sql: "CREATE VIRTUAL TABLE p USING csv(filename='/etc/passwd')", code: denied, text: "module csv"},
		{name: "zipfile module", sql: "CREATE VIRTUAL TABLE p USING zipfile('/tmp/x.zip')", code: denied, text: "module zipfile"},
		{name: "fsdir module", sql: "SELECT * FROM fsdir('/')", code: codeSQL, text: "no such table"},
		{name: "bytecode", sql: "SELECT * FROM bytecode('SELECT 1')", code: codeSQL, text: "no such table"},
		{name: "sqlite_stmt", sql: "SELECT * FROM sqlite_stmt", code: codeSQL, text: "no such table"},
		{name: "fts4 module", sql: "CREATE VIRTUAL TABLE p USING fts4(x, tokenize=icu)", code: denied, text: "module"},
		{name: "fts5 with a hidden content table", sql: "CREATE VIRTUAL TABLE p USING fts5(x, content='_facetd_keys')", code: anyOutcome, text: ""},
		{name: "fts5 of an unknown tokenizer", sql: "CREATE VIRTUAL TABLE p2 USING fts5(x, tokenize='/lib/evil.so')", code: codeSQL, text: "tokenize"},
		{name: "dbstat write", sql: "DELETE FROM dbstat", code: anyOutcome, text: ""},
		{name: "dbstat by module", sql: "CREATE VIRTUAL TABLE temp.st USING dbstat(temp)", code: anyOutcome, text: ""},
		{name: "shadow table", sql: "UPDATE ft_data SET block='x'", code: codeSQL, text: "may not be modified"},
		{name: "drop a shadow table", sql: "DROP TABLE ft_content", code: codeSQL, text: "may not be dropped"},
		{name: "fts5 special commands", sql: "INSERT INTO ft(ft, rank) VALUES('crisismerge', -1)", code: anyOutcome, text: ""},
		{name: "fts5 huge query", sql: "SELECT * FROM ft WHERE ft MATCH ?", args: []any{rep("(a OR ", 5000) + "b" + rep(")", 5000)}, code: tooMuch, text: "parser_depth"},
		{name: "rtree nonsense", sql: "INSERT INTO rt_node VALUES(1, x'ffffffffffffffff')", code: codeSQL, text: "may not be modified"},
		{name: "rtreecheck", sql: "SELECT rtreecheck('main','rt')", code: anyOutcome, text: ""},

		// Schema.
		{name: "insert into the schema", sql: "INSERT INTO sqlite_schema VALUES('table','x','x',2,'CREATE TABLE x(y)')", code: codeSQL, text: "may not be modified"},
		{name: "update the schema", sql: "UPDATE sqlite_master SET sql='CREATE TABLE t(x)' WHERE name='t'", code: codeSQL, text: "may not be modified"},
		{name: "delete the schema", sql: "DELETE FROM main.sqlite_schema", code: codeSQL, text: "may not be modified"},
		{name: "temp schema", sql: "INSERT INTO sqlite_temp_schema VALUES('table','x','x',2,'CREATE TABLE x(y)')", code: codeSQL, text: "may not be modified"},
		{name: "drop the schema", sql: "DROP TABLE sqlite_schema", code: codeSQL, text: "may not be dropped"},
		{name: "sqlite_ name", sql: "CREATE TABLE sqlite_x(y)", code: codeSQL, text: "reserved"},
		{name: "sqlite_sequence bomb", sql: "INSERT INTO sqlite_sequence VALUES('seq', 9223372036854775807); INSERT INTO seq(v) VALUES(1)", code: codeSQL, text: "row number"},
		{name: "sqlite_stat1 nonsense", sql: "INSERT INTO sqlite_stat1 VALUES('t','ti','99999999999999999999 -1 x')", code: anyOutcome, text: ""},
		{name: "alter to nonsense", sql: `ALTER TABLE t RENAME COLUMN v TO "a""; DROP TABLE t; --"; ALTER TABLE t RENAME COLUMN "a""; DROP TABLE t; --" TO v`, code: anyOutcome, text: ""},

		// What belongs to facetd.
		{name: "read the keys", sql: "SELECT * FROM _facetd_keys", code: denied, text: "belong to facetd"},
		{name: "count the keys", sql: "SELECT count(*) FROM main.[_FACETD_KEYS]", code: denied, text: "belong to facetd"},
		{name: "write keys", sql: "INSERT INTO _facetd_keys VALUES(1,2,3,4,5,6)", code: denied, text: "belong to facetd"},
		{name: "update keys", sql: "UPDATE `_facetd_keys` SET n=1", code: denied, text: "belong to facetd"},
		{name: "delete keys", sql: "DELETE FROM _facetd_keys WHERE 1", code: denied, text: "belong to facetd"},
		{name: "drop keys", sql: "DROP TABLE IF EXISTS _facetd_keys", code: denied, text: "belong to facetd"},
		{name: "rename keys", sql: "ALTER TABLE _facetd_keys RENAME TO mine", code: denied, text: "belong to facetd"},
		{name: "add a column to keys", sql: "ALTER TABLE _facetd_keys ADD COLUMN x", code: denied, text: "belong to facetd"},
		{name: "index keys", sql: "CREATE INDEX ki ON _facetd_keys(client)", code: denied, text: "belong to facetd"},
		{name: "trigger on keys", sql: "CREATE TRIGGER kt AFTER INSERT ON _facetd_keys BEGIN DELETE FROM t; END", code: denied, text: "belong to facetd"},
		{name: "temp trigger on keys", sql: "CREATE TEMP TRIGGER kt AFTER INSERT ON main._facetd_keys BEGIN DELETE FROM t; END", code: denied, text: "belong to facetd"},
		{name: "foreign key to keys", sql: "CREATE TABLE fkk(x REFERENCES _facetd_keys(client)); INSERT INTO fkk VALUES(1)", code: anyOutcome, text: ""},
		{name: "keys by a subquery", sql: "SELECT (SELECT count(*) FROM _facetd_keys) FROM t", code: denied, text: "belong to facetd"},
		{name: "keys by a CTE", sql: "WITH k AS (SELECT * FROM _facetd_keys) SELECT * FROM k", code: denied, text: "belong to facetd"},
		{name: "keys in EXISTS", sql: "SELECT EXISTS(SELECT 1 FROM _facetd_keys)", code: denied, text: "belong to facetd"},
		{name: "keys by RETURNING", sql: "DELETE FROM t WHERE id<0 RETURNING (SELECT max(rowid) FROM _facetd_keys)", code: denied, text: "belong to facetd"},
		{name: "keys by UPDATE FROM", sql: "UPDATE t SET v=1 FROM _facetd_keys", code: denied, text: "belong to facetd"},
		{name: "info of keys", sql: "PRAGMA table_info(_facetd_keys)", code: denied, text: "belong to facetd"},
		{name: "info of keys by a table", sql: "SELECT * FROM pragma_table_info('_facetd_keys')", code: anyOutcome, text: ""},
		{name: "check of keys", sql: "PRAGMA quick_check(_facetd_keys)", code: denied, text: "belong to facetd"},
		{name: "analyze keys", sql: "ANALYZE _facetd_keys", code: anyOutcome, text: ""},
		{name: "reindex keys", sql: "REINDEX _facetd_keys", code: anyOutcome, text: ""},
		{name: "make keys", sql: `CREATE TABLE "_Facetd_mine"(x)`, code: denied, text: "belong to facetd"},
		{name: "savepoint of ours", sql: "ROLLBACK TO _facetd_atomic", code: denied, text: "belong to facetd"},

		// PRAGMAs.
		{name: "journal_mode", sql: "PRAGMA journal_mode=OFF", code: denied, text: "facetd manages"},
		{name: "journal_mode by a table", sql: "SELECT * FROM pragma_journal_mode('WAL')", code: codeSQL, text: "unknown database"},
		{name: "temp_store_directory", sql: "PRAGMA temp_store_directory='/tmp'", code: denied, text: "temp_store_directory"},
		{name: "data_store_directory", sql: "PRAGMA data_store_directory='/tmp'", code: denied, text: "data_store_directory"},
		{name: "database_list", sql: "PRAGMA database_list", code: "", text: ""},
		{name: "filename of the server", sql: "SELECT file FROM pragma_database_list", code: "", text: ""},
		{name: "key", sql: "PRAGMA key='x'", code: denied, text: "list of allowed"},
		{name: "activate_extensions", sql: "PRAGMA activate_extensions='x'", code: denied, text: "list of allowed"},
		{name: "page_count by argument", sql: "PRAGMA max_page_count=4294967294", code: denied, text: "quota"},
		{name: "cache_size", sql: "PRAGMA cache_size=-100000000", code: "", text: ""},
		{name: "threads", sql: "PRAGMA threads=64", code: "", text: ""},
		{name: "integrity_check of much", sql: "PRAGMA integrity_check(1000000000)", code: "", text: ""},
		{name: "optimize with all bits", sql: "PRAGMA optimize(0xffffffff)", code: anyOutcome, text: ""},
		{name: "long PRAGMA", sql: "PRAGMA " + rep("x", 100_000), code: denied, text: "PRAGMA"},

		// Transactions where there is none, or one already.
		{name: "commit alone", sql: "COMMIT", code: anyOutcome, text: ""},
		{name: "rollback alone", sql: "ROLLBACK", code: anyOutcome, text: ""},
		{name: "release alone", sql: "RELEASE nothing", code: anyOutcome, text: ""},
		{name: "open and leave", sql: "BEGIN EXCLUSIVE; INSERT INTO t(v) VALUES('left behind')", code: anyOutcome, text: ""},
		{name: "begin twice", sql: "BEGIN; BEGIN", code: anyOutcome, text: ""},
		{name: "deep savepoints", sql: "BEGIN;" + rep("SAVEPOINT s;", 2000) + "COMMIT", code: anyOutcome, text: ""},
		{name: "commit by EXPLAIN", sql: "EXPLAIN COMMIT", code: anyOutcome, text: ""},
		{name: "vacuum in a transaction", sql: "BEGIN; VACUUM; COMMIT", code: anyOutcome, text: ""},

		// Time.
		{name: "endless CTE", sql: "WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r) SELECT count(*) FROM r", code: tooLong, text: "statement"},
		{name: "endless CTE of nothing", sql: "WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i FROM r) SELECT i FROM r WHERE 0", code: anyOutcome, text: ""},
		{name: "mutual CTEs", sql: "WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r), s(i) AS (SELECT i FROM r UNION ALL SELECT i FROM s) SELECT max(i) FROM s", code: anyOutcome, text: ""},
		{name: "cross join", sql: "SELECT count(*) FROM big a, big b, big c, big d WHERE a.x+b.x+c.x+d.x=-1", code: tooLong, text: "statement"},
		{name: "self join by LIKE", sql: "SELECT count(*) FROM big a, big b, big c WHERE 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'||a.x||b.x||c.x LIKE '%a%a%a%a%a%a%b'", code: tooLong, text: "statement"},
		{name: "correlated subqueries", sql: "SELECT sum((SELECT sum((SELECT sum((SELECT count(*) FROM big d WHERE d.x>c.x)) FROM big c WHERE c.x>b.x)) FROM big b WHERE b.x>a.x)) FROM big a", code: tooLong, text: "statement"},
		{name: "window over a cross join", sql: "SELECT sum(x) OVER (ORDER BY x ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM (SELECT a.x AS x FROM big a, big b, big c)", code: anyOutcome, text: ""},
		{name: "GLOB of classes", sql: "SELECT ? GLOB ?", args: []any{rep("a", 20_000), rep("*[a-z]", 100) + "1"}, code: anyOutcome, text: ""},
		{name: "LIKE with ESCAPE", sql: "SELECT 'x' LIKE 'y' ESCAPE 'long'", code: codeSQL, text: "ESCAPE"},

		// Size.
		{name: "zeroblob", sql: "SELECT zeroblob(9223372036854775807)", code: tooMuch, text: "value_bytes"},
		{name: "randomblob", sql: "SELECT randomblob(2000000000)", code: tooMuch, text: "value_bytes"},
		{name: "printf width", sql: "SELECT printf('%2000000000d', 1)", code: anyOutcome, text: ""},
		{name: "printf precision", sql: "SELECT printf('%.*c', 2000000000, 'x')", code: tooMuch, text: "value_bytes"},
		{name: "printf of floats", sql: "SELECT printf('%.2000000000f', 1e308)", code: anyOutcome, text: ""},
		{name: "replace", sql: "SELECT replace(printf('%.*c',500000,'x'),'x',printf('%.*c',5000,'y'))", code: tooMuch, text: "value_bytes"},
		{name: "hex of hex", sql: "SELECT hex(hex(hex(zeroblob(3000000))))", code: tooMuch, text: "value_bytes"},
		{name: "quote of a blob", sql: "SELECT quote(zeroblob(16000000))", code: tooMuch, text: "value_bytes"},
		{name: "group_concat", sql: "SELECT group_concat(printf('%.*c',100000,'x')) FROM big", code: tooMuch, text: "_bytes"},
		{name: "json_group_array", sql: "SELECT json_group_array(printf('%.*c',100000,'x')) FROM big", code: tooMuch, text: ""},
		{name: "concatenation", sql: "SELECT zeroblob(9000000)||zeroblob(9000000)", code: tooMuch, text: "value_bytes"},
		{name: "sorter", sql: "SELECT count(*) FROM (SELECT zeroblob(10000000) z FROM big ORDER BY random(), z)", code: anyOutcome, text: ""},
		{name: "temp table", sql: "CREATE TEMP TABLE huge AS SELECT randomblob(500000) FROM big", code: tooMuch, text: "memory_bytes"},
		{name: "endless rows", sql: "WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r) SELECT zeroblob(100000) FROM r", code: tooMuch, text: "result_bytes"},
		{name: "fill the disk", sql: "WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r) INSERT INTO t(v) SELECT randomblob(100000) FROM r", code: tooMuch, text: "facet_bytes"},
		{name: "fill by an index", sql: "CREATE INDEX fat ON big(zeroblob(100000), x)", code: anyOutcome, text: ""},
		{name: "json nesting", sql: "SELECT json(printf('%.*c',200000,'['))", code: codeSQL, text: "malformed JSON"},
		{name: "json nesting of objects", sql: "SELECT json_extract(?,'$.a')", args: []any{rep(`{"a":`, 3000) + "1" + rep("}", 3000)}, code: anyOutcome, text: ""},
		{name: "json path", sql: "SELECT json_extract('{}', ?)", args: []any{"$" + rep("[0]", 100_000)}, code: anyOutcome, text: ""},
		{name: "jsonb nonsense", sql: "SELECT json(?), json_extract(?, '$[1]')", args: []any{[]byte{0xfc, 0xff, 0xff, 0xff, 0xff}, []byte{0xcb, 0x0a, 0xfb, 0xff, 0xff, 0xff}}, code: anyOutcome, text: ""},
		{name: "json_patch", sql: "SELECT json_patch((SELECT json_group_object('a'||a.x||b.x,1) FROM big a, big b WHERE b.x<30),(SELECT json_group_object('b'||a.x||b.x,1) FROM big a, big b WHERE b.x<30))", code: anyOutcome, text: ""},
		{name: "unistr", sql: `SELECT unistr('\UFFFFFFFF')`, code: anyOutcome, text: ""},
		{name: "strftime", sql: "SELECT strftime(?, 'now')", args: []any{rep("%f", 400_000)}, code: anyOutcome, text: ""},
		{name: "date far away", sql: "SELECT date('now', '+9223372036854775807 years'), datetime(1e300), julianday('9999999-99-99')", code: anyOutcome, text: ""},
		{name: "huge rowid", sql: "INSERT INTO t(id,v) VALUES(9223372036854775807,1); INSERT INTO t(v) VALUES(2); DELETE FROM t WHERE id>1000", code: anyOutcome, text: ""},

		// The compiler.
		{name: "columns of a result", sql: "SELECT 1" + rep(",1", 2000), code: tooMuch, text: "columns"},
		{name: "columns of a table", sql: "CREATE TABLE wide(c0" + columns(2000) + ")", code: tooMuch, text: "columns"},
		{name: "columns by a join", sql: "SELECT * FROM (SELECT * FROM t" + rep(", t", 63) + ")" + rep(", (SELECT * FROM t"+rep(", t", 63)+")", 20), code: anyOutcome, text: ""},
		{name: "parameters", sql: "SELECT " + rep("?,", 100_000) + "?", code: tooMuch, text: "args"},
		{name: "parameter number", sql: "SELECT ?2147483647", code: anyOutcome, text: ""},
		{name: "expression depth", sql: "SELECT 1" + rep("+1", 100_000), code: tooMuch, text: "expression_depth"},
		{name: "parentheses", sql: "SELECT " + rep("(", 100_000) + "1" + rep(")", 100_000), code: tooMuch, text: "parser_depth"},
		{name: "NOT", sql: "SELECT " + rep("NOT ", 100_000) + "1", code: tooMuch, text: "parser_depth"},
		{name: "minus", sql: "SELECT " + rep("- ", 100_000) + "1", code: tooMuch, text: "parser_depth"},
		{name: "CASE", sql: "SELECT " + rep("CASE WHEN 1 THEN ", 1500) + "1" + rep(" END", 1500), code: tooMuch, text: "depth"},
		{name: "nested subqueries", sql: rep("SELECT * FROM (", 800) + "SELECT 1" + rep(")", 800), code: anyOutcome, text: ""},
		{name: "UNIONs", sql: "SELECT 1" + rep(" UNION SELECT 1", 500), code: tooMuch, text: "compound_select"},
		{name: "EXCEPTs", sql: "SELECT 1" + rep(" EXCEPT SELECT 2", 500), code: tooMuch, text: "compound_select"},
		{name: "joins", sql: "SELECT 1 FROM t" + rep(",t", 64), code: codeSQL, text: "64 tables"},
		{name: "CTEs in CTEs", sql: ctes(200), code: anyOutcome, text: ""},
		{name: "doubling CTEs", sql: doublingCTEs(26), code: anyOutcome, text: ""},
		{name: "IN list", sql: "SELECT 1 IN (1" + rep(",1", 200_000) + ")", code: anyOutcome, text: ""},
		{name: "VALUES", sql: "INSERT INTO t(v) SELECT column1 FROM (VALUES(1)" + rep(",(1)", 20_000) + ") WHERE 0", code: anyOutcome, text: ""},
		{name: "LIKE pattern", sql: "SELECT 'x' LIKE ?", args: []any{rep("%a", 10_000)}, code: tooMuch, text: "pattern_bytes"},
		{name: "GLOB pattern", sql: "SELECT 'x' GLOB ?", args: []any{rep("*a", 10_000)}, code: tooMuch, text: "pattern_bytes"},
		{name: "function arguments", sql: "SELECT coalesce(NULL" + rep(",NULL", 1500) + ")", code: tooMuch, text: "function_args"},
		{name: "SQL of 1 MiB", sql: "SELECT '" + rep("x", 1<<20) + "'", code: tooMuch, text: "1048576"},
		{name: "a name of 500 KB", sql: "SELECT " + rep("n", 500_000), code: codeSQL, text: "…"},
		{name: "an open string", sql: "SELECT 'open", code: codeSQL, text: "unrecognized token"},
		{name: "an open comment", sql: "SELECT 1 /* open", code: anyOutcome, text: ""},
		{name: "nothing", sql: " ;; -- nothing\n", code: anyOutcome, text: ""},
		{name: "NUL in the middle", sql: "SELECT 1\x00; DROP TABLE t", code: anyOutcome, text: ""},
		{name: "NUL in a string", sql: "SELECT 'a\x00b'", code: anyOutcome, text: ""},
		{name: "control characters", sql: "SELECT\x01\x02\x1b[31m 1", code: codeSQL, text: "unrecognized token"},
		{name: "a BOM", sql: "\ufeffSELECT 1", code: anyOutcome, text: ""},
		{name: "text direction", sql: "SELECT '\u202eyortsed' AS \u2066x", code: anyOutcome, text: ""},
		{name: "number of many digits", sql: "SELECT " + rep("9", 100_000) + ", 0x" + rep("f", 1000), code: anyOutcome, text: ""},
		{name: "hexadecimal too large", sql: "SELECT 0xfffffffffffffffff", code: codeSQL, text: "hex literal"},

		// Triggers, views, foreign keys.
		{name: "trigger recursion", sql: "PRAGMA recursive_triggers=1; INSERT INTO tr VALUES(1)", code: anyOutcome, text: "trigger"},
		{name: "trigger storm", sql: "INSERT INTO storm VALUES(1)", code: tooLong, text: "statement"},
		{name: "trigger to ATTACH", sql: "CREATE TRIGGER ta AFTER INSERT ON t BEGIN ATTACH 'x' AS y; END", code: codeSQL, text: "syntax error"},
		{name: "trigger of a temp table", sql: "CREATE TRIGGER temp.tt AFTER INSERT ON main.t BEGIN DELETE FROM seq; END; INSERT INTO t(v) VALUES(1); DELETE FROM t WHERE v=1", code: anyOutcome, text: ""},
		{name: "view of itself", sql: "CREATE VIEW IF NOT EXISTS loop1 AS SELECT * FROM loop2; CREATE VIEW IF NOT EXISTS loop2 AS SELECT * FROM loop1; SELECT * FROM loop1", code: codeSQL, text: "circular"},
		{name: "view of the shell", sql: "CREATE VIEW vd AS SELECT * FROM sqlite_dbpage; SELECT * FROM vd", code: anyOutcome, text: ""},
		{name: "cascade", sql: "DELETE FROM node WHERE id=1", code: anyOutcome, text: ""},
		{name: "deferred foreign keys", sql: "BEGIN; PRAGMA defer_foreign_keys=1; DELETE FROM node WHERE id=2; COMMIT", code: anyOutcome, text: ""},
		{name: "RAISE", sql: "CREATE TRIGGER IF NOT EXISTS tra BEFORE DELETE ON big BEGIN SELECT RAISE(ROLLBACK, 'no'); END; DELETE FROM big; DROP TRIGGER tra", code: codeSQL, text: "no"},
		{name: "check that runs long", sql: "CREATE TABLE IF NOT EXISTS hc(x CHECK(length(hex(zeroblob(4000000+x)))>x)); INSERT INTO hc SELECT x FROM big", code: tooLong, text: "statement"},
		{name: "generated column that runs long", sql: "CREATE TABLE IF NOT EXISTS hg(x, y AS (length(hex(zeroblob(4000000+x))))); INSERT INTO hg SELECT x FROM big; SELECT sum(y) FROM hg", code: tooLong, text: "statement"},
		{name: "random in an index", sql: "CREATE INDEX ri ON t(random())", code: codeSQL, text: "non-deterministic"},
		{name: "subquery in an index", sql: "CREATE INDEX si ON t((SELECT 1))", code: codeSQL, text: "subqueries"},
		{name: "unsafe function in a view", sql: "CREATE VIEW uf AS SELECT load_extension('x'); SELECT * FROM uf", code: anyOutcome, text: ""},

		// Arguments.
		{name: "too few arguments", sql: "SELECT ?, ?", args: []any{1}, code: badRequest, text: "argument"},
		{name: "too many arguments", sql: "SELECT ?", args: []any{1, 2, 3}, code: badRequest, text: "argument"},
		{name: "arguments for nothing", sql: "SELECT 1", args: []any{1}, code: badRequest, text: "argument"},
	}
	for _, name := range strings.Fields("writable_schema synchronous locking_mode mmap_size page_size encoding auto_vacuum schema_version wal_checkpoint ignore_check_constraints trusted_schema soft_heap_limit hard_heap_limit cell_size_check reverse_unordered_selects lock_proxy_file secure_delete default_synchronous parser_trace vdbe_debug") {
		list = append(list, statement{name: "PRAGMA " + name, sql: "PRAGMA " + name + "=1", code: denied, text: name})
	}
	return list
}

func columns(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ",c%d", i+1)
	}
	return b.String()
}

func ctes(n int) string {
	var b strings.Builder
	b.WriteString("WITH c0 AS (SELECT 1 AS x)")
	for i := range n {
		fmt.Fprintf(&b, ", c%d AS (SELECT x FROM c%d)", i+1, i)
	}
	fmt.Fprintf(&b, " SELECT * FROM c%d", n)
	return b.String()
}

func doublingCTEs(n int) string {
	var b strings.Builder
	b.WriteString("WITH c0 AS (SELECT 1 AS x)")
	for i := range n {
		fmt.Fprintf(&b, ", c%d AS (SELECT a.x FROM c%d a, c%d b)", i+1, i, i)
	}
	fmt.Fprintf(&b, " SELECT count(*) FROM c%d", n)
	return b.String()
}

const sqlSetup = `CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1,'one');
CREATE TABLE big(x); WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<1000) INSERT INTO big SELECT i FROM r;
CREATE VIRTUAL TABLE ft USING fts5(x); INSERT INTO ft VALUES('some text');
CREATE VIRTUAL TABLE rt USING rtree(id, a, b); INSERT INTO rt VALUES(1,2,3);
CREATE TABLE seq(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
CREATE TABLE tr(x); CREATE TRIGGER trt AFTER INSERT ON tr BEGIN INSERT INTO tr VALUES(new.x+1); END;
CREATE TABLE storm(x); CREATE TABLE storm2(x); CREATE TRIGGER st1 AFTER INSERT ON storm BEGIN INSERT INTO storm2 SELECT x FROM big; END;
CREATE TRIGGER st2 AFTER INSERT ON storm2 BEGIN UPDATE storm2 SET x=x+1 WHERE x<(SELECT count(*) FROM big, storm2); END;
CREATE TABLE node(id INTEGER PRIMARY KEY, up REFERENCES node(id) ON DELETE CASCADE);
WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<2000) INSERT INTO node SELECT i, CASE WHEN i>1 THEN i/2 END FROM r;
ANALYZE`

// the ways SQL comes in.
var sqlDoors = []struct {
	name string
	run  func(w *world, s *statement) (code, message string)
}{
	{"HTTP", (*world).byHTTP}, {"Hrana", (*world).byHrana}, {"native", (*world).byNative},
}

func (w *world) byHTTP(s *statement) (code, message string) {
	args := make([]any, len(s.args))
	for i, a := range s.args {
		args[i] = a
		if b, ok := a.([]byte); ok {
			args[i] = map[string]any{"blob": b}
		}
	}
	req := map[string]any{"sql": s.sql}
	if s.args != nil {
		req["args"] = args
	}
	body, err := json.Marshal(req)
	if err != nil {
		w.t.Fatal(err)
	}
	status, out, _ := w.call(w.mallory, "POST", "/v1/db/mallory/den/exec", string(body), "Content-Type: application/json")
	if status == 200 {
		return "", ""
	}
	return w.clear(out)
}

func (w *world) byHrana(s *statement) (code, message string) {
	kind := map[string]any{"type": "execute", "stmt": map[string]any{"sql": s.sql, "args": hranaArgs(s.args)}}
	if s.args == nil && strings.Contains(s.sql, ";") {
		kind = map[string]any{"type": "sequence", "sql": s.sql}
	}
	body, err := json.Marshal(map[string]any{"requests": []any{kind, map[string]any{"type": "close"}}})
	if err != nil {
		w.t.Fatal(err)
	}
	status, out, _ := w.call(w.mallory, "POST", "/v1/db/mallory/den/v3/pipeline", string(body), "Content-Type: application/json")
	if status != 200 {
		code, message = w.clear(out)
		return fromHrana(code), message
	}
	var res struct {
		Results []struct {
			Type  string
			Error struct{ Code, Message string }
		}
	}
	if err := json.Unmarshal([]byte(out), &res); err != nil {
		w.t.Fatalf("%v: %.300s", err, out)
	}
	if len(res.Results) != 2 {
		w.t.Fatalf("%.300s", out)
	}
	e := res.Results[0].Error
	if res.Results[0].Type != "error" {
		return "", ""
	}
	w.clearText(e.Code, e.Message)
	return fromHrana(e.Code), e.Message
}

// fromHrana is our code for one that libSQL's clients know.
func fromHrana(code string) string {
	switch code {
	case "SQLITE_AUTH":
		return denied
	case "SQLITE_INTERRUPT":
		return tooLong
	}
	if strings.HasPrefix(code, "SQLITE_") {
		return codeSQL
	}
	return strings.ToLower(code)
}

func hranaArgs(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case int:
			out[i] = map[string]any{"type": "integer", "value": fmt.Sprint(a)}
		case []byte:
			out[i] = map[string]any{"type": "blob", "base64": a}
		default:
			out[i] = map[string]any{"type": "text", "value": a}
		}
	}
	return out
}

func (w *world) byNative(s *statement) (code, message string) {
	f, err := w.client(w.mallory).Facet("mallory/den")
	if err != nil {
		w.t.Fatal(err)
	}
	if s.args == nil && strings.Contains(s.sql, ";") {
		err = f.Script(w.t.Context(), s.sql)
	} else {
		var rows *client.Rows
		if rows, err = f.Query(w.t.Context(), s.sql, s.args...); err == nil {
			for rows.Next() {
			}
			err = rows.Err()
			rows.Close()
		}
	}
	if err == nil {
		return "", ""
	}
	return w.codeOf(err)
}

// go test ./internal/hostile -run TestSQL -every-door
var everyDoor = flag.Bool("every-door", false, "send every statement through every door, not through one in turn")

// TestSQL sends every statement through a door, one after the other.
func TestSQL(t *testing.T) {
	w := newWorld(t, nil)
	const quick, slow = `{"statement_ms":300}`, `{"statement_ms":20000}`
	limits := quick
	w.set("mallory", `{"memory_bytes":33554432,"facet_bytes":8388608}`)
	w.set("mallory", limits)
	w.mustExec(w.mallory, "mallory/den", sqlSetup)
	// Now there is a table of keys to reach for.
	if status, body, _ := w.call(w.mallory, "POST", "/v1/db/mallory/den/exec", "UPDATE t SET v='one'", "Idempotency-Key: k"); status != 200 {
		t.Fatal(body)
	}
	was := inUse()
	list := statements()
	for i := range list {
		s := &list[i]
		t.Run(s.name, func(t *testing.T) {
			w.t = t
			// What another limit stops is not to be stopped by the time before, however slow
			// the machine is.
			want := quick
			if s.code == tooMuch {
				want = slow
			}
			if want != limits {
				limits = want
				w.set("mallory", limits)
			}
			for k, door := range sqlDoors {
				if !*everyDoor && k != i%len(sqlDoors) {
					continue
				}
				code, message := door.run(w, s)
				switch {
				case s.code == anyOutcome:
				case code != s.code:
					t.Errorf("%s: %q %.300s, want %q", door.name, code, message, s.code)
				case !strings.Contains(message, s.text):
					t.Errorf("%s: %s: %.300s; want %q in it", door.name, code, message, s.text)
				}
				if s.code == anyOutcome && code != "" && s.text != "" && !strings.Contains(message, s.text) {
					t.Errorf("%s: %s: %.300s; want %q in it", door.name, code, message, s.text)
				}
			}
			if out := w.mustExec(w.mallory, "mallory/den", "SELECT v FROM t WHERE id=1"); !strings.Contains(out, `"one"`) {
				t.Errorf("the facet has %s", out)
			}
			w.unharmed()
		})
	}
	w.t = t
	if out := w.mustExec(w.mallory, "mallory/den", "PRAGMA integrity_check"); !strings.Contains(out, `"ok"`) {
		t.Error(out)
	}
	if out := w.mustExec(w.mallory, "mallory/den", "SELECT count(*) AS n FROM sqlite_schema WHERE name LIKE '\\_facetd%' ESCAPE '\\'"); !strings.Contains(out, `"n":1`) {
		t.Errorf("objects of facetd: %s", out)
	}
	w.back(was)
	t.Logf("%d statements by %d doors", len(list), len(sqlDoors))
}
