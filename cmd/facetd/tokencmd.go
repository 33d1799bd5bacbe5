package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/internal/token"
)

// maxTokenFile bounds a file with a token or a private key.
const maxTokenFile = 64 << 10

func tokenKeygenCommand() *command {
	return &command{
		name: "token keygen", short: "make a key that signs tokens",
		long: `Makes a private key, with which the platform signs tokens, and puts its public key
into the file the nodes read (--auth-keys of "facetd serve"). Nodes take it up within
seconds. The private key belongs on no node.

To exchange a key, make another, have new tokens signed with it, and take the old one
out of the file when its tokens have expired. A key with --tenant opens nothing outside
of that tenant. What openssl genpkey -algorithm ed25519 makes is such a private key as
well: --public-of adds it.`,
		examples: []string{
			"facetd token keygen --key signing.pem --auth-keys auth-keys.json",
			"facetd token keygen --key acme.pem --auth-keys auth-keys.json --tenant acme",
		},
		setup: func(fs *flag.FlagSet) action {
			private := fs.String("key", "", "write the private key to this new `FILE`")
			existing := fs.String("public-of", "", "make no key; take the public key of the private one in `FILE`")
			keys := fs.String("auth-keys", "", "add the public key to this `FILE` of keys, which is made if it is not there; without, print one")
			kid := fs.String("kid", "", "name the key with this `ID` (default: its thumbprint)")
			tenant := fs.String("tenant", "", "let the key sign for this `TENANT` only")
			return func(_ context.Context, p *program, _ []string) error {
				if (*private == "") == (*existing == "") {
					return usagef("say --key FILE for a new key, or --public-of FILE for one that is there")
				}
				if *tenant != "" {
					if _, err := facet.ParseTenant(*tenant); err != nil {
						return usagef("--tenant: %v", err)
					}
				}
				var key ed25519.PrivateKey
				var err error
				if *existing != "" {
					key, err = readPrivateKey(*existing)
				} else {
					_, key, err = ed25519.GenerateKey(rand.Reader)
				}
				if err != nil {
					return err
				}
				jwk := token.NewJWK(key.Public().(ed25519.PublicKey), *kid, *tenant)
				set, err := withKey(*keys, jwk)
				if err != nil {
					return err
				}
				if *private != "" {
					// Before the public key is in force anywhere: a key nobody has is no loss.
					if err := writePrivateKey(*private, key); err != nil {
						return err
					}
				}
				if *keys == "" {
					_, err := p.stdout.Write(set)
					return err
				}
				if err := replaceFile(*keys, set); err != nil {
					return fmt.Errorf("write the file of keys: %w", err)
				}
				fmt.Fprintf(p.stdout, "key %s\n", jwk.Kid)
				return nil
			}
		},
	}
}

// withKey is the content of a file of keys, new where there is none, with one more.
func withKey(name string, jwk token.JWK) ([]byte, error) {
	set := map[string]json.RawMessage{}
	var list []json.RawMessage
	if name != "" {
		src, err := disk.ReadBounded(name, token.MaxFile)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("read the file of keys: %w", err)
		default:
			if _, err := token.ParseKeys(src); err != nil {
				return nil, fmt.Errorf("read the file of keys: %s: %w", name, err)
			}
			if err := json.Unmarshal(src, &set); err != nil {
				return nil, fmt.Errorf("read the file of keys: %s: %w", name, err)
			}
			if err := json.Unmarshal(set["keys"], &list); err != nil {
				return nil, fmt.Errorf("read the file of keys: %s: %w", name, err)
			}
		}
	}
	added, err := json.Marshal(jwk)
	if err != nil {
		return nil, err
	}
	if set["keys"], err = json.Marshal(append(list, added)); err != nil {
		return nil, err
	}
	out, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return nil, err
	}
	out = append(out, '\n')
	if _, err := token.ParseKeys(out); err != nil {
		return nil, fmt.Errorf("add the key: %w", err)
	}
	return out, nil
}

func writePrivateKey(name string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writeNew(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("write the private key: %w", err)
	}
	return nil
}

func readPrivateKey(name string) (ed25519.PrivateKey, error) {
	src, err := disk.ReadBounded(name, maxTokenFile)
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", err)
	}
	block, _ := pem.Decode(src)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("read the private key: %s is not a private key in PEM, as \"facetd token keygen\" and \"openssl genpkey -algorithm ed25519\" make it", name)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the private key: %s: %w", name, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read the private key: %s holds a key of another kind (%T); tokens are signed with Ed25519", name, parsed)
	}
	return key, nil
}

// replaceFile exchanges the content of a file at once, for nodes read it meanwhile. Its
// mode stays.
func replaceFile(name string, content []byte) error {
	mode := os.FileMode(0o644)
	if info, err := os.Stat(name); err == nil {
		mode = info.Mode().Perm()
	}
	return replaceWith(name, content, mode)
}

