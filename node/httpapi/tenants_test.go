package httpapi

import (
	"strings"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
)

func TestTenants(t *testing.T) {
	a := start(t, Options{})
	const acme, defaults = "/v1/tenants/acme", "/v1/tenant-defaults"
	a.table([]request{
		{"GET", acme, "", 200, `{"tenant":"acme","facets":3,"frozen":"no","limits":{},"in_force":{"facets":null,`, nil},
		{"GET", acme, "", 200, `"use":{"facets":3,"open":3,"bytes":24576,`, nil},
		{"GET", acme, "", 200, `{"node":"n2","frozen":"no","use":{"facets":1,`, nil},
		{"GET", "/v1/tenants", "", 200, `{"tenants":[],"more":false}`, nil},
		{"PATCH", acme, `{"facets":10,"total_bytes":"none","rows_per_second":500}`, 200, `"limits":{"facets":10,"total_bytes":"none","rows_per_second":500},"in_force":{"facets":10,"facet_bytes":null,"total_bytes":null,`, nil},
		{"PATCH", defaults, `{"facets":3,"statement_ms":250}`, 200, `{"limits":{"facets":3,"statement_ms":250}}`, nil},
		{"GET", defaults, "", 200, `{"limits":{"facets":3,"statement_ms":250}}`, nil},
		{"PATCH", acme, `{"facets":null}`, 200, `"in_force":{"facets":3,`, nil},
		{"PUT", acme + "/freeze", "", 200, `"frozen":"all"`, nil},
		{"PUT", acme + "/freeze", `{"reads":true}`, 200, `"frozen":"writes"`, nil},
		{"PUT", "/v1/tenants/zeta/freeze", "", 200, `"frozen":"all"`, nil},
		{"GET", "/v1/tenants?limit=1", "", 200, `"more":true,"next":"/v1/tenants?after=acme&limit=1"`, nil},
		{"GET", "/v1/tenants?after=acme", "", 200, `{"tenant":"zeta","facets":3,"frozen":"all","limits":{}}],"more":false`, nil},
		{"DELETE", acme + "/freeze", "", 200, `"frozen":"no"`, nil},
		{"PATCH", acme, `{}`, 400, `names no limit`, nil},
		{"PATCH", acme, `{"facets":0}`, 400, `facets is at least 1`, nil},
		{"PATCH", acme, `{"facets":-1}`, 400, `facets is at least 1`, nil},
		{"PATCH", acme, `{"facets":"many"}`, 400, `no limit`, nil},
		{"PATCH", acme, `{"facet":1}`, 400, `unknown field`, nil},
		{"PATCH", acme, `{"facets":1e30}`, 400, ``, nil},
		{"PUT", acme + "/freeze", `{"write":true}`, 400, `unknown field`, nil},
		{"DELETE", acme + "/freeze", `{}`, 400, `takes no body`, nil},
		{"PATCH", "/v1/tenants/ACME", `{"facets":1}`, 400, ``, nil},
		{"GET", acme + "/thaw", "", 404, `below a tenant there is freeze`, nil},
		{"POST", acme, "", 405, `Allow: GET, PATCH`, nil},
		{"POST", "/v1/tenants", "", 405, `Allow: GET`, nil},
		{"DELETE", defaults, "", 405, `Allow: GET, PATCH`, nil},
	})
	log := a.log.String()
	for _, want := range []string{
		`action="set tenant" target=acme outcome=done status=200 facets=10 rows_per_second=500`, `action="set tenant defaults"`,
		`action="freeze tenant" target=zeta outcome=done status=200 frozen=all`, `action="unfreeze tenant" target=acme`, `outcome=bad_request`,
	} {
		if !strings.Contains(strings.ReplaceAll(log, ` total_bytes=none`, ``), want) {
			t.Errorf("the audit log lacks %s:\n%s", want, log)
		}
	}
}

// TestWhoSeesTenants: settings are the supervisor's; a token for all facets of a tenant
// sees what the tenant has and may, and not on which nodes; other tokens see nothing.
func TestWhoSeesTenants(t *testing.T) {
	grants := map[string]token.Claims{
		"super": {Tenant: token.AllTenants, Facets: []string{"*"}, Access: token.Admin},
		"eye":   {Tenant: token.AllTenants, Facets: []string{"*"}, Access: token.Read},
		"whole": {Tenant: "acme", Facets: []string{"*"}, Access: token.Admin},
		"part":  {Tenant: "acme", Facets: []string{"notes-*"}, Access: token.Admin},
	}
	a := start(t, Options{Grant: func(tok string) (*token.Grant, error) {
		c, ok := grants[tok]
		if !ok {
			return nil, facet.Errorf(facet.CodeUnauthorized, "who is that")
		}
		return c.Grant()
	}})
	for _, tc := range []struct {
		who, method, path, body string
		want                    int
	}{
		{"super", "GET", "/v1/tenants/acme", "", 200},
		{"eye", "GET", "/v1/tenants/acme", "", 200},
		{"eye", "GET", "/v1/tenants", "", 200},
		{"eye", "GET", "/v1/tenant-defaults", "", 200},
		{"eye", "PATCH", "/v1/tenants/acme", `{"facets":1}`, 403},
		{"eye", "PUT", "/v1/tenants/acme/freeze", "", 403},
		{"eye", "GET", "/v1/busiest-tenants?by=writes&limit=5", "", 200},
		{"whole", "GET", "/v1/busiest-tenants", "", 403},
		{"eye", "GET", "/v1/busiest-tenants?by=size", "", 400},
		{"eye", "POST", "/v1/busiest-tenants", "", 405},
		{"whole", "GET", "/v1/tenants/acme", "", 200},
		{"whole", "GET", "/v1/tenants/zeta", "", 404},
		{"whole", "GET", "/v1/tenants", "", 403},
		{"whole", "GET", "/v1/tenant-defaults", "", 403},
		{"whole", "PATCH", "/v1/tenants/acme", `{"facets":1}`, 403},
		{"whole", "DELETE", "/v1/tenants/acme/freeze", "", 403},
		{"whole", "PATCH", "/v1/tenant-defaults", `{"facets":1}`, 403},
		{"part", "GET", "/v1/tenants/acme", "", 403},
		{"part", "GET", "/v1/tenants/zeta", "", 404},
		{"nobody", "GET", "/v1/tenants/acme", "", 401},
		{"super", "PATCH", "/v1/tenants/acme", `{"facets":1}`, 200},
	} {
		resp, body := a.do(tc.method, tc.path, tc.body, "Authorization: Bearer "+tc.who)
		if resp.StatusCode != tc.want {
			t.Errorf("%s %s %s: %d, want %d: %s", tc.who, tc.method, tc.path, resp.StatusCode, tc.want, body)
		}
		if told := strings.Contains(body, `"node":"n1"`); told && tc.who == "whole" {
			t.Errorf("a tenant is told of nodes: %s", body)
		}
	}
}
