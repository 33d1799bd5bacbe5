package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"time"
)

// A token of facetd is a JWT signed with Ed25519. Any JWT library makes it; here it is
// made by hand, because it is a few lines.

// claims are what a token of facetd says. All but ID and Subject are needed.
type claims struct {
	Tenant  string   `json:"tenant"` // "*" is a supervisor
	Facets  []string `json:"facets"` // names, or beginnings with a * behind them
	Access  string   `json:"access"` // ro, rw or admin
	Expires int64    `json:"exp"`
	Subject string   `json:"sub,omitempty"` // who it is, for the node's audit log
	ID      string   `json:"jti,omitempty"` // by which it can be revoked
}

type signer struct {
	key ed25519.PrivateKey
	kid string
}

// readSigner reads what "facetd token keygen" or "openssl genpkey -algorithm ed25519"
// made.
func readSigner(file string) (*signer, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	block, _ := pem.Decode(src)
	if block == nil {
		return nil, fmt.Errorf("read the signing key: %s is no PEM file", file)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %s: %w", file, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read the signing key: %s holds a %T, tokens want Ed25519", file, parsed)
	}
	// keygen calls a key by its thumbprint (RFC 8037), unless --kid says otherwise.
	public := key.Public().(ed25519.PublicKey)
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"Ed25519","kty":"OKP","x":"%s"}`, b64(public)))
	return &signer{key: key, kid: b64(sum[:])}, nil
}

// token signs claims that are good from now on for some time.
func (s *signer) token(c claims, life time.Duration) (string, time.Time, error) {
	expires := time.Now().Add(life)
	c.Expires, c.ID = expires.Unix(), rand.Text()
	payload, err := json.Marshal(c)
	if err != nil {
		return "", time.Time{}, err
	}
	head := fmt.Sprintf(`{"alg":"EdDSA","typ":"JWT","kid":%q}`, s.kid)
	signed := b64([]byte(head)) + "." + b64(payload)
	return signed + "." + b64(ed25519.Sign(s.key, []byte(signed))), expires, nil
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
