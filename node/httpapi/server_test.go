package httpapi

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/fakeservice"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/node/service/servicetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultClient.CloseIdleConnections()
		os.Exit(code)
	}))
}

var notes = facet.Name{Tenant: "acme", Facet: "notes"}

// api is a running server over the fake service.
type api struct {
	t   *testing.T
	url string
	svc *fakeservice.Service
	log *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func start(t *testing.T, opts Options) *api {
	t.Helper()
	a := &api{t: t, svc: fakeservice.New(t.TempDir()), log: &syncBuffer{}}
	if opts.Operator == nil {
		opts.Operator = a.svc.Operator()
	}
	if opts.Tenants == nil {
		opts.Tenants = &servicetest.Tenants{Nodes: []cluster.NodeID{"n1", "n2", "n3"}}
	}
	opts.Log = slog.New(slog.NewTextHandler(a.log, nil))
	h := New(a.svc, opts)
	srv := httptest.NewUnstartedServer(h)
	srv.Config = NewServer(h, ServerOptions{Log: opts.Log})
	srv.Start()
	a.url = srv.URL
	t.Cleanup(func() {
		srv.Close()
		if err := a.svc.Close(); err != nil {
			t.Error(err)
		}
		if n := h.budget.Used(); n != 0 {
			t.Errorf("%d bytes of bodies are still counted", n)
		}
	})
	return a
}

// do sends a request; headers are "Name: value".
func (a *api) do(method, path, body string, headers ...string) (*http.Response, string) {
	a.t.Helper()
	req, err := http.NewRequest(method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	resp, err := (&http.Client{
		Transport:     http.DefaultTransport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}).Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp, string(b)
}

const execPath = "/v1/db/acme/notes/exec"

// exec runs a body and wants a status.
func (a *api) exec(status int, body string, headers ...string) string {
	a.t.Helper()
	resp, got := a.do("POST", execPath, body, headers...)
	if resp.StatusCode != status {
		a.t.Fatalf("%s: status %d, want %d: %s", body, resp.StatusCode, status, got)
	}
	return got
}

// answerWith makes the service answer every call with err.
func (a *api) answerWith(err error) {
	a.svc.Hook = func(call *service.Call) bool {
		call.Err = err
		call.Done(call)
		return true
	}
}
