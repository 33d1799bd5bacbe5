package credentials

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/internal/certs"
)

// Files name PEM files: a certificate, with those between it and its CA behind it, its
// key, and the CAs by which others are known. Key may be left empty when it is in the
// file of the certificate, which has the good side that both are exchanged at once.
type Files struct{ Cert, Key, CA string }

// IsZero reports whether no file is named.
func (f Files) IsZero() bool { return f == Files{} }

func (f Files) key() string {
	if f.Key == "" {
		return f.Cert
	}
	return f.Key
}

// API is what the API port of a node, and its requests to those of others, go by.
type API struct{ now atomic.Pointer[apiState] }

type apiState struct {
	server *tls.Config // nil without a certificate
	pair   []tls.Certificate
	roots  *x509.CertPool // nil: those of the system
}

// OpenAPI reads the files and has w look after them. Without a certificate there is no
// Server, without a CA other nodes are known by the roots of the system. clients, if it
// is not empty, is a file of CAs: who shows no certificate of theirs is not let in.
func OpenAPI(w *Watcher, f Files, clients string) (*API, error) {
	switch {
	case f.Cert == "" && f.Key != "":
		return nil, errors.New("TLS on the API port: a key is given, and no certificate")
	case f.Cert == "" && clients != "":
		return nil, errors.New("TLS on the API port: certificates of clients are wanted, and the port has none itself")
	}
	a := &API{}
	var files []string
	if f.Cert != "" {
		files = append(files, f.Cert, f.key())
	}
	for _, name := range []string{f.CA, clients} {
		if name != "" {
			files = append(files, name)
		}
	}
	err := w.Add(Source{Name: "api", Files: files, Take: func(contents [][]byte) (time.Time, error) {
		s, ends := &apiState{}, time.Time{}
		next := func() (src []byte) { src, contents = contents[0], contents[1:]; return src }
		if f.Cert != "" {
			pair, err := certs.ParsePair(next(), next())
			if err == nil {
				ends, err = good(&pair)
			}
			if err != nil {
				return ends, err
			}
			s.pair = []tls.Certificate{pair}
			s.server = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: s.pair, NextProtos: []string{"h2", "http/1.1"}}
		}
		var err error
		if f.CA != "" {
			if s.roots, err = certs.ParsePool(next()); err != nil {
				return ends, fmt.Errorf("the CA: %w", err)
			}
		}
		if clients != "" {
			if s.server.ClientCAs, err = certs.ParsePool(next()); err != nil {
				return ends, fmt.Errorf("the CA of clients: %w", err)
			}
			s.server.ClientAuth = tls.RequireAndVerifyClientCert
			// A session that is resumed is not verified again, and the CA may be another.
			s.server.SessionTicketsDisabled = true
		}
		a.now.Store(s)
		return ends, nil
	}})
	if err != nil {
		return nil, fmt.Errorf("TLS on the API port: %w", err)
	}
	return a, nil
}

// Server is for the API port, nil where it has no certificate. It goes by what is in
// force when a connection comes.
func (a *API) Server() *tls.Config {
	if a.now.Load().server == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return a.now.Load().server, nil },
	}
}

// Client is for one connection to the API port of another node, by what is in force
// now. It is the caller's.
func (a *API) Client() *tls.Config {
	s := a.now.Load()
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: s.pair, RootCAs: s.roots}
}

// Peer is what nodes know each other by on the peer port: mutual TLS, where the
// certificate of each is of its id.
type Peer struct {
	now     atomic.Pointer[peerState]
	changed atomic.Pointer[func()]
}

type peerState struct {
	pair tls.Certificate
	pool *x509.CertPool
	// server is made once, so that nothing of it changes while it is in use.
	server *tls.Config
}

