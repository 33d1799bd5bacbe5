package hostile

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/internal/token"
	"github.com/facetd/facetd/internal/wire"
)

// bearers are the columns of the matrix, in order.
var bearers = []string{"none", "garbage", "expired", "wrong key", "other tenant", "read-only", "read-write", "admin", "watcher", "root"}

// door is a row: a route and the status each bearer gets.
type door struct {
	method, path, body string
	want               [10]int
}

const (
	notes  = "/v1/facets/acme/notes"
	dbPath = "/v1/db/acme/notes/"
)

// ladders of statuses. All but public ones refuse whoever shows no good token alike.
func public() [10]int { return [10]int{200, 200, 200, 200, 200, 200, 200, 200, 200, 200} }
func ladder(other, ro, rw, admin, watcher, root int) [10]int {
	return [10]int{401, 401, 401, 401, other, ro, rw, admin, watcher, root}
}

// doors has a row for every route: TestMatrix compares it with the source of the router.
// A body is chosen so that a request that is let in does no harm.
func doors() []door {
	const pipe, write = `{"requests":[{"type":"execute","stmt":{"sql":"SELECT 1"}}]}`, `{"sql":"UPDATE t SET v=v"}`
	return []door{
		{"GET", "/", "", public()}, {"GET", "/livez", "", public()}, {"GET", "/readyz", "", public()},
		{"GET", "/metrics", "", ladder(403, 403, 403, 403, 200, 200)},
		{"GET", "/v1/cluster", "", ladder(200, 200, 200, 200, 200, 200)},
		{"GET", "/v1/facets?tenant=acme", "", ladder(404, 200, 200, 200, 200, 200)},
		{"GET", "/v1/operations", "", ladder(403, 403, 403, 403, 200, 200)},
		{"POST", "/v1/operations", `{"kind":"none"}`, ladder(403, 403, 403, 403, 403, 400)},
		{"GET", "/v1/operations/op-9", "", ladder(403, 403, 403, 403, 404, 404)},
		{"DELETE", "/v1/operations/op-9", "", ladder(403, 403, 403, 403, 403, 404)},
		{"GET", "/v1/busiest-tenants", "", ladder(403, 403, 403, 403, 200, 200)},
		{"GET", "/v1/tenant-defaults", "", ladder(403, 403, 403, 403, 200, 200)},
		{"PATCH", "/v1/tenant-defaults", `{}`, ladder(403, 403, 403, 403, 403, 400)},
		{"GET", "/v1/tenants", "", ladder(403, 403, 403, 403, 200, 200)},
		{"GET", "/v1/tenants/acme", "", ladder(404, 200, 200, 200, 200, 200)},
		{"PATCH", "/v1/tenants/acme", `{}`, ladder(403, 403, 403, 403, 403, 400)},
		{"PUT", "/v1/tenants/acme/freeze", `{"x":1}`, ladder(403, 403, 403, 403, 403, 400)},
		{"DELETE", "/v1/tenants/acme/freeze", "", ladder(403, 403, 403, 403, 403, 200)},
		{"GET", notes, "", ladder(404, 200, 200, 200, 200, 200)},
		{"PUT", notes, "", ladder(404, 403, 403, 200, 403, 200)},
		{"DELETE", notes + "?x=1", "", ladder(404, 403, 403, 400, 403, 400)},
		{"GET", notes + "/export", "", ladder(404, 200, 200, 200, 200, 200)},
		{"PUT", notes + "/import", "x", ladder(404, 403, 403, 409, 403, 409)},
		{"POST", notes + "/clone", `{"to":"acme/notes"}`, ladder(404, 403, 403, 409, 403, 409)},
		{"POST", notes + "/move", `{"to":"n9"}`, ladder(403, 403, 403, 403, 403, 404)},
		{"PUT", notes + "/pin", `{"node":"n9"}`, ladder(403, 403, 403, 403, 403, 404)},
		{"DELETE", notes + "/pin", "", ladder(403, 403, 403, 403, 403, 200)},
		{"POST", notes + "/recover", `{"from":"n9"}`, ladder(403, 403, 403, 403, 403, 0)},
		{"GET", dbPath, "", public()}, /* repeats the URL, whether it is there or not */
		{"POST", dbPath + "exec", `{"sql":"SELECT 1"}`, ladder(404, 200, 200, 200, 200, 200)},
		{"POST", dbPath + "exec", write, ladder(404, 403, 200, 200, 403, 200)},
		{"GET", dbPath + "v2", "", public()}, {"GET", dbPath + "v3", "", public()},
		{"POST", dbPath + "v2/pipeline", pipe, ladder(404, 200, 200, 200, 200, 200)},
		{"POST", dbPath + "v3/pipeline", pipe, ladder(404, 200, 200, 200, 200, 200)},
		{"POST", dbPath + "v3/cursor", `{"batch":{"steps":[{"stmt":{"sql":"SELECT 1"}}]}}`, ladder(404, 200, 200, 200, 200, 200)},
		{"GET", wire.Path, "", [10]int{426, 426, 426, 426, 426, 426, 426, 426, 426, 426}},
	}
}

