package node_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestTenantsAtEveryDoor: imports, clones, creations, exports and deletions are held to
// the limits of their tenants like requests are, nothing that was refused is there, and
// settings outlive a restart.
func TestTenantsAtEveryDoor(t *testing.T) {
	dir := t.TempDir()
	n := open(t, dir, nil)
	want := func(status int, contains, method, path, body string) string {
		t.Helper()
		got, out := call(t, n, method, path, body)
		if got != status || !strings.Contains(out, contains) {
			t.Fatalf("%s %s: %d %.300s, want %d with %q", method, path, got, out, status, contains)
		}
		return out
	}
	exec(t, n, "acme/notes", "CREATE TABLE t (v)")
	exec(t, n, "acme/notes", "INSERT INTO t VALUES (zeroblob(300000))")
	file := want(200, "SQLite format 3", "GET", "/v1/facets/acme/notes/export", "")
	set := func(limits string) { want(200, "", "PATCH", "/v1/tenants/acme", limits) }

	set(`{"facets":2}`)
	want(201, "", "PUT", "/v1/facets/acme/second", "")
	want(507, "limit facets = 2", "PUT", "/v1/facets/acme/third", "")
	want(507, "limit facets = 2", "PUT", "/v1/facets/acme/third/import", file)
	want(507, "limit facets = 2", "POST", "/v1/facets/acme/notes/clone", `{"to":"acme/third"}`)
	want(201, "", "POST", "/v1/facets/acme/notes/clone", `{"to":"zeta/third"}`)
	want(200, "", "PUT", "/v1/facets/acme/second/import?replace=true", file)

	set(`{"facets":null,"facet_bytes":200000}`)
	want(507, "facet_bytes", "PUT", "/v1/facets/acme/third/import", file)
	want(507, "facet_bytes", "POST", "/v1/facets/acme/notes/clone", `{"to":"acme/third"}`)
	set(`{"facet_bytes":null,"total_bytes":900000}`)
	want(507, "limit total_bytes = 900000", "PUT", "/v1/facets/acme/third/import", file)
	want(507, "limit total_bytes = 900000", "POST", "/v1/facets/acme/notes/clone", `{"to":"acme/third"}`)
	want(404, "", "GET", "/v1/facets/acme/third", "")
	want(204, "", "DELETE", "/v1/facets/acme/second", "")
	want(201, "", "PUT", "/v1/facets/acme/third/import", file) // what was deleted gave its room back
	if out := want(200, `"facets":2`, "GET", "/v1/tenants/acme", ""); !strings.Contains(out, `"total_bytes":900000`) {
		t.Error(out)
	}

	want(200, "", "PUT", "/v1/tenants/acme/freeze", "")
	for _, door := range [][3]string{
		{"PUT", "/v1/facets/acme/fourth", ""}, {"DELETE", "/v1/facets/acme/third", ""}, {"GET", "/v1/facets/acme/third/export", ""},
		{"PUT", "/v1/facets/acme/fourth/import", file}, {"POST", "/v1/facets/acme/notes/clone", `{"to":"zeta/fourth"}`},
		{"POST", "/v1/facets/zeta/third/clone", `{"to":"acme/fourth"}`}, {"POST", "/v1/db/acme/notes/exec", `{"sql":"SELECT 1"}`},
		{"POST", "/v1/db/acme/notes/exec?read=follower", `{"sql":"SELECT 1"}`}, {"POST", "/v1/db/acme/none/exec", `{"sql":"SELECT 1"}`},
		{"POST", "/v1/db/acme/notes/v2/pipeline", `{"requests":[{"type":"execute","stmt":{"sql":"SELECT 1"}}]}`},
	} {
		status, out := call(t, n, door[0], door[1], door[2])
		if refused := strings.Contains(strings.ToLower(out), "tenant_frozen"); !refused || status != 403 && status != 200 {
			t.Errorf("%s %s of a frozen tenant: %d %.200s", door[0], door[1], status, out)
		}
	}
	want(200, `"state":"active"`, "GET", "/v1/facets/acme/third", "") // it is there to be seen
	exec(t, n, "zeta/third", "SELECT count(*) FROM t")
	want(200, "", "PUT", "/v1/tenants/acme/freeze", `{"reads":true}`)
	want(200, "SQLite format 3", "GET", "/v1/facets/acme/third/export", "")
	want(403, "tenant_frozen", "DELETE", "/v1/facets/acme/third", "")

	stop(t, n)
	n = open(t, dir, nil)
	want(403, "tenant_frozen", "POST", "/v1/db/acme/notes/exec", `{"sql":"INSERT INTO t VALUES (1)"}`)
	exec(t, n, "acme/notes", "SELECT count(*) FROM t")
	want(200, "", "DELETE", "/v1/tenants/acme/freeze", "")
	exec(t, n, "acme/notes", "INSERT INTO t VALUES (1)")
	want(200, `"total_bytes":900000`, "GET", "/v1/tenants", "")
	for i := range 3 {
		exec(t, n, fmt.Sprint("acme/f", i), "CREATE TABLE t (v)")
	}
}
