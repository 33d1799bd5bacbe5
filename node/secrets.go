package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/gossip"
)

// PeerTLS names the PEM files with which nodes know each other on the peer port:
// mutual TLS, where a certificate names its node as a DNS name (or as its common
// name) and is signed by CA.
type PeerTLS struct{ Cert, Key, CA string }

func (t PeerTLS) isZero() bool { return t == PeerTLS{} }

// open reads the files.
func (t PeerTLS) open() (server, client *tls.Config, err error) {
	if t.Cert == "" || t.Key == "" || t.CA == "" {
		return nil, nil, errors.New("TLS between nodes needs a certificate, its key and a CA: give all three files")
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("read the peer certificate: %w", err)
	}
	pem, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, nil, fmt.Errorf("read the peer CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("read the peer CA: no certificate in %s", t.CA)
	}
	server = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}
	client = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: pool,
		// Nodes are dialled by address and known by their id: the chain is verified
		// here, the name by identifyPeer.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("the other node shows no certificate")
			}
			rest := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				rest.AddCert(c)
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: rest})
			return err
		},
	}
	return server, client, nil
}

// identifyPeer says whether a certificate is that of a node: a node's certificate
// opens no other node's doors.
func identifyPeer(s tls.ConnectionState, node cluster.NodeID) error {
	c := s.PeerCertificates[0]
	if c.Subject.CommonName == string(node) {
		return nil
	}
	for _, name := range c.DNSNames {
		if name == string(node) {
			return nil
		}
	}
	return fmt.Errorf("the certificate is of %q (%v), not of node %s", c.Subject.CommonName, c.DNSNames, node)
}

// gossipKeys reads the keys of a file, one a line in base64; the first one encrypts.
func gossipKeys(file string) ([]gossip.Key, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read gossip keys: %w", err)
	}
	var keys []gossip.Key
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		k, err := gossip.ParseKey(line)
		if err != nil {
			return nil, fmt.Errorf("read gossip keys of %s: %w", file, err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("read gossip keys: %s holds none; make one with: openssl rand -base64 32", file)
	}
	return keys, nil
}
