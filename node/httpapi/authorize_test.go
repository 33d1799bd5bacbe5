package httpapi

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
)

// tokens are what the bearers of a test may reach, by the text of their token.
func tokens(t *testing.T) func(tok string) (*token.Grant, error) {
	t.Helper()
	grants := make(map[string]*token.Grant)
	for tok, c := range map[string]token.Claims{
		"ro":      {Tenant: "acme", Facets: []string{"*"}, Access: token.Read},
		"rw":      {Tenant: "acme", Facets: []string{"*"}, Access: token.Write},
		"admin":   {Tenant: "acme", Facets: []string{"*"}, Access: token.Admin},
		"some":    {Tenant: "acme", Facets: []string{"log-*", "notes"}, Access: token.Read},
		"bolt":    {Tenant: "bolt", Facets: []string{"*"}, Access: token.Admin},
		"watcher": {Tenant: "*", Facets: []string{"*"}, Access: token.Read},
		"root":    {Tenant: "*", Facets: []string{"*"}, Access: token.Admin, Subject: "ops@example", ID: "t-1"},
	} {
		c.Expires = time.Unix(1, 0)
		g, err := c.Grant()
		if err != nil {
			t.Fatal(err)
		}
		grants[tok] = g
	}
	return func(tok string) (*token.Grant, error) {
		if g, ok := grants[tok]; ok {
			return g, nil
		}
		return nil, facet.Errorf(facet.CodeUnauthorized, "no such token")
	}
}

func bears(tok string) []string {
	if tok == "" {
		return nil
	}
	return []string{"Authorization: Bearer " + tok}
}

