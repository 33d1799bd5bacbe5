package hostile

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/facetd/facetd/internal/token"
)

// database makes a SQLite file with the stock driver and gives its bytes.
func database(t *testing.T, stmts ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "up.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	for _, s := range stmts {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const fill = "WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<500) INSERT INTO t SELECT i, hex(randomblob(50)) FROM r"

// TestImports uploads files that must not become facets.
func TestImports(t *testing.T) {
	w := newWorld(t, nil)
	w.set("mallory", `{"facet_bytes":1048576,"facets":2}`)
	good := database(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "CREATE INDEX i ON t(v)", fill)
	patch := func(at int, b ...byte) []byte {
		f := bytes.Clone(good)
		copy(f[at:], b)
		return f
	}
	schema := func(typ, name, text string) []byte {
		return database(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "PRAGMA writable_schema=1",
			fmt.Sprintf("INSERT INTO sqlite_schema VALUES('%s','%s','%s',0,'%s')", typ, name, name, strings.ReplaceAll(text, "'", "''")))
	}
	const unsound, code = 422, "not_acceptable"
	was := inUse()
	list := []struct {
		name   string
		file   []byte
		status int
		code   string
		text   string
	}{
		{"nothing", nil, unsound, code, "shorter than the header"},
		{"a text", []byte(rep("hello ", 1000)), unsound, code, "not an SQLite database"},
		{"gzip", []byte(zipped(string(good))), unsound, code, "not an SQLite database"},
		{"header only", good[:100], unsound, code, "whole pages"},
		{"cut in a page", good[:len(good)-100], unsound, code, "whole pages"},
		{"cut between pages", good[:3*4096], unsound, code, ""},
		{"page size 3", patch(16, 0, 3), unsound, code, "page size"},
		{"page size 0", patch(16, 0, 0), unsound, code, "page size"},
		{"reserved bytes of a page", patch(20, 255), unsound, code, ""},
		{"file format 9", patch(18, 9, 9), unsound, code, "format versions"},
		{"schema format 99", patch(44, 0, 0, 0, 99), unsound, code, ""},
		{"UTF-16", database(t, "PRAGMA encoding='UTF-16'", "CREATE TABLE t(x)"), unsound, code, "UTF-16"},
		{"page count of 2^32-1", patch(28, 255, 255, 255, 255), 0, code, ""},
		{"freelist in a circle", patch(32, 0, 0, 0, 2, 0, 0, 0, 2), unsound, code, ""},
		{"page of zeros", patch(4096*2, make([]byte, 4096)...), unsound, code, ""},
		{"page of ones", patch(4096*2, bytes.Repeat([]byte{255}, 4096)...), unsound, code, ""},
		{"cell pointers beyond the page", patch(4096*3+3, 255, 255, 255, 255), unsound, code, ""},
		{"schema of garbage", schema("table", "x", "CREATE TABLE x("), unsound, code, ""},
		{"schema runs a query", schema("table", "x", "CREATE TABLE x AS SELECT load_extension('x')"), unsound, code, ""},
		{"table of facetd", database(t, "CREATE TABLE _facetd_other(x)"), unsound, code, "belongs to facetd"},
		{"view of facetd", database(t, "CREATE VIEW _FACETD_v AS SELECT 1"), unsound, code, "belongs to facetd"},
		{"trigger of facetd", database(t, "CREATE TABLE t(x)", "CREATE TRIGGER _facetd_t AFTER INSERT ON t BEGIN SELECT 1; END"), unsound, code, "belongs to facetd"},
		{"csv", schema("table", "x", "CREATE VIRTUAL TABLE x USING csv(filename='/etc/passwd')"), unsound, code, "module csv"},
		{"dbpage", schema("table", "x", "CREATE VIRTUAL TABLE x USING sqlite_dbpage"), unsound, code, "module sqlite_dbpage"},
		{"fts3 with a tokenizer", schema("table", "x", "CREATE VIRTUAL TABLE x USING fts3(tokenize=x'41414141')"), unsound, code, "module fts3"},
		{"larger than a facet", bytes.Repeat(good, 1+1<<20/len(good)), 507, tooMuch, "facet_bytes"},
		{"rows larger than a facet", database(t, "CREATE TABLE t(v)", "INSERT INTO t VALUES(zeroblob(3000000))"), 507, tooMuch, "facet_bytes"},
	}
	for _, in := range list {
		t.Run(in.name, func(t *testing.T) {
			w.t = t
			if in.status == 0 { // it may be put right
				if status, body, _ := w.call(w.mallory, "PUT", "/v1/facets/mallory/new/import", string(in.file)); status != 201 && status != unsound {
					t.Errorf("%d %s", status, body)
				}
				w.call(w.mallory, "DELETE", "/v1/facets/mallory/new", "")
				return
			}
			w.refuseOne(w.mallory, &request{"", "PUT", "/v1/facets/mallory/new/import", string(in.file), nil, in.status, in.code, in.text})
			w.refuseOne(w.mallory, &request{"", "GET", "/v1/facets/mallory/new", "", nil, 404, "not_found", "does not exist"})
			w.unharmed()
		})
	}
	w.t = t
	// A file that is sound and means ill: it may come in, and does nothing.
	trap := database(t, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "CREATE VIEW bomb AS SELECT load_extension('x') AS y",
		"CREATE VIEW page AS SELECT * FROM sqlite_dbpage", "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO t(v) SELECT new.v FROM t a, t b; END", "INSERT INTO t VALUES(1,'x')", "PRAGMA user_version=7")
	if status, body, _ := w.call(w.mallory, "PUT", "/v1/facets/mallory/trap/import", string(trap)); status != 201 {
		t.Fatalf("%d %s", status, body)
	}
	for _, s := range []string{"SELECT * FROM bomb", "SELECT * FROM page", "PRAGMA recursive_triggers=1; INSERT INTO t(v) VALUES(1)"} {
		if status, body := w.exec(w.mallory, "mallory/trap", s); status == 200 && strings.Contains(s, "SELECT * ") {
			t.Errorf("%s: %s", s, body)
		}
	}
	w.unharmed()
	if left, err := os.ReadDir(filepath.Join(w.dir, "data", "import")); err == nil && len(left) > 0 {
		t.Errorf("uploads are left: %v", left)
	}
	w.back(was)
	t.Logf("%d files", len(list)+1)
}

