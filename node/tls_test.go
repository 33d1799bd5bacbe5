package node_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/gossip"
	"github.com/facetd/facetd/internal/certs"
	"github.com/facetd/facetd/node"
)

// vault is a directory of certificates and keys, and a client that trusts its CA.
type vault struct {
	t    *testing.T
	dir  string
	ca   *certs.Authority
	http *http.Client
}

func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{t: t, dir: t.TempDir()}
	v.ca = v.authority("ca.pem")
	v.trust(v.ca)
	return v
}

// trust has the client believe these CAs, and follow nothing.
func (v *vault) trust(list ...*certs.Authority) {
	var cas []*x509.Certificate
	for _, ca := range list {
		cas = append(cas, ca.Certificate())
	}
	v.http = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: certs.Pool(cas...)}, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (v *vault) path(name string) string { return filepath.Join(v.dir, name) }

func (v *vault) put(name string, src []byte) string {
	v.t.Helper()
	if err := os.WriteFile(v.path(name)+".new", src, 0o600); err != nil {
		v.t.Fatal(err)
	}
	if err := os.Rename(v.path(name)+".new", v.path(name)); err != nil {
		v.t.Fatal(err)
	}
	return v.path(name)
}

// authority makes a CA whose certificate is in a file.
func (v *vault) authority(name string) *certs.Authority {
	v.t.Helper()
	ca, err := certs.NewAuthority(certs.AuthorityOptions{}, time.Now().Add(-time.Hour))
	if err != nil {
		v.t.Fatal(err)
	}
	cert, _, err := ca.PEM()
	if err != nil {
		v.t.Fatal(err)
	}
	v.put(name, cert)
	return ca
}

// issue puts the certificate of a node into a file.
func (v *vault) issue(by *certs.Authority, id cluster.NodeID, name string) string {
	v.t.Helper()
	src, err := by.Issue(certs.Subject{Node: id, Hosts: []string{"127.0.0.1"}}, time.Now())
	if err != nil {
		v.t.Fatal(err)
	}
	return v.put(name, src)
}

func (v *vault) keys(list ...gossip.Key) string {
	v.t.Helper()
	text := "# the first encrypts\n"
	for _, k := range list {
		text += k.Text() + "\n"
	}
	return v.put("gossip.keys", []byte(text))
}

// guard gives a node its certificate and the keys of gossip.
func (v *vault) guard(c *node.Config) {
	name := string(c.ID) + ".pem"
	if _, err := os.Stat(v.path(name)); err != nil {
		v.issue(v.ca, c.ID, name)
	}
	c.TLS = node.TLSFiles{Cert: v.path(name), CA: v.path("ca.pem")}
	c.PeerTLS = c.TLS
	c.GossipKeys = v.path("gossip.keys")
}

