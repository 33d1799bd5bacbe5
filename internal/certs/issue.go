package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/facetd/facetd/cluster"
)

// Authority is a CA with its private key.
//
// Keys are ECDSA on P-256: every client of HTTPS takes them, which is not so of
// Ed25519.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// AuthorityOptions of NewAuthority. The zero value is usable.
type AuthorityOptions struct {
	// Name is shown to people. Default "facetd CA".
	Name string
	// Life is how long the CA is good for. Default DefaultAuthorityLife.
	Life time.Duration
	// Domains and Networks are what it can vouch for: host names in these domains,
	// and addresses in these networks. Whoever steals the key of such a CA, or is
	// given it, can pretend to be no other host. Where one is given and the other is
	// not, nothing of the other kind is good. Both empty: any host.
	Domains  []string
	Networks []*net.IPNet
}

// NewAuthority makes a CA.
func NewAuthority(opt AuthorityOptions, now time.Time) (*Authority, error) {
	if opt.Name == "" {
		opt.Name = "facetd CA"
	}
	if opt.Life == 0 {
		opt.Life = DefaultAuthorityLife
	}
	if opt.Life < 0 || len(opt.Name) > maxName || len(opt.Domains) > maxNames || len(opt.Networks) > maxNames {
		return nil, fmt.Errorf("make a CA: a life of %v, %d domains, %d networks", opt.Life, len(opt.Domains), len(opt.Networks))
	}
	tpl := template(opt.Name, now, opt.Life)
	tpl.IsCA, tpl.MaxPathLenZero = true, true // it signs no other CAs
	tpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	tpl.PermittedDNSDomains, tpl.PermittedIPRanges = opt.Domains, opt.Networks
	tpl.PermittedDNSDomainsCritical = len(opt.Domains)+len(opt.Networks) > 0
	switch {
	case len(opt.Domains) == 0 && len(opt.Networks) > 0:
		tpl.ExcludedDNSDomains = []string{""} // the root: all of them
	case len(opt.Networks) == 0 && len(opt.Domains) > 0:
		tpl.ExcludedIPRanges = everywhere
	}
	for _, d := range opt.Domains {
		if len(d) == 0 || len(d) > maxName || strings.ContainsAny(d, "*/: ") {
			return nil, fmt.Errorf("make a CA: %.80q is no domain, as example.com is one", d)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	cert, err := sign(tpl, tpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	return &Authority{cert, key}, nil
}

var everywhere = []*net.IPNet{
	{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
	{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
}

// ParseAuthority reads a CA that can sign: the first certificate of the one file, and
// the key in the other.
func ParseAuthority(cert, key []byte) (*Authority, error) {
	pair, err := ParsePair(cert, key)
	if err != nil {
		return nil, err
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || pair.Leaf == nil || !pair.Leaf.IsCA {
		return nil, errors.New("the certificate is not one of a CA")
	}
	return &Authority{pair.Leaf, signer}, nil
}

// Certificate is the CA's own.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// PEM gives the two files of the CA: its certificate, which everybody may have, and
// its key.
func (a *Authority) PEM() (cert, key []byte, err error) {
	if key, err = encodeKey(a.key); err != nil {
		return nil, nil, err
	}
	return encodeCert(a.cert.Raw), key, nil
}

// Subject is whom a certificate is for: a node or a client.
type Subject struct {
	Node   cluster.NodeID
	Client string // a name, where Node is empty
	// Hosts are the names and addresses at which clients reach a node.
	Hosts []string
	// Life is how long the certificate is good for. Default DefaultLife. It ends with
	// that of the CA at the latest.
	Life time.Duration
}

// Issue makes a key and a certificate for it. What it gives is one PEM file with both,
// the key first.
func (a *Authority) Issue(s Subject, now time.Time) ([]byte, error) {
	out, err := a.issue(s, now)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return out, nil
}

func (a *Authority) issue(s Subject, now time.Time) ([]byte, error) {
	if s.Life == 0 {
		s.Life = DefaultLife
	}
	var tpl *x509.Certificate
	switch {
	case s.Life < 0 || len(s.Hosts) > maxNames:
		return nil, fmt.Errorf("a life of %v, %d hosts", s.Life, len(s.Hosts))
	case now.After(a.cert.NotAfter):
		return nil, fmt.Errorf("the CA ended on %s", a.cert.NotAfter.UTC().Format(time.DateOnly))
	case !s.Node.IsZero():
		if _, err := cluster.ParseNodeID(string(s.Node)); err != nil {
			return nil, err
		}
		// With spaces, so that nobody takes it for a host name.
		tpl = template("facetd node "+string(s.Node), now, s.Life)
		tpl.URIs = []*url.URL{{Scheme: uriScheme, Host: nodeHost, Path: "/" + string(s.Node)}}
		tpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	default:
		if !plain(s.Client) || len(s.Client) > cluster.MaxNodeIDLen {
			return nil, fmt.Errorf("a client is named with 1 to %d of A-Z a-z 0-9 . _ -, not %.80q", cluster.MaxNodeIDLen, s.Client)
		}
		tpl = template("facetd client "+s.Client, now, s.Life)
		tpl.URIs = []*url.URL{{Scheme: uriScheme, Host: clientHost, Path: "/" + s.Client}}
		tpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	for _, h := range s.Hosts {
		ip := net.ParseIP(h)
		switch {
		case ip != nil:
			tpl.IPAddresses = append(tpl.IPAddresses, ip)
		case !plain(strings.TrimPrefix(h, "*.")) || len(h) > maxName:
			return nil, fmt.Errorf("%.80q is neither a host name nor an IP address", h)
		default:
			tpl.DNSNames = append(tpl.DNSNames, h)
		}
	}
	tpl.KeyUsage = x509.KeyUsageDigitalSignature
	if tpl.NotAfter.After(a.cert.NotAfter) {
		tpl.NotAfter = a.cert.NotAfter
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert, err := sign(tpl, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	// Better here than in every client: a CA with constraints may not vouch for it.
	if _, err := cert.Verify(x509.VerifyOptions{Roots: Pool(a.cert), KeyUsages: tpl.ExtKeyUsage, CurrentTime: now}); err != nil {
		return nil, fmt.Errorf("the CA cannot vouch for that: %w", err)
	}
	pemKey, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return append(pemKey, encodeCert(cert.Raw)...), nil
}

func template(name string, now time.Time, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
		BasicConstraintsValid: true,
	}
}

func sign(tpl, parent *x509.Certificate, key crypto.PublicKey, by crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, tpl, parent, key, by) // draws the serial number
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return b.Bytes(), err
}

// plain is what names of hosts and clients are made of.
func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return s != ""
}
