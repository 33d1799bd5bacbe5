package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node"
	"github.com/facetd/facetd/node/httpapi"
	"github.com/facetd/facetd/node/native"
	"github.com/facetd/facetd/node/native/nativetest"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/node/service/servicetest"
)

// office is a node of a cluster on paper, with one facet.
type office struct {
	nativetest.Service
	nodes *servicetest.Operator
	// onLook is called at every look at the operations, if it is set. Requests come
	// one at a time.
	onLook func()
}

// watched is the operator of an office.
type watched struct {
	service.Operator
	o *office
}

func (w watched) Operations(ctx context.Context) ([]service.Operation, error) {
	if w.o.onLook != nil {
		w.o.onLook()
	}
	return w.Operator.Operations(ctx)
}

func (o *office) Cluster(context.Context) service.Cluster { return o.nodes.Cluster() }

func (o *office) Stat(_ context.Context, n facet.Name) (service.Info, error) {
	if n.String() != "acme/notes" {
		return service.Info{}, facet.Errorf(facet.CodeNotFound, "there is no facet %v", n)
	}
	return o.nodes.Placed(service.Info{
		Name: n, Owner: "n1", OwnerURL: "http://10.0.0.1:7400", Epoch: 1, State: "active", SizeBytes: 8192, Active: true,
		Replicas: []cluster.NodeID{"n1", "n2", "n3"},
	}), nil
}

// openOffice serves a cluster of three and gives the flag that names it.
func openOffice(t *testing.T) (o *office, server string) {
	t.Helper()
	o = &office{nodes: servicetest.New("n1", "n2", "n3")}
	nat := native.New(o, native.Options{})
	mux := http.NewServeMux()
	mux.Handle(wire.Path, nat)
	mux.Handle("/", httpapi.New(o, httpapi.Options{
		Operator: watched{o.nodes.Mover(o.Stat), o}, Tenants: &servicetest.Tenants{Nodes: []cluster.NodeID{"n1", "n2", "n3"}},
	}))
	srv := httptest.NewServer(mux)
	t.Cleanup(func() {
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		nat.Close(gone)
		srv.Close()
	})
	return o, "--server=" + srv.URL
}

// line is one command line of a table.
type line struct {
	args           string
	code           int
	stdout, stderr string // each line of it must be there
}

func runLines(t *testing.T, server string, lines []line) {
	t.Helper()
	for _, l := range lines {
		code, out, errs := runHere(t.Context(), "", append(strings.Fields(l.args), server)...)
		missing := func(got, want string) bool {
			for w := range strings.Lines(want) {
				if !strings.Contains(got, strings.TrimSuffix(w, "\n")) {
					return true
				}
			}
			return want == "" && got != ""
		}
		if code != l.code || missing(out, l.stdout) || missing(errs, l.stderr) {
			t.Errorf("facetd %s: exit code %d, want %d\n%s--\n%s", l.args, code, l.code, out, errs)
		}
	}
}

func TestStatus(t *testing.T) {
	o, server := openOffice(t)
	o.nodes.SetState("n3", service.NodeGone)
	runLines(t, server, []line{
		{"status", 0, `cluster  c1, as node n1 knows it
leader   n1 (term 3, entry 42)
facets   300, 3 copies of new ones
nodes    3 (2 alive, 1 gone), 3 vote

NODE  STATE  ROLE    OWNED  HELD  LEASE  ZONE  API            VERSION
n1    alive  leader  100    200   100ms  z1    10.0.0.1:7400  test
n3    gone   voter   100    200   100ms  z3    10.0.0.3:7400  test`, ""},
		{"node list", 0, "n2    alive  voter   100    200   100ms  z2    10.0.0.2:7400  test\n", ""},
		{"node list --long", 0, "BOOT\n10.0.0.2:7401  b0000000000000000000000000000002  50000000000000000000000000000002", ""},
		{"node list --json", 0, `{"id":"n1","state":"alive","leader":true,"voter":true,"api":"10.0.0.1:7400"`, ""},
		{"node lst", 2, "", "did you mean \"list\""},
		{"status more", 2, "", "does not take"},
	})
	o.nodes.Step(1)
	runLines(t, server, []line{
		{"node drain --no-wait n2", 0, "drain of n2 runs as op-1", ""},
		{"status", 0, "OPERATION  KIND   NODE  STATE    STARTED               PROGRESS\nop-1       drain  n2    running  2026-01-02T03:04:05Z  1 of 100 facets, at most 50/s", ""},
	})
	code, out, errs := runHere(t.Context(), "", "status", "--json", server)
	var got struct {
		Leader     string
		Nodes      []struct{ ID, State string }
		Operations []struct{ ID string }
	}
	if err := json.Unmarshal([]byte(out), &got); code != 0 || err != nil || got.Leader != "n1" || len(got.Nodes) != 3 || got.Nodes[1].State != "draining" || len(got.Operations) != 1 {
		t.Errorf("%d, %v: %s%s", code, err, out, errs)
	}
}

