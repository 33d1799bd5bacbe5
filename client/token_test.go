package client

import (
	"encoding/base64"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
)

func TestExpiry(t *testing.T) {
	jwt := func(claims string) string { return "h." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".s" }
	for tok, want := range map[string]int64{
		jwt(`{"exp":1796000000}`): 1796000000, jwt(`{"exp":1796000000.5}`): 1796000000,
		jwt(`{}`): 0, jwt(`{"exp":"1"}`): 0, jwt(`{"exp":-1}`): 0, jwt(`{"exp":1e300}`): 0, jwt(`[`): 0,
		"": 0, "opaque": 0, "a.b": 0, "a.%.c": 0,
	} {
		at, ok := expiry(tok)
		if ok != (want != 0) || ok && at.Unix() != want {
			t.Errorf("%q ends at %v, %v; want %d", tok, at, ok, want)
		}
	}
}

func TestRenewIn(t *testing.T) {
	for _, c := range []struct {
		left, in time.Duration
		ok       bool
	}{
		{-time.Hour, 0, false}, {0, 0, false}, {renewLeast - 1, 0, false}, {renewLeast, 4 * time.Second, true},
		{100 * time.Second, 80 * time.Second, true}, {time.Hour, 59 * time.Minute, true},
	} {
		if in, ok := renewIn(c.left); in != c.in || ok != c.ok {
			t.Errorf("with %v left: %v, %v; want %v, %v", c.left, in, ok, c.in, c.ok)
		}
	}
}

// A call that was refused for its token is tried once more where there may be
// another; a transaction is not, for it is of its connection.
func TestDecideToken(t *testing.T) {
	for eff, want := range map[effect]action{effRead: again, effKeyed: again, effWrite: again, effInTx: giveUp, effCommit: giveUp} {
		a := attempt{effect: eff, stage: answered, code: facet.CodeUnauthorized, freshTok: true, left: time.Minute}
		if got, _, _ := decide(a); got != want {
			t.Errorf("effect %d: %v, want %v", eff, got, want)
		}
		a.freshTok = false
		if got, _, _ := decide(a); got != giveUp {
			t.Errorf("effect %d, no other token: %v", eff, got)
		}
	}
	c := &Client{}
	k := c.newCall()
	if c.renewable(k, facet.CodeUnauthorized) {
		t.Error("there is no source of tokens")
	}
}
