package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/internal/certs"
	"github.com/facetd/facetd/internal/disk"
)

func certCACommand() *command {
	return &command{
		name: "cert ca", short: "make a small private CA, for nodes that have no other",
		long: `Makes a CA: a certificate, which every node and client gets, and its key, with which
"facetd cert node" makes the certificates of nodes. Whoever has the key can pretend to
be any node: it belongs on none, and in no backup that others read.

--domain and --network are what the CA can vouch for; nothing else is believed of it
then, wherever its certificate is trusted. Without them it can vouch for any host.`,
		examples: []string{
			"facetd cert ca",
			"facetd cert ca --network 10.0.0.0/8,127.0.0.1/32 --domain db.example.com,localhost",
		},
		setup: func(fs *flag.FlagSet) action {
			var domains, networks list
			out := fs.String("out", "ca.pem", "write the certificate to this new `FILE`")
			keyOut := fs.String("key-out", "ca.key", "write the key to this new `FILE`")
			name := fs.String("name", "facetd CA", "what people are shown as its `NAME`")
			life := fs.Duration("expires", certs.DefaultAuthorityLife, "it is good for this `TIME`")
			fs.Var(&domains, "domain", "vouch for hosts in these `DOMAINS` only, with commas between")
			fs.Var(&networks, "network", "vouch for addresses in these `NETWORKS` only, 10.0.0.0/8 for example, with commas between")
			return func(_ context.Context, p *program, _ []string) error {
				opt := certs.AuthorityOptions{Name: *name, Life: *life, Domains: domains}
				for _, n := range networks {
					_, network, err := net.ParseCIDR(n)
					if err != nil {
						return usagef("--network: %q is no network, as 10.0.0.0/8 is one", n)
					}
					opt.Networks = append(opt.Networks, network)
				}
				ca, err := certs.NewAuthority(opt, time.Now())
				if err != nil {
					return err
				}
				cert, key, err := ca.PEM()
				if err != nil {
					return err
				}
				if err := writeNew(*keyOut, key, 0o600); err != nil {
					return fmt.Errorf("write the key of the CA: %w", err)
				}
				if err := writeNew(*out, cert, 0o644); err != nil {
					os.Remove(*keyOut) // of no use
					return fmt.Errorf("write the CA: %w", err)
				}
				fmt.Fprintf(p.stdout, "%s is for every node and client; keep %s to yourself\n", *out, *keyOut)
				return nil
			}
		},
	}
}

// issuing are the flags of the commands that make certificates.
type issuing struct {
	ca, key, out string
	life         time.Duration
	replace      bool
}

func (i *issuing) declare(fs *flag.FlagSet) {
	fs.StringVar(&i.ca, "ca", "ca.pem", "`FILE` with the CA")
	fs.StringVar(&i.key, "ca-key", "ca.key", "`FILE` with the key of the CA")
	fs.StringVar(&i.out, "out", "", "write certificate and key to this new `FILE` (default: the name and .pem)")
	fs.DurationVar(&i.life, "expires", certs.DefaultLife, "it is good for this `TIME`")
	fs.BoolVar(&i.replace, "replace", false, "exchange the file if it is there, at once")
}

func (i *issuing) issue(p *program, s certs.Subject, name string) error {
	cert, err := disk.ReadBounded(i.ca, certs.MaxFile)
	var key []byte
	if err == nil {
		key, err = disk.ReadBounded(i.key, certs.MaxFile)
	}
	if err != nil {
		return fmt.Errorf("read the CA, which \"facetd cert ca\" makes: %w", err)
	}
	ca, err := certs.ParseAuthority(cert, key)
	if err != nil {
		return fmt.Errorf("read the CA: %s with %s: %w", i.ca, i.key, err)
	}
	s.Life = i.life
	src, err := ca.Issue(s, time.Now())
	if err != nil {
		return err
	}
	if i.out == "" {
		i.out = name + ".pem"
	}
	write := func() error { return writeNew(i.out, src, 0o600) }
	if i.replace {
		write = func() error { return replaceWith(i.out, src, 0o600) }
	}
	if err := write(); err != nil {
		return fmt.Errorf("write the certificate: %w", err)
	}
	list, err := certs.ParseAll(src)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "%s holds the certificate and its key, good until %s\n", i.out, list[0].NotAfter.UTC().Format(time.DateOnly))
	return nil
}

