package client

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/facetd/facetd/facet"
)

// A connection shows its token once and is as good as that is. A client with a
// TokenSource leaves one for a new connection, and so for a new token, before the
// token ends; it does the same when a node says that the token is not good any more,
// which then is not an error of whoever called.

// expiry reads when a token ends, if it is one that says so. Nobody is let in by
// it, so nothing is verified.
func expiry(tok string) (time.Time, bool) {
	_, rest, _ := strings.Cut(tok, ".")
	payload, _, ok := strings.Cut(rest, ".")
	if !ok {
		return time.Time{}, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	var claims struct {
		Exp float64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(raw, &claims) != nil || claims.Exp <= 0 || claims.Exp > maxExpiry {
		return time.Time{}, false
	}
	return time.Unix(int64(claims.Exp), 0), true
}

// renewIn is how long a connection with a token that ends after left may be used: a
// fifth of the time is kept for getting another token, a minute at most. ok is false
// where so little is left that a source that had a better token would have given it.
func renewIn(left time.Duration) (in time.Duration, ok bool) {
	if left < renewLeast {
		return 0, false
	}
	return left - min(left/5, renewMargin), true
}

// renewBefore leaves the connection in time for another token.
func (c *conn) renewBefore(tok string) {
	if c.node.client.opt.TokenSource == nil {
		return
	}
	at, ok := expiry(tok)
	if !ok {
		return
	}
	in, ok := renewIn(time.Until(at))
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.renewal = time.AfterFunc(in, c.retire)
	}
}

// retire gives the connection no more requests; it ends when it has its answers.
func (c *conn) retire() {
	c.mu.Lock()
	c.closing = true
	idle := c.using.Load() == 0
	c.mu.Unlock()
	c.node.leave(c)
	if idle {
		c.wire.Finish(nil)
	}
}

// renewable reports whether a call that was refused for its token may be tried with
// another: where there is a source of them, and once.
func (c *Client) renewable(k *call, code facet.Code) bool {
	if code != facet.CodeUnauthorized || c.opt.TokenSource == nil || k.renewed {
		return false
	}
	k.renewed = true
	return true
}
