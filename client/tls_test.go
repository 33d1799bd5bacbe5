package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/certs"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/httpapi"
	"github.com/facetd/facetd/node/native"
	"github.com/facetd/facetd/node/native/nativetest"
)

// files is a CA and what it signed, in PEM files.
type files struct {
	t  *testing.T
	ca *certs.Authority
}

func newFiles(t *testing.T) *files {
	t.Helper()
	ca, err := certs.NewAuthority(certs.AuthorityOptions{}, time.Now().Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return &files{t, ca}
}

func (f *files) write(src []byte) string {
	f.t.Helper()
	name := filepath.Join(f.t.TempDir(), "x.pem")
	if err := os.WriteFile(name, src, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return name
}

func (f *files) caFile() string {
	f.t.Helper()
	cert, _, err := f.ca.PEM()
	if err != nil {
		f.t.Fatal(err)
	}
	return f.write(cert)
}

func (f *files) issue(s certs.Subject) []byte {
	f.t.Helper()
	src, err := f.ca.Issue(s, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	return src
}

// server is how a node of 127.0.0.1 speaks TLS.
func (f *files) server() *tls.Config {
	f.t.Helper()
	return f.serverAt(time.Now())
}

// serverAt has a certificate that was made at that time, for two hours.
func (f *files) serverAt(at time.Time) *tls.Config {
	f.t.Helper()
	src, err := f.ca.Issue(certs.Subject{Node: "n1", Hosts: []string{"127.0.0.1"}, Life: 2 * time.Hour}, at)
	if err != nil {
		f.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(src, src)
	if err != nil {
		f.t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
}

// encrypted starts toy nodes on loopback, each plain where it has no configuration.
// Each is told to the others as the URL that is returned for it.
func encrypted(t *testing.T, configs ...*tls.Config) (*nativetest.Cluster, []string) {
	t.Helper()
	var urls []string
	var listeners []net.Listener
	for _, cfg := range configs {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		scheme := "http://"
		if cfg != nil {
			scheme = "https://"
		}
		listeners, urls = append(listeners, l), append(urls, scheme+l.Addr().String())
	}
	c := nativetest.NewCluster(urls...)
	log := slog.New(slog.DiscardHandler)
	for i, cfg := range configs {
		nat := native.New(c.Node(i), native.Options{Log: log})
		srv := httpapi.NewServer(httpapi.New(c.Node(i), httpapi.Options{Log: log, Native: nat, NativePath: wire.Path}), httpapi.ServerOptions{Log: log})
		served := make(chan struct{})
		go func() {
			defer close(served)
			if cfg == nil {
				srv.Serve(listeners[i])
				return
			}
			srv.TLSConfig = cfg
			srv.ServeTLS(listeners[i], "", "")
		}()
		t.Cleanup(func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			c.Release()
			nat.Close(ctx)
			srv.Close()
			<-served
			c.Wait()
		})
	}
	return c, urls
}

func load(t *testing.T, ca, cert, key string) *tls.Config {
	t.Helper()
	cfg, err := client.LoadTLS(ca, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestTLS uses everything a client does over https: the native protocol, management,
// and a redirect.
func TestTLS(t *testing.T) {
	f := newFiles(t)
	nodes, urls := encrypted(t, f.server(), f.server())
	opt := client.Options{TLS: load(t, f.caFile(), "", "")}
	opt.TLS.NextProtos = []string{"h2"} // of a program that uses its configuration elsewhere too
	c, err := client.Open(t.Context(), urls[:1], opt)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fc := openFacet(t, c)
	if _, err := fc.Exec(t.Context(), "INSERT"); err != nil {
		t.Fatal(err)
	}
	nodes.Move(notes, 1, 2)
	if _, err := fc.Exec(t.Context(), "INSERT"); err != nil {
		t.Fatal(err)
	}
	if asked := nodes.Node(1).Asked(); asked == 0 {
		t.Error("the redirect was not followed")
	}
	if cl, err := c.Cluster(t.Context()); err != nil || len(cl.Nodes) != 2 || cl.Nodes[1].API != urls[1] {
		t.Errorf("%+v, %v", cl, err)
	}
}

// TestTLSRefused has every way to meet a node that cannot work end soon, with what to do.
func TestTLSRefused(t *testing.T) {
	f, other := newFiles(t), newFiles(t)
	strict := f.server()
	strict.ClientAuth, strict.ClientCAs = tls.RequireAndVerifyClientCert, certs.Pool(f.ca.Certificate())
	_, urls := encrypted(t, f.server(), nil, strict, f.serverAt(time.Now().Add(-3*time.Hour)))
	mine := load(t, f.caFile(), "", "")
	shows := f.write(f.issue(certs.Subject{Client: "app"}))
	wrongName := mine.Clone()
	wrongName.ServerName = "n1"
	for _, c := range []struct {
		name, url string
		tls       *tls.Config
		why       string // empty: it works
		is        error
	}{
		{"good", urls[0], mine, "", nil},
		{"roots of the system", urls[0], nil, "give the client the CA of the nodes", facet.ErrUnavailable},
		{"wrong CA", urls[0], load(t, other.caFile(), "", ""), "give the client the CA of the nodes", facet.ErrUnavailable},
		{"wrong name", urls[0], wrongName, "wanted to match n1", facet.ErrUnavailable},
		{"ended", urls[3], mine, "certificate has expired", facet.ErrUnavailable},
		{"http to TLS", strings.Replace(urls[0], "https", "http", 1), mine, "write its address as https://", facet.ErrBadRequest},
		{"https to plain", strings.Replace(urls[1], "http", "https", 1), mine, "does the node speak plain http there?", facet.ErrUnavailable},
		{"no certificate", urls[2], mine, "certificate required", facet.ErrUnavailable},
		{"another's certificate", urls[2], load(t, f.caFile(), other.write(other.issue(certs.Subject{Client: "app"})), ""), "tls: ", facet.ErrUnavailable},
		{"a certificate", urls[2], load(t, f.caFile(), shows, ""), "", nil},
		{"certificate and key", urls[2], load(t, f.caFile(), shows, shows), "", nil},
	} {
		cl, err := client.Open(t.Context(), []string{c.url}, client.Options{TLS: c.tls, DialTimeout: 20 * time.Second})
		if err == nil {
			cl.Close()
		}
		if (err == nil) != (c.why == "") || err != nil && (!strings.Contains(err.Error(), c.why) || !errors.Is(err, c.is)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestNothingInTheClear follows no way from https to http, whoever names it.
func TestNothingInTheClear(t *testing.T) {
	f := newFiles(t)
	nodes, urls := encrypted(t, f.server(), nil)
	c, err := client.Open(t.Context(), urls[:1], client.Options{TLS: load(t, f.caFile(), "", ""), Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nodes.Move(notes, 1, 2)
	if _, err := openFacet(t, c).Exec(t.Context(), "INSERT"); !errors.Is(err, facet.ErrForbidden) || !strings.Contains(err.Error(), "in the clear") {
		t.Error(err)
	}
	if asked := nodes.Node(1).Asked(); asked != 0 {
		t.Errorf("the plain node was asked %d times", asked)
	}
	// Management goes through the node's HTTP redirects.
	plain := http.NewServeMux()
	reached := false
	plain.HandleFunc("/", func(http.ResponseWriter, *http.Request) { reached = true })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: plain}
	go srv.Serve(l)
	defer srv.Close()
	tl, err := tls.Listen("tcp", "127.0.0.1:0", f.server())
	if err != nil {
		t.Fatal(err)
	}
	nat := native.New(nodes.Node(0), native.Options{Log: slog.New(slog.DiscardHandler)})
	mux := http.NewServeMux()
	mux.Handle(wire.Path, nat)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+l.Addr().String()+r.URL.Path, http.StatusTemporaryRedirect)
	})
	sent := httpapi.NewServer(mux, httpapi.ServerOptions{Log: slog.New(slog.DiscardHandler)})
	go sent.Serve(tl)
	defer sent.Close()
	m, err := client.Open(t.Context(), []string{"https://" + tl.Addr().String()}, client.Options{TLS: load(t, f.caFile(), "", ""), Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer nat.Close(t.Context())
	defer m.Close()
	if err := openFacet(t, m).Delete(t.Context()); !errors.Is(err, facet.ErrForbidden) || reached {
		t.Errorf("%v, reached: %v", err, reached)
	}
}

func TestLoadTLS(t *testing.T) {
	f := newFiles(t)
	ca, empty := f.caFile(), f.write(nil)
	for _, c := range [][3]string{{empty, "", ""}, {"absent.pem", "", ""}, {ca, ca, ""}, {ca, "", ca}, {ca, empty, empty}, {f.write(make([]byte, 1<<20+1)), "", ""}} {
		if cfg, err := client.LoadTLS(c[0], c[1], c[2]); err == nil {
			t.Errorf("%v: %v", c, cfg)
		}
	}
	cfg := load(t, "", "", "")
	if cfg.RootCAs != nil || len(cfg.Certificates) != 0 {
		t.Errorf("%+v", cfg)
	}
	if cfg = load(t, ca, "", ""); !cfg.RootCAs.Equal(certs.Pool(f.ca.Certificate())) {
		t.Error("the CA is not what is trusted")
	}
}