func TestNodeCommands(t *testing.T) {
	o, server := openOffice(t)
	o.nodes.Step(60)
	runLines(t, server, []line{
		{"node drain --rate 5 n2", 0, "drain of n2 done: 100 facets, 2s", "n2 owns nothing now; when it has been restarted: facetd node undrain n2"},
		{"node drain n2", 0, "drain of n2 done", "facetd node undrain n2"}, // again
		{"node drain --cancel n2", 0, "", "there is no drain of n2 to cancel"},
		{"node undrain n2", 0, "undrain of n2 done", ""},
		{"node drain n9", 1, "", "there is no node n9 in this cluster; the nodes are n1, n2, n3"},
		{"node drain", 2, "", "node drain needs NODE"},
		{"node drain --rate -1 n2", 1, "", "rate is a number of facets a second"},
		{"node remove n3", 1, "", "node n3 keeps 200 facets; decommission it first"},
		{"node decommission --json n3", 0, `"kind":"decommission","node":"n3","state":"done","done":200`, ""},
		{"node remove n3", 0, "remove of n3 done", ""},
		{"rebalance", 0, "rebalance done", ""},
		{"repair --json", 0, `"kind":"repair"`, ""},
	})
	o.nodes.Step(1)
	runLines(t, server, []line{
		{"node drain --no-wait --json n1", 0, `"state":"running"`, ""},
		{"operations", 0, "drain         n1    running  2026-01-02T03:04:05Z  1 of 100 facets", ""},
		{"node drain --cancel n1", 0, "canceled drain of n1", "n1 is active again"},
		{"operations --json", 0, `"state":"canceled"`, ""},
		{"node decommission --no-wait n2", 0, "decommission of n2 runs as op-9", ""},
		{"operations cancel op-9", 0, "canceled decommission of n2", "n2 is active again"},
		{"operations cancel op-9", 0, "", "op-9 is canceled already"},
		{"operations cancel op-99", 1, "", "there is no operation"},
		{"operations now", 2, "", "does not take"},
	})
	o.nodes.Fail(facet.Errorf(facet.CodeUnavailable, "no majority"))
	runLines(t, server, []line{{"status", 0, "leader   n1", "which operations run is not known"}})
}

// Ctrl-C stops waiting and leaves the operation running.
func TestInterruptLeavesItRunning(t *testing.T) {
	o, server := openOffice(t)
	o.nodes.Step(1)
	signals := make(chan os.Signal, 1)
	o.onLook = sync.OnceFunc(func() { signals <- syscall.SIGINT })
	var out, errs strings.Builder
	code := run(t.Context(), &program{
		args: []string{"node", "drain", "n2", server}, env: func(string) (string, bool) { return "", false },
		stdin: strings.NewReader(""), stdout: &out, stderr: &errs, signals: signals,
	})
	ops, err := o.nodes.Operations(t.Context())
	if err != nil || code != exitError || len(ops) != 1 || ops[0].State != service.StateRunning ||
		!strings.Contains(errs.String(), "drain of n2 goes on") || !strings.Contains(errs.String(), "cancel it with: facetd node drain --cancel n2") {
		t.Errorf("exit code %d, %+v, %v\n%s%s", code, ops, err, out.String(), errs.String())
	}
}

// Another leader knows nothing of the operation that was waited for, and is asked
// for it.
func TestWaitingThroughAnotherLeader(t *testing.T) {
	o, server := openOffice(t)
	o.nodes.Step(30)
	looks := 0
	o.onLook = func() {
		if looks++; looks == 2 {
			o.nodes.Forget()
		}
	}
	runLines(t, server, []line{{"node drain n2", 0, "drain of n2 done: 70 facets", "n2 owns nothing now"}})
	// Canceled by somebody else.
	looks = 0
	o.onLook = func() {
		if looks++; looks == 2 {
			if err := o.nodes.Cancel(t.Context(), "op-2"); err != nil {
				t.Error(err)
			}
		}
	}
	runLines(t, server, []line{{"node drain n3", 1, "", "drain of n3 canceled, 30 of 100 facets; canceled by an operator"}})
}

