package hrana_test

import (
	"context"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/facetd/facetd/node/httpapi"
	"github.com/facetd/facetd/node/internal/fakeservice"
)

// startServer serves the whole API port over the fake service.
func startServer(t *testing.T, opts httpapi.Options) (*httptest.Server, *fakeservice.Service) {
	t.Helper()
	svc := fakeservice.New(t.TempDir())
	if opts.Log == nil {
		opts.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	h := httpapi.New(svc, opts)
	srv := httptest.NewUnstartedServer(h)
	srv.Config = httpapi.NewServer(h, httpapi.ServerOptions{Log: opts.Log})
	srv.Start()
	t.Cleanup(func() {
		srv.Close()
		if err := svc.Close(); err != nil {
			t.Error(err)
		}
	})
	return srv, svc
}

// needs skips the test, loudly, where a program is missing.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: a stock client is not tried with -short")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED, SO A STOCK CLIENT IS NOT TRIED: there is no %s on this machine", p)
		}
	}
}

// run runs a program in dir for at most two minutes.
func run(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	t.Logf("%s", out)
}

// copyTree copies the files of testdata/name to a directory of the test.
func copyTree(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The stock JavaScript client, from npm.
func TestLibsqlJavaScript(t *testing.T) {
	needs(t, "node", "npm")
	dir := copyTree(t, "libsql-js")
	run(t, dir, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	srv, _ := startServer(t, httpapi.Options{})
	run(t, dir, "node", "test.mjs", srv.URL+"/v1/db/acme/js/", "busy")

	// The same through a node that owns nothing.
	nodes, _ := startCluster(t, 2, nil)
	run(t, dir, "node", "test.mjs", nodes[0].URL+"/v1/db/acme/js/", "busy")
}

// The stock Go client, in a module of its own because of its dependencies.
func TestLibsqlGo(t *testing.T) {
	needs(t, "go")
	dir := copyTree(t, "libsql-go")
	srv, _ := startServer(t, httpapi.Options{})
	run(t, dir, "go", "run", "-mod=readonly", ".", srv.URL+"/v1/db/acme/go/")

	nodes, _ := startCluster(t, 2, nil)
	run(t, dir, "go", "run", "-mod=readonly", ".", nodes[0].URL+"/v1/db/acme/go/")
}

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), time.Minute)
}