// ask sends a request over https and gives the answer.
func (v *vault) ask(nd *node.Node, method, path, body string) (*http.Response, string) {
	v.t.Helper()
	req, err := http.NewRequestWithContext(v.t.Context(), method, nd.URL()+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := v.http.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return res, string(out)
}

// together waits until a node sees three alive.
func (v *vault) together(nd *node.Node) {
	v.t.Helper()
	eventually(v.t, "three nodes are alive", func() bool {
		_, out := v.ask(nd, "GET", "/v1/cluster", "")
		return strings.Count(out, `"state":"alive"`) == 3
	})
}

// TestTLSCluster forms a cluster in which everything is encrypted, and reaches one facet
// through every node, redirected and carried.
func TestTLSCluster(t *testing.T) {
	v := newVault(t)
	v.keys(gossip.NewKey())
	f := newFleetWith(t, 3, v.guard)
	n1, redirected := f.nodes["n1"], 0
	for id, nd := range f.nodes {
		const pipeline = `{"requests":[{"type":"execute","stmt":{"sql":"CREATE TABLE IF NOT EXISTS t (v)"}},{"type":"execute","stmt":{"sql":"INSERT INTO t VALUES (1)"}},{"type":"close"}]}`
		eventually(t, "a pipeline at "+string(id), func() bool {
			res, out := v.ask(nd, "POST", "/v1/db/acme/a/v3/pipeline", pipeline)
			return res.StatusCode == 200 && !strings.Contains(out, `"error"`)
		})
		res, out := v.ask(nd, "POST", "/v1/db/acme/a/exec", `{"sql":"INSERT INTO t VALUES (2)"}`)
		switch to := res.Header.Get("Location"); {
		case res.StatusCode == http.StatusTemporaryRedirect && strings.HasPrefix(to, "https://127.0.0.1:"):
			redirected++
		case res.StatusCode != 200:
			t.Errorf("exec at %s: %d %s %s", id, res.StatusCode, to, out)
		}
		if _, out := v.ask(nd, "GET", "/v1/cluster", ""); strings.Count(out, `"api":"https://127.0.0.1:`) != 3 {
			t.Errorf("%s tells: %s", id, out)
		}
	}
	if redirected == 0 {
		t.Error("no node redirects")
	}
	_, out := v.ask(n1, "GET", "/metrics", "")
	for _, line := range []string{`facetd_certificate_expires_timestamp_seconds{credentials="api"} `, `facetd_certificate_expires_timestamp_seconds{credentials="peer"} `, `facetd_credentials_unusable_total{credentials="gossip"} 0`} {
		if !strings.Contains(out, "\n"+line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}

	// Who speaks plainly is told what is wrong.
	res, err := http.Get(strings.Replace(n1.URL(), "https", "http", 1) + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != http.StatusBadRequest || !strings.Contains(string(said), "HTTPS") || err != nil {
		t.Errorf("%d %s %v", res.StatusCode, said, err)
	}
}

// TestTLSNodeByNode has one node of three speak TLS already: each is reached as it says.
func TestTLSNodeByNode(t *testing.T) {
	v := newVault(t)
	f := newFleetWith(t, 3, func(c *node.Config) {
		c.TLS.CA = v.path("ca.pem")
		if c.ID == "n1" {
			c.TLS.Cert = v.issue(v.ca, "n1", "n1.pem")
		}
	})
	for _, owner := range []string{"n1", "n2"} {
		eventually(t, "the facet is at "+owner, func() bool {
			v.ask(f.nodes["n1"], "PUT", "/v1/facets/acme/a", "")
			for _, nd := range f.nodes {
				if res, _ := v.ask(nd, "POST", "/v1/facets/acme/a/move", `{"to":"`+owner+`"}`); res.StatusCode == 200 {
					return true
				}
			}
			return false
		})
		scheme := f.nodes[cluster.NodeID(owner)].URL()
		for id, nd := range f.nodes {
			eventually(t, "a pipeline at "+string(id)+" to "+owner, func() bool {
				res, out := v.ask(nd, "POST", "/v1/db/acme/a/v3/pipeline", `{"requests":[{"type":"execute","stmt":{"sql":"SELECT 1"}},{"type":"close"}]}`)
				return res.StatusCode == 200 && !strings.Contains(out, `"error"`)
			})
			eventually(t, string(id)+" leads to "+scheme, func() bool {
				res, _ := v.ask(nd, "POST", "/v1/db/acme/a/exec", `{"sql":"SELECT 1"}`)
				if string(id) == owner {
					return res.StatusCode == 200
				}
				return res.StatusCode == http.StatusTemporaryRedirect && strings.HasPrefix(res.Header.Get("Location"), scheme+"/")
			})
		}
	}
}

// TestStrangers: no node comes in that cannot prove who it is, or does not know the key
// of gossip, and those that are in stay together.
func TestStrangers(t *testing.T) {
	v := newVault(t)
	v.keys(gossip.NewKey())
	f := newFleetWith(t, 3, v.guard)
	other := v.authority("other.pem")
	p := freePorts(t, 3)
	f.ports["n4"] = [3]string(p)
	for name, c := range map[string]struct {
		change func(*node.Config)
		why    string // of an error at once; empty: nobody takes it in
	}{
		"another node's certificate": {func(c *node.Config) { c.PeerTLS.Cert = v.path("n1.pem") }, "of node n1, not of node n4"},
		"a CA of its own": {func(c *node.Config) {
			c.PeerTLS = node.TLSFiles{Cert: v.issue(other, "n4", "own.pem"), CA: v.path("other.pem")}
		}, ""},
		"no certificate": {func(c *node.Config) { c.PeerTLS = node.TLSFiles{} }, ""},
		"another key of gossip": {func(c *node.Config) {
			c.GossipKeys = v.put("other.keys", []byte(gossip.NewKey().Text()))
		}, ""},
	} {
		f.change = func(cfg *node.Config) { v.guard(cfg); c.change(cfg) }
		f.patience = 2 * time.Second
		nd, err := f.open("n4", 0)
		if err == nil {
			f.nodes["n4"] = nd
			t.Fatalf("%s: it was let in", name)
		}
		if c.why != "" && !strings.Contains(err.Error(), c.why) || c.why == "" && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
	v.together(f.nodes["n1"])
	if _, out := v.ask(f.nodes["n1"], "GET", "/v1/cluster", ""); strings.Contains(out, `"n4"`) {
		t.Error(out)
	}
	// With the right ones it is welcome.
	f.change, f.patience = v.guard, 0
	nd, err := f.open("n4", 0)
	if err != nil {
		t.Fatal(err)
	}
	f.nodes["n4"] = nd
}

// TestRotation exchanges everything a running cluster proves itself with: the CA and
// all certificates, and the key of gossip, each in three steps, with writes at every
// node after each.
func TestRotation(t *testing.T) {
	v := newVault(t)
	k1, k2 := gossip.NewKey(), gossip.NewKey()
	v.keys(k1)
	f := newFleetWith(t, 3, v.guard)
	step := func(what string) {
		t.Helper()
		for _, nd := range f.nodes {
			nd.Reload()
		}
		for id, nd := range f.nodes {
			eventually(t, what+": a write at "+string(id), func() bool {
				res, _ := v.ask(nd, "POST", "/v1/db/acme/a/v2/pipeline", `{"requests":[{"type":"execute","stmt":{"sql":"CREATE TABLE IF NOT EXISTS t (v)"}},{"type":"execute","stmt":{"sql":"INSERT INTO t VALUES (1)"}}]}`)
				return res.StatusCode == 200
			})
			v.together(nd)
		}
	}
	step("at first")
	v.keys(k1, k2)
	step("a second key")
	v.keys(k2, k1)
	step("the second key encrypts")
	v.keys(k2)
	step("without the first key")

	next := v.authority("next.pem")
	old, _, err := v.ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	fresh, _, err := next.PEM()
	if err != nil {
		t.Fatal(err)
	}
	v.put("ca.pem", append(append([]byte(nil), old...), fresh...))
	v.trust(v.ca, next)
	step("two CAs")
	for id := range f.nodes {
		v.issue(next, id, string(id)+".pem")
	}
	step("new certificates")
	v.put("ca.pem", fresh)
	v.trust(next)
	step("without the old CA")

	// A node that comes back has nothing but the new ones.
	stop(t, f.nodes["n3"])
	delete(f.nodes, "n3")
	nd, err := f.open("n3", 0)
	if err != nil {
		t.Fatal(err)
	}
	f.nodes["n3"] = nd
	step("n3 is back")

	// What cannot be used changes nothing.
	v.put("ca.pem", []byte("nothing"))
	v.put("gossip.keys", []byte("nothing"))
	step("after mistakes")
	_, out := v.ask(f.nodes["n1"], "GET", "/metrics", "")
	for _, c := range []string{"api", "peer", "gossip"} {
		if !strings.Contains(out, `facetd_credentials_unusable_total{credentials="`+c+`"} 1`) {
			t.Errorf("mistakes are not counted: %s", c)
		}
	}
}