func TestFacetPlaceCommands(t *testing.T) {
	o, server := openOffice(t)
	o.nodes.SetState("n3", service.NodeSuspect)
	runLines(t, server, []line{
		{"facet stat acme/notes", 0, "owner        n1 at http://10.0.0.1:7400\nreplicas     n1, n2, n3\ncopies       2 of 3 on nodes that live: n1 alive, n2 alive, n3 suspect\nincarnation  0", ""},
		{"facet move acme/notes n2", 0, "owner     n2 at http://10.0.0.2:7400\nreplicas  n2, n1, n3\nepoch     2", ""},
		{"facet pin acme/notes", 0, "owner     n2 at http://10.0.0.2:7400, pinned", ""},
		{"facet pin acme/notes n1", 0, "owner     n1 at http://10.0.0.1:7400, pinned", ""},
		{"facet stat --json acme/notes", 0, `"owner":"n1","owner_url":"http://10.0.0.1:7400","epoch":2,"replicas":["n1","n2","n3"],"state":"active","size_bytes":8192,"active":true,"pinned":true`, ""},
		{"facet unpin --json acme/notes", 0, `"pinned":false`, ""},
		{"facet move acme/notes n9", 1, "", "there is no node n9 in this cluster"},
		{"facet move acme/none n2", 1, "", "there is no facet acme/none"},
		{"facet move acme/notes", 2, "", "facet move needs TENANT/FACET NODE"},
		{"facet pin notes", 2, "", "tenant/facet"},
	})
}

func TestFacetRecoverCommand(t *testing.T) {
	o, server := openOffice(t)
	runLines(t, server, []line{
		{"facet recover acme/notes", 2, "", "needs --from NODE"},
		{"facet recover --from n3 acme/notes", 2, "", "no terminal to ask on"},
		{"facet recover --from n3 --dry-run acme/notes", 1, "n2           ends at 1.42, known to be committed up to 41, ok", "acme/notes is not recovered: enough copies answer"},
		{"facet recover --from n3 --yes acme/notes", 1, "", "acme/notes is not recovered: enough copies answer"},
		{"facet recover --from n9 --dry-run acme/notes", 1, "", "there is no node n9"},
	})
	o.nodes.SetState("n1", service.NodeGone)
	o.nodes.SetState("n2", service.NodeGone)
	runLines(t, server, []line{
		{"facet recover --from n3 --dry-run acme/notes", 0, "n2           does not answer\nn3           ends at 1.42", ""},
		{"facet recover --from n3 --dry-run acme/notes", 0, "what is behind 41 is not known to be committed", ""},
		{"facet recover --from n3 --dry-run --json acme/notes", 0, `"position":"1.42","committed":41,`, ""},
		{"facet stat acme/notes", 0, "epoch        1\ncopies ", ""},
		{"facet recover --from n3 --yes acme/notes", 0, "lineage   LOSSY, recovered from one copy of 00000000000000000000000000000000 at 1.42", "acme/notes goes on from the copy of n3"},
		{"facet stat acme/notes", 0, "lineage      LOSSY", ""},
		{"facet stat --json acme/notes", 0, `"lineage":{"source":"00000000000000000000000000000000","position":"1.42","lossy":true}`, ""},
	})
}

func TestRecoverCommand(t *testing.T) {
	dir := t.TempDir()
	recoverHere := func(code int, want string, args ...string) {
		t.Helper()
		got, out, errs := runHere(t.Context(), "", append([]string{"recover"}, args...)...)
		if got != code || !strings.Contains(out+errs, want) {
			t.Errorf("recover %v: exit code %d, want %d with %s\n%s--\n%s", args, got, code, want, out, errs)
		}
	}
	recoverHere(exitUsage, "recover needs --data DIR")
	recoverHere(exitUsage, "does not go with --rejoin", "--data", dir, "--dry-run", "--rejoin")
	recoverHere(exitError, "is not the data directory of a node", "--data", dir)
	n, err := node.Open(t.Context(), node.Config{Dir: dir, Listen: "127.0.0.1:0", Insecure: true, ID: "n7"})
	if err != nil {
		t.Fatal(err)
	}
	recoverHere(exitError, "in use by another facetd process", "--data", dir, "--dry-run")
	recoverHere(exitError, "in use by another facetd process", "--data", dir)
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	recoverHere(exitOK, "this node would become the only voter of generation 1", "--data", dir, "--dry-run")
	recoverHere(exitOK, "this node was made the only voter of generation 1", "--data", dir)
	recoverHere(exitOK, "facetd recover --rejoin --data DIR", "--data", dir)
	recoverHere(exitOK, "the placement log is in "+filepath.Join(dir, "raft"), "--data", dir, "--rejoin")
	recoverHere(exitError, "recovered elsewhere", "--data", dir)
}
