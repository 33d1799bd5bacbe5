package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/facetd/facetd/facet"
)

// LoadTLS makes the configuration for https endpoints from PEM files, each of which may
// be empty: the CA of the nodes, which then is the only one that is trusted, and a
// certificate for nodes that want one, with its key, which may be in the same file.
func LoadTLS(ca, cert, key string) (*tls.Config, error) {
	cfg := new(tls.Config)
	if ca != "" {
		src, err := readPEM(ca)
		if err != nil {
			return nil, fmt.Errorf("read the CA: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(src) {
			return nil, fmt.Errorf("read the CA: there is no certificate in %s", ca)
		}
	}
	switch {
	case cert == "" && key != "":
		return nil, fmt.Errorf("read the certificate: there is none for the key in %s", key)
	case cert == "":
		return cfg, nil
	case key == "":
		key = cert
	}
	certSrc, err := readPEM(cert)
	var keySrc []byte
	if err == nil {
		keySrc, err = readPEM(key)
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.X509KeyPair(certSrc, keySrc)
	}
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

func readPEM(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	src, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(src) > maxPEM {
		err = fmt.Errorf("%s has more than %d bytes", name, maxPEM)
	}
	return src, err
}

// handshake has nc speak TLS to the node, before the token is sent.
func handshake(ctx context.Context, nc net.Conn, at endpoint, cfg *tls.Config) (net.Conn, error) {
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName, _, _ = net.SplitHostPort(at.host)
	}
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, handshakeError(at, err)
	}
	return tc, nil
}

// handshakeError says what to do about a handshake that failed.
func handshakeError(at endpoint, err error) error {
	hint := ""
	switch {
	case isType[x509.UnknownAuthorityError](err):
		hint = "; give the client the CA of the nodes"
	case isType[tls.RecordHeaderError](err):
		hint = "; does the node speak plain http there?"
	}
	return fmt.Errorf("TLS handshake with %s: %w%s", at.host, err, hint)
}

func isType[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// inTheClear is the error of a client that was sent from https to http: its token and
// data would be read by whoever listens.
func inTheClear(to string) error {
	return facet.Errorf(facet.CodeForbidden, "the cluster names %.100s, and a client whose endpoints are all https sends nothing in the clear; have that node speak TLS", to)
}

func isHTTPS(target string) bool { return strings.HasPrefix(target, "https://") }
