package httpapi

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/fakeservice"
	"github.com/facetd/facetd/node/service"
)

func TestMoveAndPin(t *testing.T) {
	a := start(t, Options{})
	const f = "/v1/facets/acme/notes"
	a.table([]request{
		{"PUT", f + "/pin", "", 404, `"not_found"`, nil},
		{"GET", f, "", 404, `"not_found"`, nil}, // neither moving nor pinning created it
		{"PUT", f, "", 201, `"pinned":false`, nil},
		{"POST", f + "/move", `{"to":"n2"}`, 200, `"owner":"n2","owner_url":"http://10.0.0.2:7400","epoch":2`, nil},
		{"POST", f + "/move", `{"to":"n2"}`, 200, `"owner":"n2"`, nil},
		{"GET", f, "", 200, `"owner":"n2"`, nil},
		{"POST", f + "/move?x=1", `{"to":"n2"}`, 400, `unknown query parameter`, nil},
		{"PUT", f + "/pin", "", 200, `"pinned":true`, nil},
		{"GET", f, "", 200, `"owner":"n2"`, nil}, // pinned where it was
		{"PUT", f + "/pin", `{"node":"n3"}`, 200, `"owner":"n3"`, nil},
		{"PUT", f + "/pin", `{}`, 200, `"pinned":true`, nil},
		{"PUT", f + "/pin", `{"node":"n9"}`, 404, `there is no node n9`, nil},
		{"PUT", f + "/pin", `{"to":"n3"}`, 400, `"hint":"there are node"`, nil},
		{"PUT", f + "/pin", `{"node":""}`, 400, `node id`, nil},
		{"PUT", f + "/pin", `{"node":"n3"} {}`, 400, `not valid JSON`, nil},
		{"PUT", f + "/pin", `{"node":"` + strings.Repeat("n", maxSmallBody) + `"}`, 413, `"limit_exceeded"`, nil},
		{"POST", f + "/move", `{"to":"n1"}`, 200, `"pinned":true`, nil}, // moving leaves the pin
		{"DELETE", f + "/pin", `{"node":"n3"}`, 400, `no body`, nil},
		{"DELETE", f + "/pin", "", 200, `"pinned":false`, nil},
		{"DELETE", f + "/pin", "", 200, `"owner":"n1"`, nil},
		{"GET", f + "/pin", "", 405, "Allow: PUT, DELETE", nil},
	})
}

func TestCloneFacet(t *testing.T) {
	a := start(t, Options{})
	const f = "/v1/facets/acme/notes"
	a.table([]request{
		{"POST", f + "/clone", `{"to":"bolt/copy"}`, 404, `"not_found"`, nil},
		{"PUT", f, "", 201, `"facet":"notes"`, nil},
		{"POST", f + "/clone", `{"to":"bolt/copy"}`, 201, `"tenant":"bolt","facet":"copy"`, nil},
		{"POST", f + "/clone", `{"to":"bolt/copy"}`, 409, `already_exists`, nil},
		{"POST", f + "/clone", `{}`, 400, `what to clone it to`, nil},
		{"POST", f + "/clone", `{"to":"copy"}`, 400, `"bad_request"`, nil},
		{"POST", f + "/clone", `{"as":"bolt/copy"}`, 400, `unknown field`, nil},
		{"POST", f + "/clone?to=bolt/copy", ``, 400, `unknown query parameter`, nil},
		{"GET", f + "/clone", "", 405, "Allow: POST", nil},
	})
}

func TestRecoverFacet(t *testing.T) {
	a := start(t, Options{})
	const f = "/v1/facets/acme/notes"
	a.table([]request{
		{"POST", f + "/recover", `{"from":"n3"}`, 404, `"not_found"`, nil},
		{"PUT", f, "", 201, `"pinned":false,"size_bytes":`, nil}, // no lineage
		{"POST", f + "/recover", `{"from":"n3","dry_run":true}`, 200, `"refused":"enough copies answer","recovered":null`, nil},
		{"POST", f + "/recover", `{"from":"n3"}`, 400, `enough copies answer`, nil},
		{"POST", f + "/recover", `{"from":"n9"}`, 404, `there is no node n9`, nil},
		{"POST", f + "/recover", `{"dry_run":true}`, 400, `which node's copy`, nil},
		{"POST", f + "/recover", `{"from":"n3","to":"n2"}`, 400, `there are from, incarnation and dry_run`, nil},
		{"POST", f + "/recover", `{"from":"n3","incarnation":"1"}`, 400, `32 hexadecimal digits`, nil},
		{"GET", f + "/recover", "", 405, "Allow: POST", nil},
	})
	a.svc.Nodes.SetState("n1", service.NodeGone)
	a.svc.Nodes.SetState("n2", service.NodeGone)
	a.table([]request{
		{"POST", f + "/recover", `{"from":"n3","dry_run":true}`, 200, `"from":"n3","position":"1.42","committed":41,`, nil},
		{"POST", f + "/recover", `{"from":"n3","dry_run":true}`, 200, `"copies":[{"node":"n1","problem":"does not answer"},{"node":"n2","problem":"does not answer"},{"node":"n3","position":"1.42","committed":41,"health":"ok"}],"replicas":3,"refused":"","recovered":null}`, nil},
		{"POST", f + "/recover", `{"from":"n3"}`, 200, `"recovered":{"tenant":"acme","facet":"notes",`, nil},
		{"POST", f + "/recover", `{"from":"n3"}`, 200, `"position":"1.42","lossy":true},"size_bytes":`, nil},
	})
	a.svc.Nodes.Fail(&facet.Error{Code: facet.CodeNotOwner, Message: "the copy is at node n3", Owner: "10.0.0.3:7400"})
	a.table([]request{{"POST", f + "/recover", `{"from":"n3"}`, 307, "Location: http://10.0.0.3:7400" + f + "/recover", nil}})
}

