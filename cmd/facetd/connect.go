package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
)

// dialTimeout bounds the first connection: a person waits for it.
const dialTimeout = 5 * time.Second

// server is where a command finds its node.
type server struct {
	urls      list
	token     string
	tokenFile string
	ca        string
	cert, key string
}

func serverFlags(fs *flag.FlagSet) *server {
	s := &server{}
	fs.Var(&s.urls, "server", "`URL` of a node, or several with commas between (default http://127.0.0.1:7400)")
	fs.StringVar(&s.token, "token", "", "`TOKEN` to show the node")
	fs.StringVar(&s.tokenFile, "token-file", "", "show the node the token in `FILE`, which is read again when another is needed")
	fs.StringVar(&s.ca, "ca", "", "trust the CA in this PEM `FILE`, no other, for https (default: those of the system)")
	fs.StringVar(&s.cert, "client-cert", "", "show the certificate in this PEM `FILE` to nodes that want one")
	fs.StringVar(&s.key, "client-key", "", "PEM `FILE` with its key (default: the file of the certificate)")
	return s
}

func (s *server) endpoints() []string {
	if len(s.urls) == 0 {
		return []string{"http://127.0.0.1:7400"}
	}
	out := make([]string, len(s.urls))
	for i, u := range s.urls {
		out[i] = u
		if parsed, err := url.Parse(u); err == nil && parsed.Host != "" && parsed.Port() == "" {
			parsed.Host = net.JoinHostPort(parsed.Hostname(), "7400")
			out[i] = parsed.String()
		} else if !strings.Contains(u, "://") && !strings.Contains(u, ":") {
			out[i] = net.JoinHostPort(u, "7400")
		}
	}
	return out
}

// open connects. A server that is not there is told from one that is slow by a
// plain connection first: the SDK would go on trying.
func (s *server) open(ctx context.Context) (*client.Client, error) {
	opt := client.Options{Token: s.token, Software: "facetd-cli/" + versionText()}
	if s.tokenFile != "" {
		if s.token != "" {
			return nil, usagef("--token and --token-file are two tokens; give one")
		}
		opt.TokenSource = func(context.Context) (string, error) { return readToken(s.tokenFile) }
		if _, err := readToken(s.tokenFile); err != nil {
			return nil, err
		}
	}
	var err error
	if opt.TLS, err = s.tls(); err != nil {
		return nil, err
	}
	ends := s.endpoints()
	all := strings.Join(ends, ", ")
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, errors.New("no answer in time"))
	defer cancel()
	var first error
	for _, e := range ends {
		host := e
		if u, err := url.Parse(e); err == nil && u.Host != "" {
			host = u.Host
		}
		nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
		if err == nil {
			nc.Close()
			c, err := client.Open(ctx, ends, opt)
			switch {
			case errors.Is(err, facet.ErrUnauthorized), errors.Is(err, facet.ErrBadRequest):
				return nil, err // it is there, and wants another token, or another scheme
			case errors.As(err, new(*tls.CertificateVerificationError)):
				return nil, &hintedError{err, "--ca or FACETD_CA names the file with the CA of the nodes' certificates"}
			case err != nil:
				return nil, &connectError{all, err}
			}
			return c, nil
		}
		if first == nil {
			first = err
		}
	}
	if ctx.Err() != nil && errors.Is(first, context.DeadlineExceeded) {
		first = context.Cause(ctx)
	}
	return nil, &connectError{all, first}
}

// tls is what is trusted and shown to nodes that speak https; nil for what is usual.
func (s *server) tls() (*tls.Config, error) {
	if s.ca == "" && s.cert == "" && s.key == "" {
		return nil, nil
	}
	return client.LoadTLS(s.ca, s.cert, s.key)
}

func readToken(name string) (string, error) {
	src, err := disk.ReadBounded(name, maxTokenFile)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	return strings.TrimSpace(string(src)), nil
}

// facet connects and names a facet; the name is checked first.
func (s *server) facet(ctx context.Context, name string) (*client.Client, *client.Facet, error) {
	if err := checkName(name); err != nil {
		return nil, nil, err
	}
	c, err := s.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	f, err := c.Facet(name)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, f, nil
}