// OpenPeer reads the files of node id and has w look after them. The certificate must be
// of the node, and good by the CA: anything else would only be found by the others.
func OpenPeer(w *Watcher, f Files, id cluster.NodeID) (*Peer, error) {
	if f.Cert == "" || f.CA == "" {
		return nil, errors.New("TLS between nodes: give a certificate with its key, and the CA of all nodes")
	}
	p := &Peer{}
	err := w.Add(Source{Name: "peer", Files: []string{f.Cert, f.key(), f.CA}, Take: func(contents [][]byte) (time.Time, error) {
		s := &peerState{}
		var err error
		if s.pair, err = certs.ParsePair(contents[0], contents[1]); err != nil {
			return time.Time{}, err
		}
		ends, err := good(&s.pair)
		if err != nil {
			return ends, err
		}
		if s.pool, err = certs.ParsePool(contents[2]); err != nil {
			return ends, fmt.Errorf("the CA: %w", err)
		}
		if err := certs.OfNode(s.pair.Leaf, id); err != nil {
			return ends, err
		}
		chain, err := parse(s.pair.Certificate)
		if err != nil {
			return ends, err
		}
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			if err := verify(chain, s.pool, usage); err != nil {
				return ends, fmt.Errorf("the certificate is not good by the CA, for client and server: %w", err)
			}
		}
		s.server = &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{s.pair},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: s.pool,
			// A session that is resumed is not verified again, and the CA may be another.
			SessionTicketsDisabled: true,
		}
		first := p.now.Swap(s) == nil
		if f := p.changed.Load(); f != nil && !first {
			(*f)()
		}
		return ends, nil
	}})
	if err != nil {
		return nil, fmt.Errorf("TLS between nodes: %w", err)
	}
	return p, nil
}

// OnChange has f called, from the goroutine that noticed, when something else is in
// force.
func (p *Peer) OnChange(f func()) { p.changed.Store(&f) }

// Server is for connections accepted. It goes by what is in force when one comes.
func (p *Peer) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return p.now.Load().server, nil },
	}
}

// Client is for connections dialled, by what is in force when one is made.
func (p *Peer) Client() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &p.now.Load().pair, nil
		},
		// Nodes are dialled by address and known by their id: the chain is verified
		// here, the name by Identify when the node has said who it is.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return verify(s.PeerCertificates, p.now.Load().pool, x509.ExtKeyUsageServerAuth)
		},
	}
}

// Identify tells whether the other end of a connection is the node it says it is, by
// what is in force now: a certificate opens the doors of its own node only.
func (p *Peer) Identify(s tls.ConnectionState, id cluster.NodeID) error {
	if err := verify(s.PeerCertificates, p.now.Load().pool, x509.ExtKeyUsageAny); err != nil {
		return err
	}
	return certs.OfNode(s.PeerCertificates[0], id)
}

// verify checks a chain, its own certificate first.
func verify(chain []*x509.Certificate, pool *x509.CertPool, usage x509.ExtKeyUsage) error {
	if len(chain) == 0 {
		return errors.New("the other node shows no certificate")
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: certs.Pool(chain[1:]...), KeyUsages: []x509.ExtKeyUsage{usage},
	})
	return err
}

func parse(ders [][]byte) (chain []*x509.Certificate, err error) {
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// good checks the dates of a certificate and of those behind it, and tells the first end.
func good(pair *tls.Certificate) (ends time.Time, err error) {
	chain, err := parse(pair.Certificate)
	if err != nil {
		return ends, err
	}
	now := time.Now()
	for i, c := range chain {
		if i == 0 || c.NotAfter.Before(ends) {
			ends = c.NotAfter
		}
		switch {
		case now.After(c.NotAfter):
			return ends, fmt.Errorf("the certificate ended on %s", c.NotAfter.UTC().Format(time.RFC3339))
		case now.Before(c.NotBefore):
			return ends, fmt.Errorf("the certificate is good from %s on; is the clock right?", c.NotBefore.UTC().Format(time.RFC3339))
		}
	}
	return ends, nil
}