func TestOperations(t *testing.T) {
	a := start(t, Options{})
	a.svc.Nodes.Step(40)
	const ops = "/v1/operations"
	a.table([]request{
		{"GET", ops, "", 200, `{"operations":[]}`, nil},
		{"POST", ops, `{"kind":"drain","node":"n2","rate":5}`, 202, `{"id":"op-1","kind":"drain","node":"n2","state":"running","done":0,"total":100,"failed":0,"rate":5,"message":"","started":"2026-01-02T03:04:05.000Z","ended":null}`, nil},
		{"POST", ops, `{"kind":"drain","node":"n2"}`, 202, `"id":"op-1"`, nil}, // it runs
		{"POST", ops, `{"kind":"drain","node":"n2"}`, 202, "Location: /v1/operations/op-1", nil},
		{"GET", ops, "", 200, `"done":40`, nil},
		{"GET", "/v1/cluster", "", 200, `"state":"draining"`, nil},
		{"DELETE", ops + "/op-1", "", 204, "", nil},
		{"DELETE", ops + "/op-1", "", 204, "", nil}, // it has ended
		{"GET", ops + "/op-1", "", 200, `"state":"canceled"`, nil},
		{"POST", ops, `{"kind":"undrain","node":"n2"}`, 200, `"state":"done"`, nil},
		{"POST", ops, `{"kind":"rebalance"}`, 200, `"kind":"rebalance","node":""`, nil},
		{"POST", ops, `{"kind":"remove","node":"n2","force":true}`, 400, `decommission it first`, nil},

		{"GET", ops + "/op-9", "", 404, `there is no operation`, nil},
		{"DELETE", ops + "/op-9", "", 404, `there is no operation op-9`, nil},
		{"DELETE", ops + "/" + strings.Repeat("x", 64), "", 404, `there is no operation`, nil},
		{"DELETE", ops + "/", "", 405, "Allow: GET, POST", nil},
		{"PUT", ops, "", 405, "Allow: GET, POST", nil},
		{"POST", ops + "/op-1", "", 405, "Allow: GET, DELETE", nil},
		{"GET", ops + "?x=1", "", 400, `unknown query parameter`, nil},
		{"POST", ops, ``, 400, `not valid JSON`, nil},
		{"POST", ops, `{}`, 400, `the kinds are drain, undrain, decommission, remove, rebalance, repair`, nil},
		{"POST", ops, `{"kind":"explode"}`, 400, `there is no operation \"explode\"`, nil},
		{"POST", ops, `{"kind":"drain"}`, 400, `which node to drain`, nil},
		{"POST", ops, `{"kind":"drain","node":"n9"}`, 404, `there is no node n9`, nil},
		{"POST", ops, `{"kind":"drain","node":"N 2"}`, 400, `node id`, nil},
		{"POST", ops, `{"kind":"repair","node":"n2"}`, 400, `names none`, nil},
		{"POST", ops, `{"kind":"repair","rate":-1}`, 400, `facets a second`, nil},
		{"POST", ops, `{"kind":"repair","rate":1e9}`, 400, `not valid JSON`, nil},
		{"POST", ops, `{"kind":"repair","force":1}`, 400, `not valid JSON`, nil},
		{"POST", ops, `{"kind":"repair","speed":1}`, 400, `unknown field \"speed\"`, nil},
		{"POST", ops, `{"kind":"` + strings.Repeat("n", maxSmallBody) + `"}`, 413, `"limit_exceeded"`, nil},
	})
}

// A node that does not lead placement sends the caller to the one that does.
func TestOperationsAreRedirectedToTheLeader(t *testing.T) {
	a := start(t, Options{})
	a.svc.Nodes.Fail(&facet.Error{Code: facet.CodeNotOwner, Message: "n2 leads placement", Owner: "10.0.0.2:7400"})
	list := []request{
		{"GET", "/v1/operations", "", 307, "Location: http://10.0.0.2:7400/v1/operations", nil},
		{"POST", "/v1/operations", `{"kind":"repair"}`, 307, "Location: http://10.0.0.2:7400/v1/operations", nil},
		{"DELETE", "/v1/operations/op-1", "", 307, "Location: http://10.0.0.2:7400/v1/operations/op-1", nil},
	}
	a.table(list)
	a.svc.Nodes.Fail(&facet.Error{Code: facet.CodeNotOwner, Message: "nobody leads placement now"})
	for i := range list {
		list[i].status, list[i].contains = 503, "Retry-After: 1"
	}
	a.table(list)
}

func TestWithoutOperator(t *testing.T) {
	svc := fakeservice.New(t.TempDir())
	defer svc.Close()
	srv := httptest.NewServer(New(svc, Options{}))
	defer srv.Close()
	a := &api{t: t, url: srv.URL}
	a.table([]request{
		{"GET", "/v1/operations", "", 200, `{"operations":[]}`, nil},
		{"POST", "/v1/operations", `{"kind":"repair"}`, 400, `cannot do that`, nil},
		{"DELETE", "/v1/operations/op-1", "", 404, `there is no operation`, nil},
		{"POST", "/v1/facets/acme/notes/move", `{"to":"n1"}`, 400, `cannot do that`, nil},
	})
}