// TestMatrix tries every route with every kind of token.
func TestMatrix(t *testing.T) {
	w := newWorld(t, nil)
	claims := func(tenant string, a token.Access) token.Claims {
		return token.Claims{Tenant: tenant, Facets: []string{"*"}, Access: a}
	}
	expired := claims("*", token.Admin)
	expired.Expires = time.Now().Add(-time.Hour)
	toks := []string{"", "garbage", w.sign(expired), jws(w.keys[2], `{"alg":"EdDSA","kid":"k1"}`, `{"tenant":"*","facets":["*"],"access":"admin","exp":4102444800}`),
		w.mallory, w.sign(claims("acme", token.Read)), w.sign(claims("acme", token.Write)), w.sign(claims("acme", token.Admin)), w.sign(claims("*", token.Read)), w.root}
	w.mustExec(w.root, "acme/notes", "CREATE TABLE t(v)")
	was := inUse()
	list := doors()
	for _, d := range list {
		t.Run(d.method+" "+d.path, func(t *testing.T) {
			w.t = t
			for i, tok := range toks {
				status, body, head := w.call(tok, d.method, d.path, d.body)
				switch {
				case d.want[i] == 0 && status >= 300: // any refusal
				case status != d.want[i]:
					t.Errorf("%s: %d %.300s, want %d", bearers[i], status, body, d.want[i])
				case status == http.StatusUnauthorized && head.Get("WWW-Authenticate") == "" && !strings.Contains(d.path, "/v2") && !strings.Contains(d.path, "/v3"):
					t.Errorf("%s: no WWW-Authenticate", bearers[i])
				case status >= 400:
					w.clear(body)
				}
			}
		})
	}
	w.t = t
	w.unharmed()
	w.back(was)
	t.Logf("%d routes, %d bearers", len(list), len(bearers))
}

// TestEveryRouteHasARow reads the routers and finds every path and action they know, so
// that a route that is added without a row fails here.
func TestEveryRouteHasARow(t *testing.T) {
	known := func(word string) bool {
		return slices.ContainsFunc(doors(), func(d door) bool {
			path, _, _ := strings.Cut(d.path, "?")
			path = strings.TrimSuffix(path, "/")
			return path == strings.TrimSuffix(word, "/") || strings.HasSuffix(path, "/"+strings.Trim(word, "/")) || strings.HasPrefix(path, strings.TrimSuffix(word, "/")+"/")
		})
	}
	found := 0
	for file, funcs := range map[string][]string{
		"../../node/httpapi/route.go":   {"route", "routeFacet", "routeDB"},
		"../../node/httpapi/tenants.go": {"routeTenant", "routeDefaults"},
		"../../node/hrana/handler.go":   {"Serve"},
	} {
		tree, err := parser.ParseFile(gotoken.NewFileSet(), filepath.FromSlash(file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range tree.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || !slices.Contains(funcs, f.Name.Name) {
				continue
			}
			look := func(e ast.Expr) {
				lit, ok := e.(*ast.BasicLit)
				if !ok || lit.Kind != gotoken.STRING {
					return
				}
				word, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				if word == "" || word == "/" {
					return // the thing itself
				}
				found++
				if !known(word) {
					t.Errorf("%s knows %q, and the matrix has no row for it", f.Name.Name, word)
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CaseClause:
					for _, e := range n.List {
						look(e)
					}
				case *ast.BinaryExpr:
					if n.Op == gotoken.EQL {
						look(n.X)
						look(n.Y)
					}
				case *ast.CallExpr:
					if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "CutPrefix" {
						look(n.Args[1])
					}
				}
				return true
			})
		}
	}
	if found < 20 {
		t.Errorf("only %d words were found in the routers: this test does not see them any more", found)
	}
}

