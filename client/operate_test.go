package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/httpapi"
	"github.com/facetd/facetd/node/native"
	"github.com/facetd/facetd/node/native/nativetest"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/node/service/servicetest"
)

// office is a service with a cluster on paper.
type office struct {
	nativetest.Service
	nodes *servicetest.Operator
}

func (o *office) Cluster(context.Context) service.Cluster { return o.nodes.Cluster() }

func (o *office) Stat(_ context.Context, n facet.Name) (service.Info, error) {
	if n != notes {
		return service.Info{}, facet.Errorf(facet.CodeNotFound, "no facet %v", n)
	}
	return o.nodes.Placed(service.Info{Name: n, Owner: "n1", OwnerURL: "http://n1", Epoch: 1, State: "active", SizeBytes: 1}), nil
}

// serveOffice serves it, with what front does before.
func serveOffice(t *testing.T, o *office, front func(http.Handler) http.Handler) string {
	t.Helper()
	nat := native.New(o, native.Options{})
	api := httpapi.New(o, httpapi.Options{Operator: o.nodes.Mover(o.Stat)})
	mux := http.NewServeMux()
	mux.Handle(wire.Path, nat)
	mux.Handle("/", front(api))
	srv := httptest.NewServer(mux)
	t.Cleanup(func() {
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		nat.Close(gone)
		srv.Close()
	})
	return srv.URL
}

// TestOperate runs the operator's calls against the real HTTP API. The first
// endpoint does not answer, the second knows no leader at first and then sends
// everything to a third, which is no endpoint.
func TestOperate(t *testing.T) {
	ctx := t.Context()
	o := &office{nodes: servicetest.New("n1", "n2", "n3")}
	leader := serveOffice(t, o, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer tok" {
				t.Errorf("%s %s came without the token", r.Method, r.URL)
			}
			h.ServeHTTP(w, r)
		})
	})
	var asked atomic.Int32
	follower := serveOffice(t, o, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1)%2 == 1 { // every call meets it
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			http.Redirect(w, r, leader+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		})
	})
	c, err := client.Open(ctx, []string{"http://127.0.0.1:1", follower}, client.Options{Token: "tok", RetryFor: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })

	cl, err := c.Cluster(ctx)
	if n, ok := cl.Node("n2"); err != nil || cl.Leader != "n1" || cl.Term != 3 || !ok || n.State != "alive" || n.Held != 200 || *n.LeaseAgeMillis != 100 {
		t.Fatalf("%+v, %v", cl, err)
	}
	if _, ok := cl.Node("n9"); ok {
		t.Error("found a node that is not there")
	}
	f := openFacet(t, c)
	if i, err := f.Move(ctx, "n2"); err != nil || i.Owner != "n2" || i.Pinned {
		t.Fatalf("%+v, %v", i, err)
	}
	if i, err := f.Pin(ctx, "n3"); err != nil || i.Owner != "n3" || !i.Pinned {
		t.Fatalf("%+v, %v", i, err)
	}
	if i, err := f.Pin(ctx, ""); err != nil || i.Owner != "n3" || !i.Pinned {
		t.Fatalf("%+v, %v", i, err)
	}
	if i, err := f.Unpin(ctx); err != nil || i.Owner != "n3" || i.Pinned {
		t.Fatalf("%+v, %v", i, err)
	}
	if _, err := f.Move(ctx, "n9"); !errors.Is(err, facet.ErrNotFound) {
		t.Fatalf("got %v", err)
	}

	if r, err := f.Recover(ctx, client.RecoverRequest{From: "n3", DryRun: true}); err != nil || r.Refused == "" || r.Recovered != nil {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := f.Recover(ctx, client.RecoverRequest{From: "n3"}); !errors.Is(err, facet.ErrBadRequest) {
		t.Fatalf("got %v", err)
	}
	o.nodes.SetState("n1", service.NodeGone)
	o.nodes.SetState("n2", service.NodeGone)
	r, err := f.Recover(ctx, client.RecoverRequest{From: "n3", Incarnation: "00000000000000000000000000000000"})
	if err != nil || r.Position != "1.42" || r.Committed != 41 || len(r.Copies) != 3 || r.Copies[0].Problem == "" || r.Copies[2].Health != "ok" ||
		r.Recovered == nil || r.Recovered.Lineage == nil || !r.Recovered.Lineage.Lossy || r.Recovered.Lineage.Position != "1.42" {
		t.Fatalf("%+v, %v", r, err)
	}
	o.nodes.SetState("n1", service.NodeAlive)
	o.nodes.SetState("n2", service.NodeAlive)

	o.nodes.Step(60)
	op, err := c.StartOperation(ctx, client.OperationRequest{Kind: "drain", Node: "n2", Rate: 7})
	if err != nil || op.State != client.OperationRunning || op.Total != 100 || op.Rate != 7 || op.Started.IsZero() || op.Ended != nil {
		t.Fatalf("%+v, %v", op, err)
	}
	if list, err := c.Operations(ctx); err != nil || len(list) != 1 || list[0].Done != 60 {
		t.Fatalf("%+v, %v", list, err)
	}
	if err := c.CancelOperation(ctx, op.ID); err != nil {
		t.Fatal(err)
	}
	if op, err = c.Operation(ctx, op.ID); err != nil || op.State != client.OperationCanceled || op.Ended == nil {
		t.Fatalf("%+v, %v", op, err)
	}
	if err := c.CancelOperation(ctx, "op/9"); !errors.Is(err, facet.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
	if _, err := c.StartOperation(ctx, client.OperationRequest{Kind: "drain", Node: "n9"}); !errors.Is(err, facet.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
}

// TestOperateGivesUp has nobody lead.
func TestOperateGivesUp(t *testing.T) {
	o := &office{nodes: servicetest.New("n1")}
	url := serveOffice(t, o, func(h http.Handler) http.Handler { return h })
	c, err := client.Open(t.Context(), []string{url}, client.Options{RetryFor: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	o.nodes.Fail(&facet.Error{Code: facet.CodeNotOwner, Message: "nobody leads"})
	if _, err := c.Operations(t.Context()); !errors.Is(err, facet.ErrNotOwner) {
		t.Fatalf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Operations(ctx); err == nil {
		t.Fatal("asked with a context that has ended")
	}
}