func certNodeCommand() *command {
	return &command{
		name: "cert node", short: "make the certificate of a node",
		long: `Makes a certificate, good for the API port and between nodes, and puts it with its key
into one file. --host lists the names and addresses by which clients and other nodes
reach the API port: what --listen or --advertise says, and whatever else people write
into URLs. Between nodes only --id counts.

With --replace it renews one: a node that runs takes the file up within seconds.`,
		examples: []string{
			"facetd cert node --id n1 --host 10.0.0.1,n1.db.example.com",
			"facetd cert node --id n1 --host 10.0.0.1,n1.db.example.com --out /etc/facetd/n1.pem --replace",
		},
		setup: func(fs *flag.FlagSet) action {
			var i issuing
			var hosts list
			i.declare(fs)
			id := fs.String("id", "", "`ID` of the node; needed")
			fs.Var(&hosts, "host", "`NAMES` and addresses by which its API port is reached, with commas between")
			return func(_ context.Context, p *program, _ []string) error {
				node, err := cluster.ParseNodeID(*id)
				if err != nil {
					return usagef("--id: %v", err)
				}
				return i.issue(p, certs.Subject{Node: node, Hosts: hosts}, *id)
			}
		},
	}
}

func certClientCommand() *command {
	return &command{
		name: "cert client", short: "make a certificate for clients, where nodes want one",
		long: `Makes a certificate for a client of nodes that run with --tls-client-ca, and puts it
with its key into one file. It opens the API port and nothing more: what its bearer may
do is the matter of his token.`,
		examples: []string{"facetd cert client --name platform", "facetd status --server https://10.0.0.1:7400 --ca ca.pem --client-cert platform.pem"},
		setup: func(fs *flag.FlagSet) action {
			var i issuing
			i.declare(fs)
			name := fs.String("name", "", "`NAME` of the client; needed")
			return func(_ context.Context, p *program, _ []string) error {
				if *name == "" {
					return usagef("cert client needs --name")
				}
				return i.issue(p, certs.Subject{Client: *name}, *name)
			}
		},
	}
}

func certInspectCommand() *command {
	return &command{
		name: "cert inspect", args: "FILE…", short: "show certificates", minArgs: 1, maxArgs: -1,
		long: `Shows the certificates of PEM files: whose they are, which hosts they are for, and
when they end. With --ca it fails where one is not good now by that CA, with --within
where one ends within that time.`,
		examples: []string{"facetd cert inspect n1.pem", "facetd cert inspect --ca ca.pem --within 168h n1.pem n2.pem n3.pem"},
		setup: func(fs *flag.FlagSet) action {
			ca := fs.String("ca", "", "check by the CA in this `FILE`")
			within := fs.Duration("within", 0, "fail if one ends within this `TIME`")
			return func(_ context.Context, p *program, files []string) error {
				var roots *x509.CertPool
				if *ca != "" {
					src, err := disk.ReadBounded(*ca, certs.MaxFile)
					if err == nil {
						roots, err = certs.ParsePool(src)
					}
					if err != nil {
						return fmt.Errorf("read the CA: %s: %w", *ca, err)
					}
				}
				var errs []error
				for _, name := range files {
					src, err := disk.ReadBounded(name, certs.MaxFile)
					var list []*x509.Certificate
					if err == nil {
						list, err = certs.ParseAll(src)
					}
					if err == nil {
						err = inspectCerts(p.stdout, name, list, roots, time.Now().Add(*within))
					}
					if err != nil {
						errs = append(errs, fmt.Errorf("%s: %w", name, err))
					}
				}
				return errors.Join(errs...)
			}
		},
	}
}

// inspectCerts shows the certificates of a file, and judges the first of them.
func inspectCerts(w io.Writer, name string, list []*x509.Certificate, roots *x509.CertPool, at time.Time) error {
	for _, c := range list {
		var hosts []string
		hosts = append(hosts, c.DNSNames...)
		for _, ip := range c.IPAddresses {
			hosts = append(hosts, ip.String())
		}
		sum := sha256.Sum256(c.Raw)
		fmt.Fprintf(w, "file       %s\nof         %s\nhosts      %s\nissuer     %s\nbegins     %s\nends       %s, in %d days\nsha256     %s\n\n",
			name, certSubject(c), orDash(strings.Join(hosts, ", ")), orDash(c.Issuer.CommonName),
			c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339), int(time.Until(c.NotAfter).Hours())/24, hex.EncodeToString(sum[:]))
		if c.NotAfter.Before(at) {
			return fmt.Errorf("the certificate of %s ends on %s", certSubject(c), c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	if roots == nil {
		return nil
	}
	_, err := list[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: certs.Pool(list[1:]...), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

func certSubject(c *x509.Certificate) string {
	kind, name := certs.Names(c)
	switch {
	case kind == certs.KindNode:
		return "node " + name
	case kind == certs.KindClient:
		return "client " + name
	case c.IsCA:
		var only []string
		only = append(only, c.PermittedDNSDomains...)
		for _, n := range c.PermittedIPRanges {
			only = append(only, n.String())
		}
		if len(only) > 0 {
			return fmt.Sprintf("CA %s, for %s only", c.Subject.CommonName, strings.Join(only, ", "))
		}
		return "CA " + c.Subject.CommonName
	}
	return orDash(c.Subject.CommonName)
}

// writeNew writes a file that is not there.
func writeNew(name string, content []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}