// TestCrossTenant reaches for another tenant with everything that can be got hold of:
// names, keys, bookmarks, transactions, batons, clones. What is there and what is not must
// answer the same.
func TestCrossTenant(t *testing.T) {
	w := newWorld(t, nil)
	w.mustExec(w.mallory, "mallory/den", "CREATE TABLE gold(id INTEGER PRIMARY KEY, v)")
	was := inUse()
	body := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	field := func(out, name string) string {
		t.Helper()
		var m map[string]any
		if err := json.Unmarshal([]byte(out), &m); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		s, _ := m[name].(string)
		if s == "" {
			t.Fatalf("no %s in %s", name, out)
		}
		return s
	}
	_, out, _ := w.call(w.victim, "POST", "/v1/db/victim/vault/exec?bookmark=true", "SELECT 1")
	bookmark := field(out, "bookmark")
	_, out, _ = w.call(w.victim, "POST", "/v1/db/victim/vault/exec", `{"begin":true}`)
	tx := field(out, "tx")
	_, out, _ = w.call(w.victim, "POST", "/v1/db/victim/vault/exec", `{"tx":"`+tx+`","rollback":true}`)
	if strings.Contains(out, `"error"`) {
		t.Fatal(out)
	}
	_, out, _ = w.call(w.victim, "POST", "/v1/db/victim/vault/exec", `{"begin":true}`)
	open := field(out, "tx")
	pipe := func(baton, sql string) string {
		m := map[string]any{"requests": []any{map[string]any{"type": "execute", "stmt": map[string]any{"sql": sql}}}}
		if baton != "" {
			m["baton"] = baton
		}
		return body(m)
	}
	_, out, _ = w.call(w.mallory, "POST", den+"v3/pipeline", pipe("", "SELECT 1"))
	own := field(out, "baton")
	if status, out, _ := w.call(w.mallory, "POST", den+"v3/pipeline", pipe(own, "SELECT 1")); status != 200 {
		t.Fatal(out)
	}
	if status, out, _ := w.call(w.victim, "POST", "/v1/db/victim/vault/exec", `{"tx":"`+open+`","rollback":true}`); status != 200 {
		t.Fatal(out)
	}
	_, out, _ = w.call(w.victim, "POST", "/v1/db/victim/vault/v3/pipeline", pipe("", "SELECT 1"))
	baton := field(out, "baton")
	const idem = `,"key":{"client":"aabbccddeeff00112233445566778899","n":1}`
	if status, out, _ := w.call(w.victim, "POST", "/v1/db/victim/vault/exec", `{"sql":"UPDATE gold SET v=v WHERE id=1"`+idem+`}`); status != 200 {
		t.Fatal(out)
	}
	// The same key is the attacker's own in his facet: it tells nothing of the victim's.
	if status, out, _ := w.call(w.mallory, "POST", denExec, `{"sql":"INSERT INTO gold(v) VALUES('mine') RETURNING v"`+idem+`}`); status != 200 || !strings.Contains(out, "mine") || strings.Contains(out, canary) {
		t.Errorf("the key of another: %d %s", status, out)
	}
	file := string(database(t, "CREATE TABLE gold(v)"))
	const theirs, gone = "/v1/facets/victim/vault", "does not exist"
	doors := []request{
		{"look", "GET", theirs, "", nil, 404, "not_found", gone},
		{"create", "PUT", theirs, "", nil, 404, "not_found", gone},
		{"delete", "DELETE", theirs, "", nil, 404, "not_found", gone},
		{"export", "GET", theirs + "/export", "", nil, 404, "not_found", gone},
		{"import", "PUT", theirs + "/import", file, nil, 404, "not_found", gone},
		{"import and replace", "PUT", theirs + "/import?replace=true", file, nil, 404, "not_found", gone},
		{"clone from", "POST", theirs + "/clone", `{"to":"mallory/stolen"}`, nil, 404, "not_found", gone},
		{"clone to", "POST", "/v1/facets/mallory/den/clone", `{"to":"victim/vault"}`, nil, 404, "not_found", gone},
		{"clone to a new one", "POST", "/v1/facets/mallory/den/clone", `{"to":"victim/planted"}`, nil, 404, "not_found", gone},
		{"exec", "POST", "/v1/db/victim/vault/exec", "SELECT * FROM gold", nil, 404, "not_found", gone},
		{"exec of the owner's transaction", "POST", "/v1/db/victim/vault/exec", `{"tx":"` + open + `","sql":"DELETE FROM gold"}`, nil, 404, "not_found", gone},
		{"read at a follower", "POST", "/v1/db/victim/vault/exec?read=follower", "SELECT * FROM gold", nil, 404, "not_found", gone},
		{"pipeline", "POST", "/v1/db/victim/vault/v3/pipeline", pipe("", "SELECT 1"), nil, 404, "not_found", gone},
		{"pipeline of v2", "POST", "/v1/db/victim/vault/v2/pipeline", pipe("", "SELECT 1"), nil, 404, "not_found", gone},
		{"pipeline with the victim's baton", "POST", "/v1/db/victim/vault/v3/pipeline", pipe(baton, "SELECT 1"), nil, 404, "not_found", gone},
		{"cursor", "POST", "/v1/db/victim/vault/v3/cursor", `{"batch":{"steps":[{"stmt":{"sql":"SELECT 1"}}]}}`, nil, 404, "not_found", gone},
		{"as if carried by a node", "POST", "/v1/db/victim/vault/v3/pipeline", pipe("", "SELECT 1"), []string{"Facet-Hops: 1", "X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1"}, 404, "not_found", gone},
		{"list", "GET", "/v1/facets?tenant=victim", "", nil, 404, "not_found", gone},
	}
	// Through his own facet, with what is the victim's.
	mine := []request{
		{"victim's transaction", "POST", denExec, `{"tx":"` + tx + `","sql":"SELECT 1"}`, nil, 409, "tx_closed", "transaction"},
		{"victim's bookmark", "POST", denExec + "?bookmark=" + bookmark, "SELECT 1", nil, 409, "bad_bookmark", "bookmark"},
		{"victim's bookmark in a body", "POST", denExec, `{"sql":"SELECT 1","bookmark":"` + bookmark + `"}`, nil, 409, "bad_bookmark", "bookmark"},
		{"victim's bookmark at a follower", "POST", denExec + "?read=follower&bookmark=" + bookmark, "SELECT 1", nil, 409, "bad_bookmark", "bookmark"},
		{"bookmark with a bit flipped", "POST", denExec + "?bookmark=" + flip(bookmark), "SELECT 1", nil, 409, "bad_bookmark", "bookmark"},
		{"victim's baton", "POST", den + "v3/pipeline", pipe(baton, "SELECT 1"), nil, 400, "BATON_INVALID", "new stream"},
		{"used baton", "POST", den + "v3/pipeline", pipe(own, "SELECT 1"), nil, 400, "BATON_USED", "one request"},
		{"baton with a bit flipped", "POST", den + "v3/pipeline", pipe(flip(own), "SELECT 1"), nil, 400, "BATON_INVALID", "new stream"},
		{"own baton elsewhere", "POST", "/v1/db/mallory/other/v3/pipeline", pipe(own, "SELECT 1"), nil, 400, "BATON_INVALID", "new stream"},
		{"use of the victim", "GET", "/v1/tenants/victim", "", nil, 404, "not_found", "does not exist"},
	}
	t.Run("doors", func(t *testing.T) {
		w.t = t
		w.refuse(doors)
		for _, d := range doors { // what is not there answers to the letter as what is
			there, what, head := w.call(w.mallory, d.method, d.path, d.body, d.headers...)
			path := strings.ReplaceAll(strings.ReplaceAll(d.path, "vault", "ghost"), "tenant=victim", "tenant=ghostx")
			missing, absent, other := w.call(w.mallory, d.method, path, strings.ReplaceAll(d.body, "vault", "ghost"), d.headers...)
			for _, h := range []string{"X-Request-Id", "Date", "Content-Length"} {
				head.Del(h)
				other.Del(h)
			}
			absent = strings.ReplaceAll(strings.ReplaceAll(absent, "ghostx", "victim"), "ghost", "vault")
			if there != missing || what != absent || fmt.Sprint(head) != fmt.Sprint(other) {
				t.Errorf("%s tells what is there: %d %s %v; %d %s %v", d.name, there, what, head, missing, absent, other)
			}
		}
	})
	t.Run("own", func(t *testing.T) { w.t = t; w.refuse(mine) })
	// A token for some facets is not one for the others of its tenant, nor for its tenant.
	some := w.sign(token.Claims{Tenant: "victim", Facets: []string{"log-*"}, Access: token.Admin})
	w.t = t
	for _, d := range doors {
		w.refuseOne(some, &request{d.name, d.method, strings.ReplaceAll(d.path, "mallory/den", "victim/vault"), d.body, d.headers, 0, d.code, ""})
		if d.name == "cursor" {
			break
		}
	}
	w.unharmed()
	w.back(was)
	t.Logf("%d doors", len(doors)+len(mine))
}

