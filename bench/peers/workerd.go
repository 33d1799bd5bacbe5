package main

import (
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
)

//go:embed worker.js
var workerScript string

// workerdPeer is workerd with Durable Objects whose storage is SQLite on the local
// disk: a key is a facet of one object, or an object of its own.
type workerdPeer struct{ facets bool }

func (p workerdPeer) about() about {
	a := about{Name: "workerd-objects", Program: "workerd", Processes: 1, Against: "facetd-1", Databases: true,
		Client:  "HTTP, a kept connection for each caller; the worker hands each request to the object",
		Durable: "fsynced on the one disk: the answer waits for the storage (default)",
		Key:     "a Durable Object of its own, which is a database, with one row"}
	if p.facets {
		a.Name = "workerd-facets"
		a.Client = "HTTP, a kept connection for each caller; the worker hands each request to one object, and that to the facet (ctx.facets.get)"
		a.Key = "a facet of one Durable Object, which is a database, with one row"
	}
	return a
}

func (workerdPeer) version(ctx context.Context, path string) (string, error) {
	return ask(ctx, path, "--version")
}

func (p workerdPeer) launches(at place) ([]launch, error) {
	if err := os.Mkdir(at.dirs[0], 0o755); err != nil {
		return nil, err
	}
	conf, script := at.dirs[0]+".capnp", at.dirs[0]+".js"
	return []launch{{args: []string{"serve", conf}, files: map[string]string{script: workerScript, conf: fmt.Sprintf(`using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [ (name = "main", worker = .main), (name = "disk", disk = (path = %q, writable = true)) ],
  sockets = [ (name = "http", address = %q, http = (), service = "main") ]
);
const main :Workerd.Worker = (
  modules = [ (name = "worker.js", esModule = embed %q) ],
  compatibilityDate = "2026-01-01",
  durableObjectNamespaces = [
    (className = "Root", uniqueKey = "root", enableSql = true),
    (className = "Store", uniqueKey = "store", enableSql = true)
  ],
  durableObjectStorage = (localDisk = "disk"),
  bindings = [ (name = "ROOT", durableObjectNamespace = "Root"), (name = "STORE", durableObjectNamespace = "Store") ]
);
`, at.dirs[0], loopback(at.ports[0]), filepath.Base(script))}}}, nil
}

func (p workerdPeer) open(ctx context.Context, at place, s settings) (session, error) {
	w := &workerdSession{http: keptConnections(s.Callers), url: "http://" + loopback(at.ports[0])}
	if _, err := askHTTP(ctx, w.http, http.MethodGet, w.url, "", nil); err != nil {
		w.close()
		return nil, err
	}
	w.url += "/object/"
	if p.facets {
		w.url = "http://" + loopback(at.ports[0]) + "/facet/"
	}
	return w, nil
}

type workerdSession struct {
	http *http.Client
	url  string // of a key, without its name
}

func (*workerdSession) prepare(context.Context) error { return nil }

func (s *workerdSession) create(ctx context.Context, key int, value []byte) error {
	return s.write(ctx, key, value)
}

func (s *workerdSession) write(ctx context.Context, key int, value []byte) error {
	raw, err := askHTTP(ctx, s.http, http.MethodPut, s.url+keyName(key), "application/octet-stream", value)
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(string(raw)); err != nil || n != 1 {
		return fmt.Errorf("a write changed %.40q rows", raw)
	}
	return nil
}

func (s *workerdSession) read(ctx context.Context, key int) (int, error) {
	raw, err := askHTTP(ctx, s.http, http.MethodGet, s.url+keyName(key), "", nil)
	return len(raw), err
}

func (s *workerdSession) close() error {
	s.http.CloseIdleConnections()
	return nil
}
