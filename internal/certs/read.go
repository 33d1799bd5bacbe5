package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/facetd/facetd/cluster"
)

// The URI in a certificate: facetd://node/ID or facetd://client/NAME. It has a host,
// because verifiers refuse one without where the CA has constraints.
const (
	uriScheme  = "facetd"
	nodeHost   = "node"
	clientHost = "client"
)

// ParseAll reads the certificates of a PEM file, in order. What else is in it, a key
// for example, is left out; a file without a certificate is an error.
func ParseAll(src []byte) (list []*x509.Certificate, err error) {
	if len(src) > MaxFile {
		return nil, fmt.Errorf("the file has more than %d bytes", MaxFile)
	}
	for {
		var block *pem.Block
		if block, src = pem.Decode(src); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the file: %w", len(list)+1, err)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("there is no certificate in PEM")
	}
	return list, nil
}

// ParsePool reads a PEM file of CAs.
func ParsePool(src []byte) (*x509.CertPool, error) {
	list, err := ParseAll(src)
	if err != nil {
		return nil, err
	}
	return Pool(list...), nil
}

// Pool is a pool of these certificates.
func Pool(list ...*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range list {
		pool.AddCert(c)
	}
	return pool
}

// ParsePair reads a certificate, with those it was signed by behind it, and its key.
// Both may be one file.
func ParsePair(cert, key []byte) (tls.Certificate, error) {
	if max(len(cert), len(key)) > MaxFile {
		return tls.Certificate{}, fmt.Errorf("the file has more than %d bytes", MaxFile)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, errors.New(strings.TrimPrefix(err.Error(), "tls: "))
	}
	return pair, nil
}

// OfNode tells whether the certificate is of the node, nil if it is.
func OfNode(c *x509.Certificate, id cluster.NodeID) error {
	kind, name := Names(c)
	switch {
	case kind == KindNode && name == string(id):
		return nil
	case kind == KindNode:
		return fmt.Errorf("the certificate is of node %.80s, not of node %s", name, id)
	case kind == KindClient:
		return fmt.Errorf("the certificate is of client %.80q, not of node %s", name, id)
	case c.Subject.CommonName == string(id) || slices.Contains(c.DNSNames, string(id)):
		return nil
	}
	names := c.DNSNames[:min(len(c.DNSNames), 5)]
	return fmt.Errorf("the certificate is of %.80q %.300q, not of node %s", c.Subject.CommonName, names, id)
}

// Kind says what a certificate was made for here.
type Kind int

const (
	KindOther  Kind = iota // made elsewhere, or a CA
	KindNode               // facetd://node/ID
	KindClient             // facetd://client/NAME
)

// Names tells what the URI of a certificate names. With several that contradict each
// other it names nobody: a node without an id.
func Names(c *x509.Certificate) (kind Kind, name string) {
	for _, u := range c.URIs {
		if u.Scheme != uriScheme {
			continue
		}
		k, n := KindNode, ""
		switch u.Host {
		case nodeHost:
			n = strings.TrimPrefix(u.Path, "/")
		case clientHost:
			k, n = KindClient, strings.TrimPrefix(u.Path, "/")
		}
		if kind != KindOther && (k != kind || n != name) {
			return KindNode, ""
		}
		kind, name = k, n
	}
	return kind, name
}
