package token

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"
)

// algorithm is the only one there is.
const algorithm = "EdDSA"

// Verify judges a token: whether one of the keys signed it, whether it is good at the
// moment and not revoked, and whether it is for this audience, if it names any. The
// error says why not, as far as a stranger may know: nothing of what an unsigned
// token says is repeated.
//
// Nothing here is compared that a caller must not know: public keys, ids and the
// claims of whoever shows them. So no step need take constant time; ed25519.Verify
// handles public values alone.
func (k *Keys) Verify(tok, audience string, now time.Time) (*Grant, error) {
	head, payload, signed, signature, err := split(tok)
	if err != nil {
		return nil, refuse("the token is malformed: %v", err)
	}
	kid, err := parseHeader(head)
	if err != nil {
		return nil, refuse("the token's header is refused: %v", err)
	}
	by, err := k.signer(kid, signed, signature)
	if err != nil {
		return nil, refuse("%v", err)
	}
	g, err := parseClaims(payload)
	if err != nil {
		return nil, refuse("the token's claims are refused: %v", err)
	}
	g.KeyID = by.id
	switch {
	case by.tenant != "" && !g.within(by.tenant):
		return nil, refuse("the token opens more than tenant %s, the only one its key may sign for", by.tenant)
	case k.keys[g.KeyID]:
		return nil, refuse("the token is revoked: its key is")
	case g.ID != "" && k.tokens[g.ID]:
		return nil, refuse("the token is revoked")
	case len(g.Audience) > 0 && !slices.Contains(g.Audience, audience):
		return nil, refuse("the token is for another cluster")
	}
	return g, g.Check(now)
}

func (k *Keys) signer(kid string, signed, signature []byte) (*key, error) {
	keys := k.candidates(kid)
	if len(keys) == 0 {
		if kid == "" {
			return nil, errors.New("the token names no key (kid)")
		}
		return nil, errors.New("the token is signed with a key that is not known here")
	}
	for _, by := range keys {
		if ed25519.Verify(by.public, signed, signature) {
			return by, nil
		}
	}
	return nil, errors.New("the token's signature is wrong")
}

// split takes a token apart: header, payload, what is signed, and the signature.
func split(tok string) (head, payload, signed, signature []byte, err error) {
	if len(tok) > MaxToken {
		return nil, nil, nil, nil, errors.New("it is too long")
	}
	if strings.Count(tok, ".") != 2 {
		return nil, nil, nil, nil, errors.New("it does not have three parts")
	}
	first, rest, _ := strings.Cut(tok, ".")
	second, third, _ := strings.Cut(rest, ".")
	if len(first) > maxHeader {
		return nil, nil, nil, nil, errors.New("its header is too long")
	}
	if head, err = decodePart(first); err != nil {
		return nil, nil, nil, nil, err
	}
	if payload, err = decodePart(second); err != nil {
		return nil, nil, nil, nil, err
	}
	if signature, err = decodePart(third); err != nil {
		return nil, nil, nil, nil, err
	}
	if len(signature) != ed25519.SignatureSize {
		return nil, nil, nil, nil, errors.New("its signature has the wrong length")
	}
	return head, payload, []byte(tok[:len(first)+1+len(second)]), signature, nil
}

// decodePart reads base64url without padding, in its one form: package base64 would
// pass over line breaks, and take several texts for one value.
func decodePart(s string) ([]byte, error) {
	if s == "" {
		return nil, errors.New("a part of it is empty")
	}
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("it has a line break")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("it is not base64url without padding")
	}
	return raw, nil
}

// parseHeader reads the header and gives the id of the key. Members beyond the three
// that are needed are refused: those there are bring keys along, point to some, or
// change what is signed.
func parseHeader(src []byte) (kid string, err error) {
	o, err := parseObject(src)
	if err != nil {
		return "", err
	}
	if err := o.only("alg", "typ", "kid"); err != nil {
		return "", err
	}
	if alg, err := o.text("alg", MaxLabel); err != nil || alg != algorithm {
		return "", errors.New("alg is not " + algorithm)
	}
	if typ, err := o.text("typ", MaxLabel); err != nil || o.has("typ") && !strings.EqualFold(typ, "JWT") {
		return "", errors.New("typ is not JWT")
	}
	if kid, err = o.label("kid"); err == nil && kid == "" && o.has("kid") {
		err = errors.New("kid is empty")
	}
	return kid, err
}
