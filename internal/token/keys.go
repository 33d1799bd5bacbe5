package token

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/facetd/facetd/facet"
)

// Keys is what a file of keys says: which keys sign tokens, and which of those
// tokens are not good any more. The file is a JWK set with two members of our own:
//
//	{
//	  "keys": [
//	    {"kty": "OKP", "crv": "Ed25519", "kid": "2026-11", "x": "…"},
//	    {"kty": "OKP", "crv": "Ed25519", "kid": "acme-1", "x": "…", "tenant": "acme"}
//	  ],
//	  "revoked": [{"jti": "app-7"}, {"kid": "2026-10"}]
//	}
//
// A key with a tenant opens nothing outside of that. A member that is not known is
// refused: one that was to limit a key must not be overlooked.
type Keys struct {
	byID     map[string]*key
	nameless []*key
	public   map[string]bool // all of them
	tokens   map[string]bool // jti
	keys     map[string]bool // kid
}

type key struct {
	id     string
	public ed25519.PublicKey
	tenant facet.Tenant // zero: all
}

// ParseKeys reads the content of a file of keys.
func ParseKeys(src []byte) (*Keys, error) {
	if len(src) > MaxFile {
		return nil, fmt.Errorf("it has %d bytes, limit %d", len(src), MaxFile)
	}
	o, err := parseObject(src)
	if err == nil {
		err = o.only("keys", "revoked")
	}
	if err != nil {
		return nil, err
	}
	k := &Keys{byID: make(map[string]*key), public: make(map[string]bool), tokens: make(map[string]bool), keys: make(map[string]bool)}
	list, err := o.objects("keys", MaxKeys)
	if err != nil {
		return nil, err
	}
	for i, src := range list {
		if err := k.add(src); err != nil {
			return nil, fmt.Errorf("key %d of %d: %w", i+1, len(list), err)
		}
	}
	if k.Len() == 0 {
		return nil, errors.New("there is no key in it")
	}
	list, err = o.objects("revoked", MaxRevoked)
	if err != nil {
		return nil, err
	}
	for i, src := range list {
		if err := k.revoke(src); err != nil {
			return nil, fmt.Errorf("revocation %d of %d: %w", i+1, len(list), err)
		}
	}
	return k, nil
}

// objects reads an array of objects.
func (o object) objects(name string, limit int) ([]object, error) {
	raw, ok := o[name]
	if !ok {
		return nil, nil
	}
	var items []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
		return nil, fmt.Errorf("%q is not an array", name)
	}
	if len(items) > limit {
		return nil, fmt.Errorf("%q has %d entries, limit %d", name, len(items), limit)
	}
	out := make([]object, len(items))
	for i, item := range items {
		var err error
		if out[i], err = parseObject(item); err != nil {
			return nil, fmt.Errorf("entry %d of %q: %w", i+1, name, err)
		}
	}
	return out, nil
}

func (k *Keys) add(o object) error {
	if o.has("d") {
		return errors.New(`it is a private key ("d"); only public keys belong here, and this one should be replaced`)
	}
	if err := o.only("kty", "crv", "x", "kid", "alg", "use", "key_ops", "tenant"); err != nil {
		return err
	}
	for _, want := range []struct{ name, value string }{{"kty", "OKP"}, {"crv", "Ed25519"}} {
		if v, err := o.text(want.name, MaxLabel); err != nil || v != want.value {
			return fmt.Errorf("%q is not %q: only keys of Ed25519 are taken", want.name, want.value)
		}
	}
	if alg, err := o.text("alg", MaxLabel); err != nil || o.has("alg") && alg != algorithm && alg != "Ed25519" {
		return fmt.Errorf(`"alg" is not %q`, algorithm)
	}
	if use, err := o.text("use", MaxLabel); err != nil || o.has("use") && use != "sig" {
		return errors.New(`"use" is not "sig"`)
	}
	x, err := o.text("x", MaxLabel)
	if err != nil {
		return err
	}
	public, err := decodePart(x)
	if err != nil || len(public) != ed25519.PublicKeySize {
		return fmt.Errorf(`"x" is not %d bytes in base64url without padding`, ed25519.PublicKeySize)
	}
	if weak(public) {
		return errors.New(`"x" is not a key: anybody can sign for it`)
	}
	added := &key{public: public}
	if added.id, err = o.label("kid"); err != nil {
		return err
	}
	if o.has("tenant") {
		text, err := o.text("tenant", facet.MaxTenantLen)
		if err != nil {
			return err
		}
		if added.tenant, err = facet.ParseTenant(text); err != nil {
			return err
		}
	}
	if k.public[string(public)] {
		return errors.New("the same key is there already")
	}
	k.public[string(public)] = true
	switch {
	case added.id == "":
		if len(k.nameless) >= maxNameless {
			return fmt.Errorf(`it has no "kid", as %d others: a token would be tried with each`, maxNameless)
		}
		k.nameless = append(k.nameless, added)
	case k.byID[added.id] != nil:
		return fmt.Errorf("another key has the kid %q", added.id)
	default:
		k.byID[added.id] = added
	}
	return nil
}

func (k *Keys) revoke(o object) error {
	if err := o.only("jti", "kid"); err != nil {
		return err
	}
	if len(o) != 1 {
		return errors.New(`write {"jti":"ID"} for a token or {"kid":"ID"} for all tokens of a key`)
	}
	for name, into := range map[string]map[string]bool{"jti": k.tokens, "kid": k.keys} {
		if !o.has(name) {
			continue
		}
		id, err := o.label(name)
		if err != nil {
			return err
		}
		if id == "" {
			return fmt.Errorf("%q is empty", name)
		}
		into[id] = true
	}
	return nil
}

// Len is the number of keys.
func (k *Keys) Len() int { return len(k.byID) + len(k.nameless) }

// Revoked is the number of revocations.
func (k *Keys) Revoked() int { return len(k.tokens) + len(k.keys) }

// candidates are the keys that may have signed a token which names the given one.
func (k *Keys) candidates(id string) []*key {
	if id == "" {
		return k.nameless
	}
	if found := k.byID[id]; found != nil {
		return []*key{found}
	}
	return nil
}

// weak reports whether a public key is a point of small order. For such a key there
// are signatures that anybody can make.
func weak(public []byte) bool {
	masked := append([]byte(nil), public...)
	masked[31] &= 0x7f
	return strings.Contains(weakKeys, hex.EncodeToString(masked))
}

// weakKeys are the encodings of the points of order 1, 2, 4 and 8, sign aside.
const weakKeys = `
0000000000000000000000000000000000000000000000000000000000000000
0100000000000000000000000000000000000000000000000000000000000000
26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05
c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a
ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f
edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f
eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f
`

// JWK is a public key as an entry of a file of keys.
type JWK struct {
	Kty    string `json:"kty"`
	Crv    string `json:"crv"`
	Kid    string `json:"kid,omitempty"`
	X      string `json:"x"`
	Tenant string `json:"tenant,omitempty"`
}

// NewJWK makes the entry of a key. Without an id it gets its thumbprint.
func NewJWK(public ed25519.PublicKey, kid, tenant string) JWK {
	if kid == "" {
		kid = Thumbprint(public)
	}
	return JWK{Kty: "OKP", Crv: "Ed25519", Kid: kid, X: base64.RawURLEncoding.EncodeToString(public), Tenant: tenant}
}

// Thumbprint is the id of a key that was given none: what RFC 7638 makes of it.
func Thumbprint(public ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(public) + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