// flip changes the middle of a text.
func flip(s string) string {
	b := []byte(s)
	at := len(b) / 2
	if b[at] == 'b' {
		b[at] = 'c'
	} else {
		b[at] = 'b'
	}
	return string(b)
}

// TestLeftOverPages: what a deleted facet held is in no other tenant's database, however
// the space of its pages is used again.
func TestLeftOverPages(t *testing.T) {
	w := newWorld(t, nil)
	for i := range 5 {
		name := fmt.Sprintf("victim/f%d", i)
		w.mustExec(w.victim, name, vaultSQL)
		if i%2 == 0 {
			w.mustExec(w.victim, name, "DROP TABLE gold")
		}
		if status, body, _ := w.call(w.victim, "DELETE", "/v1/facets/"+name, ""); status != 204 {
			t.Fatalf("%d %s", status, body)
		}
		mine := fmt.Sprintf("mallory/m%d", i)
		w.mustExec(w.mallory, mine, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); "+fill+"; DELETE FROM t WHERE id%3=0")
		status, file, _ := w.call(w.mallory, "GET", "/v1/facets/"+mine+"/export", "")
		if status != 200 || strings.Contains(file, canary) {
			t.Errorf("the export of %s: %d, and the victim's bytes in it: %v", mine, status, strings.Contains(file, canary))
		}
		for _, q := range []string{"SELECT data FROM dbstat", "SELECT * FROM t", "PRAGMA integrity_check"} {
			if _, out := w.exec(w.mallory, mine, q); strings.Contains(out, canary) {
				t.Errorf("%s shows the victim's bytes", q)
			}
		}
	}
	w.unharmed()
}