// Every endpoint with every kind of token.
func TestDoors(t *testing.T) {
	const f, db = "/v1/facets/acme/notes", "/v1/db/acme/notes/"
	hrana := func(sql string) string {
		return `{"requests":[{"type":"execute","stmt":{"sql":"` + sql + `"}}]}`
	}
	for _, door := range []struct {
		method, path, body string
		// The status for no token (and a wrong one), another tenant's, and of this tenant
		// ro, rw and admin, and for the supervisors' ro and admin.
		none, other, ro, rw, admin, watcher, root int
	}{
		{"POST", db + "exec", "SELECT 1", 401, 404, 200, 200, 200, 200, 200},
		{"POST", db + "exec", "INSERT INTO t VALUES (1)", 401, 404, 403, 200, 200, 403, 200},
		{"POST", db + "v2/pipeline", hrana("SELECT 1"), 401, 404, 200, 200, 200, 200, 200},
		{"POST", db + "v3/pipeline", hrana("SELECT 1"), 401, 404, 200, 200, 200, 200, 200},
		{"POST", db + "v3/cursor", `{"batch":{"steps":[{"stmt":{"sql":"SELECT 1"}}]}}`, 401, 404, 200, 200, 200, 200, 200},
		{"GET", f, "", 401, 404, 200, 200, 200, 200, 200},
		{"PUT", f, "", 401, 404, 403, 403, 200, 403, 200},
		{"GET", f + "/export", "", 401, 404, 200, 200, 200, 200, 200},
		{"PUT", f + "/import?replace=true", "x", 401, 404, 403, 403, 200, 403, 200},
		{"POST", f + "/clone", `{"to":"acme/notes"}`, 401, 404, 403, 403, 409, 403, 409},
		{"POST", f + "/move", `{"to":"n9"}`, 401, 403, 403, 403, 403, 403, 404},
		{"PUT", f + "/pin", `{"node":"n9"}`, 401, 403, 403, 403, 403, 403, 404},
		{"DELETE", f + "/pin", "", 401, 403, 403, 403, 403, 403, 200},
		{"POST", f + "/recover", `{"from":"n9"}`, 401, 403, 403, 403, 403, 403, 404},
		{"GET", "/v1/facets?tenant=acme", "", 401, 404, 200, 200, 200, 200, 200},
		{"GET", "/v1/operations", "", 401, 403, 403, 403, 403, 200, 200},
		{"GET", "/v1/operations/op-9", "", 401, 403, 403, 403, 403, 404, 404},
		{"POST", "/v1/operations", `{"kind":"nothing"}`, 401, 403, 403, 403, 403, 403, 400},
		{"DELETE", "/v1/operations/op-9", "", 401, 403, 403, 403, 403, 403, 404},
		{"GET", "/v1/cluster", "", 401, 200, 200, 200, 200, 200, 200},
		{"GET", "/metrics", "", 401, 403, 403, 403, 403, 200, 200},
		{"GET", "/livez", "", 200, 200, 200, 200, 200, 200, 200},
		{"GET", "/readyz", "", 200, 200, 200, 200, 200, 200, 200},
		{"GET", "/", "", 200, 200, 200, 200, 200, 200, 200},
	} {
		t.Run(door.method+" "+door.path, func(t *testing.T) {
			a := start(t, Options{Grant: tokens(t)})
			name := facet.Name{Tenant: "acme", Facet: "notes"}
			if _, _, err := a.svc.Create(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			a.table([]request{{"POST", db + "exec", "CREATE TABLE t (a)", 200, "", bears("rw")}})
			for _, c := range []struct {
				tok  string
				want int
			}{{"", door.none}, {"forged", door.none}, {"bolt", door.other}, {"ro", door.ro}, {"some", door.ro}, {"rw", door.rw},
				{"admin", door.admin}, {"watcher", door.watcher}, {"root", door.root}} {
				resp, body := a.do(door.method, door.path, door.body, bears(c.tok)...)
				if resp.StatusCode != c.want {
					t.Errorf("with %q: %d, want %d\n%s", c.tok, resp.StatusCode, c.want, body)
				}
				if resp.StatusCode == 401 && resp.Header.Get("WWW-Authenticate") == "" && !strings.Contains(door.path, "/v") {
					t.Errorf("with %q: no WWW-Authenticate", c.tok)
				}
			}
			if _, err := a.svc.Stat(t.Context(), name); err != nil {
				t.Errorf("the facet: %v", err)
			}
		})
	}
}

// DELETE is a door of its own: who may goes last.
func TestDoorOfDelete(t *testing.T) {
	a := start(t, Options{Grant: tokens(t)})
	if _, _, err := a.svc.Create(t.Context(), facet.Name{Tenant: "acme", Facet: "notes"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tok  string
		want int
	}{{"", 401}, {"bolt", 404}, {"ro", 403}, {"rw", 403}, {"watcher", 403}, {"admin", 204}} {
		if resp, body := a.do("DELETE", "/v1/facets/acme/notes", "", bears(c.tok)...); resp.StatusCode != c.want {
			t.Errorf("with %q: %d, want %d\n%s", c.tok, resp.StatusCode, c.want, body)
		}
	}
}

// What a tenant may not see answers as what does not exist, to the letter.
func TestOutOfReachIsNotThere(t *testing.T) {
	a := start(t, Options{Grant: tokens(t)})
	for _, f := range []string{"acme/notes", "acme/secret", "bolt/secret"} {
		n, err := facet.ParseName(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.svc.Create(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	answer := func(tok, method, path, body string) string {
		resp, text := a.do(method, path, body, bears(tok)...)
		resp.Header.Del("X-Request-Id")
		resp.Header.Del("Date")
		return fmt.Sprint(resp.StatusCode, resp.Header, text)
	}
	pipeline := `{"requests":[{"type":"execute","stmt":{"sql":"SELECT 1"}}]}`
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/v1/facets/%s", ""}, {"DELETE", "/v1/facets/%s", ""}, {"PUT", "/v1/facets/%s", ""},
		{"GET", "/v1/facets/%s/export", ""}, {"PUT", "/v1/facets/%s/import", "x"},
		{"POST", "/v1/facets/%s/clone", `{"to":"acme/copy"}`}, {"POST", "/v1/facets/%s/move", `{"to":"n9"}`},
		{"POST", "/v1/db/%s/exec", "SELECT 1"}, {"POST", "/v1/db/%s/v2/pipeline", pipeline},
	} {
		for _, reach := range []struct{ tok, there, missing string }{
			{"bolt", "acme/secret", "acme/absent"}, // another tenant
			{"some", "acme/secret", "acme/absent"}, // a facet the token does not name
		} {
			there := answer(reach.tok, c.method, fmt.Sprintf(c.path, reach.there), c.body)
			missing := answer(reach.tok, c.method, fmt.Sprintf(c.path, reach.missing), c.body)
			if strings.ReplaceAll(there, "secret", "absent") != missing {
				t.Errorf("%s %s by %s tells what is there:\n%s\n%s", c.method, c.path, reach.tok, there, missing)
			}
		}
	}
	// And as what is within reach and does not exist.
	own := answer("ro", "GET", "/v1/facets/acme/absent", "")
	foreign := answer("bolt", "GET", "/v1/facets/acme/absent", "")
	if own != foreign {
		t.Errorf("two ways not to be there:\n%s\n%s", own, foreign)
	}
	if there, missing := answer("bolt", "GET", "/v1/facets?tenant=acme", ""), answer("bolt", "GET", "/v1/facets?tenant=zeta", ""); strings.ReplaceAll(there, "acme", "zeta") != missing {
		t.Errorf("a listing tells which tenants there are:\n%s\n%s", there, missing)
	}
}

// A clone needs both: to read the one and to administer the other.
func TestCloneNeedsBoth(t *testing.T) {
	a := start(t, Options{Grant: func(string) (*token.Grant, error) {
		c := token.Claims{Tenant: "acme", Facets: []string{"*"}, Access: token.Admin, Expires: time.Unix(1, 0)}
		return c.Grant()
	}})
	for _, f := range []facet.Name{{Tenant: "acme", Facet: "notes"}, {Tenant: "bolt", Facet: "notes"}} {
		if _, err := a.svc.Import(t.Context(), f, bytes.NewReader(nil), false); err != nil {
			t.Fatal(err)
		}
	}
	a.table([]request{
		{"POST", "/v1/facets/acme/notes/clone", `{"to":"acme/copy"}`, 201, `"facet":"copy"`, nil},
		{"POST", "/v1/facets/bolt/notes/clone", `{"to":"acme/copy2"}`, 404, `facet bolt/notes does not exist`, nil},
		{"POST", "/v1/facets/acme/notes/clone", `{"to":"bolt/copy"}`, 404, `facet bolt/copy does not exist`, nil},
	})
}

// A listing shows the facets a token names, page by page, and nothing of the others.
func TestListShowsWhatATokenNames(t *testing.T) {
	a := start(t, Options{Grant: tokens(t)})
	for i := range 30 {
		for _, f := range []string{"a-%02d", "log-%02d", "m-%02d", "z-%02d"} {
			if _, _, err := a.svc.Create(t.Context(), facet.Name{Tenant: "acme", Facet: fmt.Sprintf(f, i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, _, err := a.svc.Create(t.Context(), facet.Name{Tenant: "acme", Facet: "notes"}); err != nil {
		t.Fatal(err)
	}
	seen, pages := 0, 0
	for next := "/v1/facets?tenant=acme&limit=7"; next != ""; pages++ {
		resp, body := a.do("GET", next, "", bears("some")...)
		if resp.StatusCode != 200 || pages > 5 {
			t.Fatalf("page %d: %d %s", pages, resp.StatusCode, body)
		}
		if strings.Contains(body, `"a-`) || strings.Contains(body, `"m-`) || strings.Contains(body, `"z-`) || strings.Contains(body, "after=m") {
			t.Fatalf("it shows too much: %s", body)
		}
		seen += strings.Count(body, `"facet":`)
		_, next, _ = strings.Cut(body, `"next":"`)
		next, _, _ = strings.Cut(next, `"`)
		next = strings.ReplaceAll(next, `\u0026`, "&")
	}
	if seen != 31 || pages != 5 {
		t.Errorf("%d facets on %d pages, want 31 on 5", seen, pages)
	}
	a.table([]request{
		{"GET", "/v1/facets?tenant=acme&after=log-29", "", 200, `"facet":"notes"`, bears("some")},
		{"GET", "/v1/facets?tenant=acme&after=notes", "", 200, `{"facets":[],"more":false}`, bears("some")},
		{"GET", "/v1/facets?tenant=acme&limit=120", "", 200, `"more":true`, bears("ro")},
		{"GET", "/v1/facets?tenant=acme&limit=121", "", 200, `"more":false`, bears("ro")},
	})
}

// A tenant is told where the nodes are, which his clients need, and no more.
func TestClusterForTenants(t *testing.T) {
	a := start(t, Options{Grant: tokens(t)})
	_, body := a.do("GET", "/v1/cluster", "", bears("ro")...)
	if !strings.Contains(body, `"api":`) || strings.Contains(body, "owned") || strings.Contains(body, `"leader"`) || strings.Contains(body, `"facets"`) {
		t.Errorf("a tenant sees %s", body)
	}
	if _, body := a.do("GET", "/v1/cluster", "", bears("watcher")...); !strings.Contains(body, `"owned":`) {
		t.Errorf("a supervisor sees %s", body)
	}
}

// A request that shows two tokens, or another kind, shows none.
func TestOneToken(t *testing.T) {
	a := start(t, Options{Grant: tokens(t)})
	req, err := http.NewRequest("GET", a.url+"/v1/operations", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range [][]string{{"Bearer root", "Bearer root"}, {"Basic root"}, {"root"}, {"Bearer"}, {"Bearer root x"}} {
		req.Header["Authorization"] = shown
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 401 {
			t.Errorf("%q: %d", shown, resp.StatusCode)
		}
	}
	req.Header["Authorization"] = []string{"bearer  root"}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("in small letters: %d", resp.StatusCode)
	}
}

// Whoever administers is written down, refused or not; whoever reads is not.
func TestAudit(t *testing.T) {
	lines := &syncBuffer{}
	a := start(t, Options{Grant: tokens(t), Audit: slog.New(slog.NewTextHandler(lines, nil))})
	a.table([]request{
		{"GET", "/v1/facets?tenant=acme", "", 200, "", bears("root")},
		{"GET", "/v1/facets/acme/notes", "", 404, "", bears("root")},
		{"GET", "/v1/operations", "", 200, "", bears("root")},
	})
	if got := lines.String(); got != "" {
		t.Errorf("reading was written down:\n%s", got)
	}
	for _, c := range []struct {
		method, path, body, tok string
		want                    []string
	}{
		{"PUT", "/v1/facets/acme/notes", "", "root", []string{`action="create facet"`, "target=acme/notes", "outcome=done", "status=201", "subject=ops@example", "token=t-1", "request_id=", "remote=127.0.0.1"}},
		{"DELETE", "/v1/facets/acme/notes", "", "", []string{`action="delete facet"`, "outcome=unauthorized", "status=401"}},
		{"DELETE", "/v1/facets/acme/notes", "", "rw", []string{`action="delete facet"`, "outcome=forbidden"}},
		{"DELETE", "/v1/facets/acme/notes", "", "bolt", []string{"outcome=not_found"}},
		{"POST", "/v1/facets/acme/notes/clone", `{"to":"acme/copy"}`, "root", []string{`action="clone facet"`, "to=acme/copy", "outcome=done"}},
		{"POST", "/v1/facets/acme/notes/move", `{"to":"n9"}`, "root", []string{`action="move facet"`, "to=n9", "outcome=not_found"}},
		{"PUT", "/v1/facets/acme/notes/pin", "", "root", []string{`action="pin facet"`, "outcome=done"}},
		{"DELETE", "/v1/facets/acme/notes/pin", "", "root", []string{`action="unpin facet"`, "outcome=done"}},
		{"POST", "/v1/operations", `{"kind":"drain","node":"n9"}`, "root", []string{`action="start operation"`, "target=cluster", "kind=drain", "node=n9", "outcome=not_found"}},
		{"DELETE", "/v1/operations/op-9", "", "root", []string{`action="cancel operation"`, "op-9", "outcome=not_found"}},
		{"POST", "/v1/facets/acme/notes/recover", `{"from":"n9","dry_run":true}`, "root", []string{`action="recover facet"`, "from=n9", "dry_run=true"}},
		{"PUT", "/v1/facets/acme/other/import", "x", "root", []string{`action="import facet"`}},
		{"DELETE", "/v1/facets/acme/notes", "", "root", []string{`action="delete facet"`, "outcome=done", "status=204"}},
	} {
		before := len(lines.String())
		a.do(c.method, c.path, c.body, bears(c.tok)...)
		line := lines.String()[before:]
		if strings.Count(line, "\n") != 1 || !strings.Contains(line, "audit=true") {
			t.Errorf("%s %s: %q", c.method, c.path, line)
		}
		for _, want := range c.want {
			if !strings.Contains(line, want) {
				t.Errorf("%s %s by %q: no %s in %s", c.method, c.path, c.tok, want, line)
			}
		}
	}
}