// TestMatrixOfRequests tries every kind of request of the protocol of libSQL, and the
// native one's reads and writes, as reader, writer and stranger.
func TestMatrixOfRequests(t *testing.T) {
	w := newWorld(t, nil)
	w.mustExec(w.root, "acme/notes", "CREATE TABLE t(v)")
	reader := w.sign(token.Claims{Tenant: "acme", Facets: []string{"*"}, Access: token.Read})
	writer := w.sign(token.Claims{Tenant: "acme", Facets: []string{"*"}, Access: token.Write})
	requests := []struct {
		kind, body string
		writes     bool
	}{
		{"close", `{"type":"close"}`, false},
		{"execute", `{"type":"execute","stmt":{"sql":"INSERT INTO t VALUES(1)"}}`, true},
		{"batch", `{"type":"batch","batch":{"steps":[{"stmt":{"sql":"INSERT INTO t VALUES(1)"}}]}}`, true},
		{"sequence", `{"type":"sequence","sql":"INSERT INTO t VALUES(1)"}`, true},
		{"describe", `{"type":"describe","sql":"INSERT INTO t VALUES(1)"}`, false},
		{"store_sql", `{"type":"store_sql","sql_id":1,"sql":"INSERT INTO t VALUES(1)"}`, false},
		{"close_sql", `{"type":"close_sql","sql_id":1}`, false},
		{"get_autocommit", `{"type":"get_autocommit"}`, false},
	}
	src, err := os.ReadFile(filepath.FromSlash("../../node/hrana/decode.go"))
	if err != nil {
		t.Fatal(err)
	}
	_, kinds, _ := strings.Cut(string(src), "var kinds = map[string]kind{")
	kinds, _, _ = strings.Cut(kinds, "}")
	if n := strings.Count(kinds, `":`); n != len(requests) {
		t.Errorf("%d kinds of requests are known to node/hrana, %d have a row", n, len(requests))
	}
	for _, rq := range requests {
		if !strings.Contains(kinds, `"`+rq.kind+`":`) {
			t.Errorf("node/hrana knows no %s", rq.kind)
		}
		for _, who := range []struct {
			name, tok string
			status    int
			may       bool
		}{{"reader", reader, 200, false}, {"writer", writer, 200, true}, {"mallory", w.mallory, 404, false}, {"nobody", "", 401, false}} {
			status, out, _ := w.call(who.tok, "POST", dbPath+"v3/pipeline", `{"requests":[`+rq.body+`]}`)
			refused := strings.Contains(out, "SQLITE_READONLY")
			if status != who.status || status == 200 && refused != (rq.writes && !who.may) {
				t.Errorf("%s by %s: %d %.300s", rq.kind, who.name, status, out)
			}
		}
	}
	for _, who := range []struct {
		name, tok, read, write string
	}{{"reader", reader, "", "read_only"}, {"writer", writer, "", ""}, {"mallory", w.mallory, "not_found", "not_found"}} {
		f, err := w.client(who.tok).Facet("acme/notes")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []struct{ sql, want string }{{"SELECT 1", who.read}, {"INSERT INTO t VALUES(1)", who.write}} {
			_, err := f.Exec(t.Context(), s.sql)
			code := ""
			if err != nil {
				code, _ = w.codeOf(err)
			}
			if code != s.want {
				t.Errorf("%s by %s over the native protocol: %v, want %q", s.sql, who.name, err, s.want)
			}
		}
	}
	if out := w.mustExec(w.root, "acme/notes", "SELECT count(*) AS n FROM t"); !json.Valid([]byte(out)) || !strings.Contains(out, `"n":4`) {
		t.Errorf("rows of the writer: %s", out)
	}
}