func replaceWith(name string, content []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails when it was renamed
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func tokenCreateCommand() *command {
	return &command{
		name: "token create", short: "sign a token",
		long: `Prints a token that opens facets of one tenant, or, for --tenant '*', every facet and
the cluster: the token of a supervisor. No node is asked.

Access ro reads, rw also writes and creates by the first write, admin also creates,
deletes, imports and clones. Moves, pins, operations, metrics and recovery want a
supervisor. --facets names facets, or the beginning of names with a * behind it.`,
		examples: []string{
			"facetd token create --key signing.pem --tenant acme --access rw --expires 720h",
			"facetd token create --key signing.pem --tenant acme --facets 'notes,log-*' --access ro --subject app-7",
			"facetd token create --key signing.pem --tenant '*' --access admin --expires 1h",
		},
		setup: func(fs *flag.FlagSet) action {
			var facets list
			key := fs.String("key", "", "sign with the private key in `FILE`; needed")
			kid := fs.String("kid", "", "`ID` of the key in the nodes' file of keys (default: its thumbprint)")
			tenant := fs.String("tenant", "", "`TENANT` it is for, or '*' for a supervisor; needed")
			fs.Var(&facets, "facets", "the `NAMES` or patterns it opens, with commas between (default *)")
			access := fs.String("access", "", "what it allows: `ro`, rw or admin; needed")
			expires := fs.Duration("expires", 24*time.Hour, "it is good for this `TIME`")
			after := fs.Duration("not-before", 0, "it is good after this `TIME` only")
			subject := fs.String("subject", "", "`WHO` it is for, as logs will say")
			id := fs.String("id", "", "`ID` by which it can be revoked (default: a random one)")
			cluster := fs.String("cluster-name", "", "it is for the cluster of this `NAME` only")
			return func(_ context.Context, p *program, _ []string) error {
				c := token.Claims{Tenant: *tenant, Facets: facets, Subject: *subject, ID: *id, Audience: *cluster, Issued: time.Now()}
				var err error
				switch {
				case *key == "" || *tenant == "" || *access == "":
					return usagef("token create needs --key, --tenant and --access")
				case *expires <= 0 || *after < 0 || *after >= *expires:
					return usagef("--expires is a time from now, and --not-before one before that")
				}
				if c.Access, err = token.ParseAccess(*access); err != nil {
					return usagef("--access: %v", err)
				}
				if len(c.Facets) == 0 {
					c.Facets = []string{"*"}
				}
				if c.ID == "" {
					var b [9]byte
					rand.Read(b[:])
					c.ID = hex.EncodeToString(b[:])
				}
				c.Expires = c.Issued.Add(*expires)
				if *after > 0 {
					c.NotFrom = c.Issued.Add(*after)
				}
				private, err := readPrivateKey(*key)
				if err != nil {
					return err
				}
				if *kid == "" {
					*kid = token.Thumbprint(private.Public().(ed25519.PublicKey))
				}
				tok, err := token.Sign(private, *kid, c)
				if err != nil {
					return err
				}
				fmt.Fprintln(p.stdout, tok)
				return nil
			}
		},
	}
}

func tokenInspectCommand() *command {
	return &command{
		name: "token inspect", args: "[TOKEN]", short: "show what a token says, and whether it is good",
		long: `Shows a token, given as argument or on standard input. With --auth-keys it is judged as
a node would with that file: exit code 1 says that it would not be let in. Without, its
signature is not looked at. No node is asked.`,
		examples: []string{"facetd token inspect --auth-keys auth-keys.json < app.token"},
		maxArgs:  1,
		setup: func(fs *flag.FlagSet) action {
			file := fs.String("auth-keys", "", "judge it by the keys in this `FILE`")
			cluster := fs.String("cluster-name", "facetd", "as a node of the cluster of this `NAME`")
			json_ := fs.Bool("json", false, "print header and claims as they are, in JSON")
			return func(_ context.Context, p *program, args []string) error {
				tok := strings.Join(args, "")
				if len(args) == 0 {
					src, err := io.ReadAll(io.LimitReader(p.stdin, maxTokenFile))
					if err != nil {
						return fmt.Errorf("read the token: %w", err)
					}
					tok = string(src)
				}
				return inspectToken(p.stdout, strings.TrimSpace(tok), *file, *cluster, *json_)
			}
		},
	}
}

func inspectToken(w io.Writer, tok, file, cluster string, asJSON bool) error {
	kid, header, claims, g, err := token.Look(tok)
	switch {
	case asJSON && json.Valid(header) && json.Valid(claims):
		fmt.Fprintf(w, "{\"header\":%s,\"claims\":%s}\n", header, claims)
	case g != nil:
		shown := func(t time.Time) string {
			if t.IsZero() {
				return "-"
			}
			return t.UTC().Format(time.RFC3339)
		}
		if g.Expires.IsZero() {
			fmt.Fprintf(w, "expires   never\n")
		} else {
			fmt.Fprintf(w, "expires   %s\n", shown(g.Expires))
		}
		fmt.Fprintf(w, "issued    %s\nfrom      %s\nkey       %s\nid        %s\nsubject   %s\naudience  %s\n",
			shown(g.Issued), shown(g.NotFrom), orDash(kid), orDash(g.ID), orDash(g.Subject), orDash(strings.Join(g.Audience, " ")))
		for _, line := range g.Reach() {
			fmt.Fprintf(w, "opens     %s\n", line)
		}
	}
	if err != nil {
		return fmt.Errorf("this is no token that would be let in: %w", err)
	}
	if file == "" {
		return nil
	}
	src, err := disk.ReadBounded(file, token.MaxFile)
	if err != nil {
		return fmt.Errorf("read the file of keys: %w", err)
	}
	keys, err := token.ParseKeys(src)
	if err != nil {
		return fmt.Errorf("read the file of keys: %s: %w", file, err)
	}
	if _, err := keys.Verify(tok, cluster, time.Now()); err != nil {
		return err
	}
	if !asJSON {
		fmt.Fprintln(w, "good      now, by these keys")
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
