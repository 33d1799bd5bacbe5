package certs

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
)

var now = time.Now()

func authority(t *testing.T, opt AuthorityOptions) *Authority {
	t.Helper()
	a, err := NewAuthority(opt, now)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.PEM()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = ParseAuthority(cert, key); err != nil { // as the next command finds it
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *Authority, s Subject) *x509.Certificate {
	t.Helper()
	src, err := a.Issue(s, now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ParsePair(src, src)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func TestNodeCertificate(t *testing.T) {
	a := authority(t, AuthorityOptions{})
	c := issue(t, a, Subject{Node: "n1", Hosts: []string{"db1.example.com", "10.0.0.1", "n2", "::1"}})
	for host, good := range map[string]bool{"db1.example.com": true, "10.0.0.1": true, "n2": true, "::1": true, "n1": false, "10.0.0.2": false} {
		if err := c.VerifyHostname(host); (err == nil) != good {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: Pool(a.Certificate()), KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("usage %d: %v", usage, err)
		}
	}
	if err := OfNode(c, "n1"); err != nil {
		t.Error(err)
	}
	// A host name makes nobody a node.
	if err := OfNode(c, "n2"); err == nil || err.Error() != "the certificate is of node n1, not of node n2" {
		t.Error(err)
	}
	if life := c.NotAfter.Sub(now); life < DefaultLife-time.Minute || life > DefaultLife {
		t.Errorf("good for %v", life)
	}
	if other := authority(t, AuthorityOptions{}); true {
		if _, err := c.Verify(x509.VerifyOptions{Roots: Pool(other.Certificate())}); err == nil {
			t.Error("another CA vouches for it")
		}
	}
}

func TestClientCertificate(t *testing.T) {
	a := authority(t, AuthorityOptions{})
	c := issue(t, a, Subject{Client: "n1"})
	if err := OfNode(c, "n1"); err == nil || !strings.Contains(err.Error(), `of client "n1"`) {
		t.Error(err)
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: Pool(a.Certificate())}); err == nil {
		t.Error("a client's certificate is good for a server")
	}
}

// TestOfNode looks at certificates of other CAs, and at those that name two.
func TestOfNode(t *testing.T) {
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	cn := func(name string, c x509.Certificate) *x509.Certificate { c.Subject.CommonName = name; return &c }
	for i, c := range []struct {
		cert *x509.Certificate
		good bool
	}{
		{cn("n1", x509.Certificate{}), true},
		{cn("x", x509.Certificate{DNSNames: []string{"db", "n1"}}), true},
		{cn("x", x509.Certificate{DNSNames: []string{"n1.example.com", "*"}}), false},
		{cn("n1", x509.Certificate{URIs: []*url.URL{uri("spiffe://x/y")}}), true},
		{cn("n1", x509.Certificate{URIs: []*url.URL{uri("facetd://node/n2")}}), false},
		{cn("n1", x509.Certificate{URIs: []*url.URL{uri("facetd://client/n1")}}), false},
		{cn("n1", x509.Certificate{URIs: []*url.URL{uri("facetd://something/n1")}}), false},
		{cn("x", x509.Certificate{URIs: []*url.URL{uri("facetd://node/n1")}}), true},
		{cn("x", x509.Certificate{URIs: []*url.URL{uri("facetd://node/n2"), uri("facetd://node/n1")}}), false},
		{cn("x", x509.Certificate{URIs: []*url.URL{uri("facetd://client/n1"), uri("facetd://node/n1")}}), false},
	} {
		if err := OfNode(c.cert, "n1"); (err == nil) != c.good {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestConstraints(t *testing.T) {
	_, ten, err := net.ParseCIDR("10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	both := authority(t, AuthorityOptions{Domains: []string{"example.com"}, Networks: []*net.IPNet{ten}})
	domain := authority(t, AuthorityOptions{Domains: []string{"example.com"}})
	network := authority(t, AuthorityOptions{Networks: []*net.IPNet{ten}})
	for _, c := range []struct {
		name string
		ca   *Authority
		host string
		good bool
	}{
		{"both", both, "db.example.com", true}, {"both", both, "10.1.2.3", true}, {"both", both, "example.org", false}, {"both", both, "192.0.2.1", false},
		{"domain", domain, "example.com", true}, {"domain", domain, "10.1.2.3", false}, {"domain", domain, "::1", false}, {"domain", domain, "badexample.com", false},
		{"network", network, "10.1.2.3", true}, {"network", network, "example.com", false}, {"network", network, "11.0.0.1", false},
	} {
		_, err := c.ca.Issue(Subject{Node: "n1", Hosts: []string{c.host}}, now)
		if (err == nil) != c.good {
			t.Errorf("%s for %s: %v", c.name, c.host, err)
		}
	}
	// The identity of a node is no host and is not constrained.
	if err := OfNode(issue(t, network, Subject{Node: "n1", Hosts: []string{"10.0.0.1"}}), "n1"); err != nil {
		t.Error(err)
	}
}

func TestLives(t *testing.T) {
	a := authority(t, AuthorityOptions{Life: time.Hour})
	if c := issue(t, a, Subject{Node: "n1"}); !c.NotAfter.Equal(a.Certificate().NotAfter) {
		t.Errorf("it outlives its CA: %v, %v", c.NotAfter, a.Certificate().NotAfter)
	}
	if _, err := a.Issue(Subject{Node: "n1"}, now.Add(2*time.Hour)); err == nil || !strings.Contains(err.Error(), "the CA ended on") {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	a := authority(t, AuthorityOptions{})
	for _, s := range []Subject{
		{}, {Node: "N1"}, {Client: "a b"}, {Client: strings.Repeat("x", 64)}, {Node: "n1", Hosts: []string{"a b"}}, {Node: "n1", Hosts: []string{""}},
		{Node: "n1", Life: -1}, {Node: "n1", Hosts: make([]string, maxNames+1)}, {Node: cluster.NodeID("n1\x00")},
	} {
		if _, err := a.Issue(s, now); err == nil {
			t.Errorf("%+v was issued", s)
		}
	}
	for _, o := range []AuthorityOptions{{Life: -1}, {Domains: []string{"*.x"}}, {Domains: []string{""}}, {Domains: slices.Repeat([]string{"x"}, maxNames+1)}} {
		if _, err := NewAuthority(o, now); err == nil {
			t.Errorf("%+v was made", o)
		}
	}
	leaf, err := a.Issue(Subject{Node: "n1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseAuthority(leaf, leaf); err == nil {
		t.Error("a node's certificate is taken for a CA")
	}
	cert, _, err := a.PEM()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePair(cert, leaf); err == nil || !strings.Contains(err.Error(), "does not match") {
		t.Error(err)
	}
	for _, src := range []string{"", "nothing", string(cert[:len(cert)/2]), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", strings.Repeat("x", MaxFile+1)} {
		if _, err := ParsePool([]byte(src)); err == nil {
			t.Errorf("%.40q is a pool", src)
		}
		if _, err := ParsePair([]byte(src), leaf); err == nil {
			t.Errorf("%.40q is a certificate", src)
		}
	}
}

// TestHandshake has the standard library take what is made here.
func TestHandshake(t *testing.T) {
	_, loop, err := net.ParseCIDR("127.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	a := authority(t, AuthorityOptions{Networks: []*net.IPNet{loop}})
	src, err := a.Issue(Subject{Node: "n1", Hosts: []string{"127.0.0.1"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ParsePair(src, src)
	if err != nil {
		t.Fatal(err)
	}
	pool := Pool(a.Certificate())
	c, s := net.Pipe()
	defer c.Close()
	defer s.Close()
	done := make(chan error, 1)
	go func() {
		done <- tls.Server(s, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}).Handshake()
	}()
	client := tls.Client(c, &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: "127.0.0.1"})
	go client.Read(make([]byte, 1)) // a pipe has no room for the tickets
	if err := client.Handshake(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
