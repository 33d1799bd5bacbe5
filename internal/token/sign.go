package token

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// Claims is what a token of facetd says, to be signed.
type Claims struct {
	Tenant   string   // or AllTenants
	Facets   []string // names, or beginnings with a * behind them
	Access   Access
	Subject  string
	ID       string
	Audience string
	Issued   time.Time
	NotFrom  time.Time // zero: at once
	Expires  time.Time
}

// payload is the claims as they are signed.
func (c Claims) payload() ([]byte, error) {
	unix := func(t time.Time) int64 {
		if t.IsZero() {
			return 0
		}
		return t.Unix()
	}
	return json.Marshal(struct {
		Tenant   string   `json:"tenant"`
		Facets   []string `json:"facets"`
		Access   string   `json:"access"`
		Subject  string   `json:"sub,omitempty"`
		ID       string   `json:"jti,omitempty"`
		Audience string   `json:"aud,omitempty"`
		Issued   int64    `json:"iat,omitempty"`
		NotFrom  int64    `json:"nbf,omitempty"`
		Expires  int64    `json:"exp"`
	}{c.Tenant, c.Facets, c.Access.String(), c.Subject, c.ID, c.Audience, unix(c.Issued), unix(c.NotFrom), unix(c.Expires)})
}

// Grant is what a token with these claims says.
func (c Claims) Grant() (*Grant, error) {
	payload, err := c.payload()
	if err != nil {
		return nil, err
	}
	return parseClaims(payload)
}

// Sign makes a token. What Verify would refuse is refused here.
func Sign(private ed25519.PrivateKey, kid string, c Claims) (string, error) {
	if _, err := c.Grant(); err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	if err := checkLabel("kid", kid); err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	payload, err := c.payload()
	if err != nil {
		return "", err
	}
	header, err := json.Marshal(struct {
		Alg string `json:"alg"`
		Typ string `json:"typ"`
		Kid string `json:"kid,omitempty"`
	}{algorithm, "JWT", kid})
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString(header) + "." + enc.EncodeToString(payload)
	tok := signed + "." + enc.EncodeToString(ed25519.Sign(private, []byte(signed)))
	if len(tok) > MaxToken {
		return "", fmt.Errorf("sign token: it has %d bytes, limit %d", len(tok), MaxToken)
	}
	return tok, nil
}

// Look reads a token without judging its signature: for people who want to know
// what they hold. Nobody may be let in by it.
func Look(tok string) (kid string, header, claims []byte, g *Grant, err error) {
	head, payload, _, _, err := split(tok)
	if err != nil {
		return "", nil, nil, nil, err
	}
	if kid, err = parseHeader(head); err != nil {
		return "", head, payload, nil, err
	}
	g, err = parseClaims(payload)
	return kid, head, payload, g, err
}
